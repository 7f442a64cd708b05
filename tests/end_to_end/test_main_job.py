"""The main job, small: from nothing to a table of results and a report, killed or not."""

import json
import os
import pathlib
import signal
import subprocess
import time

import numpy as np
import pytest

from jaxtbpr.core.options import flatten
from jaxtbpr.core.record import FIELDS
from jaxtbpr.stages import OPTIONS, USUAL_STAGES
from tests.end_to_end.job import command, environment, run_main

# What training writes about time differs between any two runs.
TIMINGS = ("images_per_second", "host_wait", "seconds", "step_seconds", "host_wait_share")
MAKERS = ("generate", "augment")
METRICS = {"R1", "R5", "R10", "mAP", "mINP", "chance_R1", "queries", "gallery", "identities"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[pathlib.Path, subprocess.CompletedProcess]:
    """A workdir in which the smoke run went through unbroken, and what it printed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    return workdir, run_main(workdir)


def test_the_job_goes_through_all_stages(finished):
    workdir, process = finished
    assert process.returncode == 0, process.stderr
    summary = json.loads((workdir / "summary.json").read_text())
    assert list(summary["stages"]) == list(USUAL_STAGES)
    for stage in summary["stages"].values():
        assert set(stage) == {"seconds", "records_in", "records_out", "rejected"}
    people = summary["stages"]["prompts"]["records_out"]
    assert summary["stages"]["augment"]["records_out"] == 3 * people
    assert summary["stages"]["caption"]["records_out"] == 3 * people


def test_records_have_the_fields_of_the_table_and_no_others(finished):
    workdir, _ = finished
    texts = [path.read_text() for path in workdir.glob("*/records-*.jsonl")]
    keys = {key for text in texts for line in text.splitlines() for key in json.loads(line)}
    assert {"captions", "generation"} <= keys <= {field.name for field in FIELDS}


def test_results_are_fractions_next_to_chance(finished):
    workdir, process = finished
    (name, score), *_ = json.loads((workdir / "summary.json").read_text())["evaluate"].items()
    assert name == "synthetic/test"
    assert set(score) >= METRICS
    assert score["queries"] == score["gallery"] == 3 * score["identities"]
    assert abs(score["chance_R1"] - 1 / score["identities"]) < 1e-9
    assert 0 < score["mINP"] <= score["mAP"] <= 1
    assert score["R1"] <= score["R5"] <= score["R10"] <= 1
    assert score["R5"] > 2 * score["chance_R1"]  # as its model knew before, or better
    assert f"{100 * score['R1']:.1f}" in process.stdout


def test_the_report_is_named_at_the_end(finished):
    workdir, process = finished
    page = workdir / "report" / "index.html"
    assert str(page.resolve()) in process.stdout
    assert page.stat().st_size > 50_000


def test_a_second_run_does_nothing(finished):
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    process = run_main(workdir)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("already done, skipped") == len(USUAL_STAGES)
    after = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {"summary.json", ".lock"}


def test_other_settings_in_the_same_workdir_are_refused(finished):
    workdir, _ = finished
    process = run_main(workdir, "--config.augment.edits=1")
    assert process.returncode == 1
    assert "config.augment.edits was 2, now 1" in process.stderr
    assert "Traceback" not in process.stderr


def test_every_config_key_can_be_set_from_the_command_line(tmp_path):
    for key in ("train.epoch", "augment.change.backgrund"):
        process = run_main(tmp_path / "run", f"--config.{key}=1")
        assert process.returncode == 1
        assert "did you mean config." in process.stderr
        assert "Traceback" not in process.stderr
    assert "augment.change.background" in flatten(OPTIONS)


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
