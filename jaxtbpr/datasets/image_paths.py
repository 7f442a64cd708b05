"""Where the images of an annotation are."""

import itertools
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from etils import epath

from jaxtbpr.datasets import entry

PROBES = 32
IMAGE_SUFFIXES: tuple[str, ...] = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif",
    ".jfif", ".jpe", ".jp2", ".ppm", ".pgm", ".tga",
)  # fmt: skip
_DRIVE = re.compile(r"[A-Za-z]:/|[A-Za-z][A-Za-z0-9+.-]+://")


class ImagePaths:
    """Turns the names of an annotation into paths.

    roots: folders to look in, relative to `folder` or absolute; the one that holds most of the
    first `PROBES` images is used for all (one decision for all, since looking for each image
    in each place would take minutes). shorten: names may carry the folders of another machine
    ("/home/ann/out/a.png"), so leading folders are dropped until an image is found, as many of all
    names that start at a root, and as many of all others.
    """

    def __init__(self, folder: epath.PathLike, roots: Iterable[str], *, shorten: bool = False):
        self.folder = epath.Path(folder)
        self.roots = [self.folder / root if root else self.folder for root in roots]
        self._shorten = shorten
        default = next((root for root in self.roots if root.is_dir()), self.roots[0])
        self._root = default
        self._places = {False: _Place(default, 0), True: _Place(default, 0)}

    @property
    def root(self) -> epath.Path:
        return self._root

    def __call__(self, name: str) -> str:
        """Returns the path of the image that the annotation calls `name`."""
        root, dropped = self._places[_is_absolute(name)]
        dropped = min(dropped, name.strip("/").count("/"))
        return next(_spellings(root, name, dropped), _join(root, name, dropped))

    def settle(self, names: Iterable[str], others: Callable[[], list[epath.Path]] = list) -> bool:
        """Chooses the root, and how many leading folders to drop, by which most images are found.

        others: returns roots to try where none is found. Returns whether one was found.
        """
        names = list(names)
        kinds = {kind: [n for n in names if _is_absolute(n) == kind] for kind in (False, True)}
        places = {
            kind: place
            for kind, some in kinds.items()
            if some and (place := self._best(some, self.roots) or self._best(some, others()))
        }
        self._places.update(places)
        self._root = next((place.root for place in places.values()), self._root)
        return bool(places)

    def peek(
        self, records: Iterable[Any], others: Callable[[], list[epath.Path]] = list
    ) -> Iterator[Any]:
        """Yields `records` unchanged after settling on where the first of them have images."""
        records = iter(records)
        head = list(itertools.islice(records, PROBES))
        self.settle(filter(None, map(_name_or_nothing, head)), others)
        return itertools.chain(head, records)

    def _best(self, names: list[str], roots: list[epath.Path]) -> "_Place | None":
        """Returns the place of most of `names`, the earlier of two of the same; None for none."""
        best, most, tried = None, 0, set()
        for name in names:
            place = self._first_place(name, roots)
            if place is None or place in tried:
                continue
            tried.add(place)
            count = sum(_is_there(place, one) for one in names)
            if count > most:
                best, most = place, count
            if most == len(names):
                break
        return best

    def _first_place(self, name: str, roots: list[epath.Path]) -> "_Place | None":
        drops = name.strip("/").count("/") + 1 if self._shorten else 1
        places = (_Place(root, n) for n, root in itertools.product(range(drops), roots))
        return next((place for place in places if _is_there(place, name)), None)


class _Place(NamedTuple):
    """Where images are: the folder, and how many leading folders of their names it replaces."""

    root: epath.Path
    dropped: int


def _is_there(place: _Place, name: str) -> bool:
    return any(epath.Path(path).is_file() for path in _spellings(place.root, name, place.dropped))


def _is_absolute(name: str) -> bool:
    """Whether a name starts at a root: "/data/a.jpg", "C:/data/a.jpg", "file:///data/a.jpg"."""
    return name.startswith("/") or bool(_DRIVE.match(name))


def _join(root: epath.Path, name: str, dropped: int) -> str:
    # "./a.jpg" and "a//b.jpg" are "a.jpg" and "a/b.jpg": an image has one path.
    parts = [part for part in name.strip("/").split("/")[dropped:] if part not in ("", ".")]
    if name.startswith("/") and not dropped:
        return name
    return posixpath.join(str(root), *parts)


def _spellings(root: epath.Path, name: str, dropped: int) -> Iterator[str]:
    """Yields the path of an image, if it is not plain ASCII only as a file that is there.

    "é" is one code point in most annotations and two on the disks of some systems: each part of
    the name is tried as it stands, composed and decomposed.
    """
    if name.isascii():
        yield _join(root, name, dropped)
        return
    parts = [
        dict.fromkeys([part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))])
        for part in name.split("/")
    ]
    for spelling in itertools.product(*parts):
        path = _join(root, "/".join(spelling), dropped)
        if epath.Path(path).is_file():
            yield path


def _name_or_nothing(record: Any) -> str:
    if isinstance(record, tuple) and record and isinstance(record[0], str):
        return record[0]
    try:
        return entry.image_name(record)
    except entry.BadRecord:
        return ""


def is_image(path: epath.PathLike) -> bool:
    """Whether the name has an image's extension."""
    return str(path).lower().endswith(IMAGE_SUFFIXES)
