"""When, where and by which command a stage ran, kept beside its output."""

import datetime
import functools
import os
import pathlib
import platform
import shlex
import subprocess
import sys


def run_info(*, devices: bool = False) -> dict[str, str]:
    """Returns {"date", "command", "machine", "source"} of now, as text.

    date: in UTC; command: as it was typed; source: the git commit of this program, "" where it
    was installed without one. devices: adds the accelerators that JAX has found.
    """
    machine = f"{platform.node()}: {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="seconds"),
        "command": _command(),
        "machine": machine + (f", {_devices()}" if devices else ""),
        "source": git_commit(pathlib.Path(__file__).parents[2]),
    }


def _command() -> str:
    first, *arguments = sys.orig_argv[1:]
    if os.path.basename(first) == "jaxtbpr":  # the front, see cli.py, in whatever folder
        return shlex.join(["jaxtbpr", *arguments])
    return shlex.join(["python", first, *arguments])


@functools.cache
def git_commit(folder: pathlib.Path) -> str:
    """Returns the commit that `folder` is at, with a "+" where files differ; "" without git."""
    if not (folder / ".git").exists():
        return ""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()


def _devices() -> str:
    import jax  # here, since some stages do not need it

    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
