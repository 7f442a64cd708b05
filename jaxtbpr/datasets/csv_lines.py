"""CSV and TSV files read line by line, so that a stray quotation mark costs no other row.

An ordinary reader takes all lines up to the next quotation mark for one cell, silently.
"""

import collections
import csv
import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from jaxtbpr.datasets.image_paths import is_image

STRAY = "rows with an unpaired quotation mark, read literally"
LINE_ENDS = "rows with a cell that holds line ends (is a quotation mark missing?)"
_MAX_CELL = 1 << 24
_MAX_LINES = 200  # of one cell: what is longer is a quotation mark that does not close


class Row(NamedTuple):
    """The cells of a row, and how they were read where that is doubtful, or ""."""

    cells: list[str]
    note: str = ""


def read_rows(lines: Iterable[str], delimiter: str, width: int, path: int) -> Iterator[Row]:
    """Yields the rows with a cell that is not empty. lines: with their ends.

    width: the number of columns; path: the column of the image's name, by which rows are
    recognised that a stray quotation mark would join.
    """
    csv.field_size_limit(_MAX_CELL)
    ahead: collections.deque[str] = collections.deque()
    source = iter(lines)

    def take() -> str:
        return ahead.popleft() if ahead else next(source, "")

    while line := take():
        if not line.strip(f"{delimiter}\r\n"):
            continue
        if '"' not in line:
            yield Row(_split(line, delimiter))
            continue
        used = [line]
        cells = _quoted(used, take, delimiter)
        if cells is None or _holds_rows(used, delimiter, width, path):
            ahead.extendleft(reversed(used[1:]))
            escaped = _escaped(line, delimiter)
            is_escaped = len(escaped) == width
            stands = escaped if is_escaped else _as_it_stands(line, delimiter, width)
            yield Row(stands, "" if is_escaped else STRAY)
        elif len(used) == 1 and len(cells) != width:
            spaced = _one_line(line, delimiter=delimiter, skipinitialspace=True)
            yield Row(spaced if len(spaced) == width else cells)
        else:
            yield Row(cells, LINE_ENDS if len(used) > 1 else "")


def _split(line: str, delimiter: str) -> list[str]:
    return line.rstrip("\r\n").split(delimiter)


def _quoted(used: list[str], take: Callable[[], str], delimiter: str) -> list[str] | None:
    """Returns the cells that begin with used[0], or None; adds the lines it takes to `used`."""

    def lines() -> Iterator[str]:
        yield used[0]
        while len(used) < _MAX_LINES and (line := take()):
            used.append(line)
            yield line

    try:
        return next(csv.reader(lines(), delimiter=delimiter, strict=True))
    except csv.Error:
        return None


def _holds_rows(used: list[str], delimiter: str, width: int, path: int) -> bool:
    """Whether all lines after the first of a cell that holds line ends are rows of their own."""
    rows = [_split(line, delimiter) for line in used]
    if delimiter == "\t" and len(rows) > 1 and {len(row) for row in rows} == {width}:
        return True  # captions hold no tabs
    header, *names = [row[path].strip(' "') if len(row) > path else "" for row in rows]
    ending = posixpath.splitext(header)[1] or "."
    return bool(names) and all(is_image(name) or name.endswith(ending) for name in names)


def _as_it_stands(line: str, delimiter: str, width: int) -> list[str]:
    """Returns the cells of one line, by the first reading that gives `width` of them."""
    plain = [_unquoted(cell) for cell in _split(line, delimiter)]
    readings = [plain, _one_line(line, delimiter=delimiter)]
    return next((cells for cells in readings if len(cells) == width), plain)


def _escaped(line: str, delimiter: str) -> list[str]:
    """Returns the cells of a line whose quotation marks are escaped by a backslash, or []."""
    if '\\"' not in line:
        return []
    return _one_line(line, delimiter=delimiter, escapechar="\\", strict=True)


def _one_line(line: str, **options) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], **options), [])
    except csv.Error:
        return []


def _unquoted(cell: str) -> str:
    is_whole = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if is_whole else cell
