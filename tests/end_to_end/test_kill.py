"""SIGKILL at random moments in every stage: the end is the same as if nothing had happened."""

import json
import os
import pathlib
import signal
import subprocess
import time

import numpy as np
import pytest

from jaxtbpr.stages import USUAL_STAGES
from tests.end_to_end.job import command, environment, run_main

# One process runs all tests that share the finished run.
pytestmark = pytest.mark.xdist_group("finished")

# What training writes about time differs between any two runs.
TIMINGS = ("images_per_second", "host_wait", "seconds", "step_seconds", "host_wait_share")
MAKERS = ("generate", "augment")


def kill_in(stage: str, workdir: pathlib.Path, delay: float) -> bool:
    """Starts the job and kills it `delay` seconds into `stage`; False if that was over by then.

    A stage that makes images has begun when it has written one.
    """
    started, commit = (workdir / stage / name for name in ("started.json", "commit.json"))
    begun = (lambda: any(workdir.glob(f"{stage}/**/*.png"))) if stage in MAKERS else started.exists
    with subprocess.Popen(
        command(workdir), env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while process.poll() is None and not begun() and not commit.exists():
            time.sleep(0.005)
        time.sleep(delay)
        interrupted = process.poll() is None and not commit.exists()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return interrupted


def content(workdir: pathlib.Path) -> dict[str, bytes]:
    """Returns what must not depend on kills: manifests, images, data set shards, results."""
    kinds = ("records-*.jsonl", "*.png", "*.array_record*", "evaluate/*_*.json", "evals.jsonl")
    paths = sorted(path for kind in kinds for path in workdir.rglob(kind))
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def losses(workdir: pathlib.Path) -> list[dict]:
    rows = map(json.loads, (workdir / "train" / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]


def test_a_run_killed_in_every_stage_ends_with_the_same_bytes(finished, tmp_path):
    unbroken, _ = finished
    seconds = json.loads((unbroken / "summary.json").read_text())["stages"]
    rng = np.random.default_rng(0)
    interrupted = []
    for stage in USUAL_STAGES:
        # Training is killed while it compiles and while it steps.
        for share in (0.2, 0.5) if stage == "train" else (rng.uniform(0.05, 0.4),):
            delay = 0.2 if stage in MAKERS else share * seconds[stage]["seconds"]
            interrupted += [stage] if kill_in(stage, tmp_path / "run", delay) else []
    process = run_main(tmp_path / "run")
    assert process.returncode == 0, process.stderr
    assert {"generate", "augment", "build", "train"} <= set(interrupted)
    assert losses(tmp_path / "run") == losses(unbroken)
    made, expected = content(tmp_path / "run"), content(unbroken)
    assert sorted(made) == sorted(expected)
    assert [name for name in expected if made[name] != expected[name]] == []
