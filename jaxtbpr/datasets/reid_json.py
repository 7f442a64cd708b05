"""Readers of the annotated sets: CUHK-PEDES, ICFG-PEDES, RSTPReid and what loaders make of them.

All are JSON arrays with one record per image: `id`, `captions`, `file_path` (RSTPReid: `img_path`)
and mostly `split`. CVPR 2017 (CUHK-PEDES), SSAN 2021 (ICFG-PEDES), DSSL 2021 (RSTPReid).
"""

import dataclasses
import functools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from jaxtbpr.datasets import entry, listed, packed, published
from jaxtbpr.datasets.entry import BadRecord, Entry
from jaxtbpr.datasets.image_paths import ImagePaths
from jaxtbpr.datasets.json_stream import iterate_json
from jaxtbpr.datasets.merging import merge_by_image
from jaxtbpr.datasets.roles import Roles, json_roles

CUHK_LAST_TRAIN_ID, CUHK_LAST_VAL_ID = 11003, 12003
CUHK_SPLIT_RULE = (
    f"split rebuilt from id: 1..{CUHK_LAST_TRAIN_ID} train, "
    f"{CUHK_LAST_TRAIN_ID + 1}..{CUHK_LAST_VAL_ID} val, above that test"
)
_SHARD = re.compile(r"(?:^|(?<=[_\-. a-z]))\d+(?:[_-]of[_-]\d+)?$", re.I)
_SPLIT_WORD = re.compile(
    rf"(?:^|[_\-. ])({'|'.join(entry.SPLITS)})(?=(?:20\d\d)?(?:[_\-. ]|$))", re.I
)


def make_entries(
    records: Iterable[Any], make: Callable[[Any], Entry], file: epath.PathLike, first: int = 1
) -> Iterator[Entry]:
    """Yields `make(record)`, and for a bad record an entry that names its number in `file`."""
    for number, record in enumerate(records, first):
        record, notes = listed.split_lists(record)
        try:
            one = make(record)
            yield dataclasses.replace(one, notes=one.notes + notes) if notes else one
        except BadRecord as reason:
            yield entry.reject(f"record {number} of {epath.Path(file).name}", reason)


def file_split(file: epath.Path) -> str | None:
    """Returns the split in a file's name ("test_reid.json": "test"), or None."""
    match = _SPLIT_WORD.search(file.stem)
    return entry.SPLITS[match.group(1).lower()] if match else None


def set_prefix(file: epath.Path) -> str:
    """Returns the file's name without its split: "cuhk" for "cuhk_train.json".

    The numbers of shards ("train-00000-of-00002.parquet", "00000.tar") are left out, too.
    """
    stem = _SHARD.sub("", file.stem) if file.suffix.lower() in packed.SUFFIXES else file.stem
    return _SPLIT_WORD.sub("", stem).strip("_-. ").lower()


def read_records(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields one entry per image of CUHK-PEDES-like files, which have one record each or several.

    The split is that of the record, else of the file's name, else train.
    """
    yield from merge_by_image(_records(files, paths), is_noted=True, once=True)


def _records(files: Iterable[epath.Path], paths: ImagePaths) -> Iterator[Entry]:
    files = list(files)
    roles = json_roles(files)
    for file in files:
        records = paths.peek(iterate_json(file))
        make = functools.partial(_entry, paths=paths, named=file_split(file), roles=roles[file])
        yield from make_entries(records, make, file)


def _entry(record: Mapping[str, Any], paths: ImagePaths, named: str | None, roles: Roles) -> Entry:
    name = entry.image_name(record)
    captions = entry.captions_of(record)
    split, notes = entry.split_of(record, roles.split, named)
    identity, unknown = entry.identity_of(record, name, roles.identity)
    extra = _extra(record, name)
    return Entry(paths(name), captions, identity, split, extra, notes=notes + unknown)


def _extra(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    extra: dict[str, Any] = {"image_id": name}
    if record.get("captions_bt"):
        extra["captions_bt"] = list(entry.caption_list(record["captions_bt"]))
    if record.get("source"):
        extra["source"] = str(record["source"])
    return extra


def read_cuhk_pedes(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields CUHK-PEDES; where records have no `split` (caption_all.json) it comes from the id.

    The rebuilt split is compared with the published counts, and a difference is logged.
    """
    for file in files:
        records = list(iterate_json(file))
        first = next((record for record in records if isinstance(record, Mapping)), {})
        if "split" in first:
            yield from read_records(folder, [file], paths)
        else:
            yield from _without_split(records, file, paths)


def _without_split(records: list[Any], file: epath.Path, paths: ImagePaths) -> Iterator[Entry]:
    make = functools.partial(_entry_split_by_id, paths=paths)
    made = make_entries(paths.peek(records), make, file)
    entries = list(merge_by_image(made, is_noted=True, once=True))
    same = not published.differences("CUHK-PEDES", published.count(entries))
    level, verdict = (logging.INFO, "are") if same else (logging.WARNING, "are not")
    text = "%s has no split; %s; its counts %s the published ones"
    logging.getLogger(__name__).log(level, text, file, CUHK_SPLIT_RULE, verdict)
    yield from entries


def _entry_split_by_id(record: Mapping[str, Any], paths: ImagePaths) -> Entry:
    name = entry.image_name(record)
    identity, notes = entry.identity_of(record, name)
    extra = _extra(record, name) | {"split_rule": CUHK_SPLIT_RULE}
    split = cuhk_split(identity)
    return Entry(paths(name), entry.captions_of(record), identity, split, extra, notes=notes)


def cuhk_split(identity: str) -> str:
    """Returns the split of a CUHK-PEDES id; ids are 1-based and the splits follow each other.

    Raises BadRecord where the id is no number.
    """
    if not identity.isdecimal():
        raise BadRecord(f"has the id {identity!r}, from which no split follows")
    number = int(identity)
    if number <= CUHK_LAST_TRAIN_ID:
        return "train"
    return "val" if number <= CUHK_LAST_VAL_ID else "test"
