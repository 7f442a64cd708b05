"""Readers of a user's folder: images and a CSV, TSV, JSON-lines or JSON table of captions.

Tables may lie in folders of splits (Hugging Face imagefolder), and hold the images themselves
(parquet, WebDataset .tar; see `packed`).

Columns: file_path (or image, image_path, file_name, path), caption or captions (or caption1,
caption2, ...), and if known identity (or person_id, pid, id, ...; see `roles`) and split (or
subset, ...). One row per caption or per image.
"""

import csv
import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from etils import epath

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import csv_lines, entry, listed, packed, roles, sidecar
from jaxtbpr.datasets.entry import BadRecord, Entry
from jaxtbpr.datasets.image_paths import ImagePaths
from jaxtbpr.datasets.json_stream import (
    disguise,
    is_json_lines,
    iterate_json,
    not_utf8,
    open_text,
)
from jaxtbpr.datasets.merging import merge_by_image
from jaxtbpr.datasets.reid_json import file_split
from jaxtbpr.datasets.roles import Roles, folder_split, is_caption

_TEXTS = (".csv", ".tsv", ".tab", ".txt")
SUFFIXES = (*_TEXTS, ".jsonl", ".ndjson", ".json", *packed.SUFFIXES)
_EXCEL = re.compile(r"sep=.\s*$", re.I)
_FIRST = 32  # rows whose keys are taken for columns
_ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as surrogateescape has it


class _Row(dict):
    """A row of a CSV; `notes` says where its reading is doubtful."""

    notes: tuple[str, ...] = ()


def rows(file: epath.Path) -> Iterator[Any]:
    """Yields the rows of a table as mappings; a row that cannot be read as BadRecord, not raised.

    file: may be a folder, too, see `sidecar`. Raises InputError where the file as a whole cannot be
    read.
    """
    if file.suffix.lower() in packed.SUFFIXES or file.is_dir():
        yield from sidecar.rows(file) if file.is_dir() else packed.rows(file)
        return
    if file.suffix.lower() == ".json" and not is_json_lines(file):
        yield from iterate_json(file)
        return
    read = _csv_rows if is_text(file) else _json_lines
    try:
        yield from read(file)
    except UnicodeDecodeError as error:
        fault = disguise(file) or not_utf8(error, _line_of(file))
        raise InputError(f"{file} {fault}.") from error


def _csv_rows(file: epath.Path) -> Iterator[Any]:
    with open_text(file, newline="") as text:
        header, delimiter = _header(text)
        path = next((k for k, name in enumerate(header) if name in entry.PATH_KEYS), 0)
        for cells, note in csv_lines.read_rows(text, delimiter, len(header), path):
            if len(cells) == len(header):
                row = _Row(zip(header, cells, strict=True))
                row.notes = (note,) if note else ()
                yield row
            else:
                quotes = " and an unpaired quotation mark" if note else ""
                yield BadRecord(f"has {len(cells)} cells for {len(header)} columns{quotes}")


def _header(text: Iterable[str]) -> tuple[list[str], str]:
    """Reads a CSV's column names and delimiter, from the first line that has any.

    A line "sep=;" before them is for Excel. A name that comes again gets a number.
    """
    lines = (line for line in text if line.strip() and not _EXCEL.match(line))
    line = next(lines, "")
    delimiter = max(",;\t|", key=line.count)
    names: list[str] = []
    for cell in next(csv.reader([line], delimiter=delimiter), []):
        name = _canonical(cell.lstrip("\ufeff"))
        same = sum(name == one.partition(".")[0] for one in names)
        names.append(f"{name}.{same}" if same and name else name)
    return names, delimiter


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


def is_text(file: epath.Path) -> bool:
    """Whether a file is a CSV, a TSV or the like, by its name."""
    return file.suffix.lower() in _TEXTS


def is_readable(file: epath.Path) -> bool:
    """Whether a file is a table of images and captions with a row at least."""
    try:
        is_read = file.suffix.lower() in SUFFIXES and is_table(columns(file))
        return is_read and has_rows(file)
    except InputError:
        return False


def is_table(keys: Iterable[str]) -> bool:
    """Whether column names include an image's path and a caption."""
    keys = {str(key).lower() for key in keys}
    return bool(keys & set(entry.PATH_KEYS)) and any(map(is_caption, keys))


def columns(file: epath.Path) -> tuple[str, ...]:
    """Returns the column names of a table, or () where it has none.

    Those of a CSV are its first line's, whatever is wrong with the rows; those of JSON records are
    the keys of the first ones that can be read: one of them may have no caption.
    """
    if is_text(file):
        with open_text(file, errors="replace") as text:
            return tuple(_header(text)[0])
    keys: dict[str, None] = {}
    try:
        for one in itertools.islice(rows(file), _FIRST):
            keys |= (
                dict.fromkeys(_canonical(str(key)) for key in one)
                if isinstance(one, Mapping)
                else {}
            )
    except InputError:
        pass  # reported where the file is read to its end
    return tuple(keys)


def has_rows(file: epath.Path) -> bool:
    """Whether there is anything after a CSV's header; True for other tables."""
    if not is_text(file):
        return True
    with open_text(file, errors="replace") as text:
        delimiter = _header(text)[1]
        return any(line.strip(f"{delimiter}\r\n") for line in text)


