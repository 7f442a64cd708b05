"""Manifests: JSON-lines shards, one line per person image; what stages pass on.

A stage's folder holds `records-00000-of-00004.jsonl` and so on. A shard file is there only when
it is whole. While a shard is being made, `records-….journal` beside it has one line for each
input record that is done, so that a killed stage resumes at the record where it stopped.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.progress import progress

Record = dict
Shard = list[Record]
Work = Callable[..., Iterator[list[Record]]]  # see map_records
_Item = TypeVar("_Item")

_SHARD = re.compile(r"records-(\d{5})(?:-of-(\d{5}))?\.jsonl")
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def reject(record: Record, stage: str, reason: str) -> Record:
    """Returns `record` marked as rejected by `stage`; later stages do not see it."""
    return record | {"rejected": {"stage": stage, "reason": reason}}


def is_kept(record: Record) -> bool:
    """Whether no stage has rejected `record`."""
    return "rejected" not in record


class Manifest:
    """The committed records of one stage.

    directory: the stage's folder; digests: {shard file name: SHA-256} of its commit file.
    """

    def __init__(self, directory: epath.PathLike, digests: dict[str, str]):
        self.directory = epath.Path(directory)
        self._digests = digests

    def shards(self) -> Iterator[Shard]:
        """Yields each shard's kept records.

        Raises UserError for a shard that is missing or is not what was committed.
        """
        for shard in self._shards():
            yield [record for record in shard if is_kept(record)]

    def __iter__(self) -> Iterator[Record]:
        for shard in self.shards():
            yield from shard

    def rejected(self) -> Iterator[Record]:
        """Yields the records that the stage rejected."""
        yield from (record for record in self.all_records() if not is_kept(record))

    def all_records(self) -> Iterator[Record]:
        """Yields the records that are kept and those that were rejected, in their order."""
        yield from itertools.chain.from_iterable(self._shards())

    def _shards(self) -> Iterator[Shard]:
        return map(self._read, sorted(self._digests))

    def _read(self, name: str) -> Shard:
        path = self.directory / name
        redo = (
            f"delete it and {self.directory / 'commit.json'}, and start again: "
            "only this shard is made again, with the same content"
        )
        if not path.exists():
            raise UserError(f"{path} is missing though its stage is committed; {redo}.")
        data = path.read_bytes()
        records = [_parse(path, n, line, redo) for n, line in enumerate(data.splitlines(), 1)]
        if files.sha256(data) != self._digests[name]:
            raise UserError(f"{path} is not what was committed (its SHA-256 differs); {redo}.")
        return records


def map_records(
    shards: Iterable[Sequence[Record]],
    directory: epath.PathLike,
    work: Work,
    *,
    label: str,
    shard_count: int | None,
    whole: bool = False,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Makes one output shard of each input shard, resuming where an earlier run stopped.

    shards: the input; output shard k comes from input shard k. work: takes an iterator of input
    records and yields, for each and in the same order, the list of its output records; it must
    depend on nothing else, since it is not called for records that are already done.
    label: the stage's name, for the progress line. shard_count: how many there are, None where that
    is not known before the last; their names then lack it. whole: `work` depends on a
    record's place among those of its shard; it takes an iterator of all of them and the number of
    those that are done, and yields for the others alone. part, parts: makes every parts-th shard
    only, from `part` on, where several processes share the work.
    """
    directory = epath.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    of, slash = (f"-of-{shard_count:05d}", f"/{shard_count}") if shard_count else ("", "")
    for k, shard in enumerate(shards):
        path = directory / f"records-{k:05d}{of}.jsonl"
        if k % parts == part and not path.exists():
            _make_shard(shard, path, work, f"{label} {k + 1}{slash}", whole)


def shard_digests(directory: epath.PathLike) -> dict[str, str]:
    """Returns {shard file name: SHA-256} of a finished stage.

    Raises UserError where a shard is missing.
    """
    directory = epath.Path(directory)
    names = {p.name: _SHARD.fullmatch(p.name) for p in directory.iterdir()}
    names = {name: match for name, match in names.items() if match}
    counts = {int(match[2]) for match in names.values() if match[2]}
    if len(counts) > 1 or (counts and len(names) != counts.pop()):
        raise UserError(f"{directory} lacks shards (it has {sorted(names)}); run its stage again.")
    return {name: files.sha256((directory / name).read_bytes()) for name in sorted(names)}


def count_records(manifest: Manifest) -> dict[str, int]:
    """Returns how many records a stage kept and how many it rejected."""
    kept = Counter(map(is_kept, manifest.all_records()))
    return {"records_out": kept[True], "rejected": kept[False]}


def split_shards(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    """Splits items into shards of at most `size`; always at least one, maybe empty."""
    return [items[i : i + size] for i in range(0, len(items), size)] or [[]]


def _make_shard(
    shard: Sequence[Record], path: epath.Path, work: Work, label: str, whole: bool
) -> None:
    # Resume order, safe against a kill at any point:
    # 1. A shard file is whole, since it is renamed into place: `map_records` skips it.
    # 2. The journal has one line per input record that is done, so that outputs and inputs stay
    #    aligned even where a record has no output, or several; a torn last line is cut off.
    # 3. `work` sees the other records alone.
    # 4. The shard is on the disk before its journal is deleted.
    journal = path.with_suffix(".journal")
    done = [list(map(_json, outputs)) for outputs in _resume(journal)]
    todo = shard[len(done) :]
    made = work(iter(shard), len(done)) if whole else work(iter(todo))
    with journal.open("ab") as file:
        for outputs in progress(made, total=len(todo), label=label):
            done.append(list(map(_json, outputs)))
            file.write(b"[" + b", ".join(done[-1]) + b"]\n")
            file.flush()
    if len(done) != len(shard):
        raise RuntimeError(f"{label}: {len(shard)} records went in, {len(done)} came out")
    lines = b"".join(record + b"\n" for outputs in done for record in outputs)
    files.write_bytes_atomic(path, lines, durable=True)
    journal.unlink()


def _resume(journal: epath.Path) -> list[list[Record]]:
    """Reads a journal up to its first torn line and cuts the file there."""
    done, good = [], 0
    data = journal.read_bytes() if journal.exists() else b""
    for line in data.splitlines(keepends=True):
        try:
            outputs = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(outputs, list):
            break
        done.append(outputs)
        good += len(line)
    if good < len(data):
        files.write_bytes_atomic(journal, data[:good])
    return done


def _json(record: Record) -> bytes:
    return _ENCODER.encode(record).encode("utf-8")


def _parse(path: epath.Path, number: int, line: bytes, redo: str) -> Record:
    try:
        record = json.loads(line.decode())  # of bytes it would guess the encoding each time
    except ValueError as error:
        raise UserError(f"{path} line {number} is not valid JSON; {redo}.") from error
    if not isinstance(record, dict) or "id" not in record:
        raise UserError(f"{path} line {number} is not a record with an id; {redo}.")
    return record
