"""Which columns of an annotation tell the person and the split, and which nobody reads."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets import entry, packed
from jaxtbpr.datasets.json_stream import iterate_json

# In the order in which they are preferred, without spaces, case and underscores.
_IDENTITY = ("identity", "identityid", "personid", "pid", "person", "personname", "subjectid")
_IDENTITY += ("subject", "id", "label")
_SPLIT = ("split", "subset", "partition", "set", "fold", "phase")
_CAPTION = re.compile(r"(?:captions?|texts?|sentences?)(?:\.\d+)?|caption[ _-]?\d+")
_SAMPLE = 1000  # rows looked at


@dataclasses.dataclass(frozen=True)
class Roles:
    """The columns of a table by what they are for. identity, split: a column's name or None.

    by_folder: whether folders in the images' names tell the split ("test/0001.jpg").
    """

    identity: str | None
    split: str | None
    unused: tuple[str, ...]
    by_folder: bool = False


def roles(rows: Iterable[Any]) -> Roles:
    """Returns the roles of the columns by their names and by the first rows.

    A column `id` that counts the rows is no identity where another column may be one. A synonym of
    `split` is one where it holds a word for a split.
    """
    sample = [row for row in _readable(rows) if isinstance(row, Mapping)]
    keys = list(dict.fromkeys(str(key) for row in sample for key in row))
    identity, split = _identity(keys, sample), _split(keys, sample)
    path = next((key for key in entry.PATH_KEYS if key in keys), None)
    used = {identity, split, path, packed.IMAGE}
    unused = (key or "(without a name)" for key in keys if key not in used and not is_caption(key))
    names = (row[key] for row in sample for key in entry.PATH_KEYS if isinstance(row.get(key), str))
    return Roles(identity, split, tuple(unused), any(map(folder_split, names)))


def folder_split(name: str) -> str | None:
    """Returns the split that the first or second folder in a relative name tells, or None."""
    folders = [part.lower() for part in name.replace("\\", "/").split("/")[:-1] if part != "."]
    return next((entry.SPLITS[one] for one in folders[:2] if one in entry.SPLITS), None)


def json_roles(file: epath.PathLike) -> Roles:
    """Returns the roles of the keys of a JSON array's records."""
    return roles(iterate_json(file))


def is_caption(key: str) -> bool:
    """Whether a column of this name holds captions."""
    return bool(_CAPTION.fullmatch(key))


def _readable(rows: Iterable[Any]) -> list[Any]:
    read = []  # keeps what comes before a broken row
    try:
        for row in itertools.islice(rows, _SAMPLE):
            read.append(row)
    except UserError:
        pass  # told where the file is read to its end
    return read


def _named(keys: Iterable[str], names: tuple[str, ...]) -> list[str]:
    plain = {key: re.sub(r"[\W_]", "", key.lower()) for key in keys}
    return sorted((k for k in plain if plain[k] in names), key=lambda k: names.index(plain[k]))


def _identity(keys: list[str], sample: list[Mapping[str, Any]]) -> str | None:
    first, *others = [*_named(keys, _IDENTITY), None]
    scalar = [key for key in others if key and not isinstance(sample[0].get(key), list | dict)]
    is_count = first == "id" and scalar and _differs(first, sample)
    return scalar[0] if is_count and not _differs(scalar[0], sample) else first


def _differs(key: str, sample: list[Mapping[str, Any]]) -> bool:
    values = [str(row.get(key)) for row in sample]
    return len(values) > 1 and len(set(values)) == len(values)


def _split(keys: list[str], sample: list[Mapping[str, Any]]) -> str | None:
    named = _named(keys, _SPLIT)
    told = [key for key in named if any(_is_split(row.get(key)) for row in sample)]
    return next((key for key in named if key.lower() == "split"), next(iter(told), None))


def _is_split(value: Any) -> bool:
    return str(value).strip().lower() in entry.SPLITS


def remarks(files: Iterable[epath.Path], found: Mapping[epath.Path, Roles], split_of) -> list[str]:
    """Returns the sentences on how the columns of a user's own files are read.

    found: {file: its roles}. split_of: returns the split that a file's name tells, or None.
    """
    said: dict[str, list[str]] = {}
    for file in files:
        columns = found[file]
        for text in _remarks(columns, split_of(file)):
            said.setdefault(text, []).append(file.name)
    return [f"{', '.join(names)}: {text}." for text, names in said.items()]


def _remarks(columns: Roles, split: str | None) -> list[str]:
    said = []
    if columns.identity is None:
        said.append("no column tells the identity: each image is a person of its own")
    elif columns.identity not in ("identity", "id"):
        said.append(f"the identity is read from column {columns.identity!r}")
    if columns.split is None and split is None and columns.by_folder:
        said.append("the split is read from the folders in the names of the images")
    elif columns.split is None and split is None:
        said.append("no column tells the split: all train")
    elif columns.split not in ("split", None):
        said.append(f"the split is read from column {columns.split!r}")
    if columns.unused:
        said.append(f"columns that are not used: {', '.join(columns.unused)}")
    return said
