"""Captions in a list that was written as text, as a CSV cell holds one.

Python's lists and tuples ("['a man', \"it's\"]", as pandas writes them), NumPy's arrays (no comma
between the items) and JSON are read; what merely begins with a bracket is a caption.
"""

import ast
import json
import re
from typing import Any

_TEXT = re.compile(
    r"""'(?:[^'\\\n]|\\(?:[abfnrtv\\'"]|x[\da-f]{2}|u[\da-f]{4}|U[\da-f]{8}))*'"""
    r"""|"(?:[^"\\\n]|\\(?:[abfnrtv\\'"]|x[\da-f]{2}|u[\da-f]{4}|U[\da-f]{8}))*\""""
)
_NOTHING = re.compile(r"(?:np\.)?nan\b|None\b|null\b|NaN\b|<NA>")
_OPENING = re.compile(r"[\[({]|(?:np\.)?(?:array|str_)\(")
_CLOSING = re.compile(r"[\])}]")
_BETWEEN = re.compile(r"\s+|,|dtype=(?:object|'[^']*')")
_NEARLY = re.compile(r"[\[(]\s*['\"\u2018\u201c].*['\"\u2019\u201d],?\s*[\])]", re.S)


def items(value: Any) -> list[Any] | None:
    """Returns the items of a list, of text that is one and of lists in it, in one flat list.

    None, null and NaN in it are None. Returns None where `value` is neither.
    """
    if isinstance(value, str):
        return _parse(value.strip())
    if not isinstance(value, list | tuple):
        return None
    texts: list[Any] = []
    for one in value:
        inner = items(one)
        texts += [None if one != one else one] if inner is None else inner
    return texts


def is_nearly_list(text: str) -> bool:
    """Whether text that is no list has a list's brackets and quotation marks at its ends."""
    return bool(_NEARLY.fullmatch(text.strip())) and _parse(text.strip()) is None


def _parse(text: str) -> list[str | None] | None:
    if text[:1] not in tuple("[({") or text[-1:] not in tuple("])}"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _tokens(text)
    return _leaves(value) if isinstance(value, list) else None


def _leaves(values: list[Any]) -> list[str | None] | None:
    """Returns the texts of nested lists in a flat list, or None where anything else is in them."""
    flat: list[str | None] = []
    todo = values[::-1]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo += one[::-1]
        elif isinstance(one, str):
            flat.append(one)
        elif one is None or one != one:
            flat.append(None)
        else:
            return None
    return flat


def _tokens(text: str) -> list[str | None] | None:
    """Reads Python's and NumPy's form from left to right; None at the first thing unknown.

    Not by ast.literal_eval alone: to Python, NumPy's ['a' 'b'] is the one text 'ab'.
    """
    flat: list[str | None] = []
    at = depth = 0
    while at < len(text):
        if at and depth == 0:
            return None  # the list has ended before the text
        if match := _TEXT.match(text, at):
            try:
                flat.append(ast.literal_eval(match[0]))
            except (SyntaxError, ValueError):  # no character has this number, or half a pair
                return None
        elif match := _NOTHING.match(text, at):
            flat.append(None)
        elif match := _OPENING.match(text, at):
            depth += 1
        elif match := _CLOSING.match(text, at):
            depth -= 1
        else:
            match = _BETWEEN.match(text, at)
            if not match:
                return None
        at = match.end()
    return flat if depth == 0 else None
