"""Stage prompts: one record for each person to be made, with attributes and a sentence."""

import itertools
import math
from collections.abc import Iterator

from ml_collections import ConfigDict

from jaxtbpr.core import attributes, manifest
from jaxtbpr.core.manifest import Record, Shard
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.seeds import rng
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.prompts import template

_MOST = template.MOST_IDENTITIES

OPTIONS: Options = {
    "engine": Option("template", "what writes the prompts", choices=("template",)),
    "train": Option(2000, "identities to train on", low=1, high=_MOST["train"]),
    "val": Option(100, "identities to choose the model on", low=0, high=_MOST["val"]),
    "test": Option(200, "identities to measure on, unseen in training", low=0, high=_MOST["test"]),
    "shard_size": Option(1000, "records in one manifest file", low=1),
}


def run(config: ConfigDict, workdir: Workdir) -> dict:
    """Writes the records of all splits: train, then val, then test.

    Returns the counts of every stage, and "redrawn": how many people were drawn again because
    an earlier identity looks the same.
    """
    options, directory = config.prompts, workdir.dir("prompts")
    counts = {split: options[split] for split in template.FIRST_IDENTITY}
    total = sum(counts.values())
    people = _People(config.seed, counts)
    manifest.map_records(
        _shards(people, options.shard_size),
        directory,
        lambda records: ([_describe(record, config.seed)] for record in records),
        label="prompts",
        shard_count=math.ceil(total / options.shard_size),
    )
    outputs = manifest.shard_digests(directory)
    done = {"records_in": total, "records_out": total, "set_aside": 0, "redrawn": people.redrawn}
    return {"outputs": outputs} | done


class _People:
    """Iterates over the bare records of all splits and counts the people drawn again."""

    def __init__(self, seed: int, counts: dict[str, int]):
        self._seed = seed
        self._counts = counts
        self.redrawn = 0

    def __iter__(self) -> Iterator[Record]:
        for split, count in self._counts.items():
            for identity, person, repeats in template.draw_people(self._seed, split, count):
                self.redrawn += repeats
                yield {"id": identity, "identity": identity, "split": split, "person": person}


def _shards(records: _People, size: int) -> Iterator[Shard]:
    stream = iter(records)
    while shard := list(itertools.islice(stream, size)):
        yield shard


def _describe(bare: Record, seed: int) -> Record:
    scene = attributes.sample_scene(rng(seed, "scene", bare["id"]))
    looks = bare["person"] | scene
    names = {key: bare[key] for key in ("id", "identity", "split")}
    return names | {"prompt": template.prompt(looks), "attributes": looks, "seed": seed}
