"""Annotation-like files beside those that are read: none is skipped silently.

A test.csv whose header is mistyped would else take the test set with it.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping

from etils import epath

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import annotation_names, entry, packed, reid_json, tables
from jaxtbpr.datasets.image_paths import is_image
from jaxtbpr.datasets.json_stream import disguise, first_element


@dataclasses.dataclass(frozen=True)
class Leftover:
    """A file that is not read. reason: a sentence with its name and what to do.

    loses: whether data would be lost for certain: it is damaged, or holds a split that no other
    file has. may_stay: whether it need not be fixed: another form of data set reads it, or
    it may be something else than annotation.
    """

    file: epath.Path
    reason: str
    loses: bool
    may_stay: bool


def leftovers(
    folder: epath.Path, taken: list[epath.Path], forms: Mapping[epath.Path, str]
) -> list[Leftover]:
    """Returns the annotation-like files beside `taken` that are not read, and empty ones in it.

    forms: {file: title and name of another form that reads it}.
    """
    places = [one for one in forms if one.is_dir() and one not in taken]
    beside = [*places, *annotation_names.beside(folder, [*taken, *places])]
    unread = [
        one
        for file in beside
        if not _holds_images_alone(file) and (one := _leftover(folder, file, taken, forms))
    ]
    if len(taken) > 1:
        empty = [file for file in taken if _is_empty(file)]
        unread += [Leftover(one, f"{one.name} holds no record.", True, False) for one in empty]
    return unread


def _leftover(
    folder: epath.Path, file: epath.Path, taken: list[epath.Path], forms: Mapping[epath.Path, str]
) -> Leftover | None:
    splits = {tables.table_split(folder, one) for one in taken}
    split = annotation_names.split_of_path(folder, file)
    is_missed = split is not None and split not in splits
    loses = is_missed and splits != {None}
    name = f"folder {file.name}" if file.is_dir() else file.relative_to(folder)
    names = ", ".join(str(f.relative_to(folder)) for f in taken[:3])
    if file in forms:
        advice = "name that format, or move the file elsewhere"
        reason = f"{name} is not read beside {names}; it is {forms[file]}: {advice}."
        return Leftover(file, reason, loses, may_stay=True)
    if tables.is_readable(file):
        advice = "put all tables of a set into one folder, or into train/, val/ and test/"
        reason = f"{name} is not read beside {names}: {advice}, or move it elsewhere."
        return Leftover(file, reason, loses, may_stay=False)
    is_elsewhere = file.parent not in {folder, *(one.parent for one in taken)}
    may_stay = is_elsewhere or annotation_names.is_perhaps(file)
    if may_stay and not is_missed:
        return None
    fault, is_damaged = why_not(file, taken[0])
    is_alike = annotation_names.is_named_alike(file, taken)  # and not test_config.yaml
    reason = f"{name} is not read: it {fault}. Fix it, or move it elsewhere."
    tells_split = is_alike and reid_json.file_split(file) is not None
    loses = (loses and is_alike) or (not may_stay and (is_damaged or tells_split))
    return Leftover(file, reason, loses, may_stay)


def why_not(file: epath.Path, like: epath.Path | None = None) -> tuple[str, bool]:
    """Returns (why a file is no annotation, whether it is damaged rather than something else).

    like: an annotation of the same folder, to compare the names of columns with.
    """
    is_packed = file.suffix.lower() in packed.SUFFIXES  # whose bytes are no text
    if file.is_dir():
        return "is a folder; join its parts in one file", True
    foreign = annotation_names.FOREIGN.get(file.suffix.lower())
    if annotation_names.is_renamed(file):
        foreign = "does not have a table's extension; rename it if it is a table"
    try:
        if fault := foreign or ("" if is_packed else disguise(file)):
            return fault, True
        keys = tables.columns(file)
        first = (
            first_element(file) if file.suffix.lower() == ".json" else next(tables.rows(file), None)
        )
    except InputError as error:
        return str(error).removeprefix(f"{file} ").rstrip("."), True
    if any(map(is_image, keys)) and tables.is_text(file):
        return f"has no line of column names: its first line is {', '.join(keys)}", True
    if keys and not tables.is_table(keys):
        what = "no table of images and captions"
        return f"is {what}: its columns are {', '.join(keys)}{_lacking(keys, like)}", False
    if first is None:
        return ("has column names but no row" if keys else "holds no record"), True
    if isinstance(first, entry.BadRecord):
        return f"is no table: its first row {first}", True
    if isinstance(first, tuple) and first[0] in ("samples", "frames"):
        advice = (
            "export it there as CSV (dataset_type=fo.types.CSVDataset) with filepath and captions"
        )
        return f"is a FiftyOne file, which is not read; {advice}", False
    if isinstance(first, tuple):
        return f"is an object whose first key is {first[0]!r}, not an array of records", False
    if not isinstance(first, Mapping):
        return f"holds a {type(first).__name__} where a record belongs", False
    return "has records of an unknown form", False


def _holds_images_alone(file: epath.Path) -> bool:
    """Whether a .tar only holds the images, and is no WebDataset shard."""
    keys = tables.columns(file) if file.suffix.lower() == ".tar" else ()
    return bool(keys) and not tables.is_table(keys)


def _lacking(keys: Iterable[str], like: epath.Path | None) -> str:
    there = tables.columns(like) if like is not None else ()
    known = [key for key in there or (*entry.PATH_KEYS, "caption", "captions") if key not in keys]
    near = [(key, match) for key in keys for match in difflib.get_close_matches(key, known, n=1)]
    return "".join(f"; {key!r} is similar to {match!r}" for key, match in near)


def _is_empty(file: epath.Path) -> bool:
    try:
        return file.suffix.lower() == ".json" and first_element(file) is None
    except InputError:
        return False  # reported where the file is read
