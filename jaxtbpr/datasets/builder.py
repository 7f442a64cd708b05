"""TFDS builders of person sets: array_record files, written without TensorFlow.

Rows (dicts; see `rows.py`) go in shard by shard, in their order. A shard file that a killed build
left whole is used again, so that a build goes on at the shard where it stopped; that is why the
builders are `ShardBasedBuilder`s and not `GeneratorBasedBuilder`s, whose only unit is the set.
"""

import contextlib
import functools
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from jaxtbpr.core import files

Row = dict[str, Any]

SHARD_ROWS = 1024


class PersonSet(tfds.core.ShardBasedBuilder):
    """Images of persons with captions and identities.

    splits: {split name: (row count, rows)}, none of them empty. read: returns the encoded image
    of a row. data_dir: where the folder NAME/VERSION of the set goes. is_weighted: whether the rows
    have "caption_weights", which then are a feature.
    """

    name = "person_set"
    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar = {}  # nothing is downloaded; TFDS would look for checksums beside the code

    def __init__(
        self,
        splits: Mapping[str, tuple[int, Iterable[Row]]],
        read: Callable[[Row], bytes],
        data_dir: epath.PathLike,
        *,
        is_weighted: bool = False,
    ):
        self._splits = {name: (count, iter(rows)) for name, (count, rows) in splits.items()}
        self._read = read
        self._weights = (
            {"caption_weights": tfds.features.Sequence(np.float32)} if is_weighted else {}
        )
        super().__init__(data_dir=os.fspath(data_dir), file_format="array_record")
        self._parts = self.data_path.parent / "parts"

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "captions": tfds.features.Sequence(tfds.features.Text()),
                "identity": np.int64,
                "identity_name": tfds.features.Text(),
                "image_id": tfds.features.Text(),
                "source": tfds.features.Text(),
                "provenance": tfds.features.Text(),
            }
            | self._weights
        )
        return tfds.core.DatasetInfo(
            builder=self, description=type(self).__doc__.splitlines()[0], features=features
        )

    def build(self) -> epath.Path:
        """Writes the set, or what an earlier, killed build lacks, and returns its folder."""
        if not self.data_path.exists():
            self._keep_finished_shards()
            with _quiet():
                self.download_and_prepare()
        for empty in (self._parts, epath.Path(self.data_dir_root) / "downloads"):
            empty.rmtree(missing_ok=True)
        return epath.Path(self.data_path)

    def _keep_finished_shards(self) -> None:
        # TFDS writes into a folder with a random name. A killed build leaves it behind; one that
        # ends with an error removes it.
        self._parts.mkdir(parents=True, exist_ok=True)
        for stale in files.matches(self._parts.parent, "incomplete.*"):
            for shard in files.matches(stale, f"{self.name}-*.array_record-*"):
                shard.replace(self._parts / shard.name)
            stale.rmtree()

    def _download_and_prepare(self, *args, **kwargs) -> None:
        try:
            super()._download_and_prepare(*args, **kwargs)
        except BaseException:  # a full disk, Ctrl-C
            self._keep_finished_shards()
            raise

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, list[Callable]]:
        return {
            split: [
                functools.partial(self._examples, split, k, count, rows)
                for k in range(-(-count // SHARD_ROWS))
            ]
            for split, (count, rows) in self._splits.items()
        }

    def _examples(
        self, split: str, k: int, count: int, rows: Iterator[Row]
    ) -> Iterator[tuple[str, Row | None]]:
        shards = -(-count // SHARD_ROWS)
        name = f"{self.name}-{split}.array_record-{k:05d}-of-{shards:05d}"
        is_done = (self._parts / name).exists()  # asked now, since the writer will move it
        shard = itertools.islice(rows, SHARD_ROWS)
        return ((row["id"], None if is_done else self._example(row)) for row in shard)

    def _example(self, row: Row) -> Row:
        return {
            "image": io.BytesIO(self._read(row)),
            "captions": row["captions"],
            "identity": row["identity"],
            "identity_name": row["identity_name"],
            "image_id": row["id"],
            "source": row["source"],
            "provenance": row["provenance"],
        } | {key: row[key] for key in self._weights}

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _ShardWriter(self._parts)


class CuhkPedes(PersonSet):
    """CUHK-PEDES (Li et al., Person Search with Natural Language Description, CVPR 2017)."""

    name = "cuhk_pedes"


class IcfgPedes(PersonSet):
    """ICFG-PEDES (Ding et al., Semantically Self-Aligned Network, arXiv:2107.12666)."""

    name = "icfg_pedes"


class RstpReid(PersonSet):
    """RSTPReid (Zhu et al., DSSL: Deep Surroundings-person Separation Learning, MM 2021)."""

    name = "rstp_reid"


BUILDERS = {"CUHK-PEDES": CuhkPedes, "ICFG-PEDES": IcfgPedes, "RSTPReid": RstpReid}


class _ShardWriter(tfds.core.ExampleWriter):
    """Gives a shard file its name when it is whole; takes one from `parts` if it is there."""

    def __init__(self, parts: epath.Path):
        super().__init__(tfds.core.FileFormat.ARRAY_RECORD)
        self._parts = parts

    def write(self, path: epath.PathLike, examples: Iterable) -> None:
        path = epath.Path(path)
        done = self._parts / path.name
        if not done.exists():
            done = path.parent / f".{path.name}"
            super().write(done, ((key, _sorted(example)) for key, example in examples))
        done.replace(path)


def _sorted(serialized: bytes) -> bytes:
    # Protocol buffers write the entries of a map in an order that differs from process to process.
    example = tf_example_pb2.Example.FromString(serialized)
    return example.SerializeToString(deterministic=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS from printing and from drawing progress bars of its own."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield
