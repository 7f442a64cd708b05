"""Reading a built set: its images at random access, its captions and identities at once."""

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from jaxtbpr.core import files, images
from jaxtbpr.core.errors import InputError

SPLITS = ("train", "val", "test")


def list_splits(directory: epath.PathLike) -> list[str]:
    """Returns which of train, val, test the set in `directory` (WORKDIR/build/NAME) has."""
    directory = epath.Path(directory)
    return [split for split in SPLITS if index_path(directory, split).exists()]


def list_sets(directory: epath.PathLike, split: str) -> list[str]:
    """Returns the names of the sets in `directory` (WORKDIR/build) that have `split`, sorted."""
    directory = epath.Path(directory)
    names = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
    return [name for name in names if split in list_splits(directory / name)]


def find_built(folder: epath.Path, split: str | None = None) -> epath.Path | None:
    """Returns the folder of the built set that `folder` names; None where it names none.

    folder: WORKDIR/build/NAME, the TFDS set in it, or WORKDIR or WORKDIR/build where only one set
    has `split` (None: any). Raises InputError where several have, or none has.
    """
    above = folder.parent.parent if (folder / "dataset_info.json").exists() else folder
    for one in (folder, above):
        if list_splits(one):
            return one
    for place in (folder, folder / "build"):
        sets = list(dict.fromkeys(name for each in SPLITS for name in list_sets(place, each)))
        if sets:
            matching = list_sets(place, split) if split else sets
            if len(matching) == 1:
                return place / matching[0]
            these = ", ".join(str(place / name) for name in matching or sets)
            what = f"split {split!r}" if split else "a split"
            fault = "several sets have" if matching else "none of its sets has"
            raise InputError(f"{folder} is a run, and {fault} {what}: name one of {these}.")
    return None


def index_path(directory: epath.PathLike, split: str) -> epath.Path:
    """Returns the file with image id, identity and captions of each image, one JSON line each."""
    return epath.Path(directory) / f"{split}.jsonl"


def file_stem(set_name: str) -> str:
    """Returns the stem of file names about a split: "synthetic__test" for "synthetic/test"."""
    return set_name.replace("/", "__")


class ImageSource(Sequence):
    """The encoded images of one split, by number; cheap to send to another process."""

    def __init__(self, directory: epath.PathLike, split: str):
        self.directory, self.split = epath.Path(directory), split

    def __len__(self) -> int:
        return self._builder.info.splits[self.split].num_examples

    def __getitem__(self, i: int) -> bytes:
        # Only the image is taken out, at ten times the speed of decoding all features.
        example = tf_example_pb2.Example.FromString(self._example(i))
        return example.features.feature["image"].bytes_list.value[0]

    def open(self, i: int) -> Image.Image:
        """Returns image i decoded, see `images.open_image`; an ImageError names it and its set."""
        with images.at(f"image {i} of {self.directory}, split {self.split!r},"):
            return images.open_image(self[i])

    def _example(self, i: int) -> bytes:
        count = self._builder.info.splits[self.split].num_examples
        if not -count <= i < count:
            raise IndexError(f"image {i} of {count}")
        try:
            data, reason = self._raw[i], "a record is empty"
        except (RuntimeError, ValueError, IndexError) as error:  # array_record's errors for damage
            data, reason = b"", str(error)
        if not data:
            raise InputError(
                f"the images of {self.directory}, split {self.split!r}, cannot be read ({reason}): "
                f"a file there was cut short or changed; delete {self.directory.parent} and run "
                "stage 'build' again."
            )
        return data

    def record(self, i: int) -> dict[str, Any]:
        """Returns all features of image i, the image encoded."""
        decoders = {"image": tfds.decode.SkipDecoding()}
        return self._builder.info.features.deserialize_example_np(
            self._example(i), decoders=decoders
        )

    @functools.cached_property
    def _builder(self) -> tfds.core.DatasetBuilder:
        infos = files.matches(self.directory, "*/*/dataset_info.json")
        if len(infos) != 1:
            raise InputError(
                f"{self.directory} holds {len(infos)} finished TFDS sets where one belongs; "
                "run stage 'build', or give the folder of one set below WORKDIR/build."
            )
        return tfds.builder_from_directory(files.LiteralPath(infos[0].parent))

    @functools.cached_property
    def _raw(self) -> Sequence[bytes]:
        method = tfds.decode.DeserializeMethod.RAW_BYTES
        return self._builder.as_data_source(self.split, deserialize_method=method)

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "split": self.split}


def _no_split(directory: epath.Path, split: str) -> str:
    there = list_splits(directory)
    if not there:
        return f"{directory} is not a built set; run stage 'build' with it, or name another set."
    return f"{directory} has no split {split!r}, only {there}; name one of these, or another set."


class RetrievalSet:
    """One split of a built set.

    directory: WORKDIR/build/NAME. Raises InputError where the set or the split is missing.
    """

    def __init__(self, directory: epath.PathLike, split: str):
        self.directory, self.split = epath.Path(directory), split
        self.images = ImageSource(self.directory, split)
        if split not in list_splits(self.directory):
            raise InputError(_no_split(self.directory, split))

    @property
    def name(self) -> str:
        """The set's name with the split: "synthetic/test"."""
        return f"{self.directory.name}/{self.split}"

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image_ids)

    @property
    def captions(self) -> list[tuple[str, ...]]:
        """The captions of each image, at least one."""
        return self._index[0]

    @property
    def identities(self) -> np.ndarray:
        """The identity of each image: int64 [N], dense from 0 over all splits of the set."""
        return self._index[1]

    @property
    def image_ids(self) -> list[str]:
        """The name of each image."""
        return self._index[2]

    @functools.cached_property
    def identity_names(self) -> list[str]:
        """The original name of each image's identity.

        Its number in a set that was built before names were kept.
        """
        return [str(row.get("identity_name", row["identity"])) for row in self._rows()]

    @property
    def caption_weights(self) -> np.ndarray:
        """How much each caption counts: float32 [captions of all images], 1 if it has no weight.

        See stage denoise.
        """
        return self._index[3]

    @functools.cached_property
    def facts(self) -> list[dict[str, Any] | None]:
        """What each image shows and each of its captions says (see stage caption), if known.

        Read when first asked for: they take more memory than the captions.
        """
        return [row.get("facts") for row in self._rows()]

    @functools.cached_property
    def _index(self) -> tuple[list[tuple[str, ...]], np.ndarray, list[str], np.ndarray]:
        captions, identities, names, weights = [], [], [], []
        for row in self._rows():
            captions.append(tuple(row["captions"]))
            identities.append(row["identity"])
            names.append(row["image_id"])
            weights.extend(row.get("caption_weights", (1.0,) * len(row["captions"])))
        return captions, np.asarray(identities, np.int64), names, np.asarray(weights, np.float32)

    def _rows(self) -> Iterator[dict[str, Any]]:
        yield from files.read_json_lines(index_path(self.directory, self.split))

    def image_bytes(self, i: int) -> bytes:
        """Returns image i, encoded, unchanged."""
        return self.images[i]

    def record(self, i: int) -> dict[str, Any]:
        """Returns all features of image i; texts as str, `provenance` as a dict."""
        record = self.images.record(i)
        texts = ("identity_name", "image_id", "source", "provenance")
        record |= {key: record[key].decode() for key in texts}
        record["captions"] = [caption.decode() for caption in record["captions"]]
        record["provenance"] = json.loads(record["provenance"])
        return record
