"""Which files of a data set's folder may be annotation, by their names and places alone."""

import re
from collections.abc import Iterable

from etils import epath

from jaxtbpr.datasets import entry, packed, reid_json, sidecar, tables

# Forms that no reader opens, each with what to do.
_SPREADSHEETS = dict.fromkeys((".xlsx", ".xls", ".ods"), "is a spreadsheet; save it as CSV UTF-8")
_COMPRESSED = dict.fromkeys((".gz", ".bz2", ".xz", ".zst"), "is compressed; unpack it")
_ARCHIVES = dict.fromkeys((".zip", ".7z", ".rar"), "is an archive; unpack it")
_ARCHIVES |= {".tgz": "is compressed; unpack it"}
_BINARY = (".pkl", ".pickle", ".feather", ".arrow", ".orc", ".h5", ".hdf5", ".npy", ".npz", ".mat")
_OTHERS = (*_BINARY, ".yaml", ".yml", ".xml", ".dat", ".lst")
FOREIGN = {**_SPREADSHEETS, **_COMPRESSED, **_ARCHIVES}
FOREIGN |= dict.fromkeys(_OTHERS, "is in a form that is not read; save it as CSV UTF-8 or parquet")

_WORDS = r"(?:^|[_\-. ])({})(?:s?[_\-. ]|s?$)"
_TEST = re.compile(_WORDS.format("query|gallery|probe|eval|evaluation|holdout"), re.I)
_ANNOTATION = re.compile(_WORDS.format("caption|annotation|anno|metadata|label"), re.I)
_PLACES = {"annotations", "annotation", "anno", "captions", "caption", "labels", "metadata", "data"}
_PLACES |= {"splits", "split", "lists", "meta", "csv", "json", "text", "texts", "ann", "anns"}
_PLACES |= {"query", "gallery", "probe", *entry.SPLITS}
_MANY = 20  # files of one folder, beyond which each is of a single image


def is_annotation_like(path: epath.Path) -> bool:
    """Whether a file has the extension of a table or of a JSON annotation."""
    suffix = path.suffix.lower()
    if path.name.startswith((".", "~$")) or _is_of_img2dataset(path):
        return False
    if suffix == ".txt":
        return bool(_ANNOTATION.search(path.stem) or tables.file_split(path))
    return suffix in (*_SPREADSHEETS, *tables.SUFFIXES) or _is_packed_table(path)


def is_archive(path: epath.Path) -> bool:
    """Whether a file has the extension of an archive."""
    return path.suffix.lower() in (*_ARCHIVES, *_COMPRESSED, ".tar", ".tgz")


def is_perhaps(path: epath.Path) -> bool:
    """Whether a file may be annotation, or anything else: archives, arrays, lists of names."""
    suffix = path.suffix.lower()
    is_one = suffix in (*_ARCHIVES, *_COMPRESSED, *_OTHERS, ".txt") or is_renamed(path)
    return is_one and not path.name.startswith(".") and not _is_packed_table(path)


def is_renamed(path: epath.Path) -> bool:
    """Whether a name is a table's with more after it (test.csv.part), or that of a split alone."""
    inner = epath.Path(path.stem).suffix.lower()
    is_copy = path.suffix.lower() not in tables.SUFFIXES and _is_text(inner)
    return path.name.lower() in entry.SPLITS or (is_copy and not _is_packed_table(path))


def _is_packed_table(path: epath.Path) -> bool:
    is_packed = path.suffix.lower() in (*_COMPRESSED, *_ARCHIVES)
    return is_packed and _is_text(epath.Path(path.stem).suffix.lower())


def _is_text(suffix: str) -> bool:
    return suffix in set(tables.SUFFIXES) - set(packed.SUFFIXES)


def split_of_path(folder: epath.Path, file: epath.Path) -> str | None:
    """Returns the split in a file's name or folder, if any; queries and a gallery are test."""
    parts = (file.stem, *file.relative_to(folder).parts[:-1])
    return tables.table_split(folder, file) or ("test" if any(map(_TEST.search, parts)) else None)


def is_named_alike(file: epath.Path, taken: Iterable[epath.Path]) -> bool:
    """Whether a name has nothing but a split, or what the names of `taken` have, too."""
    plain = epath.Path(file.name.partition(".")[0])
    prefix = reid_json.set_prefix(plain.with_name(_TEST.sub("", plain.name) or "test"))
    return prefix in {"", *map(reid_json.set_prefix, taken)} or bool(_ANNOTATION.search(prefix))


def beside(folder: epath.Path, taken: Iterable[epath.Path]) -> list[epath.Path]:
    """Returns the other files that may be annotation: in the folder, in the folders of `taken`, and
    in those that are called as splits or annotations are.
    """
    taken = list(taken)
    folders = dict.fromkeys([folder, *(file.parent for file in taken if not file.is_dir())])
    others = (place for one in (folder, folder / "data") for place in _named_places(one))
    files = [file for place in folders for file in _files(place)]
    for place in others:
        inside = _files(place) if place not in folders else []
        files += inside if len(inside) <= _MANY else []
    return [
        file for file in dict.fromkeys(files) if file not in taken and not _is_beside(file, taken)
    ]


def _is_beside(file: epath.Path, taken: list[epath.Path]) -> bool:
    """Whether a file is a text beside an image, in a folder that is read as a whole."""
    return file.suffix.lower() in sidecar.SUFFIXES and file.parent in taken


def _named_places(folder: epath.Path) -> list[epath.Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.lower() in _PLACES and p.is_dir())


def _files(place: epath.Path) -> list[epath.Path]:
    """Links to nothing are files, too, and so is a folder of the parts of a table."""
    named = (path for path in place.iterdir() if is_annotation_like(path) or is_perhaps(path))
    return sorted(p for p in named if p.suffix.lower() in tables.SUFFIXES or not p.is_dir())


def _is_of_img2dataset(path: epath.Path) -> bool:
    """Whether a file only lists what img2dataset put into the shard or folder of its name."""
    shard = path.parent / path.name.removesuffix("_stats.json").removesuffix(".parquet")
    return path.suffix.lower() in (".json", ".parquet") and (
        shard.name != path.name
        and ((path.parent / f"{shard.name}.tar").is_file() or shard.is_dir())
    )
