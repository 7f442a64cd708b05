"""`jaxtbpr COMMAND ...`: one front for all commands.

Each is a module that `python -m` runs as well. No logic lives here.
"""

import difflib
import runpy
import sys

COMMANDS = {
    "run": ("jaxtbpr.main", "run the stages of a config in a workdir"),
    "validate": (
        "jaxtbpr.datasets.validate",
        "check a folder of data: what it has, what is missing, how to fix it",
    ),
    "evaluate": (
        "jaxtbpr.retrieval.evaluate",
        "compute Rank-k, mAP and mINP of a checkpoint on a set",
    ),
    "zero-shot": ("jaxtbpr.retrieval.zero_shot", "zero-shot accuracy of a CLIP on attributes"),
    "export": ("jaxtbpr.retrieval.export", "export a trained model for transformers or open_clip"),
    "export-data": ("jaxtbpr.datasets.export", "export a built set for other tools"),
    "compare": ("jaxtbpr.report.compare", "write a page that compares runs"),
    "install": ("jaxtbpr.workers.install", "install an environment with torch for the workers"),
    "draw": ("jaxtbpr.render", "draw a sheet of people"),
}


def main() -> None:
    """Runs the command that the command line names, as `python -m MODULE` would."""
    name, rest = next(iter(sys.argv[1:]), "--help"), sys.argv[2:]
    if name in ("--help", "-h", "help"):
        print(usage())
        return
    if name not in COMMANDS:
        (nearest,) = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.0)
        sys.exit(f"jaxtbpr: {name!r} is not a command; did you mean {nearest!r}?\n{usage()}")
    module, _ = COMMANDS[name]
    sys.argv[1:] = rest
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def usage() -> str:
    """Returns the list of commands."""
    lines = [f"  {name:<13}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: jaxtbpr COMMAND [--help] ...", *lines])


if __name__ == "__main__":
    main()
