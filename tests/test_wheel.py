"""The wheel holds all that the program needs."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """A folder into which the wheel was unpacked by pip."""
    scratch = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", scratch, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = scratch.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", scratch / "site", wheel], check=True)
    return scratch / "site"


def test_every_file_of_the_package_is_in_the_wheel(installed):
    tracked = subprocess.run(
        ["git", "ls-files", "jaxtbpr", "configs"], cwd=ROOT, check=True, capture_output=True
    ).stdout.decode()
    names = {name for name in tracked.splitlines() if "/assets/pictures/" not in name}
    names = {f"jaxtbpr/{name}" if name.startswith("configs/") else name for name in names}
    assert [name for name in sorted(names) if not (installed / name).exists()] == []


def test_type_checkers_may_use_the_types_of_the_package(installed):
    assert (installed / "jaxtbpr" / "py.typed").exists()


def test_the_packaged_config_runs_far_from_the_repository(installed, tmp_path):
    words = ["-m", "jaxtbpr.main", "--config=configs/syn.py:smoke"]
    process = subprocess.run(
        [sys.executable, *words, "--config.stages=('prompts','generate','filter')"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "runs" / "syn-smoke" / "summary.json").exists()
