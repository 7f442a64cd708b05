"""What a worker says to the person who started the run."""

import sys

from .exchange import NOTE


class Stop(Exception):
    """What ends a worker: a sentence for the person who started it."""


def note(sentence: str) -> None:
    """Says something that nobody need act on at once."""
    print(NOTE + " ".join(sentence.split()), file=sys.stderr, flush=True)
