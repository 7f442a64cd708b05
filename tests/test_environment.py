"""The scripts share an environment, which is installed again where it lacks something."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def make(folder, extras):
    """Asks for the environment; returns what pip was asked to install, "" where nothing."""
    pip = folder / "venv/bin/python"
    if not pip.exists():
        pip.parent.mkdir(parents=True)
        pip.write_text('#!/bin/sh\necho "$@" >>"$(dirname "$0")/asked"\n')
        pip.chmod(0o755)
    (pip.parent / "asked").write_text("")
    words = 'set -euo pipefail; source "$1"; make_environment "$2" "$3"; echo ready'
    script = [words, "test", ROOT / "launch/environment.sh", folder / "project", extras]
    env = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "VENV": str(folder / "venv")}
    done = subprocess.run(["bash", "-c", *script], env=env, capture_output=True, text=True)
    assert done.stdout == "ready\n", done.stderr
    return (pip.parent / "asked").read_text().rpartition("--editable ")[2].strip()


def test_an_environment_that_has_more_than_is_asked_is_not_installed_again(tmp_path):
    project = tmp_path / "project"
    (project / "launch").mkdir(parents=True)
    for name in ("pyproject.toml", "launch/constraints.txt"):
        (project / name).write_text("")
    assert make(tmp_path, "") == str(project)
    assert make(tmp_path, "") == ""
    assert make(tmp_path, "test") == f"{project}[test]"
    assert make(tmp_path, "") == make(tmp_path, "test") == ""
    assert make(tmp_path, "cuda12") == f"{project}[cuda12,test]"
    assert make(tmp_path, "test") == make(tmp_path, "test,cuda12") == ""
    (project / "launch/constraints.txt").write_text("numpy==2")  # other pins: all of it again
    assert make(tmp_path, "") == f"{project}[cuda12,test]"
