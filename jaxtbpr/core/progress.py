"""Progress: a bar with the time left on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 15.0


def progress(
    items: Iterable[T], *, total: int, label: str, start: int = 0, unit: str = "records"
) -> Iterator[T]:
    """Yields `items` unchanged and reports how many are done.

    total: how many items there are in all; start: how many an earlier run has done.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, initial=start, desc=label, unit=f" {unit}", leave=False)
    else:
        yield from _lines(items, total, label, start, unit)


def _lines(items: Iterable[T], total: int, label: str, start: int, unit: str) -> Iterator[T]:
    began = last_line = time.monotonic()
    first = None
    for count, item in enumerate(items, start + 1):
        yield item
        now = time.monotonic()
        first = first or now  # the first includes compiling, which says nothing of the pace
        if now - last_line < SECONDS_BETWEEN_LINES:
            continue
        done = count - start - 1
        if done:
            each = (now - first) / done
            rate = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
            pace = f"{rate}, {(total - count) * each:.0f} s left"
        else:
            pace = f"the first after {now - began:.0f} s"
        say(f"{label}: {count}/{total} {unit}, {pace}")
        last_line = now


def say(text: str) -> None:
    """Prints one line on the console, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()
