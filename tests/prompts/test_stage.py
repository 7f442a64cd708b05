"""Stage prompts: records by the contract, whatever the counts, shards and kills."""

import json
import os
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from jaxtbpr import pipeline, stages
from jaxtbpr.core import attributes, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.prompts import descriptors, stage

SPLITS = {"train": 7, "val": 2, "test": 3}
ENGINES = ("template", "plain", "grammar", "captions")


def configured(**changes):
    section = options.default_config(stage.OPTIONS)
    section.update(SPLITS | changes)
    return ConfigDict({"seed": 0, "prompts": section})


def run(root, **changes):
    if changes.get("engine") == "captions":
        changes["captions"] = caption_file(root.parent)
    workdir = Workdir(root, order=("prompts",), chosen=("prompts",))
    result = stage.run(configured(**changes), workdir)
    shards = [(root / "prompts" / name).read_text() for name in sorted(result["outputs"])]
    return result, [json.loads(line) for shard in shards for line in shard.splitlines()]


def caption_file(folder):
    path = folder / "captions.json"
    rows = [
        {"captions": [f"a person with {number} red bags"], "split": split}
        for split in SPLITS
        for number in range(20)
    ]
    rows = [row | {"captions": [f"{row['captions'][0]}, {row['split']}"]} for row in rows]
    path.write_text(json.dumps(rows))
    return str(path)