def _line_of(file: epath.Path) -> int:
    """Returns the last line before the first byte that is not UTF-8."""
    with open_text(file, errors="surrogateescape") as text:
        clean = itertools.takewhile(lambda line: not _ESCAPED.search(line), text)
        return sum(1 for _ in clean)


def read_tables(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields one entry per image; rows of one image are joined.

    An image without identity is a separate person. The split is the row's, else that of the
    file's name ("test.csv") or folder ("test/metadata.csv"), else that of a folder in the image's
    name ("test/0001.jpg"), else train.
    """
    files = list(files)
    roles_of = table_roles(files)
    entries = (one for file in files for one in _file_entries(folder, file, paths, roles_of[file]))
    yield from merge_by_image(entries, once=True)


def table_roles(files: Iterable[epath.Path]) -> dict[epath.Path, Roles]:
    """Returns the roles of the columns of tables, whose names are in lower case."""
    return roles.file_roles(files, lambda file: map(_plain, rows(file)))


def table_split(folder: epath.Path, file: epath.Path) -> str | None:
    """Returns the split in a table's name or in its folders below `folder`, if any."""
    return file_split(file) or folder_split(str(file.relative_to(folder)))


def _plain(row: Any) -> Any:
    if not isinstance(row, Mapping) or isinstance(row, _Row):  # a CSV's are plain
        return row
    return {_canonical(str(key)): value for key, value in row.items()}


def _canonical(name: str) -> str:
    """Returns a column's name in lower case, "Image Path" and "filename" as `PATH_KEYS` are."""
    if name == packed.IMAGE:
        return name
    name = name.strip().lower()
    return entry.PATH_NAMES.get(re.sub(r"[\W_]", "", name), name)


def _file_entries(
    folder: epath.Path, file: epath.Path, paths: ImagePaths, columns: Roles
) -> Iterator[Entry]:
    named = table_split(folder, file)
    place = file.relative_to(folder)
    place = place if file.is_dir() else place.parent
    prefix = "" if str(place) in ("", ".") else f"{place}/"
    places = functools.partial(_split_places, folder, file, named)
    named_rows = _prefixed(map(_plain, rows(file)), prefix)
    seen: set[str] = set()
    for number, row in enumerate(paths.peek(named_rows, places), 1):
        try:
            row, notes = listed.split_lists(row)
            one = _entry(row, paths, named, columns)
        except BadRecord as reason:
            yield entry.reject(f"row {number} of {file.name}", reason)
            continue
        name = one.extra["image_id"]
        if packed.is_packed(one.path) and name in seen:
            notes += (entry.SAME_NAME,)
        one = dataclasses.replace(one, notes=one.notes + notes)
        seen.add(name)
        yield one


def _split_places(folder: epath.Path, file: epath.Path, split: str | None) -> list[epath.Path]:
    """Returns where else a split's images may be: in test/ of test.csv, in images/ of test/."""
    places = (
        [file.parent / name for name in ("", "images", "imgs")] if file.parent != folder else []
    )
    roots = (folder, folder / "imgs", folder / "images")
    inside = (place for root in roots for place in split_folders(root))
    places += [place for place in inside if entry.SPLITS[place.name.lower()] == split]
    return [place for place in places if place.is_dir()]


def split_folders(folder: epath.Path) -> list[epath.Path]:
    """Returns the folders in `folder` that are named like splits."""
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if path.name.lower() in entry.SPLITS)
    return sorted(path for path in named if path.is_dir())


def _prefixed(read: Iterable[Any], prefix: str) -> Iterator[Any]:
    """Yields rows whose images' names start at the data set's folder, not at the table's."""
    for row in read:
        keys = entry.PATH_KEYS if isinstance(row, MutableMapping) else ()
        key = next((key for key in keys if row.get(key)), None)
        is_name = prefix and key and isinstance(row[key], str) and packed.IMAGE not in row
        if is_name and row[key][0] not in "/\\":
            row[key] = prefix + row[key]
        yield row


def _entry(row: Any, paths: ImagePaths, named: str | None, columns: Roles) -> Entry:
    if isinstance(row, BadRecord):
        raise row
    name = entry.image_name(row)
    by_folder = named or folder_split(name)
    split, notes = by_folder or "train", getattr(row, "notes", ())
    if columns.split and str(row.get(columns.split) or "").strip():
        split = entry.split_name(row[columns.split])
        notes += (entry.OTHER_SPLIT,) if named not in (None, split) else ()
    elif by_folder is None and (columns.split or columns.by_folder):
        if of_test := {*name.lower().split("/")[:-1]} & entry.PARTS_OF_A_TEST:
            where = f"is in {of_test.pop()}/ and has no split"
            raise BadRecord(f"{where}; put the test images into test/, or add a column 'split'")
        notes = (*notes, entry.NO_SPLIT)
    identity = entry.unique_identity(name)
    if columns.identity:
        identity, unknown = entry.identity_or_unique(row.get(columns.identity), name)
        notes += unknown
    path = row.get(packed.IMAGE) or paths(name)
    return Entry(path, _captions(row), identity, split, {"image_id": name}, notes=notes)


def _captions(row: Mapping[str, Any]) -> tuple[str, ...]:
    keys = [key for key in row if is_caption(str(key))]
    cells = ("" if row[key] is None or row[key] != row[key] else row[key] for key in keys)
    return tuple(text for cell in cells for text in entry.caption_list(cell))
