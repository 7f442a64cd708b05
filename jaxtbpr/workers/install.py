"""Installs an environment of the isolated worker: `jaxtbpr install [ENGINE]`.

It is in the user's cache folder, named by a digest of its requirements, so that other versions get
another environment.
"""

import argparse
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys

from jaxtbpr.core import command, files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.progress import say
from jaxtbpr.workers.worker.answering.engines import ENGINES

_WORKER = pathlib.Path(__file__).parent / "worker"
# Of the engines that need a separate environment.
REQUIREMENTS = {
    name: _WORKER / engine.requirements for name, engine in ENGINES.items() if engine.requirements
}
_DONE = "installed"  # written last
# The lines of pip that are shown as progress; the others are details of versions.
_SHOWN = re.compile(r"\s*(Collecting|Installing|Downloading (?!\S+\.metadata)|Building)")


def place(requirements: pathlib.Path) -> pathlib.Path:
    """Returns the environment's folder, which may not exist yet."""
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = files.sha256(requirements.read_bytes() + version.encode())
    return home / "jaxtbpr" / f"worker-{digest[:12]}"


def find(requirements: pathlib.Path) -> pathlib.Path | None:
    """Returns the Python of the environment, None where it is not installed."""
    folder = place(requirements)
    return _python(folder) if (folder / _DONE).exists() else None


def install(requirements: pathlib.Path) -> pathlib.Path:
    """Installs the environment unless it exists; returns its Python.

    Concurrent calls take turns. Raises UserError with the last line of pip where it fails.
    """
    folder = place(requirements)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if python := find(requirements):
            return python
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted installation
        rows = (name for name, path in REQUIREMENTS.items() if path == requirements)
        size = next((ENGINES[name].download for name in rows), "some GB")
        say(f"installing the worker's environment into {folder} ({size}) ...")
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(_python(folder)), "-m", "pip", "install", "--disable-pip-version-check"]
        _run([*pip, "--progress-bar=off", "--requirement", str(requirements)])
        files.write_text_atomic(folder / _DONE, requirements.read_text())
    return _python(folder)


def main() -> None:
    """The command."""
    name, what = COMMAND
    parser = argparse.ArgumentParser(
        prog=f"jaxtbpr {name}",
        description=f"{what.capitalize()}, in the user's cache folder; prints its Python.",
    )
    parser.add_argument(
        "engine",
        nargs="?",
        choices=REQUIREMENTS,
        default="transformers",
        help="what it is for: an engine of the config (default: transformers)",
    )
    command.add_traceback(parser)
    arguments = parser.parse_args()
    with command.exit_on_error():
        print(install(REQUIREMENTS[arguments.engine]))


def _python(folder: pathlib.Path) -> pathlib.Path:
    return folder / "bin" / "python"


def _run(argv: list[str]) -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    output = ["no output"]
    pipe, same = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(argv, stdout=pipe, stderr=same, text=True, env=env) as process:
        for line in filter(str.strip, process.stdout or ()):
            output.append(line.strip())
            if _SHOWN.match(line):
                say(f"  {line.strip()}")
    if process.returncode:
        raise UserError(f"`{' '.join(argv)}` failed: {output[-1]}; fix it and start again.")


COMMAND = "install", "install an environment with torch for the workers"

if __name__ == "__main__":
    main()
