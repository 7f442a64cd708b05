"""The main job, small: from nothing to a table of results and a report."""

import json

import pytest

from jaxtbpr.core.options import flatten
from jaxtbpr.core.record import FIELDS
from jaxtbpr.stages import OPTIONS, USUAL_STAGES
from tests.end_to_end.job import run_main

# One process runs all tests that share the finished run.
pytestmark = pytest.mark.xdist_group("finished")

METRICS = {"R1", "R5", "R10", "mAP", "mINP", "chance_R1", "queries", "gallery", "identities"}


def test_the_job_goes_through_all_stages(finished):
    workdir, process = finished
    assert process.returncode == 0, process.stderr
    summary = json.loads((workdir / "summary.json").read_text())
    assert list(summary["stages"]) == list(USUAL_STAGES)
    for stage in summary["stages"].values():
        assert set(stage) == {"seconds", "records_in", "records_out", "set_aside"}
    people = summary["stages"]["prompts"]["records_out"]
    assert summary["stages"]["augment"]["records_out"] == 3 * people
    assert summary["stages"]["caption"]["records_out"] == 3 * people


def test_records_have_the_fields_of_the_table_and_no_others(finished):
    workdir, _ = finished
    texts = [path.read_text() for path in workdir.glob("*/records-*.jsonl")]
    keys = {key for text in texts for line in text.splitlines() for key in json.loads(line)}
    assert {"captions", "made"} <= keys <= {field.name for field in FIELDS}


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
