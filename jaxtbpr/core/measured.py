"""Measurements of a manifest's records: arrays, shard by shard, before a stage decides.

A stage that needs all records to judge one (duplicates, quantiles, mixtures) first measures them,
then goes through them again. The file of a shard appears only when it is whole, so that a killed
stage resumes at the shard where it stopped; a shard is always measured as a whole, so that its
numbers are the same after a kill.
"""

import io
from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

import numpy as np
from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.progress import progress

Arrays = dict[str, np.ndarray]
_Shard = TypeVar("_Shard", bound=Sized)  # of records, or of other things to measure


def measure_shards(
    shards: Sequence[_Shard],
    directory: epath.PathLike,
    measure: Callable[[_Shard], Arrays],
    *,
    label: str,
) -> list[Arrays]:
    """Returns {name: array} of each shard, measured now or by an earlier run in `directory`.

    measure: takes the records of a shard and must depend on nothing else. label: the stage's name,
    for the progress line.
    """
    directory = epath.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    total = sum(map(len, shards))
    records = progress(_each(shards, directory, measure), total=total, label=label)
    for _ in records:
        pass
    return [_load(_path(directory, k)) for k in range(len(shards))]


def _each(shards: Sequence[_Shard], directory: epath.Path, measure: Callable[[_Shard], Arrays]):
    """Measures the shards that have not been yet; yields once for each record."""
    for k, shard in enumerate(shards):
        path = _path(directory, k)
        if not path.exists():
            data = io.BytesIO()
            # The type checker takes a name of `measure` for that of an option, which none has.
            np.savez(data, **measure(shard))  # pyright: ignore[reportArgumentType]
            files.write_bytes_atomic(path, data.getvalue(), durable=True)
        yield from range(len(shard))


def _path(directory: epath.Path, k: int) -> epath.Path:
    return directory / f"shard-{k:05d}.npz"


def _load(path: epath.Path) -> Arrays:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return dict(arrays)
