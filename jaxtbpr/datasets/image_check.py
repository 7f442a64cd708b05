"""Are the images of a data set there, and do they decode?"""

import collections
import concurrent.futures
import dataclasses
import errno
import itertools
import os
import posixpath
import unicodedata
import urllib.parse
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core import images
from jaxtbpr.datasets import packed
from jaxtbpr.datasets.entry import SPLITS, Entry, Notes
from jaxtbpr.datasets.image_paths import IMAGE_SUFFIXES, ImagePaths

NOTES = {
    images.BLANK: "images of one colour, which show nobody",
    images.TURNED: "images with an EXIF orientation, by which a run turns them as viewers do "
    "unless build.exif=False (of stage photos: photos.exif)",
    images.DEEP: "images of more than 8 bits a colour, which are read with 8",
    images.TRANSPARENT: "images with transparent parts, which are read as if these were opaque",
}
BATCH = 1024
EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found of an image.

    fault: why it cannot be used; None for a good image. looks: what is special about a good one
    that was decoded; see `images.look`.
    """

    fault: images.ImageError | None = None
    looks: frozenset[str] = frozenset()


def examine(path: epath.PathLike, *, decode: bool = True) -> Found:
    """Returns what is found of the image at `path`.

    decode: all pixels are decoded, since a truncated file has a sound beginning.
    """
    try:
        if decode:
            return Found(looks=images.check(path, read_bytes=packed.read_bytes)[1])
        is_there = packed.is_packed(path) or epath.Path(path).is_file()
        return Found() if is_there else Found(images.unread(os.strerror(errno.ENOENT), path))
    except images.ImageError as error:
        return Found(error)
    except OSError as error:  # a run stops where the disk fails; here the others are told, too
        return Found(images.unread(error.strerror or str(error), path))


def found_of(row: Mapping[str, Any]) -> Found:
    """Returns the same of a row that stage build has checked, by the reason it was rejected for.

    A reason that is none of the image counts as no fault of it.
    """
    reason = row.get("rejected", {}).get("reason", "")
    fault = images.ImageError(reason, row["path"]) if reason.startswith("the image ") else None
    return Found(fault, frozenset(row.get("looks", ())))


def examine_all(entries: Iterable[Entry], *, decode: bool = True) -> Iterator[tuple[Entry, Found]]:
    """Yields every entry with what is found of its image; files are read by several threads.

    In the order of the entries. The image of one with a problem of its own is not looked at.
    """

    def find(entry: Entry) -> Found:
        return Found() if entry.problem else examine(entry.path, decode=decode)

    entries = iter(entries)
    with (
        warnings.catch_warnings(),
        concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) + 4) as threads,
    ):
        # `open_image` silences warnings too, but threads would restore each other's filters.
        warnings.simplefilter("ignore")
        while batch := list(itertools.islice(entries, BATCH)):
            yield from zip(batch, threads.map(find, batch), strict=True)


@dataclasses.dataclass
class ImageReport:
    """What is wrong with the images, or special: counts, and the first few of each kind."""

    checked: int = 0
    missing: int = 0
    broken: int = 0
    notes: Notes = dataclasses.field(default_factory=Notes)
    examples: dict[str, list[tuple[str, str]]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )

    def add(self, name: str, result: Found) -> None:
        """Counts the image of a usable entry."""
        self.checked += 1
        self.notes.add(name, (text for look, text in NOTES.items() if look in result.looks))
        fault = result.fault
        if fault and fault.is_missing:
            self.missing += 1
            self._keep("missing", name, fault)
        elif fault:
            self.broken += 1
            self._keep("broken", name, fault)

    def _keep(self, fault_kind: str, name: str, fault: images.ImageError) -> None:
        if len(self.examples[fault_kind]) < EXAMPLES:
            self.examples[fault_kind].append((name, fault.reason))


def where_missing_images_are(paths: ImagePaths, names: Iterable[str]) -> str:
    """Returns a sentence on how to fix missing images, or "" where no trace of them is found."""
    names = list(names)
    expected = paths.root
    for folder in _places(paths.folder):
        there = [name for name in names if folder != expected and (folder / name).is_file()]
        if there:
            return _move(paths, folder, there[0])
    for name in names:
        if other := _other_spelling(expected / name):
            return f"{other} is there, {posixpath.basename(name)} is not: names must agree exactly."
    if archives := [one.name for one in _archives(paths.folder)]:
        return f"{archives[0]} is there: unpack it beside the annotation."
    if not expected.is_dir():
        return f"the folder {expected} is not there: unpack the images into it."
    return ""


def _move(paths: ImagePaths, place: epath.Path, name: str) -> str:
    expected = paths.root
    if place.name.lower() in SPLITS:
        return f"they lie in {place} and the like: write {place.name}/{name} into the annotation."
    key = f"or give --images={place}, in a run --config.build.images.NAME={place}."
    if expected.exists():
        return f"they lie in {place}, not in {expected}: move them, {key}"
    return (
        f"{expected.name}/ is not there, but images lie in {place}: rename it to {expected}, {key}"
    )


def _archives(folder: epath.Path) -> list[epath.Path]:
    ends = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith(ends))


def _places(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields the folder, the folders in it and in those; what lies beside it is another's."""
    inside = _folders(folder)
    yield folder
    yield from inside
    for one in inside:
        yield from _folders(one)


def _folders(folder: epath.Path) -> list[epath.Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())[:64]


def _other_spelling(path: epath.Path) -> str:
    """Returns the name of a file that differs in ending, case or Unicode normal form only."""
    stem, suffix = posixpath.splitext(path.name)
    endings = (suffix, *IMAGE_SUFFIXES, *(end.upper() for end in IMAGE_SUFFIXES))
    stems = (unicodedata.normalize(form, stem) for form in ("NFC", "NFD"))
    stems = (*stems, urllib.parse.unquote(stem))
    stems = dict.fromkeys((*stems, stem.lower(), stem.upper()))
    for one in (head + ending for head in stems for ending in endings):
        if one != path.name and (path.parent / one).is_file():
            return one
    return ""
