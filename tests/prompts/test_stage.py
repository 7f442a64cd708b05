"""Stage prompts: records by the contract, whatever the counts, shards and kills."""

import json

import pytest
from ml_collections import ConfigDict

from jaxtbpr.core import attributes, options
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.prompts import stage

SPLITS = {"train": 7, "val": 2, "test": 3}


def run(root, **changes):
    section = options.default_config(stage.OPTIONS)
    section.update(SPLITS | changes)
    config = ConfigDict({"seed": 0, "prompts": section})
    workdir = Workdir(root, order=("prompts",), chosen=("prompts",))
    result = stage.run(config, workdir)
    shards = [(root / "prompts" / name).read_text() for name in sorted(result["outputs"])]
    return result, [json.loads(line) for shard in shards for line in shard.splitlines()]


def test_every_split_has_its_count_and_every_record_is_complete(tmp_path):
    result, records = run(tmp_path)
    assert result["records_out"] == len(records) == 12
    assert result["set_aside"] == 0
    assert "redrawn" in result
    assert [r["split"] for r in records] == ["train"] * 7 + ["val"] * 2 + ["test"] * 3
    for record in records:
        keys = ["id", "identity", "split", "prompt", "attributes", "seed"]
        assert list(record) == keys
        assert record["id"] == record["identity"]
        attributes.check(record["attributes"])


@pytest.mark.parametrize("changes", [{"train": 9}, {"test": 5, "val": 0}, {"shard_size": 3}])
def test_a_record_does_not_depend_on_the_counts_or_the_shards(tmp_path, changes):
    _, records = run(tmp_path / "a")
    _, others = run(tmp_path / "b", **changes)
    here, there = ({r["id"]: r for r in rs} for rs in (records, others))
    shared = here.keys() & there.keys()
    assert len(shared) >= 10
    assert all(here[i] == there[i] for i in shared)


def test_a_run_cut_off_in_a_shard_ends_with_the_same_bytes(tmp_path):
    whole, _ = run(tmp_path / "whole", shard_size=5)
    cut, _ = run(tmp_path / "cut", shard_size=5)
    second = tmp_path / "cut" / "prompts" / "records-00001-of-00003.jsonl"
    lines = second.read_text().splitlines(keepends=True)
    second.unlink()
    done = "".join(f"[{line.rstrip()}]\n" for line in lines[:2])
    second.with_suffix(".journal").write_text(done + "[{" + lines[2][1:40])
    resumed, _ = run(tmp_path / "cut", shard_size=5)
    assert resumed == cut == whole
