"""Several records of one image made into one entry."""

import dataclasses
import posixpath
from collections.abc import Iterable, Iterator

from jaxtbpr.datasets import entry
from jaxtbpr.datasets.entry import Entry


def merge_by_image(
    entries: Iterable[Entry], *, is_noted: bool = False, once: bool = False
) -> Iterator[Entry]:
    """Yields one entry per image, with the captions of all its records in their order.

    A record that gives an image a second identity or split is yielded as one to reject: the first
    decides, since joining the two would put one person into two splits or two people into one.
    is_noted: images of several records carry a note. once: so do those of a record that is
    repeated word for word, which counts once. Holds all entries in memory, since a record of any
    image may come last. Order: that of each image's first record, bad records before all.
    """
    merged: dict[str, Entry] = {}
    for one in entries:
        first = merged.get(one.path)
        if one.problem:
            yield one
        elif first is None:
            merged[one.path] = one
        elif (first.identity, first.split) != (one.identity, one.split):
            yield _conflict(first, one)
        elif not _same_name(first, one):
            merged[one.path] = _noted(_joined(first, one), entry.SAME_FILE)
        elif once and set(_said(one)) <= set(_said(first)):
            merged[one.path] = _noted(first, entry.REPEATED)
        else:
            joined = _joined(first, one)
            merged[one.path] = _noted(joined, entry.JOINED) if is_noted else joined
    yield from merged.values()


def reject_repeats(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yields the entries; one of an image that came before is rejected.

    For sets too large for `merge_by_image`: holds 8 bytes an image.
    """
    seen: set[int] = set()
    for one in entries:
        key = hash(one.path)
        if key in seen and not one.problem:
            reason = "has a second record; put all captions of an image into one record"
            yield entry.reject(str(one.extra["image_id"]), reason, one.split)
        else:
            yield one
            seen.add(key)


def _joined(first: Entry, second: Entry) -> Entry:
    extra = dict(first.extra)
    if "captions_bt" in second.extra:  # a second list of captions
        extra["captions_bt"] = [*extra.get("captions_bt", ()), *second.extra["captions_bt"]]
    captions = _said(first) + _said(second)
    notes = tuple(dict.fromkeys(first.notes + second.notes))
    return dataclasses.replace(first, captions=captions, extra=extra, notes=notes)


def _same_name(first: Entry, second: Entry) -> bool:
    names = (posixpath.normpath(str(one.extra["image_id"])) for one in (first, second))
    return len(set(names)) == 1


def _said(one: Entry) -> tuple[str, ...]:
    """The captions of a record; one without any has an empty one beside the others."""
    return one.captions or ("",)


def _noted(one: Entry, note: str) -> Entry:
    return one if note in one.notes else dataclasses.replace(one, notes=(*one.notes, note))


def _conflict(first: Entry, second: Entry) -> Entry:
    is_one_name = _same_name(first, second)
    also = "" if is_one_name else f"names the same file as {first.extra['image_id']} and "
    reason = (
        f"{also}has the identity {second.identity!r} in {second.split} after "
        f"{first.identity!r} in {first.split}"
    )
    return entry.reject(str(second.extra["image_id"]), reason, second.split)
