"""Full disks, read-only folders and damaged files: one clear sentence, and nothing is lost."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import time

import pytest

from jaxtbpr.core.workdir import Workdir
from tests.end_to_end import job
from tests.end_to_end.job import DRAWN, ROOT, environment

FIRST_STAGES = "--config.stages=('prompts','generate')"
BEFORE_EVALUATE = "--config.stages=('prompts','generate','caption','build','train')"
MORE_STAGES = "--config.stages=('prompts','generate','filter')"


def command(workdir, *more) -> list[str]:
    return job.command(workdir, *DRAWN, *more)


def run_main(workdir, *more) -> subprocess.CompletedProcess:
    return job.run_main(workdir, *DRAWN, *more)


def words(workdir, *more) -> str:
    return shlex.join(command(workdir, *more))


def in_namespace(script: str) -> subprocess.CompletedProcess:
    """Runs a shell script that may mount file systems, seen by nobody else."""
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "bash", "-c", script],
        env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def default_ctrl_c() -> None:
    # A background job, as a test run may be one, ignores Ctrl-C and hands that down.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def one_sentence(stderr: str) -> str:
    said = [line for line in stderr.splitlines() if line.startswith("jaxtbpr: ")]
    assert "Traceback" not in stderr
    assert len(said) == 1, stderr
    return said[0]


def test_a_full_disk_is_told_and_the_run_goes_on_with_more_room(tmp_path):
    run = tmp_path / "disk" / "run"
    script = f"""
      mkdir {run.parent} && mount -t tmpfs -o size=400k none {run.parent} || exit 99
      {words(run, FIRST_STAGES)}; echo "exit $?"
      find {run} -name '*.png' | wc -l
      mount -o remount,size=64m {run.parent} || exit 99
      {words(run, FIRST_STAGES)} && cat {run}/generate/records-*.jsonl
    """
    process = in_namespace(script)
    code, before, *_, records = process.stdout.split("\n", 2)
    assert code == "exit 1", process.stderr
    said = one_sentence(process.stderr)
    assert "No space left on device" in said
    assert "free some space and rerun; finished work is kept" in said
    assert 0 < int(before) < 68
    whole = tmp_path / "whole"
    assert run_main(whole, FIRST_STAGES).returncode == 0
    shards = sorted((whole / "generate").glob("records-*.jsonl"))
    assert "".join(path.read_text() for path in shards) in records


def test_a_read_only_workdir_is_told(tmp_path):
    disk = tmp_path / "disk"
    script = f"""
      mkdir {disk} && mount -t tmpfs none {disk} && mount -o remount,ro {disk} || exit 99
      {words(disk / "run", FIRST_STAGES)}
    """
    process = in_namespace(script)
    assert process.returncode == 1
    assert "Read-only file system" in one_sentence(process.stderr)
    assert "choose a --workdir that is writable" in process.stderr


@pytest.fixture
def generated(tmp_path):
    process = run_main(tmp_path / "run", FIRST_STAGES)
    assert process.returncode == 0, process.stderr
    return tmp_path / "run"


def test_a_truncated_image_is_set_aside_and_the_rest_goes_on(generated):
    image = sorted(generated.rglob("*.png"))[3]
    image.write_bytes(image.read_bytes()[:-200])
    process = run_main(generated, MORE_STAGES)
    assert process.returncode == 0, process.stderr
    stages = json.loads((generated / "summary.json").read_text())["stages"]
    assert stages["filter"]["rejected"] == 1
    assert stages["filter"]["records_out"] == stages["generate"]["records_out"] - 1
    (rejected,) = Workdir(generated, (), ()).manifest("filter").rejected()
    assert image.name in rejected["rejected"]["reason"]


def test_a_damaged_manifest_line_is_told_and_fixed_as_it_says(generated):
    (shard,) = (generated / "generate").glob("records-*.jsonl")
    good = shard.read_bytes()
    shard.write_bytes(good.replace(b'"identity"', b'"identi', 1))
    said = one_sentence(run_main(generated, MORE_STAGES).stderr)
    assert f"{shard} line 1 is not valid JSON" in said
    images = {path: path.stat().st_ino for path in generated.rglob("*.png")}
    shard.unlink()
    (generated / "generate" / "commit.json").unlink()
    assert run_main(generated, MORE_STAGES).returncode == 0
    assert shard.read_bytes() == good
    assert set(images) == set(generated.rglob("*.png"))


def test_two_runs_in_one_workdir_are_refused(generated):
    with Workdir(generated, (), ()).lock():
        said = one_sentence(run_main(generated, MORE_STAGES).stderr)
    assert f"in use by another run (process {os.getpid()} on" in said


def test_a_config_that_is_no_python_is_told(tmp_path):
    path: pathlib.Path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    return default_config(\n")
    process = run_main(tmp_path / "run", f"--config={path}")
    assert process.returncode == 1
    assert "mine.py" in one_sentence(process.stderr)


def test_words_in_any_order_and_spelling_reach_the_config(tmp_path):
    run = tmp_path / "Läufe und mehr" / "run"
    main = job.command(run)[:-2]
    config, words = f"{ROOT}/configs/syn.py:smoke", ["--config.prompts.train", "3"]
    process = subprocess.run(
        [*main, "--config.stages=('prompts',)", *words, "-config", config, "--workdir", run],
        env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    stages = json.loads((run / "summary.json").read_text())["stages"]
    assert {name: stage["records_out"] for name, stage in stages.items()} == {"prompts": 23}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("workdir=/data", "'workdir=/data' is not a flag"),
        (
            f"--config={ROOT}/configs/syn.py:smok",
            "syn.py:smok is not known; use :smoke, :scratch or",
        ),
        ("--config.build.folders.mine=/no where", "/no where does not exist"),
    ],
)
def test_a_wrong_word_is_told_in_one_sentence(tmp_path, word, said):
    process = run_main(tmp_path / "run", "--config.stages=('build',)", word)
    assert process.returncode == 1
    assert said in one_sentence(process.stderr)


@pytest.mark.parametrize("stage", ["generate", "train"])
def test_ctrl_c_is_one_sentence_and_the_run_goes_on(tmp_path, stage):
    run, words = tmp_path / "run", ["--config.train.steps=3", "--config.prompts.train=150"]
    stages = FIRST_STAGES if stage == "generate" else BEFORE_EVALUATE
    with subprocess.Popen(
        command(run, stages, *words), env=environment(), stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=default_ctrl_c,
    ) as process:  # fmt: skip
        for line in process.stderr:
            if line.startswith(f"{stage}: started"):
                break
        time.sleep(1.0)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, workers included
        said = one_sentence(process.stderr.read())
    assert process.returncode == 130
    assert "stopped; rerun the same command to resume" in said
    again = run_main(run, stages, *words)
    assert again.returncode == 0, again.stderr
    assert f"{stage}: resumed" in again.stderr
