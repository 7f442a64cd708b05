"""What all commands share: checked arguments, quiet libraries, errors in one sentence."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from absl import app, flags, logging

from jaxtbpr.core.errors import InputError
from jaxtbpr.core.progress import say

_TRACEBACK = "Show where in the code an error comes from."
flags.DEFINE_bool("traceback", False, _TRACEBACK)


def run(work: Callable[[], None], usage: str) -> None:
    """Parses the command line and calls `work`; what the user can fix ends it with status 1.

    usage: which flags to give, such as "--model and --workdir".
    """

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"{argv[1]!r} is not a flag; give {usage}.")
        logging.set_verbosity(logging.WARNING)  # Orbax and TFDS log every step
        from jaxtbpr.core import compilation  # imports JAX, which --help can do without

        with exit_on_error():
            compilation.set_up()
            with compilation.explain_backend_error():
                work()

    app.run(main)


def require(*names: str, flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Marks flags that must be given, and not empty: "" would mean the current folder."""
    flags.mark_flags_as_required(names, flag_values)
    for name in names:
        fault = "it is empty; give a value."
        flags.register_validator(name, lambda value: value != "", fault, flag_values)


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Ends the program with status 1 and one sentence where the user can fix what is wrong.

    Ctrl-C ends it with status 130 and one word; with --traceback an error shows where in the code
    it comes from.
    """
    try:
        yield
    except (InputError, OSError) as error:
        if wants_traceback():
            raise
        say(_sentence(error))
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        say("stopped")
        raise SystemExit(130) from error  # the usual status after Ctrl-C


def add_traceback(parser: argparse.ArgumentParser) -> None:
    """Declares --traceback for a command whose arguments are not absl's."""
    parser.add_argument("--traceback", action="store_true", help=_TRACEBACK)


def wants_traceback() -> bool:
    """Whether --traceback is given, also where flags are not parsed yet."""
    return bool({"--traceback", "-traceback"} & set(sys.argv))


def _sentence(error: InputError | OSError) -> str:
    if isinstance(error, InputError):
        return str(error)
    where = f": {os.fspath(error.filename)}" if error.filename is not None else ""
    return f"{error.strerror or error}{where}; fix it and start again."
