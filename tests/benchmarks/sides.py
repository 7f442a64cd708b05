"""What the benchmarks against PyTorch share: each side is the script in a process of its own.

Standard library only, since the other side's environment has no jax.
"""

import json
import resource
import subprocess
import sys


def measure(script: str, python: str, side: str, *words: str) -> dict:
    """Runs `script` for one side, with this command line and `words`; returns what it prints."""
    command = [python, script, *sys.argv[1:], f"--side={side}", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_gib() -> float:
    """The most memory that this process has had on the host."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
