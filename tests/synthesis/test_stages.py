"""The image stages: what they say about records that they cannot use, and what prompts may need."""

import itertools
import pathlib
import runpy

import pytest
from ml_collections import ConfigDict

from jaxtbpr.core import attributes, files, manifest, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.workdir import COMMIT, Workdir
from jaxtbpr.prompts import template
from jaxtbpr.prompts.clauses import estimate
from jaxtbpr.synthesis import augment, filter, quality

STAGES = {"filter": filter.Filter({"quality": quality}), "augment": augment}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_of_images_without_images_names_the_stage_that_makes_them(tmp_path, name):
    stage = STAGES[name]
    records = [{"id": "00000001", "identity": "00000001", "split": "train"}]
    manifest.map_records(
        [records], tmp_path / "prompts", lambda r: ([x] for x in r), label="", shard_count=1
    )
    outputs = manifest.shard_digests(tmp_path / "prompts")
    files.write_json_atomic(tmp_path / "prompts" / COMMIT, {"outputs": outputs})
    workdir = Workdir(tmp_path, order=("prompts", name), chosen=(name,))
    config = ConfigDict({"seed": 0, name: options.default_config(stage.OPTIONS)})
    config[name].processes = 1
    with pytest.raises(UserError, match=f"stage '{name}' needs images, .* add stage 'generate'"):
        stage.run(config, workdir)


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
    assert config.prompts.most_tokens + added <= 77
