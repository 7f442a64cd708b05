"""The image stages: what they say about records that they cannot use, and what prompts may need."""

import itertools
import pathlib
import runpy

import pytest
from ml_collections import ConfigDict

from jaxtbpr import stages
from jaxtbpr.core import attributes, files, manifest, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.seeds import rng
from jaxtbpr.core.workdir import COMMIT, Workdir
from jaxtbpr.prompts import template
from jaxtbpr.prompts.clauses import estimate
from jaxtbpr.synthesis import augment


@pytest.mark.parametrize("name", ["filter", "augment"])
def test_a_stage_of_images_without_images_names_the_stage_that_makes_them(tmp_path, name):
    stage = stages.STAGES[name]
    records = [{"id": "00000001", "identity": "00000001", "split": "train"}]
    manifest.map_records(
        [records], tmp_path / "prompts", lambda r: ([x] for x in r), label="", shard_count=1
    )
    outputs = manifest.shard_digests(tmp_path / "prompts")
    files.write_json_atomic(tmp_path / "prompts" / COMMIT, {"outputs": outputs})
    workdir = Workdir(tmp_path, order=("prompts", name), chosen=(name,))
    config = ConfigDict({"seed": 0, name: options.default_config(stage.options)})
    config[name].processes = 1
    with pytest.raises(UserError, match=f"stage '{name}' needs images, .* add stage 'generate'"):
        stage.run(config, workdir)


def test_an_edit_asks_for_the_subject_and_tells_nothing_of_its_base_s_image():
    looks = attributes.sample_person(rng(0, "person", "1")) | attributes.sample_scene(
        rng(0, "scene", "1")
    )
    base = {"id": "1", "identity": "1", "split": "train", "attributes": looks}
    base |= {"subject": "sks person", "prompt": template.prompt(looks, "sks person")}
    base |= {"tokens": 50, "dropped_clauses": ["camera"], "generation": {"steps": 3}}
    change = options.default_config(augment.OPTIONS).change.to_dict()
    for edit in augment.Edits(seed=0, edits=3, change=change).scenes(base):
        assert "sks person" in edit["prompt"] != base["prompt"]
        assert not {"tokens", "dropped_clauses", "generation"} & edit.keys()


def test_edits_without_a_step_to_do_are_refused_before_anything_runs():
    config = stages.default_config()
    config.augment.update(engine="diffusion", strength=0.01)
    with pytest.raises(UserError, match=r"augment.strength=0.01 of .*steps=50 leaves no step"):
        augment.check(config)
    config.augment.engine = "render"
    augment.check(config)


def test_a_method_of_editing_is_a_row_that_is_given_what_edits_show(monkeypatch):
    record = {"id": "1", "identity": "1", "split": "train", "prompt": "A man."}
    method = augment.EditEngine(
        lambda config, workdir, scenes: scenes(record),
        fingerprint=lambda config: {"weights": config.seed},
        check=lambda config: 1 / 0,
    )
    monkeypatch.setitem(augment.EDIT_ENGINES, "recolour", method)
    config = stages.default_config()
    config.augment.update(engine="recolour", edits=2)
    assert [edit["id"] for edit in augment.run(config, None)] == ["1-1", "1-2"]
    assert augment.fingerprint(config) == {"weights": 0}
    with pytest.raises(ZeroDivisionError):
        augment.check(config)


def test_a_prompt_leaves_room_for_the_scene_of_its_edits():
    path = pathlib.Path(__file__).parents[2] / "configs" / "syn_mllm.py"
    config = runpy.run_path(str(path))["get_config"]()
    scenes = (
        dict(zip(attributes.SCENE, values, strict=True))
        for values in itertools.product(*attributes.SCENE.values())
    )
    added = max(estimate(template.add_scene("A man.", scene)) for scene in scenes)
    added -= estimate("A man.")
    assert added > 20
    assert config.prompts.max_tokens + added <= 77
