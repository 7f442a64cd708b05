"""Stage caption: counts per split, noise only where asked, kills, bad records, light imports."""

import json
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from jaxtbpr.captioning import stage
from jaxtbpr.core import attributes, files, manifest, options
from jaxtbpr.core.seeds import rng
from jaxtbpr.core.workdir import COMMIT, Workdir

SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2


def record(k, split):
    generator = rng(k, "test")
    looks = attributes.sample_person(generator) | attributes.sample_scene(generator)
    return {"id": f"{k:08d}", "identity": f"{k:08d}", "split": split, "attributes": looks}


def write_input(root, records):
    directory = root / "augment"
    for k, shard in enumerate(manifest.split_shards(records, 5)):
        text = "".join(json.dumps(r) + "\n" for r in shard)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"records-{k:05d}-of-00002.jsonl").write_text(text)
    files.write_json_atomic(directory / COMMIT, {"outputs": manifest.shard_digests(directory)})


def run(root, **changes):
    if not root.exists():
        write_input(root, [record(k, split) for k, split in enumerate(SPLITS)])
    section = options.default_config(stage.OPTIONS)
    section.update(changes)
    workdir = Workdir(root, order=("augment", "caption"), chosen=("augment", "caption"))
    return stage.run(ConfigDict({"seed": 0, "caption": section}), workdir)


def lines(root):
    shards = sorted((root / "caption").glob("*.jsonl"))
    return [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]


def test_each_split_gets_its_number_of_captions(tmp_path):
    result = run(tmp_path / "w", per_image={"train": 3, "val": 1, "test": 2})
    records = lines(tmp_path / "w")
    assert [len(r["captions"]) for r in records] == [3] * 6 + [1] * 2 + [2] * 2
    assert all(len(r["caption_noise"]) == len(r["captions"]) for r in records)
    assert (result["records_in"], result["records_out"], result["rejected"]) == (10, 10, 0)


def test_more_captions_per_image_begin_with_the_same_ones(tmp_path):
    run(tmp_path / "a", per_image={"train": 1})
    run(tmp_path / "b", per_image={"train": 4})
    few, many = lines(tmp_path / "a"), lines(tmp_path / "b")
    for one, more in zip(few, many, strict=True):
        assert more["captions"][: len(one["captions"])] == one["captions"]
    assert all(len(set(m["captions"])) == len(m["captions"]) for m in many)


def test_only_the_noisy_splits_have_noise(tmp_path):
    run(tmp_path / "w", wrong=0.5, missing=0.2, noisy_splits=("train", "val"))
    noisy = {r["split"] for r in lines(tmp_path / "w") if any(r["caption_noise"])}
    assert noisy == {"train", "val"}


def test_facts_are_what_is_shown_and_what_each_caption_says(tmp_path):
    views = [record(k, "train") for k in range(8)]
    for k, one in enumerate(views):
        one["attributes"] = attributes.normalise(
            one["attributes"] | {"view": ("left", "right", "back", "front")[k % 4]}
        )
    write_input(tmp_path / "w", views)
    run(tmp_path / "w", wrong=0.0, missing=0.0)
    for one in lines(tmp_path / "w"):
        shown = one["facts"]["shown"]
        assert shown["view"] == one["attributes"]["view"].replace("right", "left")
        assert not shown.keys() & attributes.hidden(one["attributes"])
        assert len(one["facts"]["mentioned"]) == len(one["captions"])
        for said in one["facts"]["mentioned"]:
            assert said
            assert said.items() <= shown.items()


def test_a_record_without_sound_attributes_is_set_aside_with_the_reason(tmp_path):
    bad = record(1, "train")
    bad["attributes"]["hat"] = "crown"
    plain = {"id": "x", "identity": "x", "split": "test"}
    write_input(
        tmp_path, [record(0, "train"), bad, plain, *(record(k, "val") for k in range(3, 9))]
    )
    assert run(tmp_path)["rejected"] == 2
    reasons = {r["id"]: r["rejected"]["reason"] for r in lines(tmp_path) if "rejected" in r}
    assert "crown" in reasons["00000001"]
    assert set(reasons) == {"00000001", "x"}


def test_a_run_cut_off_in_a_shard_ends_with_the_same_bytes(tmp_path):
    whole = run(tmp_path / "w")
    shard = tmp_path / "w" / "caption" / "records-00001-of-00002.jsonl"
    done = [f"[{line}]\n" for line in shard.read_text().splitlines()]
    shard.unlink()
    shard.with_suffix(".journal").write_text("".join(done[:2]) + done[2][:50])
    assert run(tmp_path / "w") == whole


def test_the_options_of_mention_are_checked():
    config = ConfigDict({"caption": {"mention": {"shoe": 1.0}}})
    with pytest.raises(ValueError, match=r"did you mean config\.caption\.mention\.shoes\?"):
        options.validate(config, {"caption": stage.OPTIONS})


def test_importing_the_stage_loads_no_array_framework():
    code = "import sys, jaxtbpr.captioning.stage, jaxtbpr.prompts.stage; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"jax", "torch", "tensorflow", "flax", "transformers"} & set(loaded.stdout.split())
