"""What all commands share: how JAX is set up, and that a fault is one sentence."""

import jax
import pytest
from absl import flags

from jaxtbpr.core import command, compilation
from jaxtbpr.core.errors import InputError, UserError


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("jax_enable_x64", True),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_default_prng_impl", "rbg"),
        ("jax_threefry_partitionable", False),
    ],
)
def test_a_setting_of_jax_that_would_change_the_result_is_put_back_in_one_line(name, given, capsys):
    before = getattr(jax.config, name)
    try:
        jax.config.update(name, given)
        compilation.set_up()
        assert getattr(jax.config, name) == before
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.startswith(f"{name.upper()}={given} is not supported")
        compilation.set_up()
        assert capsys.readouterr().err == ""  # nothing to put back
    finally:
        jax.config.update(name, before)


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "moon")
    said = "Unable to initialize backend 'moon': not known. (set JAX_PLATFORMS='' to choose)"
    told = r"^JAX_PLATFORMS=moon: Unable to initialize backend 'moon': not known.; unset it"
    with pytest.raises(UserError, match=told), compilation.explain_backend_error():
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="another"), compilation.explain_backend_error():
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (UserError("give a --name."), "give a --name.\n", 1),
        (InputError("a.json is empty."), "a.json is empty.\n", 1),
        (OSError(28, "No space left", "/a/b"), "No space left: /a/b; fix it", 1),
        (OSError("odd"), "odd; fix it", 1),
        (KeyboardInterrupt(), "stopped\n", 130),
    ],
)
def test_what_a_user_can_mend_or_stops_ends_a_command_with_one_sentence(
    error, said, status, monkeypatch, capsys
):
    def work():
        raise error

    monkeypatch.setattr(command.app, "run", lambda main: main(["program"]))
    with pytest.raises(SystemExit) as ended:
        command.run(work, "--name")
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("kind", [UserError, InputError, OSError])
def test_an_error_shows_its_trace_where_that_is_asked_for(monkeypatch, kind):
    monkeypatch.setattr(command.sys, "argv", ["evaluate", "--traceback"])
    with pytest.raises(kind), command.exit_on_error():
        raise kind("give a --name.")


def test_a_fault_of_the_program_always_shows_its_trace():
    with pytest.raises(ValueError, match="not aligned"), command.exit_on_error():
        raise ValueError("shapes (2,) and (3,) not aligned")


def test_a_flag_that_must_be_given_may_not_be_empty():
    own = flags.FlagValues()
    flags.DEFINE_string("checkpoint", None, "a model", flag_values=own)
    command.require("checkpoint", flag_values=own)
    own(["evaluate", "--checkpoint=model"])
    with pytest.raises(flags.Error, match="--checkpoint=: it is empty; give a value"):
        own(["evaluate", "--checkpoint="])