def test_every_split_has_its_count_and_every_record_is_complete(tmp_path):
    result, records = run(tmp_path)
    assert result["records_out"] == len(records) == 12
    assert result["rejected"] == 0
    assert "redrawn" in result
    assert [r["split"] for r in records] == ["train"] * 7 + ["val"] * 2 + ["test"] * 3
    for record in records:
        keys = ["id", "identity", "split", "prompt", "attributes", "seed"]
        assert list(record) == keys
        assert record["id"] == record["identity"]
        attributes.check(record["attributes"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("changes", [{"train": 9}, {"test": 5, "val": 0}, {"shard_size": 3}])
def test_a_record_does_not_depend_on_the_counts_or_the_shards(tmp_path, changes, engine):
    _, records = run(tmp_path / "a", engine=engine)
    _, others = run(tmp_path / "b", engine=engine, **changes)
    here, there = ({r["id"]: r for r in rs} for rs in (records, others))
    shared = here.keys() & there.keys()
    assert len(shared) >= 10
    assert all(here[i] == there[i] for i in shared)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_cut_off_in_a_shard_ends_with_the_same_bytes(tmp_path, engine):
    whole, _ = run(tmp_path / "whole", shard_size=5, engine=engine)
    cut, _ = run(tmp_path / "cut", shard_size=5, engine=engine)
    second = tmp_path / "cut" / "prompts" / "records-00001-of-00003.jsonl"
    lines = second.read_text().splitlines(keepends=True)
    second.unlink()
    done = "".join(f"[{line.rstrip()}]\n" for line in lines[:2])
    second.with_suffix(".journal").write_text(done + "[{" + lines[2][1:40])
    resumed, _ = run(tmp_path / "cut", shard_size=5, engine=engine)
    assert resumed == cut == whole


def test_the_texts_do_not_depend_on_the_hash_seed():
    code = (
        "from jaxtbpr.prompts import clauses, descriptors, drawing, grammar;"
        "words = grammar.with_choices(descriptors.load(''), descriptors.KINDS);"
        "parts = grammar.writer(), words, clauses.Ruler('', 77);"
        "print(list(drawing.draw_prompts(*parts, 0, 'train', 20)))"
    )
    words = [sys.executable, "-c", code]
    seeds = [os.environ | {"PYTHONHASHSEED": seed} for seed in ("1", "2")]
    texts = [subprocess.run(words, env=env, capture_output=True, check=True) for env in seeds]
    assert texts[0].stdout == texts[1].stdout != b""


@pytest.mark.parametrize(
    ("engine", "keys"),
    [
        ("plain", ["prompt_kind", "descriptors"]),
        ("grammar", ["prompt_kind", "rough_prompt", "descriptors"]),
        ("captions", ["prompt_kind", "source_caption"]),
    ],
)
def test_the_other_engines_keep_what_a_prompt_was_made_of(tmp_path, engine, keys):
    result, records = run(tmp_path / "run", engine=engine, max_tokens=200)
    assert result["records_out"] == 12
    for record in records:
        assert list(record) == ["id", "identity", "split", "prompt", *keys, "seed"]
    texts = [record["prompt"] for record in records]
    assert len(set(texts)) == 12
    assert result["duplicates"] == 0
    is_styled = [text.startswith("In the style of <s0><s1>, a person") for text in texts]
    assert all(is_styled) if engine == "captions" else not any(is_styled)


def test_every_image_of_a_prompt_is_an_identity_of_its_own(tmp_path):
    _, once = run(tmp_path / "a", engine="grammar")
    result, records = run(tmp_path / "b", engine="grammar", images_per_prompt=5, shard_size=7)
    assert result["records_out"] == len(records) == 60
    assert len({r["id"] for r in records}) == len({r["identity"] for r in records}) == 60
    numbers = [(r["split"], r["prompt_number"], r["prompt"]) for r in records]
    assert numbers[::5] == [
        (split, number, record["prompt"])
        for (split, number), record in zip(
            [(split, number) for split, count in SPLITS.items() for number in range(count)],
            once,
            strict=True,
        )
    ]
    assert all(len(set(numbers[k : k + 5])) == 1 for k in range(0, 60, 5))
    assert result["duplicates"] == 0
    assert result["evenness"]["gender"]["min"] + result["evenness"]["gender"]["max"] == 12


def test_people_of_the_template_may_have_several_images_too(tmp_path):
    _, once = run(tmp_path / "a")
    _, twice = run(tmp_path / "b", images_per_prompt=2)
    assert [r["prompt"] for r in twice[::2]] == [r["prompt"] for r in once]
    assert [r["attributes"] for r in twice[1::2]] == [r["attributes"] for r in once]


def test_a_subject_token_goes_into_the_texts_of_every_drawing_engine(tmp_path):
    for engine in ("template", "plain", "grammar"):
        _, records = run(tmp_path / engine, engine=engine, subject="sks", subject_class="figure")
        assert all("male sks figure" in r["prompt"] for r in records)
        assert not any("person" in r["prompt"] for r in records)


def test_the_plain_people_of_the_template_are_measured_where_they_may_be_too_long(tmp_path):
    for name, changes in {"a": {"max_tokens": 8}, "b": {"subject": "sks " * 80}}.items():
        result, records = run(tmp_path / name, **changes)
        assert result["rejected"] == len(records)


def test_evenness_and_duplicates_are_reported(tmp_path, capsys):
    result, _ = run(tmp_path, engine="grammar", train=48)
    assert result["evenness"]["kind"]["values"] == 4
    assert result["evenness"]["gender"]["entropy"] > 0.99
    assert all(0 <= share["entropy"] <= 1 for share in result["evenness"].values())
    assert "0.00 % duplicates; evenness 0." in capsys.readouterr().err
    drawn, _ = run(tmp_path / "t", train=48)
    assert set(drawn["evenness"]) == {*attributes.PERSON, *attributes.SCENE}


def test_a_prompt_that_is_too_long_is_shortened_or_set_aside_never_cut(tmp_path):
    long, records = run(tmp_path / "a", engine="grammar", tokenizer="tiny-clip", max_tokens=200)
    assert long["shortened"] == long["rejected"] == 0
    longest = max(record["tokens"] for record in records)
    short, fewer = run(tmp_path / "b", engine="grammar", tokenizer="tiny-clip", max_tokens=77)
    assert longest > 77
    assert short["shortened"] > 0
    assert short["records_out"] + short["rejected"] == 12
    for whole, record in zip(records, fewer, strict=True):
        assert whole["id"] == record["id"]
        assert record["tokens"] <= 77 or "the text encoder takes 77" in str(record["rejected"])
    none, _ = run(tmp_path / "c", tokenizer="tiny-clip", max_tokens=20)
    assert none["rejected"] == 12


def test_files_from_outside_are_part_of_the_recipe(tmp_path):
    before = stage.fingerprint(configured(engine="grammar"))
    states = json.loads((descriptors.PACKAGED / "states.json").read_text())
    (tmp_path / "states.json").write_text(json.dumps(states))
    after = stage.fingerprint(configured(engine="grammar", vocabulary=str(tmp_path)))
    assert {key for key in before if before[key] != after[key]} == {"states.json"}
    assert stage.fingerprint(configured()) == {"tokenizer": ""}
    assert stage.fingerprint(configured(tokenizer="tiny-clip"))["tokenizer"]
    file = caption_file(tmp_path)
    assert len(stage.fingerprint(configured(engine="captions", captions=file))["captions"]) == 64


def test_a_file_that_is_missing_and_too_many_prompts_are_told_with_their_keys(tmp_path):
    for key in ("tokenizer", "vocabulary"):
        with pytest.raises(UserError, match=rf"^config\.prompts\.{key}='/none' "):
            run(tmp_path, engine="grammar", **{key: "/none"})
    with pytest.raises(UserError, match=r"^config\.prompts: train=999 asks for more captions"):
        run(tmp_path, engine="captions", train=999)


def test_no_kinds_and_too_many_identities_are_told(tmp_path):
    with pytest.raises(
        UserError, match=r"config.prompts.kinds is empty; name at least one of appearance"
    ):
        run(tmp_path, engine="grammar", kinds=())
    with pytest.raises(
        UserError, match=r"train=80000000 and images_per_prompt=2 make 160000000 ident"
    ):
        run(tmp_path, train=80_000_000, images_per_prompt=2)


def test_stages_that_need_attributes_say_so(tmp_path):
    config = stages.default_config()
    config.stages = ("prompts",)
    config.prompts.update(engine="grammar", train=2, val=0, test=0)
    pipeline.run(config, tmp_path)
    config.stages = ("generate",)
    config.generate.processes = 1
    with pytest.raises(UserError, match=r"stage 'generate' with engine 'render' needs attributes"):
        pipeline.run(config, tmp_path)
    config.stages = ("caption",)
    with pytest.raises(UserError, match=r"'caption' has rejected all of its 2 .* needs attr"):
        pipeline.run(config, tmp_path)
    assert Workdir(tmp_path, order=(), chosen=()).commit("caption")["rejected"] == 2
