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
    found = [json.loads(out.splitlines()[-1]) for _, out, _ in ended]
    assert all(one == found[0] for one in found)
    return found[0]


@pytest.mark.parametrize("fsdp", [1, 4])
def test_two_processes_train_as_one_with_their_devices(tmp_path, fsdp):
    both, alone = build_set(tmp_path / "both"), build_set(tmp_path / "alone")
    two = outputs_of(train_in(both.root, 2, fsdp=fsdp))
    one = outputs_of(train_in(alone.root, 1, fsdp=fsdp))
    assert two.keys() == one.keys()
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


def test_one_of_two_processes_that_is_asked_to_stop_stops_both_and_nothing_is_lost(tmp_path):
    whole, parted = build_set(tmp_path / "whole"), build_set(tmp_path / "parted")
    expected = outputs_of(train_in(whole.root, 2))
    stopped = train_in(parted.root, 2, die_after=2)
    for rc, _, errors in stopped:
        assert rc == 1
        assert "stopped: stopped by SIGTERM after step" in errors
    assert outputs_of(train_in(parted.root, 2)) == expected
