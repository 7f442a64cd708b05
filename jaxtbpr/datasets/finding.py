"""How the form of a data set is detected from its files, and the error where none fits."""

import difflib
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import annotation_names, coco, leftover, reid_json, tables
from jaxtbpr.datasets.image_paths import is_image
from jaxtbpr.datasets.json_stream import first_element

Find = Callable[[epath.Path], list[epath.Path]]

NAMES = (
    "reid_raw.json",
    "caption_all.json",
    "ICFG-PEDES.json",
    "data_captions.json",
    "train_reid.json",
    "test_reid.json",
    "synthpedes_dataset.json",
    "g_4x_attrs.json",
)


_LUPERSON = re.compile(r"t[sd][-_]|.*(static|dynamic)", re.I)


def named(*names: str) -> Find:
    """Finds the first of `names`."""
    return lambda folder: [folder / name for name in names if (folder / name).is_file()][:1]


def each(*names: str) -> Find:
    """Finds all of `names` that are there."""
    return lambda folder: [folder / name for name in names if (folder / name).is_file()]


def globbed(*patterns: str) -> Find:
    """Finds the files of the first pattern that matches any, sorted by name."""

    def find(folder: epath.Path) -> list[epath.Path]:
        matches = (files.matches(folder, pattern) for pattern in patterns)
        return next(filter(None, matches), [])

    return find


def keyed(keys: set[str], *, ending: str = "", listed: str = "") -> Find:
    """Finds the JSON arrays whose first record has all `keys`, and one ending with `ending`.

    listed: a key that must hold a list.
    """

    def fits(file: epath.Path) -> bool:
        first = _first(file)
        if not isinstance(first, Mapping) or not keys <= set(first):
            return False
        is_listed = not listed or isinstance(first[listed], list)
        return is_listed and any(str(key).endswith(ending) for key in first)

    return lambda folder: [file for file in _json_files(folder) if fits(file)]


def dictionaries(*places: str, luperson: bool = False) -> Find:
    """Finds JSON objects that map image names to captions, in the first place with any.

    luperson: only those named like LUPerson-MLLM's files, else only others.
    """

    def fits(file: epath.Path) -> bool:
        first = _first(file)
        if not (isinstance(first, tuple) and is_image(first[0])):
            return False
        return isinstance(first[1], str | list) and bool(_LUPERSON.match(file.stem)) == luperson

    def find(folder: epath.Path) -> list[epath.Path]:
        candidates = (
            [file for file in _json_files(folder / place) if fits(file)] for place in places
        )
        return next(filter(None, candidates), [])

    return find


def coco_captions(folder: epath.Path) -> list[epath.Path]:
    """Finds COCO captions and Karpathy's splits, in the folder or in annotations/."""
    for place in (folder, folder / "annotations"):
        if files_of_place := [file for file in _json_files(place) if _is_coco(file)]:
            return files_of_place
    return []


def tabular(folder: epath.Path) -> list[epath.Path]:
    """Finds the tables of a user's folder: in it, else in its folders of splits, or in data/.

    train/metadata.csv and test/metadata.csv are Hugging Face's imagefolder.
    """
    if _is_processed_data(folder) or not folder.is_dir():
        return []
    data = folder / "data"
    for places in ([folder], tables.split_folders(folder), [data], tables.split_folders(data)):
        table_files = [
            file for place in places for file in _annotations(place) if tables.is_readable(file)
        ]
        if table_files:
            return table_files
    return []


class Unknown(InputError):
    """A folder whose files are in no known form."""


def not_recognised(folder: epath.Path, match: Callable[[epath.Path], Any]) -> InputError:
    """Returns the error that says why `folder` is no data set and what to do.

    match: returns the form of a folder, with a title, or None.
    """
    if folder.is_file():
        if annotation_names.is_archive(folder):
            sentence = f"{folder} is an archive; unpack it, and give the folder that comes out."
        else:
            sentence = f"{folder} is a file; give the folder that holds it, {folder.parent}."
        return InputError(sentence)
    if not folder.is_dir():
        return InputError(f"{folder} does not exist; check the path.")
    if other := _right_level(folder, match):
        return InputError(other)
    hints = _near_names(folder)
    sentence = f"{folder} is not recognised as a data set; {'; '.join(hints)}."
    if others := [file.name for file in _annotations(folder) if _is_other_table(file)]:
        sentence += (
            f" In {', '.join(others[:3])} name the column with the image files 'file_path' and the"
            " one with the captions 'caption'; 'identity' and 'split' are read, too."
        )
    return Unknown(sentence)


