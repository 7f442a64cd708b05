"""The person images of a run, read in one pass: counts, lengths of captions, a sample."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError
from jaxtbpr.core.images import ImageError, read
from jaxtbpr.datasets.source import SPLITS, RetrievalSet, list_splits


@dataclasses.dataclass(frozen=True)
class PersonImage:
    """One image of a person, from a manifest or from a data set.

    edits: what differs from the person's first image; read: returns the encoded image, None where
    the record has none yet. noise: per caption a list of [slot, true value, value in the caption
    or None], where it is known.
    """

    identity: str
    split: str
    prompt: str
    edits: tuple[str, ...]
    captions: tuple[str, ...]
    read: Callable[[], bytes] | None
    noise: tuple[list, ...] = ()


@dataclasses.dataclass
class Survey:
    """Counts over person images.

    images, identities, captions: per split; wrong, lacking: captions per split in which noise
    changed an attribute or left one out; lengths: {words of a caption: how many}; sample: some
    people, each a list of their images; has_images: whether any has an image.
    """

    images: collections.Counter
    identities: collections.Counter
    captions: collections.Counter
    wrong: collections.Counter
    lacking: collections.Counter
    lengths: collections.Counter
    sample: list[list[PersonImage]]
    has_images: bool = False


def from_manifest(root: epath.Path, records: Iterable[dict]) -> Iterator[PersonImage]:
    """Yields the images of a manifest's records; root: the folder that image paths start from."""
    for record in records:
        path = record.get("image", {}).get("path", "")
        yield PersonImage(
            identity=str(record.get("identity", record["id"])),
            split=record.get("split", ""),
            prompt=record.get("prompt", ""),
            edits=tuple(record.get("edits", ())),
            captions=tuple(record.get("captions", ())),
            read=_file_reader(root, path),
            noise=tuple(record.get("caption_noise", ())),
        )


def from_set(dataset: RetrievalSet, split: str) -> Iterator[PersonImage]:
    """Yields the images of one split of a built data set."""
    for index, captions in enumerate(dataset.captions):
        yield PersonImage(
            identity=dataset.identity_names[index],
            split=split,
            prompt="",
            edits=(),
            captions=tuple(captions),
            read=lambda index=index: dataset.image_bytes(index),
        )


def survey(images: Iterable[PersonImage], *, seed: int, people: int) -> Survey:
    """Counts `images` and samples `people` of their identities, all in one pass.

    The sample are the identities with the smallest hashes of (seed, identity): random, the same
    each time, and never more than `people` of them in memory.
    """
    result = Survey(*(collections.Counter() for _ in range(6)), sample=[])
    sample = _Sample(seed, people)
    seen = set()
    for image in images:
        result.images[image.split] += 1
        result.has_images |= image.read is not None
        result.captions[image.split] += len(image.captions)
        result.lengths.update(len(caption.split()) for caption in image.captions)
        result.wrong[image.split] += sum(any(value for *_, value in one) for one in image.noise)
        result.lacking[image.split] += sum(
            any(not value for *_, value in one) for one in image.noise
        )
        if (image.split, image.identity) not in seen:
            seen.add((image.split, image.identity))
            result.identities[image.split] += 1
        sample.add(image)
    result.sample = sample.people()
    # The splits in their usual order, whatever the order of the records.
    known = {split: count for split in SPLITS if (count := result.images.pop(split, 0))}
    result.images = collections.Counter(known | result.images)
    return result


class _Sample:
    """Keeps the images of the identities with the smallest hashes."""

    def __init__(self, seed: int, size: int):
        self._seed = seed
        self._size = size
        self._images: dict[bytes, list[PersonImage]] = {}

    def add(self, image: PersonImage) -> None:
        text = f"{self._seed} report {image.identity}"
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        self._images.setdefault(key, []).append(image)
        if len(self._images) > self._size:
            # A dropped identity cannot come back: the largest kept hash only decreases.
            del self._images[max(self._images)]

    def people(self) -> list[list[PersonImage]]:
        groups = [self._images[key] for key in sorted(self._images)]
        return [sorted(group, key=lambda image: bool(image.edits)) for group in groups]


class SetImages:
    """The images of built data sets by their ids; folder: that of stage build."""

    def __init__(self, folder: epath.Path):
        self._folder = folder
        self._open: dict[str, tuple[RetrievalSet, dict[str, int]]] = {}

    def read(self, set_name: str, image_id: Any) -> bytes:
        """Returns the encoded image `image_id` of `set_name`, for example "synthetic/test".

        Raises ImageError where the set has no such image, InputError where there is no such set.
        """
        dataset, places = self._opened(set_name)
        if str(image_id) not in places:
            raise ImageError("the image is no longer in its set", self._folder / set_name)
        return dataset.image_bytes(places[str(image_id)])

    def looks(self, set_name: str) -> dict[str, dict[str, str]]:
        """Returns {image id: {slot: value}} of the images whose attributes are known."""
        try:
            dataset, _ = self._opened(set_name)
        except InputError:  # the set is gone: nothing is known of its images
            return {}
        pairs = zip(dataset.image_ids, dataset.facts, strict=True)
        return {name: facts["shown"] for name, facts in pairs if facts}

    def digest(self, set_name: str) -> str | None:
        """Returns a digest of the images of a set, their names and bytes, in whatever order.

        None where the set is gone. Raises ImageError with their number where images of it cannot
        be read.
        """
        name, _, split = set_name.rpartition("/")
        if split not in list_splits(self._folder / name):
            return None
        dataset, _ = self._opened(set_name)
        lines, faults = [], []
        for number, image_id in enumerate(dataset.image_ids):
            try:
                lines.append(f"{image_id} {files.sha256(dataset.image_bytes(number))}")
            except Exception as error:  # TFDS and its files fail in many ways if they are damaged
                faults.append(error)
        if faults:
            counts = f"{len(faults):,} of the {len(dataset):,} images of {set_name}"
            raise ImageError(f"{counts} in {self._folder} cannot be read")
        return files.sha256("\n".join(sorted(lines)).encode())

    def _opened(self, set_name: str) -> tuple[RetrievalSet, dict[str, int]]:
        if set_name not in self._open:
            name, _, split = set_name.rpartition("/")
            dataset = RetrievalSet(self._folder / name, split)
            places = {str(image_id): n for n, image_id in enumerate(dataset.image_ids)}
            self._open[set_name] = (dataset, places)
        return self._open[set_name]


def _file_reader(root: epath.Path, path: str) -> Callable[[], bytes] | None:
    return (lambda: read(root / path)) if path else None
