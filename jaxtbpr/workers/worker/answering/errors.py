"""Messages of a worker to the user."""

import sys

from .exchange import NOTE


class Stop(Exception):
    """Stops a worker, with a sentence for the user."""


def note(sentence: str) -> None:
    """Prints a warning that the main program shows."""
    print(NOTE + " ".join(sentence.split()), file=sys.stderr, flush=True)
