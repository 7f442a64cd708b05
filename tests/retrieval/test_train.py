"""Stage train: the same losses on any devices and after kills, one compilation, clear failures."""

import contextlib
import functools
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.metrics_writer import read_metrics
from jaxtbpr.retrieval import train
from jaxtbpr.retrieval.training import loop as train_loop
from jaxtbpr.retrieval.training import setup
from jaxtbpr.retrieval.training.log import TrainLog
from jaxtbpr.retrieval.training.losses import similarity
from tests.datasets.sets import make_workdir
from tests.retrieval.runs import build_set, make_config

REPOSITORY = pathlib.Path(__file__).parents[2]
STEPS = 15  # 40 pairs make 5 batches of 8, in 3 epochs


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_set(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def unbroken(built, tmp_path_factory):
    """The root of a finished run, and what its stage returned."""
    root = copy_of(built, tmp_path_factory.mktemp("unbroken"))
    return root, train.run(make_config(), make_workdir(root))


def copy_of(built, root) -> pathlib.Path:
    shutil.copytree(built.dir("build"), root / "build")
    return root


def test_train_captions_that_the_model_reads_in_part_are_counted(unbroken, built, capsys, tmp_path):
    assert (unbroken[1]["captions_cut"], unbroken[1]["text_length"]) == (0, 24)
    short = {"data.text_length": 8, "train.steps": 1}
    result = train.run(make_config(**short), make_workdir(copy_of(built, tmp_path)))
    assert (result["captions_cut"], result["text_length"]) == (20, 8)
    assert "train: 20 of 40 captions are cut at 8 tokens" in capsys.readouterr().err


def losses_of(root) -> list[float]:
    return [row["loss"] for row in read_metrics(root / "train" / "metrics.jsonl")]


def test_a_run_writes_what_the_report_reads(unbroken):
    root, result = unbroken
    rows = read_metrics(root / "train" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert set(rows[0]) == {
        "step", "loss", "gradient_norm", "logit_scale", "learning_rate", "images_per_second",
        "host_wait",
    }  # fmt: skip
    assert all(0 <= row["host_wait"] <= 1 and row["images_per_second"] > 0 for row in rows)
    evals = read_metrics(root / "train" / "evals.jsonl")
    assert [(row["step"], row["epoch"], row["set"]) for row in evals] == [
        (5 * n, n, f"synthetic/{split}") for n in (1, 2, 3) for split in ("val", "test")
    ]
    assert result["records_in"] == 40
    assert list((root / "train").glob("events.out.tfevents.*"))


def test_training_lowers_the_loss_and_follows_the_schedule(unbroken):
    rows = read_metrics(unbroken[0] / "train" / "metrics.jsonl")
    assert np.mean([r["loss"] for r in rows[-3:]]) < np.mean([r["loss"] for r in rows[:3]])
    rates = [row["learning_rate"] for row in rows]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[4] == rates[5] == pytest.approx(1e-3)  # the peak is there twice
    assert rates[5:] == sorted(rates[5:], reverse=True)


@pytest.mark.parametrize(("count", "fsdp"), [(1, 1), (8, 2)])
def test_losses_are_the_same_on_other_devices(
    built, unbroken, tmp_path, monkeypatch, devices, count, fsdp
):
    make_mesh = functools.partial(meshes.make_mesh, devices=devices[:count])
    monkeypatch.setattr(setup.meshes, "make_mesh", make_mesh)
    root = copy_of(built, tmp_path)
    train.run(make_config(**{"train.fsdp": fsdp, "train.epochs": 3}), make_workdir(root))
    np.testing.assert_allclose(losses_of(root), losses_of(unbroken[0]), atol=1e-5)


def test_a_run_killed_twice_ends_like_an_unbroken_one(built, unbroken, tmp_path):
    root = copy_of(built, tmp_path)
    for step in (3, 11):  # one after the last checkpoint, one after an evaluation
        child = run_child(root, die_after=step)
        assert child.returncode == -signal.SIGKILL, child.stderr
    child = run_child(root, die_after=0)
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == unbroken[1]
    assert losses_of(root) == losses_of(unbroken[0])
    name = "train/evals.jsonl"
    assert (root / name).read_text() == (unbroken[0] / name).read_text()


def run_child(root, *, die_after, signal_number=signal.SIGKILL):
    words = [str(root), str(die_after), str(int(signal_number))]
    command = [sys.executable, "-m", "tests.retrieval.train_and_die", *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


def test_a_finished_run_called_again_gives_the_same_result(unbroken):
    root, result = unbroken
    assert train.run(make_config(), make_workdir(root)) == result


def test_the_step_is_traced_once_in_a_run(built, tmp_path, monkeypatch):
    original = similarity.global_loss
    traced = []

    def counting(mesh, loss):
        traced.append(1)
        return original(mesh, loss)

    monkeypatch.setattr(similarity, "global_loss", counting)
    train.run(make_config(**{"train.epochs": 1}), make_workdir(copy_of(built, tmp_path)))
    assert len(traced) == 1


def test_a_loss_that_is_no_number_stops_training_and_names_the_images(built, tmp_path, monkeypatch):
    original = similarity.global_loss

    def failing(mesh, one):
        def loss(image, text, identity, scale, weights):
            bad = jnp.where(jnp.any(identity == 3), jnp.nan, 1.0)
            return bad * original(mesh, one)(image, text, identity, scale, weights=weights)

        return loss

    monkeypatch.setattr(similarity, "global_loss", failing)
    root = copy_of(built, tmp_path)
    config = make_config(**{"train.log_every": 50, "train.checkpoint_every": 50})
    with pytest.raises(
        UserError, match=r"stopped at step \d+: loss is nan; .*images: 0000"
    ) as info:
        train.run(config, make_workdir(root))
    bad = {one["image_id"] for one in index(root, "train") if one["identity"] == 3}
    named = set(str(info.value).split("images: ")[1].rstrip(".").split(", "))
    assert named & bad
    assert not [p for p in (root / "train" / "checkpoints").iterdir() if p.name.isdigit()]


def index(root, split):
    lines = (root / "build" / "synthetic" / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_guard_names_the_first_bad_step(tmp_path):
    log = TrainLog(
        tmp_path, finished_steps=0, log_every=2, name_images=lambda rows: [f"r{r}" for r in rows]
    )
    with log:
        for n, loss in ((1, 1.0), (2, 2.0), (3, np.inf), (4, np.nan)):
            scalars = {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(1)}
            log.step(n, scalars, {"learning_rate": 0.1}, np.array([n]))
        with pytest.raises(UserError, match=r"step 3: loss is inf; .*: r3\."):
            log.settle()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [2]


def test_rows_beyond_the_checkpoint_are_cut_off(tmp_path):
    for name in ("metrics.jsonl", "evals.jsonl"):
        rows = [json.dumps({"step": n, "loss": 0.0}) + "\n" for n in (2, 4, 6)]
        (tmp_path / name).write_text("".join(rows) + '{"step": 8, "lo')
    with TrainLog(tmp_path, finished_steps=4, log_every=1, name_images=list):
        pass
    for name in ("metrics.jsonl", "evals.jsonl"):
        assert [row["step"] for row in read_metrics(tmp_path / name)] == [2, 4]


def test_sigterm_saves_first_and_the_run_ends_like_an_unbroken_one(built, unbroken, tmp_path):
    root = copy_of(built, tmp_path)
    child = run_child(root, die_after=3, signal_number=signal.SIGTERM)
    assert child.returncode == 1
    assert "stopped by SIGTERM after step 3" in child.stderr
    assert (root / "train" / "checkpoints" / "3").exists()
    child = run_child(root, die_after=0)
    assert json.loads(child.stdout) == unbroken[1]
    assert losses_of(root) == losses_of(unbroken[0])


def test_chunks_train_like_the_whole_batch(built, unbroken, tmp_path, monkeypatch, devices):
    make_mesh = functools.partial(meshes.make_mesh, devices=devices[:2])
    monkeypatch.setattr(setup.meshes, "make_mesh", make_mesh)
    root = copy_of(built, tmp_path)
    train.run(make_config(**{"train.grad_cache_chunks": 4}), make_workdir(root))
    np.testing.assert_allclose(losses_of(root), losses_of(unbroken[0]), atol=1e-5)


def test_evaluations_that_get_no_better_end_the_run_and_a_later_process_agrees(built, tmp_path):
    root = copy_of(built, tmp_path)
    options = {"train.patience": 1, "train.epochs": 6, "train.learning_rate": 0.0}
    options |= {"train.start_learning_rate": 0.0, "train.end_learning_rate": 0.0}
    result = train.run(make_config(**options), make_workdir(root))
    assert len(losses_of(root)) == 10  # two epochs: the second was no better than the first
    assert train.run(make_config(**options), make_workdir(root)) == result


def test_the_average_of_the_weights_is_what_is_kept_and_survives_a_restart(built, tmp_path):
    config = make_config(
        **{"train.ema_decay": 0.9, "train.ritc": 1.0, "train.soft_label_ratio": 0.1}
    )
    root = copy_of(built, tmp_path)
    result = train.run(config, make_workdir(root))
    assert {"nitc", "ritc"} < set(read_metrics(root / "train" / "metrics.jsonl")[0])
    half = tmp_path / "half"
    copy_of(built, half)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_loop.preemption, "watch", StopAfter(7))
        with pytest.raises(UserError, match="after step 7"):
            train.run(config, make_workdir(half))
    assert train.run(config, make_workdir(half)) == result
    assert losses_of(half) == losses_of(root)


class StopAfter:
    """Plays preemption.watch: asks to stop after a step."""

    def __init__(self, step):
        self.step = step

    def __call__(self):
        return contextlib.nullcontext(lambda n: n == self.step)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("image", "matches no parameter; it must match the whole paths"),
        (".*", "matches every parameter"),
        ("(", "is not a valid regular expression"),
    ],
)
def test_a_pattern_that_freezes_nothing_or_all_is_refused(built, pattern, said):
    with pytest.raises(UserError, match=said):
        train.run(make_config(**{"train.freeze": pattern}), built)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train.grad_cache_chunks": 3}, "train.grad_cache_chunks=3 must divide the 1 pairs"),
        ({"train.nitc": 0.0}, "no contrastive loss is enabled"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(built, values, said):
    with pytest.raises(UserError, match=said):
        train.run(make_config(**values), built)


def test_steps_win_over_epochs_and_the_end_is_evaluated(built):
    sets = setup.open_sets(make_config().data, built.dir("build"))
    plan = setup.make_plan(make_config(**{"train.steps": 7}).train, sets.train)
    assert plan.steps == 7
    assert [n for n in range(1, 8) if plan.evaluates(n)] == [5, 7]
    assert [n for n in range(1, 8) if plan.saves(n)] == [2, 4, 5, 6, 7]


def test_a_batch_that_does_not_fit_is_refused_with_its_numbers(built):
    config = make_config(**{"train.batch_size": 12})
    with pytest.raises(UserError, match=r"train.batch_size=12 .* 8 devices"):
        train.run(config, built)
    with pytest.raises(UserError, match=r"batch of 48 is larger than the 40"):
        train.run(make_config(**{"train.batch_size": 48}), built)


def test_a_set_that_was_not_built_is_named(built):
    config = make_config(**{"data.train_sets": ("elsewhere",)})
    with pytest.raises(UserError, match="elsewhere is not a built set; run stage 'build'"):
        train.run(config, built)


@pytest.mark.parametrize("names", [(), ("synthetic", "synthetic")])
def test_training_needs_sets_and_none_twice(built, names):
    with pytest.raises(UserError, match="must name at least one set, each once"):
        train.run(make_config(**{"data.train_sets": names}), built)
