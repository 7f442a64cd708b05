"""Runs stage build in child processes that are killed at random moments, until one ends.

Called with a workdir, a folder of data, a seed and how many kills there are at most; prints how
many there were.
"""

import os
import pathlib
import random
import signal
import sys
import tempfile
import time

from jaxtbpr.datasets import build, builder
from tests.datasets.sets import make_config, make_workdir

# Small ones, so that there are many shards to be killed between.
builder.SHARD_ROWS = 3
build._CHUNK = 5


def build_once(root: pathlib.Path, folder: str) -> None:
    build.run(make_config(folders={"real": folder}), make_workdir(root))


def child(root: pathlib.Path, folder: str) -> int:
    """Starts a build and returns its process number."""
    process = os.fork()
    if process == 0:
        try:
            build_once(root, folder)
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    return process


def seconds_of_a_build(folder: str) -> float:
    """How long a build takes here when nobody ends it."""
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        os.waitpid(child(pathlib.Path(scratch), folder), 0)
        return time.monotonic() - began


def main() -> None:
    root, folder, seed, most = pathlib.Path(sys.argv[1]), *sys.argv[2:]
    moments = random.Random(seed)
    kills, longest = 0, 0.7 * seconds_of_a_build(folder)
    while kills < int(most):
        process = child(root, folder)
        time.sleep(moments.uniform(0.01, longest))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFEXITED(status):
            break
        kills += 1
    print(kills)
    build_once(root, folder)


if __name__ == "__main__":
    main()
