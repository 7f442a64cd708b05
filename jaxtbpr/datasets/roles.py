"""Which columns of an annotation hold the identity and the split, and which are not used."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import entry, packed
from jaxtbpr.datasets.json_stream import iterate_json

# In the order in which they are preferred, without spaces, case and underscores.
_PERSON = ("identity", "identityid", "personid", "pid", "person", "personname", "subjectid")
_PERSON += ("subject",)
_LABEL = "label"  # after the one that may count the records
_SPLIT = ("split", "subset", "partition", "set", "fold", "phase")
_CAPTION = re.compile(r"(?:captions?|texts?|sentences?|descriptions?)(?:\.\d+)?|caption[ _-]?\d+")
_SAMPLE = 1000  # rows looked at
_SHOWN = 4  # files named in a sentence


@dataclasses.dataclass(frozen=True)
class Roles:
    """The columns of a table by what they are for. identity, split: a column's name or None.

    by_folder: whether folders in the images' names are splits ("test/0001.jpg").
    """

    identity: str | None
    split: str | None
    unused: tuple[str, ...]
    by_folder: bool = False


def file_roles(
    files: Iterable[epath.Path], read: Callable[[epath.Path], Iterable[Any]], counter: str = "id"
) -> dict[epath.Path, Roles]:
    """Returns the roles of the columns of each file; files of the same columns have the same.

    read: yields a file's rows. See `roles`.
    """
    files = list(files)
    size = max(50, _SAMPLE // max(1, len(files)))
    samples = {file: _sample(read(file), size) for file in files}
    keys = {file: frozenset(_keys([sample])) for file, sample in samples.items()}
    alike = {
        same: [samples[file] for file in files if keys[file] == same] for same in keys.values()
    }
    roles_of = {same: roles(together, counter) for same, together in alike.items()}
    return {file: roles_of[keys[file]] for file in files}


def roles(samples: list[list[Mapping[str, Any]]], counter: str = "id") -> Roles:
    """Returns the roles of the columns by their names and by the first rows of each file.

    A column `counter` that counts the rows of each file is no identity where another column may be
    one. A synonym of `split` is one where it holds a word for a split.
    """
    sample, keys = [row for rows in samples for row in rows], _keys(samples)
    identity, split = _identity(keys, samples, counter), _split(keys, sample)
    path = next((key for key in entry.PATH_KEYS if key in keys), None)
    used = {identity, split, path, packed.IMAGE}
    unused = (key or "(without a name)" for key in keys if key not in used and not is_caption(key))
    names = (row[key] for row in sample for key in entry.PATH_KEYS if isinstance(row.get(key), str))
    return Roles(identity, split, tuple(unused), any(map(folder_split, names)))


def folder_split(name: str) -> str | None:
    """Returns the split that the first or second folder in a relative name is called, or None."""
    folders = [part.lower() for part in name.replace("\\", "/").split("/")[:-1] if part != "."]
    return next((entry.SPLITS[one] for one in folders[:2] if one in entry.SPLITS), None)


def json_roles(files: Iterable[epath.Path], counter: str = "id") -> dict[epath.Path, Roles]:
    """Returns the roles of the keys of the records of JSON arrays."""
    return file_roles(files, iterate_json, counter)


def is_caption(key: str) -> bool:
    """Whether a column of this name holds captions."""
    return bool(_CAPTION.fullmatch(key))


def _sample(rows: Iterable[Any], size: int) -> list[Mapping[str, Any]]:
    read = []  # keeps what comes before a broken row
    try:
        for row in itertools.islice(rows, size):
            read.append(row)
    except InputError:
        pass  # reported where the file is read to its end
    return [row for row in read if isinstance(row, Mapping)]


def _keys(samples: Iterable[Iterable[Mapping[str, Any]]]) -> list[str]:
    return list(dict.fromkeys(str(key) for rows in samples for row in rows for key in row))


def _named(keys: Iterable[str], names: tuple[str, ...]) -> list[str]:
    plain = {key: re.sub(r"[\W_]", "", key.lower()) for key in keys}
    return sorted((k for k in plain if plain[k] in names), key=lambda k: names.index(plain[k]))


def _identity(keys: list[str], samples: list[list[Mapping[str, Any]]], counter: str) -> str | None:
    names = (*_PERSON, re.sub(r"[\W_]", "", counter), _LABEL)
    scalar = [key for key in _named(keys, names) if _is_scalar(key, samples)]
    first, second = [*scalar, None, None][:2]
    is_count = first == counter and second and not _repeats(first, samples)
    return second if is_count and _repeats(second, samples) else first


def _is_scalar(key: str, samples: list[list[Mapping[str, Any]]]) -> bool:
    values = [row[key] for rows in samples for row in rows if row.get(key) is not None]
    return not values or not all(isinstance(value, list | dict) for value in values)


def _repeats(key: str, samples: list[list[Mapping[str, Any]]]) -> bool:
    """Whether a value comes twice in one file."""
    files = ([str(row.get(key)) for row in rows] for rows in samples)
    return any(len(set(values)) < len(values) for values in files)


def _split(keys: list[str], sample: list[Mapping[str, Any]]) -> str | None:
    named = _named(keys, _SPLIT)
    candidates = [key for key in named if any(_is_split(row.get(key)) for row in sample)]
    plain = [key for key in named if key.lower() == "split"]
    return next(
        (key for key in plain if key in candidates or not candidates), next(iter(candidates), None)
    )


def _is_split(value: Any) -> bool:
    return str(value).strip().lower() in entry.SPLITS


def remarks(
    files: Iterable[epath.Path], roles_of: Mapping[epath.Path, Roles], split_of
) -> list[str]:
    """Returns the sentences on how the columns of a user's files are read.

    roles_of: {file: its roles}. split_of: returns the split in a file's name, or None.
    """
    files_of: dict[str, list[str]] = {}
    files = list(files)
    names = short_names(files)
    is_one = len({columns.identity for columns in roles_of.values()}) == 1
    usual = ("identity", "id", "image_id") if is_one else ()
    for file in files:
        columns = roles_of[file]
        for text in _remarks(columns, split_of(file), usual=usual):
            files_of.setdefault(text, []).append(names[file])
    return [f"{_some(names)}: {text}." for text, names in files_of.items()]


def short_names(files: Iterable[epath.Path]) -> dict[epath.Path, str]:
    """Returns each file's name, with as many of its folders as make all names differ."""
    files, length = list(files), 1
    names = {file: file.name for file in files}
    while len(set(names.values())) < len(names):
        length += 1
        names = {file: "/".join(file.parts[-length:]) for file in files}
    return names


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def same_split(files: Iterable[epath.Path], split_of) -> list[str]:
    """Returns a sentence for each split that comes from several files which are no shards."""
    files = list(files)
    names, groups = short_names(files), {}
    for file in files:
        if file.suffix.lower() not in packed.SUFFIXES:
            groups.setdefault(split_of(file), []).append(file)
    return [
        f"{' and '.join(names[file] for file in some)} are read as one"
        f"{f' {split} set' if split else ' set'}: captions of one image are joined; if one file "
        "replaces the other, move the old one elsewhere."
        for split, some in groups.items()
        if len(some) > 1
    ]


def _remarks(columns: Roles, split: str | None, usual: tuple[str, ...]) -> list[str]:
    sentences = []
    if columns.identity is None:
        sentences.append("no column holds the identity: each image is a separate person")
    elif columns.identity not in usual:
        sentences.append(f"the identity is read from column {columns.identity!r}")
    if columns.split is None and split is None and columns.by_folder:
        sentences.append("the split is read from the folders in the names of the images")
    elif columns.split is None and split is None:
        sentences.append("no column holds the split: all are train")
    elif columns.split not in ("split", None):
        sentences.append(f"the split is read from column {columns.split!r}")
    if columns.unused:
        sentences.append(f"columns that are not used: {', '.join(columns.unused)}")
    return sentences
