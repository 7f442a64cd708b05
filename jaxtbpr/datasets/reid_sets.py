"""Readers of re-identification sets, which have people but no captions: Market-1501 and MSMT17.

Market-1501 (ICCV 2015; DukeMTMC-reID and others are packed alike): bounding_box_train/, query/ and
bounding_box_test/ of 0002_c1s1_000451_03.jpg, which is person, camera and more. MSMT17 (CVPR 2018):
list_train.txt, list_val.txt, list_query.txt and list_gallery.txt of lines "PATH NUMBER", with paths
below train/ or test/, each of which numbers its people from 0.
"""

import collections
import re
from collections.abc import Callable, Iterable, Iterator

from etils import epath

from jaxtbpr.datasets import entry
from jaxtbpr.datasets.entry import Entry
from jaxtbpr.datasets.image_paths import PROBES, ImagePaths, is_image
from jaxtbpr.datasets.json_stream import open_text
from jaxtbpr.datasets.merging import merge_by_image

_FOLDERS = {"bounding_box_train": "train", "query": "test", "bounding_box_test": "test"}
_LISTS = {
    "list_train.txt": ("train", "train"),
    "list_val.txt": ("train", "val"),
    "list_query.txt": ("test", "test"),
    "list_gallery.txt": ("test", "test"),
}  # the half that the paths are below, and the split
_HALVES = ("{}", "mask_{}_v2", "{}_v2", "bounding_box_{}", "")
_NAME = re.compile(r"(-?\d+)_?c\d+")
_LINE = re.compile(r"\s*(.+\S)\s+(\d+)\s*")


def find(folder: epath.Path) -> list[epath.Path]:
    """Finds MSMT17's lists, or else the folders of Market-1501."""
    if not folder.is_dir():
        return []
    lists = [folder / name for name in _LISTS if (folder / name).is_file()]
    if any(map(_is_list, lists)):
        return lists  # the bad lines of a damaged one are reported
    folders = [folder / name for name in _FOLDERS if (folder / name).is_dir()]
    return folders if any(one.name != "query" for one in folders) else []


def read(folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths) -> Iterator[Entry]:
    """Yields one entry per image of a person, without captions.

    query and gallery are test. Market-1501's junk (-1) and background (0000 in bounding_box_test)
    show no known person and are left out, see `remarks`. MSMT17's people are called train-17
    and test-17; the images of list_val.txt are train where they show people of list_train.txt.
    """
    files = list(files)
    read_them = _read_lists if _are_lists(files) else _read_folders
    yield from merge_by_image(read_them(files, paths), once=True)


def remarks(files: Iterable[epath.Path]) -> list[str]:
    """Returns what is left out of such a set, or moved: one sentence each."""
    files = list(files)
    if _are_lists(files):
        lines = {file.name: list(_lines(file)) for file in files}
        shared = _shared(lines)
        sentences = (
            f"list_val.txt: its images ({len(lines.get('list_val.txt', ())):,}) are train, since "
            f"people of it ({len(shared):,}) are in list_train.txt, too."
        )
        return [sentences] if shared else []
    counts: collections.Counter[str] = collections.Counter()
    for one in _photos(files):
        counts[one[2]] += 1
    kinds = {"junk": "junk (-1)", "background": "background (0000 in bounding_box_test)"}
    return [
        f"images of {text}, which show no known person, are left out: {counts[kind]:,}."
        for kind, text in kinds.items()
        if counts[kind]
    ]


def how_to_caption(folder: epath.PathLike) -> str:
    """Returns why such a set cannot be trained or tested on, and the command that captions it."""
    return (
        "no image has a caption: it is a set of people for re-identification. A model writes "
        "captions in a run of\n"
        f"python -m jaxtbpr.main --config=configs/photos.py --config.photos.folder={folder}\n"
        "or put a captions.csv with the columns file_path, caption, identity, split into it."
    )


def _are_lists(files: list[epath.Path]) -> bool:
    return any(file.suffix == ".txt" for file in files)


def _read_folders(folders: list[epath.Path], paths: ImagePaths) -> Iterator[Entry]:
    for name, person, kind, split in _photos(folders):
        if kind == "stray":
            yield entry.reject(name, "has a name that does not begin as 0002_c1 does", split)
        elif kind == "person":
            yield Entry(paths(name), (), person, split, {"image_id": name})


def _photos(folders: Iterable[epath.Path]) -> Iterator[tuple[str, str, str, str]]:
    """Yields (name, person, kind, split) of each image."""
    named = {
        folder.name: [(path.name, _NAME.match(path.name)) for path in sorted(folder.iterdir())
                      if is_image(path)]
        for folder in folders
    }  # fmt: skip
    asked = {match[1] for _, match in named.get("query", ()) if match}
    for folder, photos in named.items():
        for name, match in photos:
            person, kind = match[1] if match else "", "person"
            if not match:
                kind = "stray"
            elif person.startswith("-"):
                kind = "junk"
            elif folder == "bounding_box_test" and int(person) == 0 and person not in asked:
                kind = "background"
            yield f"{folder}/{name}", person, kind, _FOLDERS[folder]


def _read_lists(files: list[epath.Path], paths: ImagePaths) -> Iterator[Entry]:
    lines = {file.name: list(_lines(file)) for file in files}
    is_shared = bool(_shared(lines))
    for file, listed in lines.items():
        half, split = _LISTS[file]
        split = half if is_shared else split
        above = _half(half, [name for name, _ in listed if name], paths)
        for number, (name, person) in enumerate(listed, 1):
            if name:
                yield Entry(
                    paths(above(name)), (), f"{half}-{person}", split, {"image_id": above(name)}
                )
            else:
                yield entry.reject(f"line {number} of {file}", "is not a path and a number", split)


def _half(half: str, names: list[str], paths: ImagePaths) -> Callable[[str], str]:
    """Returns what puts the folder of a half before a name: the first with one of its images."""

    def above(form: str) -> Callable[[str], str]:
        place = form.format(half)
        return lambda name: f"{place}/{name}" if place else name

    prefixes = (one for one in map(above, _HALVES) if paths.settle(map(one, names[:PROBES])))
    return next(prefixes, above("{}"))


def _shared(lines: dict[str, list[tuple[str, str]]]) -> set[str]:
    """Returns the people of list_val.txt who are in list_train.txt."""
    train, val = (
        {person for name, person in lines.get(file, ()) if name}
        for file in ("list_train.txt", "list_val.txt")
    )
    return train & val


def _lines(file: epath.Path) -> Iterator[tuple[str, str]]:
    """Yields (path, person) of each line, ("", "") for one that is not of this form."""
    with open_text(file, errors="replace") as text:
        for line in filter(str.strip, text):
            match = _LINE.fullmatch(line)
            if match and is_image(match[1]):
                yield match[1].replace("\\", "/"), str(int(match[2]))
            else:
                yield "", ""


def _is_list(file: epath.Path) -> bool:
    return bool(next(_lines(file), ("", ""))[0])
