"""What the commands share: no stray words, quiet libraries, errors in one sentence."""

import contextlib
import os
from collections.abc import Callable, Iterator

from absl import app, logging

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.progress import say


def run(work: Callable[[], None], flags: str) -> None:
    """Parses the command line and calls `work`; what the user can mend ends it with status 1.

    flags: which to give, for the words "--model and --workdir" of the usage.
    """

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"{argv[1]!r} is not a flag; give {flags}.")
        logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step of theirs
        from jaxtbpr.core import compilation  # brings JAX, which commands that only read do without

        with faults_told():
            compilation.set_up()
            with compilation.backend_told():
                work()

    app.run(main)


@contextlib.contextmanager
def faults_told() -> Iterator[None]:
    """Ends the program with status 1 and one sentence where the user can mend what is wrong."""
    try:
        yield
    except UserError as error:
        say(str(error))
        raise SystemExit(1) from error
    except OSError as error:
        say(f"{error.strerror or error}{_where(error)}; mend it and start again.")
        raise SystemExit(1) from error


def _where(error: OSError) -> str:
    return f": {os.fspath(error.filename)}" if error.filename is not None else ""
