"""Image files of a data set's folder that no record names: a forgotten camera, a cut annotation."""

import os

from jaxtbpr.core import files
from jaxtbpr.datasets import packed
from jaxtbpr.datasets.entry import Entry
from jaxtbpr.datasets.image_paths import is_image

_EXAMPLES = 3


class Unlisted:
    """Gathers the images that records name, then lists the folders that hold them.

    Holds 8 bytes an image. Folders in a cloud are not listed.
    """

    def __init__(self) -> None:
        self._named: set[int] = set()
        self._folders: set[str] = set()

    def add(self, entry: Entry) -> None:
        if entry.path and not packed.is_packed(entry.path) and files.is_local(entry.path):
            path = os.path.normpath(entry.path)
            self._named.add(hash(path))
            self._folders.add(os.path.dirname(path))

    def find(self, root: str) -> tuple[int, list[str]]:
        """Returns (number, first names) of other images in these folders, and in those beside them.

        root: the folder of all images; what is outside it belongs to others.
        """
        root, count, names = os.path.normpath(root), 0, []
        for folder in sorted({*self._folders, *self._beside(root)}):
            for name in _images(folder):
                path = os.path.join(folder, name)
                if hash(path) not in self._named:
                    count += 1
                    names += [os.path.relpath(path, root)] if count <= _EXAMPLES else []
        return count, names

    def _beside(self, root: str) -> set[str]:
        above = {os.path.dirname(folder) for folder in self._folders if folder != root}
        inside = (one for one in above if one == root or one.startswith(root + os.sep))
        return {os.path.join(one, name) for one in inside for name in _folders(one)}


def _images(folder: str) -> list[str]:
    return [one.name for one in _entries(folder) if is_image(one.name) and os.path.isfile(one.path)]


def _folders(folder: str) -> list[str]:
    return [one.name for one in _entries(folder) if os.path.isdir(one.path)]


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as listing:
            entries = [one for one in listing if not one.name.startswith(".")]
    except OSError:
        return []  # missing images are reported as such
    return sorted(entries, key=lambda one: one.name)
