"""Readers of a user's own folder: images and a CSV, TSV, JSON-lines or JSON table of captions.

Columns: file_path (or image, image_path, file_name, path), caption or captions (or caption1,
caption2, ...), and if known id (or identity) and split. One row per caption or per image.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets import entry
from jaxtbpr.datasets.entry import BadRecord, Entry
from jaxtbpr.datasets.image_paths import ImagePaths
from jaxtbpr.datasets.json_stream import iterate_json, open_text
from jaxtbpr.datasets.merging import merge_by_image
from jaxtbpr.datasets.reid_json import file_split

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
IDENTITY_KEYS = ("id", "identity", "person_id")
UNLABELLED = {"", "nan", "none", "null"}
_CAPTION = re.compile(r"captions?|text|caption_?\d+")
# A caption is no novel; the limit only keeps a broken quote from swallowing the whole file.
_LONGEST_CELL = 1 << 24


def rows(file: epath.Path) -> Iterator[Any]:
    """Yields the rows of a table as mappings; a row that cannot be read as BadRecord, not raised.

    Raises UserError where the file as a whole cannot be read.
    """
    if file.suffix.lower() == ".json":
        yield from iterate_json(file)
        return
    read = _csv_rows if file.suffix.lower() in (".csv", ".tsv") else _json_lines
    try:
        yield from read(file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 ({error.reason}); save it as UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"{file} is not a readable table ({error}); check its quotes.") from error


def _csv_rows(file: epath.Path) -> Iterator[Any]:
    csv.field_size_limit(_LONGEST_CELL)
    with open_text(file, newline="") as text:
        first = text.readline()
        text.seek(0)
        delimiter = max(",;\t|", key=first.count)
        reader = csv.reader(text, delimiter=delimiter)
        header = [name.strip().lower().lstrip("\ufeff") for name in next(reader, [])]
        for cells in reader:
            if len(cells) == len(header):
                yield dict(zip(header, cells, strict=True))
            elif cells:
                yield BadRecord(f"has {len(cells)} cells under {len(header)} column names")


def _json_lines(file: epath.Path) -> Iterator[Any]:
    with open_text(file) as text:
        for line in text:
            if line.strip():
                yield _json_line(line)


def _json_line(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        return BadRecord(f"is not JSON ({error})")


def is_table(keys: Iterable[str]) -> bool:
    """Whether column names tell where an image is and what it shows."""
    keys = {str(key).lower() for key in keys}
    return bool(keys & set(entry.PATH_KEYS)) and any(map(_CAPTION.fullmatch, keys))


def columns(file: epath.Path) -> tuple[str, ...]:
    """Returns the column names of a table, or () where its first row cannot be read."""
    try:
        first = next(rows(file), None)
    except UserError:
        return ()
    return tuple(first) if isinstance(first, Mapping) else ()


def read_tables(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields one entry per image; rows of one image are joined.

    An image without identity is a person of its own. The split is the row's, else that of the
    file's name ("test.csv"), else train.
    """
    yield from merge_by_image(one for file in files for one in _file_entries(file, paths))


def _file_entries(file: epath.Path, paths: ImagePaths) -> Iterator[Entry]:
    split = file_split(file) or "train"
    for number, row in enumerate(paths.peek(rows(file)), 1):
        try:
            yield _entry(row, paths, split)
        except BadRecord as reason:
            yield entry.set_aside(f"row {number} of {file.name}", reason)


def _entry(row: Any, paths: ImagePaths, split: str) -> Entry:
    if isinstance(row, BadRecord):
        raise row
    name = entry.image_name(row)
    if str(row.get("split") or "").strip():
        split = entry.split_name(row["split"])
    identity = _identity(row) or entry.own_identity(name)
    return Entry(paths(name), _captions(row), identity, split, {"image_id": name})


def _identity(row: Mapping[str, Any]) -> str:
    value = next((row[key] for key in IDENTITY_KEYS if key in row), None)
    if value is None or str(value).strip().lower() in UNLABELLED:
        return ""
    return entry.identity_text(value)


def _captions(row: Mapping[str, Any]) -> tuple[str, ...]:
    keys = [key for key in row if _CAPTION.fullmatch(str(key)) and row[key] is not None]
    return tuple(text for key in keys for text in _cell_captions(key, row[key]) if text)


def _cell_captions(key: str, cell: Any) -> tuple[str, ...]:
    if key == "captions" and isinstance(cell, str) and cell.startswith("["):
        try:  # a list within a CSV cell
            return entry.caption_list(json.loads(cell))
        except ValueError:
            return (cell,)
    return entry.caption_list(cell)
