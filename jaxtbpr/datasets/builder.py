"""TFDS builders of person sets: array_record files, written without TensorFlow.

Rows (dicts; see `rows.py`) go in once, in their order, each to the open shard of its split. A
complete shard file of a killed build is used again, so that a build resumes at the shards where it
stopped; that is why the builders write them and not TFDS, which could only redo the whole set.
"""

import contextlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath
from tensorflow_datasets.core import dataset_builder
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from jaxtbpr.core import files

Row = dict[str, Any]

SHARD_ROWS = 1024
# {feature: key of the row}
_TEXTS = {name: name for name in ("identity_name", "source", "provenance")} | {"image_id": "id"}
_Feature = tf_feature_pb2.Feature


class PersonSet(dataset_builder.FileReaderBuilder):
    """Images of persons with captions and identities.

    counts: {split name: how many rows it has}, none of them 0. rows: all of them, in their order;
    no more are read than `counts` says.
    read: returns the encoded image of a row. data_dir: where the folder NAME/VERSION of the set
    goes. is_weighted: whether the rows have "caption_weights", which then are a feature.
    """

    name = "person_set"
    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar = {}  # nothing is downloaded; TFDS would look for checksums beside the code

    def __init__(
        self,
        counts: Mapping[str, int],
        rows: Iterable[Row],
        read: Callable[[Row], bytes],
        data_dir: epath.PathLike,
        *,
        is_weighted: bool = False,
    ):
        self._counts, self._rows, self._read = counts, rows, read
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
        description = (type(self).__doc__ or "").partition("\n")[0]  # None under python -OO
        return tfds.core.DatasetInfo(builder=self, description=description, features=features)

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
            writers = {
                split: _SplitWriter(self._get_filename_template(split_name=split), count, self)
                for split, count in self._counts.items()
            }
            for row in itertools.islice(self._rows, sum(self._counts.values())):
                writers[row["split"]].add(row)
        except BaseException:  # a full disk, Ctrl-C
            self._keep_finished_shards()
            raise
        infos = [writer.info(split) for split, writer in writers.items()]
        self.info.set_splits(tfds.core.splits.SplitDict(infos))

    def serialize(self, row: Row) -> bytes:
        """Returns a row as TFDS writes it, at ten times its speed.

        Its keys are in order, which protocol buffers do not fix.
        """
        values = {name: [row[key].encode()] for name, key in _TEXTS.items()}
        values |= {
            "image": [self._read(row)],
            "captions": [text.encode() for text in row["captions"]],
        }
        features = {k: _Feature(bytes_list={"value": some}) for k, some in values.items()}
        features["identity"] = _Feature(int64_list={"value": [row["identity"]]})
        for key in self._weights:
            features[key] = _Feature(float_list={"value": row[key]})
        example = tf_example_pb2.Example(features={"feature": features})
        return example.SerializeToString(deterministic=True)

    def take_finished(self, path: epath.Path) -> bool:
        """Puts the shard file that a killed build has finished in its place, if there is one."""
        part = self._parts / path.name
        if there := part.exists():
            part.replace(path)
        return there


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


class _SplitWriter:
    """Writes the rows of a split to its shards; a shard file has its name when it is whole."""

    def __init__(self, template: tfds.core.ShardedFileTemplate, count: int, one: PersonSet):
        self._template, self._count, self._set = template, count, one
        shards = -(-count // SHARD_ROWS)
        self._paths = [
            template.sharded_filepath(shard_index=k, num_shards=shards) for k in range(shards)
        ]
        # Joined once: a path costs as much as a row's serialisation.
        self._unfinished = [path.parent / f".{path.name}" for path in self._paths]
        self._added = 0
        self._writer: array_record_module.ArrayRecordWriter | None = None

    def add(self, row: Row) -> None:
        shard = self._added // SHARD_ROWS
        path, unfinished = self._paths[shard], self._unfinished[shard]
        if self._added % SHARD_ROWS == 0 and not self._set.take_finished(path):
            self._writer = array_record_module.ArrayRecordWriter(str(unfinished), "group_size:1")
        self._added += 1
        if self._writer is None:
            return
        self._writer.write(self._set.serialize(row))
        if self._added % SHARD_ROWS == 0 or self._added == self._count:
            self._writer.close()
            unfinished.replace(path)
            self._writer = None

    def info(self, split: str) -> tfds.core.SplitInfo:
        """Returns what TFDS keeps of the split once all its rows were added."""
        lengths = [
            min(SHARD_ROWS, self._count - start) for start in range(0, self._count, SHARD_ROWS)
        ]
        size = sum(path.stat().length for path in self._paths)
        return tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=size, filename_template=self._template
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS from printing and from drawing progress bars of its own."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield
