"""The command line: config and workdir, lists of stages, keys, and the front for all commands."""

import ast
import pathlib
import subprocess
import sys

import pytest

from jaxtbpr import cli, command_line, stages
from jaxtbpr.core.errors import UserError


def test_the_command_line_finds_config_and_workdir():
    words = command_line.prepare_arguments(["main", "--config=configs/syn.py:smoke", "--rerun"])
    assert words[0] == "main"
    assert words[1].endswith("configs/syn.py:smoke")
    assert words[2:] == ["--workdir=runs/syn-smoke", "--rerun"]


@pytest.mark.parametrize("words", [["--config", "X"], ["-config", "X"], ["-config=X"]])
def test_every_spelling_of_the_config_flag_is_understood(words):
    words = [word.replace("X", "configs/syn.py:smoke") for word in words]
    found = command_line.prepare_arguments(
        ["main", "-config.seed=1", *words, "--config.stages", "()"]
    )
    assert found[1].endswith("configs/syn.py:smoke")
    assert found[2:] == ["--workdir=runs/syn-smoke", "--config.seed=1", "--config.stages=()"]


def test_the_workdir_may_be_in_the_home_folder_but_not_empty(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert str(command_line.find_workdir("~/runs/a")) == "/home/ann/runs/a"
    with pytest.raises(UserError, match="--workdir is empty; give the folder of the run"):
        command_line.find_workdir("")


def test_a_packaged_config_is_found_by_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = command_line.prepare_arguments(["main", "--config=syn:smoke"])
    assert words[1].endswith("/syn.py:smoke")
    assert words[2] == "--workdir=runs/syn-smoke"
    with pytest.raises(UserError, match=r"--config=sin does not exist; .* or one of .*, syn, "):
        command_line.prepare_arguments(["main", "--config=sin"])


@pytest.mark.parametrize(
    ("words", "literal"),
    [
        (["--config.stages=prompts,generate"], "--config.stages=('prompts', 'generate')"),
        (["--config.stages", "prompts"], "--config.stages=('prompts',)"),
        (["--config.stages=('prompts',)"], "--config.stages=('prompts',)"),
        (["--config.stages="], "--config.stages=()"),
        (["--config.data.image_size=256,128"], "--config.data.image_size=(256, 128,)"),
    ],
)
def test_a_list_may_be_written_between_commas(words, literal):
    assert command_line.prepare_arguments(["main", *words])[-1] == literal


def test_stages_are_added_to_those_of_the_config():
    config = stages.default_config()
    command_line.add_stages(config, ["denoise", "build"])
    assert config.stages == (*stages.USUAL_STAGES, "denoise")
    with pytest.raises(UserError, match="--with=meassure is not a stage; did you mean measure"):
        command_line.add_stages(config, ["meassure"])


def test_the_keys_of_a_section_are_told():
    table = command_line.keys_table("filter.quality")
    assert table.startswith("filter.quality.")
    assert all(line.startswith(("filter.quality.", "    ")) for line in table.splitlines())
    assert "train.epochs = " in command_line.keys_table("")
    with pytest.raises(UserError, match=r"--keys=trian is not a section; give one of data, mod"):
        command_line.keys_table("trian")


def run(*words):
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)


def test_help_explains_the_stages_and_how_to_list_keys():
    told = run("jaxtbpr.main", "--help")
    assert told.returncode == 0
    assert "denoise" in told.stdout
    assert "--keys=train" in told.stdout
    assert run("jaxtbpr.main", "--keys", "train").stdout.startswith("train.")


def test_the_front_knows_each_command():
    for name, (module, _) in cli.find_commands().items():
        assert name in cli.usage()
        paths = [cli_root() / (module.replace(".", "/") + end) for end in (".py", "/__main__.py")]
        (source,) = [path.read_text() for path in paths if path.exists()]
        assert f"jaxtbpr {name} " in ast.get_docstring(ast.parse(source))  # --help shows it
    told = run("jaxtbpr.cli", "validat")
    assert told.returncode == 1
    assert "'validat' is not a command; did you mean 'validate'?" in told.stderr


def test_help_of_install_says_what_it_does_and_for_what():
    shown = " ".join(run("jaxtbpr.cli", "install", "--help").stdout.split())
    assert shown.startswith("usage: jaxtbpr install ")
    assert "Install an environment with torch for the workers" in shown
    assert "(default: transformers)" in shown


def test_an_error_is_one_sentence_and_with_traceback_shows_where_it_comes_from():
    words = ("jaxtbpr.cli", "validate", "/nowhere")
    assert "Traceback" not in run(*words).stderr
    shown = run(*words, "--traceback").stderr
    assert "Traceback" in shown
    assert "Error: /nowhere does not exist" in shown.splitlines()[-1]


def test_the_front_runs_a_command_as_the_module_would(tmp_path):
    words = ("--config=syn:smoke", "--config.stages=prompts", f"--workdir={tmp_path}")
    assert run("jaxtbpr.cli", "run", *words).returncode == 0
    commit = (tmp_path / "prompts" / "commit.json").read_text()
    assert "-m jaxtbpr.cli run --config=syn:smoke" in commit


def cli_root():
    return pathlib.Path(cli.__file__).parents[1]
