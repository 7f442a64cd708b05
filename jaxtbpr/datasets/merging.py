"""Several records of one image made into one entry."""

import dataclasses
from collections.abc import Iterable, Iterator

from jaxtbpr.datasets import entry
from jaxtbpr.datasets.entry import Entry


def merge_by_image(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yields one entry per image, with the captions of all its records in their order.

    A record that gives an image a second identity or split is yielded as one to set aside.
    Holds all entries in memory. Order: that of each image's first record, bad records first.
    """
    merged: dict[str, Entry] = {}
    more: dict[str, list[str]] = {}
    for one in entries:
        first = merged.get(one.path)
        if one.problem:
            yield one
        elif first is None:
            merged[one.path], more[one.path] = one, list(one.captions)
        elif (first.identity, first.split) == (one.identity, one.split):
            more[one.path].extend(one.captions)
        else:
            yield _conflict(first, one)
    for path, one in merged.items():
        yield dataclasses.replace(one, captions=tuple(more[path]))


def _conflict(first: Entry, second: Entry) -> Entry:
    reason = (
        f"is given the identity {second.identity!r} in {second.split} after "
        f"{first.identity!r} in {first.split}"
    )
    return entry.set_aside(str(second.extra["image_id"]), reason, second.split)
