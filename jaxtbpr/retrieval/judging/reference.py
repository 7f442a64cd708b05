"""The reference images of stage measure: of another run, a built set or a data folder.

Only their paths are gathered at first; an image is read when it is measured.
"""

import dataclasses
import functools
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import PIL.Image
from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError
from jaxtbpr.core.images import ImageError, open_image
from jaxtbpr.core.seeds import words
from jaxtbpr.core.workdir import COMMIT, Workdir
from jaxtbpr.datasets import formats, rows
from jaxtbpr.datasets.source import RetrievalSet, index_path, list_splits


@dataclasses.dataclass(frozen=True)
class Image:
    """An image that has not been read.

    read: gives the encoded image; raises ImageError where its file cannot be read.
    """

    name: str
    read: Callable[[], bytes]

    def open(self) -> tuple[bytes, PIL.Image.Image]:
        """Returns (encoded image, the same in RGB). Raises ImageError where it cannot be used."""
        data = self.read()
        return data, open_image(data)


def fingerprint(folder: epath.PathLike, order: Sequence[str]) -> dict[str, Any]:
    """Returns the fingerprint of a reference; order: as for `images`.

    Raises InputError if it is none.
    """
    folder = epath.Path(folder).expanduser()
    if splits := list_splits(folder):
        return {split: files.sha256_of([index_path(folder, split)]) for split in splits}
    if name := _run(folder, order).name_before("measure"):
        return {name: files.sha256((folder / name / COMMIT).read_bytes())}
    try:
        form = formats.detect(folder)
    except InputError as error:
        raise InputError(_is_none(folder, str(error))) from error
    annotations = formats.annotation_files(folder, form)
    return {file.name: [file.stat().length, file.stat().mtime] for file in annotations}


def images(folder: epath.PathLike, split: str, order: Sequence[str]) -> Iterator[Image]:
    """Yields the images of a split of a built set, of another run or of a published data set.

    folder: WORKDIR/build/NAME, another run's WORKDIR, or a folder in a form that `formats` knows.
    order: the record stages of a run; the images are those of the last one that is finished.
    Raises InputError where it is none of these.
    """
    folder = epath.Path(folder).expanduser()
    if list_splits(folder):
        return _of_set(RetrievalSet(folder, split))
    run = _run(folder, order)
    if name := run.name_before("measure"):
        return of_records(run.manifest(name), split, folder)
    return _of_folder(folder, split)


def of_records(records: Iterable[dict], split: str, root: epath.Path) -> Iterator[Image]:
    """Yields the images of a split of a manifest, which lie below `root`."""
    for record in records:
        if record["split"] == split and "image" in record:
            path, digest = record["image"]["path"], record["image"]["sha256"]
            yield Image(record["id"], functools.partial(_read, root, path, digest))


def sample(items: Iterable[Any], most: int, seed: int, name: Callable[[Any], str]) -> list[Any]:
    """Returns at most `most` of `items`, random ones, in their order; 0 = all.

    name: tells one from another. The same ones whatever the order of the items.
    """
    if not most:
        return list(items)
    drawn = (
        (tuple(words(seed, "measure", name(item)).tolist()), place, item)
        for place, item in enumerate(items)
    )
    chosen = heapq.nsmallest(most, drawn, key=lambda one: one[:2])
    return [item for _, _, item in sorted(chosen, key=lambda one: one[1])]


def _is_none(folder: epath.Path, why: str) -> str:
    """What to say of a folder that has no images to compare with."""
    forms = "the WORKDIR of a run, WORKDIR/build/NAME of a built set, or a published folder"
    if not folder.is_dir():
        return f"{folder} does not exist; give {forms}."
    sets = sorted(child for child in folder.iterdir() if child.is_dir() and list_splits(child))
    if sets:
        return f"{folder} is none of {forms}; did you mean {sets[0]}?"
    return f"{folder} is none of {forms}: {why}"


def _run(folder: epath.Path, order: Sequence[str]) -> Workdir:
    return Workdir(folder, order, chosen=())


def _of_set(one: RetrievalSet) -> Iterator[Image]:
    # Whatever is in a built set has been decoded once.
    for k, name in enumerate(one.image_ids):
        yield Image(name, functools.partial(one.image_bytes, k))


def _of_folder(folder: epath.Path, split: str) -> Iterator[Image]:
    for entry in formats.read(folder, formats.detect(folder)):
        if entry.split != split:
            continue
        path = str(folder.absolute() / entry.path)
        yield Image(entry.name, functools.partial(_read, "", path, None, entry.problem))


def _read(root: epath.PathLike, path: str, sha256: str | None, problem: str = "") -> bytes:
    if problem:
        raise ImageError(problem, path)
    return rows.read_file(root, path, sha256)
