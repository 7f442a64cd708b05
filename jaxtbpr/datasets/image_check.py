"""Checks that the images of a data set exist and can be decoded."""

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
    images.DEEP: "images with more than 8 bits per channel, which are read with 8",
    images.TRANSPARENT: "images with transparent parts, which are read as if these were opaque",
}
BATCH = 1024
EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class ImageResult:
    """The result of checking an image.

    fault: why it cannot be used; None for a good image. traits: what is special about a good one
    that was decoded; see `images.traits_of`.
    """

    fault: images.ImageError | None = None
    traits: frozenset[str] = frozenset()


def examine(path: epath.PathLike, *, decode: bool = True) -> ImageResult:
    """Returns the result of checking the image at `path`.

    decode: all pixels are decoded, since a truncated file has a sound beginning.
    """
    try:
        if decode:
            return ImageResult(traits=images.check(path, read_bytes=packed.read_bytes)[1])
        is_there = packed.is_packed(path) or epath.Path(path).is_file()
        return (
            ImageResult()
            if is_there
            else ImageResult(images.unread(os.strerror(errno.ENOENT), path))
        )
    except images.ImageError as error:
        return ImageResult(error)
    except (
        OSError
    ) as error:  # a run stops where the disk fails; here the other images are reported, too
        return ImageResult(images.unread(error.strerror or str(error), path))


def result_of_row(row: Mapping[str, Any]) -> ImageResult:
    """Returns the result of a row that stage build has checked, by the reason it was rejected for.

    A reason that is not about the image is no fault of the image.
    """
    reason = row.get("rejected", {}).get("reason", "")
    fault = images.ImageError(reason, row["path"]) if reason.startswith("the image ") else None
    return ImageResult(fault, frozenset(row.get("traits", ())))


def examine_all(
    entries: Iterable[Entry], *, decode: bool = True
) -> Iterator[tuple[Entry, ImageResult]]:
    """Yields every entry with the result of its image; files are read by several threads.

    In the order of the entries. The image of one with a problem of its own is not looked at.
    """

    def find(entry: Entry) -> ImageResult:
        return ImageResult() if entry.problem else examine(entry.path, decode=decode)

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
    """What is wrong with the images, or special: counts, and the first few examples of each."""

    checked: int = 0
    missing: int = 0
    broken: int = 0
    notes: Notes = dataclasses.field(default_factory=Notes)
    examples: dict[str, list[tuple[str, str]]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )

    def add(self, name: str, result: ImageResult) -> None:
        """Counts the image of a usable entry."""
        self.checked += 1
        self.notes.add(name, (text for trait, text in NOTES.items() if trait in result.traits))
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
        existing = [name for name in names if folder != expected and (folder / name).is_file()]
        if existing:
            return _move(paths, folder, existing[0])
    for name in names:
        if other := _other_spelling(expected / name):
            return f"{other} exists, {posixpath.basename(name)} does not: names must match exactly."
    if archives := [one.name for one in _archives(paths.folder)]:
        return f"{archives[0]} was found: unpack it beside the annotation."
    if not expected.is_dir():
        return f"the folder {expected} does not exist: unpack the images into it."
    return ""


def _move(paths: ImagePaths, place: epath.Path, name: str) -> str:
    expected = paths.root
    if place.name.lower() in SPLITS:
        return (
            f"they are in {place} and similar folders: write {place.name}/{name} in the annotation."
        )
    key = f"or give --images={place}, in a run --config.build.images.NAME={place}."
    if expected.exists():
        return f"they are in {place}, not in {expected}: move them, {key}"
    there = f"{expected.name}/ does not exist, but images are in {place}"
    return f"{there}: rename it to {expected}, {key}"


def _archives(folder: epath.Path) -> list[epath.Path]:
    ends = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
    return sorted(path for path in folder.iterdir() if path.name.lower().endswith(ends))


def _places(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields the folder and two levels of folders in it; those beside it belong to others."""
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
