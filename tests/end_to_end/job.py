"""Starts the published smoke config as a user does: in a process of its own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
# People are drawn: for tests of what no model has a part in.
DRAWN = ("--config.generate.engine=render", "--config.augment.engine=render")


def environment() -> dict[str, str]:
    """A user's environment: no virtual devices."""
    return {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}


def command(workdir: pathlib.Path, *words: str) -> list[str]:
    """The words that start a smoke run."""
    main = [sys.executable, "-m", "jaxtbpr.main", f"--config={ROOT}/configs/syn.py:smoke"]
    return [*main, f"--workdir={workdir}", *words]


def run_main(workdir: pathlib.Path, *words: str) -> subprocess.CompletedProcess:
    """Runs to the end; the result has `stdout` and `stderr` as text."""
    return subprocess.run(
        command(workdir, *words), env=environment(), capture_output=True, text=True, timeout=550
    )