def _is_other_table(file: epath.Path) -> bool:
    """Whether a file has columns, though not those of images and captions."""
    try:
        keys = [] if near_name(file) else tables.columns(file)
    except InputError:
        return False
    return bool(keys) and not tables.is_table(keys) and not any(map(is_image, keys))


def _right_level(folder: epath.Path, match: Callable[[epath.Path], Any]) -> str:
    inside = [(child, form) for child in _folders(folder) if (form := match(child))]
    if inside:
        names = ", ".join(f"{child} ({form.title})" for child, form in inside)
        return f"{folder} is one level too high; give a folder in it that is a data set: {names}."
    for above in list(folder.absolute().parents)[:2]:
        if form := match(above):
            return f"{folder} is part of a data set; give {above} ({form.title})."
    return ""


def _near_names(folder: epath.Path) -> list[str]:
    foreign = [path for path in folder.iterdir() if path.suffix.lower() in annotation_names.FOREIGN]
    hints = [
        f"{file.name} {annotation_names.FOREIGN[file.suffix.lower()]}"
        for file in sorted(foreign)[:3]
    ]
    for file in [file for file in _annotations(folder) if file not in foreign]:
        if near := near_name(file):
            hints.append(f"{file.name} is similar to {near}: rename it if it is that file")
        else:
            hints.append(f"{file.name} {leftover.why_not(file)[0]}")
    return hints or _only_images(folder)


def _only_images(folder: epath.Path) -> list[str]:
    if any(is_image(path) for path in folder.iterdir()):
        return ["it holds images but no annotation; add a captions.csv"]
    advice = "`python -m jaxtbpr.datasets.validate FOLDER` lists the forms that are read"
    return [f"it holds neither annotation nor images; {advice}"]


def near_name(file: epath.Path) -> str | None:
    """Returns the well-known annotation name that a JSON file's name is most similar to, if any."""
    if file.suffix.lower() != ".json" or not reid_json.set_prefix(file):
        return None  # "train.json" is a fine name
    if not isinstance(_first(file), Mapping):
        return None  # the well-known ones are arrays of records
    plain = {name.lower(): name for name in NAMES}
    near = difflib.get_close_matches(file.name.lower(), plain, n=1, cutoff=0.6)
    return plain[near[0]] if near and plain[near[0]] != file.name else None


def _annotations(folder: epath.Path) -> list[epath.Path]:
    if not folder.is_dir():
        return []
    # An imgs/ folder may hold a million files: only names are looked at, nothing is opened.
    named = [path for path in folder.iterdir() if annotation_names.is_annotation_like(path)]
    return sorted(path for path in named if path.is_file())


def _json_files(folder: epath.Path) -> list[epath.Path]:
    if _is_processed_data(folder):
        return []
    return [path for path in _annotations(folder) if path.suffix.lower() == ".json"]


def _is_processed_data(folder: epath.Path) -> bool:
    # RaSa's folder of annotations: its images lie beside it, so the folder above is the data set.
    return folder.name == "processed_data"


def _is_coco(file: epath.Path) -> bool:
    status = file.stat()
    return _is_coco_cached(str(file), status.length, status.mtime)


@functools.lru_cache(maxsize=256)
def _is_coco_cached(file: str, length: int, changed: float) -> bool:
    return coco.is_coco(epath.Path(file))


def _folders(folder: epath.Path) -> list[epath.Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())[:64]


def _first(file: epath.Path) -> Any:
    status = file.stat()
    return _first_cached(str(file), status.length, status.mtime)


@functools.lru_cache(maxsize=256)
def _first_cached(file: str, length: int, changed: float) -> Any:
    # Several forms ask for the same file's first record; length and mtime tell when it is new.
    try:
        return first_element(file)
    except InputError:
        return None
