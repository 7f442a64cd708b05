"""Annotation-like files beside those that are read: none is passed over in silence.

A test.csv whose header is mistyped would else take the test set with it.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping

from etils import epath

from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets import entry, packed, reid_json, tables
from jaxtbpr.datasets.json_stream import disguise, first_element

# Tables in forms that no reader here opens, each with the way to one that is read.
_FOREIGN = {
    ".xlsx": "is a spreadsheet; save it as CSV UTF-8",
    ".xls": "is a spreadsheet; save it as CSV UTF-8",
    ".ods": "is a spreadsheet; save it as CSV UTF-8",
    ".gz": "is compressed; unpack it",
    ".bz2": "is compressed; unpack it",
    ".xz": "is compressed; unpack it",
    ".zst": "is compressed; unpack it",
}


@dataclasses.dataclass(frozen=True)
class Leftover:
    """A file that is not read. reason: a sentence with its name and what to do.

    loses: whether what it holds is needed for certain: it is damaged, or its name tells a split
    that no other file has. other_form: whether another form of data set reads it.
    """

    file: epath.Path
    reason: str
    loses: bool
    other_form: bool


def leftovers(
    folder: epath.Path, taken: list[epath.Path], forms: Mapping[epath.Path, str]
) -> list[Leftover]:
    """Returns the annotation-like files beside `taken` that are not read, and those without record.

    forms: {file: title and name of another form that reads it}.
    """
    splits = {reid_json.file_split(file) for file in taken}
    found = []
    for file in _beside(folder, taken):
        split = reid_json.file_split(file)
        if file in forms:
            missed = split is not None and splits != {None} and split not in splits
            names = ", ".join(one.name for one in taken[:3])
            reason = (
                f"{file.name} is not read beside {names}; it is {forms[file]}: "
                "name that format, or move the file elsewhere"
            )
            found.append(Leftover(file, reason + ".", missed, True))
        else:
            fault, is_damaged = why_not(file, taken[0])
            reason = f"{file.name} is not read: it {fault}. Mend it, or move it elsewhere."
            found.append(Leftover(file, reason, is_damaged or split is not None, False))
    if len(taken) > 1:
        empty = [file for file in taken if _is_empty(file)]
        found += [Leftover(one, f"{one.name} holds no record.", True, False) for one in empty]
    return found


def why_not(file: epath.Path, like: epath.Path | None = None) -> tuple[str, bool]:
    """Returns (why a file is no annotation, whether it is damaged rather than something else).

    like: an annotation of the same folder, to compare the names of columns with.
    """
    is_packed = file.suffix.lower() in packed.SUFFIXES  # whose bytes are no text
    foreign = _FOREIGN.get(file.suffix.lower())
    if fault := foreign or ("" if is_packed else disguise(file)):
        return fault, True
    keys = tables.columns(file)
    try:
        first = (
            first_element(file) if file.suffix.lower() == ".json" else next(tables.rows(file), None)
        )
    except UserError as error:
        return str(error).removeprefix(f"{file} ").rstrip("."), True
    if keys and not tables.is_table(keys):
        what = "no table of images and captions"
        return f"is {what}: its columns are {', '.join(keys)}{_lacking(keys, like)}", False
    if first is None:
        return ("has column names but no row" if keys else "holds no record"), True
    if isinstance(first, entry.BadRecord):
        return f"is no table: its first row {first}", True
    if isinstance(first, tuple) and first[0] in ("samples", "frames"):
        way = "export it there as CSV (dataset_type=fo.types.CSVDataset) with filepath and captions"
        return f"is of FiftyOne, which is not read; {way}", False
    if isinstance(first, tuple):
        return f"is an object whose first key is {first[0]!r}, not an array of records", False
    if not isinstance(first, Mapping):
        return f"holds a {type(first).__name__} where a record belongs", False
    return "has records of another kind", False


def is_annotation_like(path: epath.Path) -> bool:
    """Whether a file's name ends as that of a table or of a JSON annotation."""
    name = path.name.lower()
    if name.startswith((".", "~$")) or _is_of_img2dataset(path):
        return False
    inner = epath.Path(path.stem).suffix.lower()
    is_foreign = path.suffix.lower() in _FOREIGN and (
        inner in set(tables.SUFFIXES) - set(packed.SUFFIXES)
        or path.suffix.lower() in (".xlsx", ".xls", ".ods")
    )
    return is_foreign or path.suffix.lower() in tables.SUFFIXES


def _is_of_img2dataset(path: epath.Path) -> bool:
    """Whether a file only lists what img2dataset put into the shard or folder of its name."""
    shard = path.parent / path.name.removesuffix("_stats.json").removesuffix(".parquet")
    return path.suffix.lower() in (".json", ".parquet") and (
        shard.name != path.name
        and ((path.parent / f"{shard.name}.tar").is_file() or shard.is_dir())
    )


def _beside(folder: epath.Path, taken: list[epath.Path]) -> list[epath.Path]:
    places = dict.fromkeys([folder, *(file.parent for file in taken)])
    return [
        path
        for place in places
        for path in sorted(place.iterdir())
        if is_annotation_like(path) and path not in taken and path.is_file()
        if not _holds_images_alone(path)
    ]


def _holds_images_alone(file: epath.Path) -> bool:
    """Whether a .tar is what the images were shipped in, and no WebDataset shard."""
    keys = tables.columns(file) if file.suffix.lower() == ".tar" else ()
    return bool(keys) and not tables.is_table(keys)


def _lacking(keys: Iterable[str], like: epath.Path | None) -> str:
    there = tables.columns(like) if like is not None else ()
    known = [key for key in there or (*entry.PATH_KEYS, "caption", "captions") if key not in keys]
    near = [(key, match) for key in keys for match in difflib.get_close_matches(key, known, n=1)]
    return "".join(f"; {key!r} is near to {match!r}" for key, match in near)


def _is_empty(file: epath.Path) -> bool:
    try:
        return file.suffix.lower() == ".json" and first_element(file) is None
    except UserError:
        return False  # told where the file is read
