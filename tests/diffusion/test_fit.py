"""The training loop: it finds the minimum, goes on to the same bits, and stops at what is wrong."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.metrics_writer import read_metrics
from jaxtbpr.diffusion import fit

DATA = {"x": np.random.default_rng(0).normal(3.0, 0.1, (50, 4)).astype(np.float32)}
START = {"bias": np.zeros(4, np.float32), "kernel": np.zeros((4, 4), np.float32)}


def distance(params, rows, key):
    noise = 0.01 * jax.random.normal(key, rows["x"].shape)
    error = jnp.square(params["bias"] - rows["x"] - noise).mean()
    error += jnp.square(params["kernel"] - jnp.eye(4)).mean()
    return error, {"largest": params["bias"].max()}


def recipe(**changes):
    options = {
        "steps": 60,
        "batch_size": 8,
        "learning_rate": 1.5,
        "warmup_steps": 5,
        "ema_decay": 0.9,
    }
    return fit.Fit(**options | {"weight_decay": 0.0, "checkpoint_every": 20} | changes)


def run(folder, **changes):
    found = fit.fit(distance, START, DATA, recipe(**changes), seed=0, directory=folder)
    return np.concatenate([found["bias"], found["kernel"].ravel()])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


def test_the_minimum_is_found_and_told_on_the_way(tmp_path):
    found = run(tmp_path)
    np.testing.assert_allclose(found[:4], 3, atol=0.3)  # the average lags behind
    np.testing.assert_allclose(found[4:], np.eye(4).ravel(), atol=0.3)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [20, 40, 60]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {"gradient_norm", "largest"} <= rows[0].keys()


def test_without_steps_the_parameters_stay(tmp_path):
    assert not run(tmp_path, steps=0).any()


def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "progress", lambda todo, **_: itertools.islice(todo, 2))
    assert (run(tmp_path) != whole).any()
    monkeypatch.undo()
    np.testing.assert_array_equal(run(tmp_path), whole)
    np.testing.assert_array_equal(run(tmp_path), whole)  # finished: nothing is done again
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [20, 40, 60]


def test_how_often_the_loss_is_looked_at_changes_nothing(whole, tmp_path):
    np.testing.assert_array_equal(run(tmp_path, look_every=10), whole)


def test_checkpoints_that_fall_between_looks_are_written_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "progress", lambda todo, **_: itertools.islice(todo, 2))
    run(tmp_path, checkpoint_every=31)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["40"]


def test_another_seed_sees_other_rows(whole, tmp_path):
    found = fit.fit(distance, START, DATA, recipe(), seed=1, directory=tmp_path)
    assert (np.asarray(found["bias"]) != whole[:4]).any()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    def broken(params, rows, key):
        return jnp.nan * params["bias"].sum(), {}

    with pytest.raises(UserError, match="the loss of steps 0 to 20 is not finite"):
        fit.fit(broken, START, DATA, recipe(), seed=0, directory=tmp_path / "vae")


def test_a_run_that_is_asked_to_stop_saves_first(whole, tmp_path, monkeypatch):
    class Asked:
        def __enter__(self):
            return lambda step: step == 40

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr(fit.preemption, "watch", Asked)
    with pytest.raises(UserError, match="stopped by SIGTERM after step 40"):
        run(tmp_path, checkpoint_every=1000)
    monkeypatch.undo()
    np.testing.assert_array_equal(run(tmp_path, checkpoint_every=1000), whole)
