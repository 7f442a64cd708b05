"""A run's folder: one writer, and the right input for each stage."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.workdir import Workdir

ORDER = ("prompts", "generate", "filter", "caption")


def finish(root, *stages):
    for stage in stages:
        (root / stage).mkdir()
        files.write_json_atomic(root / stage / "commit.json", {"outputs": {}})


def test_two_runs_cannot_write_one_workdir(tmp_path):
    workdir = Workdir(tmp_path, ORDER, ORDER)
    with workdir.lock():
        with pytest.raises(UserError, match=f"in use by another run .process {os.getpid()} on"):
            with Workdir(tmp_path, ORDER, ORDER).lock():
                pass
    with Workdir(tmp_path, ORDER, ORDER).lock():
        pass


def test_a_killed_run_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from jaxtbpr.core.workdir import Workdir\n"
        "with Workdir(sys.argv[1], (), ()).lock():\n"
        "    print('locked', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(UserError, match="in use"), Workdir(tmp_path, (), ()).lock():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
        with Workdir(tmp_path, (), ()).lock():
            pass


@pytest.mark.parametrize(
    ("chosen", "finished", "before_caption"),
    [
        (ORDER, (), "filter"),
        (("prompts", "generate", "caption"), ("filter",), "generate"),
        (("caption",), ("prompts", "generate"), "generate"),
        (("caption",), (), None),
    ],
)
def test_a_stage_reads_the_nearest_stage_before_it(tmp_path, chosen, finished, before_caption):
    finish(tmp_path, *finished)
    assert Workdir(tmp_path, ORDER, chosen).name_before("caption") == before_caption


def test_a_stage_outside_the_order_reads_the_last_of_it(tmp_path):
    assert Workdir(tmp_path, ORDER, ("prompts", "filter")).name_before("build") == "filter"


def test_a_stage_with_nothing_to_read_says_what_to_add(tmp_path):
    with pytest.raises(UserError, match="has nothing to read .* add an earlier stage"):
        Workdir(tmp_path, ORDER, ("caption",)).before("caption")
    with pytest.raises(UserError, match="no finished stage 'filter'"):
        Workdir(tmp_path, ORDER, ORDER).before("caption")
