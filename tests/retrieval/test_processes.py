"""Training in two real processes, each with its own devices, as on two hosts."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxtbpr.core.metrics_writer import read_metrics
from tests.datasets.test_build import REPOSITORY
from tests.retrieval.runs import build_set


def train_in(root, processes, *, steps=6, fsdp=1, die_after=0):
    """Trains in so many processes with four devices in all; returns their (rc, stdout, stderr)."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={4 // processes}"
    count = processes if processes > 1 else 0
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.retrieval.train_in_processes"]
            + [str(word) for word in (root, n, count, port, steps, fsdp, die_after)],
            cwd=REPOSITORY,
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(processes)
    ]
    ended = [process.communicate(timeout=300) for process in started]
    return [(p.returncode, *texts) for p, texts in zip(started, ended, strict=True)]


def outputs_of(ended):
    assert all(rc == 0 for rc, _, _ in ended), ended
    outputs = [json.loads(out.splitlines()[-1]) for _, out, _ in ended]
    assert all(one == outputs[0] for one in outputs)
    return outputs[0]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """(workdir, outputs) of a run in two processes."""
    workdir = build_set(tmp_path_factory.mktemp("two"))
    return workdir, outputs_of(train_in(workdir.root, 2))


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    """(workdir, outputs) of a run in one process."""
    workdir = build_set(tmp_path_factory.mktemp("one"))
    return workdir, outputs_of(train_in(workdir.root, 1))


def assert_same_training(one, two):
    (alone, expected), (both, outputs) = one, two
    assert outputs.keys() == expected.keys()
    rows, expected = (read_metrics(w.dir("train") / "metrics.jsonl") for w in (both, alone))
    assert [row["step"] for row in rows] == list(range(1, 7))  # written once
    for key in ("loss", "gradient_norm", "logit_scale"):
        np.testing.assert_allclose(
            [row[key] for row in rows], [row[key] for row in expected], rtol=2e-5
        )
    evals, expected = (read_metrics(w.dir("train") / "evals.jsonl") for w in (both, alone))
    assert [(row["step"], row["set"]) for row in evals] == [
        (row["step"], row["set"]) for row in expected
    ]


def test_two_processes_train_as_one_with_their_devices(of_one, of_two):
    assert_same_training(of_one, of_two)


def test_two_processes_that_split_the_parameters_train_as_one_that_does_not(of_one, tmp_path):
    split = build_set(tmp_path)
    assert_same_training(of_one, (split, outputs_of(train_in(split.root, 2, fsdp=4))))


def test_one_of_two_processes_that_is_asked_to_stop_stops_both_and_nothing_is_lost(
    of_two, tmp_path
):
    stopped = build_set(tmp_path)
    for rc, _, errors in train_in(stopped.root, 2, die_after=2):
        assert rc == 1
        assert "stopped: stopped by SIGTERM after step" in errors
    _, expected = of_two
    assert outputs_of(train_in(stopped.root, 2)) == expected
