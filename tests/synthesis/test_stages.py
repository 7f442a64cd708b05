"""The image stages: what they say about records that they cannot use."""

import pytest
from ml_collections import ConfigDict

from jaxtbpr.core import files, manifest, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.workdir import COMMIT, Workdir
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
