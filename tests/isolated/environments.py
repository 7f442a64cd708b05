"""The environments apart from ours, which ./tests/run.sh --isolated makes."""

import os
import subprocess


def find_python(name: str) -> str:
    """Returns the Python of environment "torch", "newest" or "pose"."""
    found = os.environ.get(f"JAXTBPR_{name.upper()}_PYTHON")
    assert found, "run these by ./tests/run.sh --isolated"
    return found


def run(python: str, *words) -> str:
    """Runs that Python on `words`, which must go well; returns what it prints."""
    done = subprocess.run([python, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
