"""The run that the end-to-end tests share."""

import pathlib
import subprocess

import pytest

from tests.end_to_end.job import run_main


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[pathlib.Path, subprocess.CompletedProcess]:
    """A workdir in which the smoke run went through unbroken, and what it printed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    return workdir, run_main(workdir)
