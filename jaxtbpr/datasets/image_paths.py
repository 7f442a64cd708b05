"""Where the images of an annotation lie."""

import itertools
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from jaxtbpr.datasets import entry

PROBES = 32
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


class ImagePaths:
    """Turns the names of an annotation into paths.

    roots: folders to look in, relative to `folder` or absolute; the first that holds one of the
    first `PROBES` images is used for all. shorten: names may carry the folders of another machine
    ("/home/ann/out/a.png"), so leading folders are dropped until an image is found.
    """

    def __init__(self, folder: epath.PathLike, roots: Iterable[str], *, shorten: bool = False):
        self.folder = epath.Path(folder)
        self.roots = [self.folder / root if root else self.folder for root in roots]
        self._shorten = shorten
        self._root = next((root for root in self.roots if root.is_dir()), self.roots[0])
        self._dropped = 0

    @property
    def root(self) -> epath.Path:
        return self._root

    def __call__(self, name: str) -> str:
        """Returns the path of the image that the annotation calls `name`."""
        dropped = min(self._dropped, name.strip("/").count("/"))
        return next(_spellings(self._root, name, dropped), _join(self._root, name, dropped))

    def settle(self, names: Iterable[str]) -> bool:
        """Chooses the root, and how many leading folders to drop, by the first image found.

        Returns whether one was found.
        """
        for name in names:
            drops = name.strip("/").count("/") + 1 if self._shorten else 1
            for dropped, root in itertools.product(range(drops), self.roots):
                if any(epath.Path(p).is_file() for p in _spellings(root, name, dropped)):
                    self._root, self._dropped = root, dropped
                    return True
        return False

    def peek(self, records: Iterable[Any]) -> Iterator[Any]:
        """Yields `records` unchanged after settling on where the first of them have images."""
        records = iter(records)
        head = list(itertools.islice(records, PROBES))
        self.settle(filter(None, map(_name_or_nothing, head)))
        return itertools.chain(head, records)


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
    """Whether the name ends as an image's does."""
    return str(path).lower().endswith(IMAGE_SUFFIXES)
