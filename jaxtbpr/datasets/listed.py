"""Records whose captions are lists: written as text in a cell, or lists in a list."""

import copy
from collections.abc import MutableMapping
from typing import Any

from jaxtbpr.core import caption_lists
from jaxtbpr.datasets.roles import is_caption

_LIST = "images whose {} is a list written as text, each item of which is one caption"
_NESTED = "images whose {} has lists in a list, each item of which is one caption"
_NEARLY = "images whose {} looks like a list but cannot be read as one, and stays one caption"


def split_lists(record: Any) -> tuple[Any, tuple[str, ...]]:
    """Returns a record, or (image, captions) pair, with such captions as one list; and notes.

    The record passed in is not changed. Notes: see `entry.Notes`.
    """
    if isinstance(record, tuple) and len(record) == 2:
        value, notes = split_value(record[1], "value")
        return (record[0], value), notes
    if not isinstance(record, MutableMapping):
        return record, ()
    result, notes = record, ()
    for key, value in record.items():
        if isinstance(value, str | list) and is_caption(str(key).lower()):
            captions, remark = split_value(value, repr(key))
            if remark:
                result = copy.copy(record) if result is record else result
                result[key] = captions
                notes += remark
    return result, notes


def split_value(value: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """Returns captions as one list, and notes. name: what the notes call the value."""
    if isinstance(value, str) and value[:1].isalnum():
        return value, ()  # as nearly all are
    items = caption_lists.items(value)
    if items is None:
        is_nearly = isinstance(value, str) and caption_lists.is_nearly_list(value)
        return value, (_NEARLY.format(name),) if is_nearly else ()
    notes = ()
    if isinstance(value, str):
        notes = (_LIST.format(name),)
    elif len(items) != len(value) or any(caption_lists.items(one) is not None for one in value):
        notes = (_NESTED.format(name),)
    return items, notes
