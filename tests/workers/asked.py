"""Runs of stage caption with a model's engine, for tests: records, a stage, a fake worker."""

import json
import pathlib

from ml_collections import ConfigDict

from jaxtbpr.captioning import stage
from jaxtbpr.core import files, manifest, options
from jaxtbpr.core.workdir import COMMIT, Workdir

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def write_people(root: pathlib.Path, count: int = 10, shard: int = 5) -> None:
    """Writes real people, without attributes, as stage augment would; an image is its number."""
    records = []
    for k in range(count):
        path = root / f"augment/images/{k:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(k).encode())
        image = {"path": f"augment/images/{k:08d}.png"}
        name = f"{k:08d}"
        records.append({"id": name, "identity": name, "split": "train", "image": image})
    write_records(root, records, shard)


def write_records(root: pathlib.Path, records: list[dict], shard: int = 5) -> None:
    parts = manifest.split_shards(records, shard)
    (root / "augment").mkdir(parents=True, exist_ok=True)
    for k, part in enumerate(parts):
        lines = "".join(json.dumps(record) + "\n" for record in part)
        (root / f"augment/records-{k:05d}-of-{len(parts):05d}.jsonl").write_text(lines)
    digests = manifest.shard_digests(root / "augment")
    files.write_json_atomic(root / "augment" / COMMIT, {"outputs": digests})


def caption(root: pathlib.Path, **changes) -> dict:
    """Checks and runs the stage; returns its result."""
    section = options.default_config(stage.OPTIONS)
    section.update({"models": ("tiny",), "retry_delay": 0.01, "claim_seconds": 5.0} | changes)
    workdir = Workdir(root, order=("augment", "caption"), chosen=("augment", "caption"))
    config = ConfigDict({"seed": 0, "caption": section})
    stage.check(config)
    return stage.run(config, workdir)


def captioned(root: pathlib.Path) -> list[dict]:
    shards = sorted((root / "caption").glob("records-*.jsonl"))
    return [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]


def sentence(number: int, seed: int) -> str:
    """A caption of image `number` that differs with the seed."""
    hats, bags, pins = (NUMBERS[int(digit)] for digit in f"{seed:03d}"[-3:])
    return f"The person of number {NUMBERS[number]} has {hats} hats, {bags} bags and {pins} pins."
