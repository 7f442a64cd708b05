"""`jaxtbpr COMMAND ...`: one front for all commands.

Each is a module that `python -m` runs as well, with a line `COMMAND = "name", "what it does"`.
Finding them is all the logic here.
"""

import ast
import difflib
import pathlib
import runpy
import sys

_DECLARATION = "COMMAND = "
# As a user meets them; others are listed after these.
_ORDER = (
    "run", "validate", "evaluate", "zero-shot", "export", "export-data", "compare",
    "install", "draw",
)  # fmt: skip


def main() -> None:
    """Runs the command that the command line names, as `python -m MODULE` would."""
    commands = find_commands()
    name, rest = next(iter(sys.argv[1:]), "--help"), sys.argv[2:]
    if name in ("--help", "-h", "help"):
        print(usage())
        return
    if name not in commands:
        nearest = difflib.get_close_matches(name, commands, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        sys.exit(f"jaxtbpr: {name!r} is not a command{hint}\n{usage()}")
    module, _ = commands[name]
    sys.argv[1:] = rest
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def find_commands() -> dict[str, tuple[str, str]]:
    """Returns {name of a command: (its module, what it does)}, found without importing any."""
    package, commands = pathlib.Path(__file__).parent, {}
    for path in sorted(package.rglob("*.py"), key=lambda path: (len(path.parts), path)):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(_DECLARATION):
                name, what = ast.literal_eval(line.removeprefix(_DECLARATION))
                parts = path.relative_to(package.parent).with_suffix("").parts
                commands[name] = ".".join(parts).removesuffix(".__main__"), what
    names = sorted(commands, key=[*_ORDER, *commands].index)
    return {name: commands[name] for name in names}


def usage() -> str:
    """Returns the list of commands."""
    lines = [f"  {name:<13}{what}" for name, (_, what) in find_commands().items()]
    return "\n".join(["usage: jaxtbpr COMMAND [--help] ...", *lines])


if __name__ == "__main__":
    main()
