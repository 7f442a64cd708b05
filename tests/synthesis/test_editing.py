"""Stage augment with engine `edit`: images in, edits by inversion and attention control out."""

import pathlib
import shutil

import numpy as np
import pytest

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import Manifest
from jaxtbpr.diffusion.checkpoint import fingerprint
from jaxtbpr.synthesis import augment, editing
from jaxtbpr.synthesis.images import write_image
from tests.conftest import DATA
from tests.synthesis.stages import (
    finish,
    generation_config,
    make_prompts,
    open_workdir,
    prompt_records,
)
from tests.synthesis.test_generate_diffusion import content, killed_after

MODEL = DATA / "reference" / "diffusion" / "sd2_tiny"
COUNT, BROKEN, LONG = 5, 3, 1


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> pathlib.Path:
    """A run with stage generate finished: one image is broken, one prompt is too long to edit."""
    root = tmp_path_factory.mktemp("generated")
    workdir, rng = make_prompts(root, prompt_records(COUNT)), np.random.default_rng(0)
    made = []
    for k, record in enumerate(prompt_records(COUNT)):
        record["prompt"] += ", a" * 35 * (k == LONG)
        pixels = rng.integers(0, 256, (40, 20, 3), np.uint8)
        made.append(record | {"edits": [], "image": write_image(root, "generate", record, pixels)})
    (root / made[BROKEN]["image"]["path"]).write_bytes(b"no image")
    finish(workdir, "generate", made)
    return root


def config_of(model=MODEL, **changes):
    config = generation_config(model, **changes)
    config.augment.engine = "edit"
    config.augment.edit.steps = 2
    for kind, options in config.augment.kinds.items():
        options.update(count=int(kind in ("background", "weather")), gradient_scale=50.0)
    config.augment.kinds.weather.targets = ("snow",)
    return config


@pytest.fixture(scope="module")
def whole(generated, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(generated, root, dirs_exist_ok=True)
    done = augment.run(config_of(), open_workdir(root))
    return root, Manifest(root / "augment", done["outputs"])


def test_edits_follow_their_image_and_tell_how_they_were_made(whole):
    root, manifest = whole
    edits = [record for record in manifest if record["edits"]]
    assert [edit["id"] for edit in edits] == [
        f"{k:08d}-{n}" for k in range(COUNT) if k not in (BROKEN, LONG) for n in (1, 2)
    ]
    for edit in edits:
        assert edit["identity"] == edit["id"].split("-")[0]
        assert (root / edit["image"]["path"]).exists()
        assert (edit["image"]["height"], edit["image"]["width"]) == (32, 16)
    snow = edits[1]
    assert snow["edits"] == ["weather"]
    assert snow["scene"] == {"weather": "snow"}
    assert snow["prompt"] == "a man in a red coat, in the snow."
    assert snow["generation"] == {
        "method": "prompt_to_prompt",
        "source_prompt": "a man in a red coat",
        "target_prompt": "a man in a red coat, in the snow.",
        "cross_replace": 0.8,
        "self_replace": 0.6,
        "weights": {"snow": 3.0},
        "guidance_scale": 10.0,
        "noise_map_scale": 10.0,
        "gradient_scale": 50.0,
        "first_step": 4,
        "distance": "l1",
        "inversion_rule": "0.18",
        "match": "tokens",
        "tail": "aligned",
        "sample_latents": False,
        "sampler": "ddim",
        "steps": 2,
        "prediction_type": "v_prediction",
        "dtype": "float32",
        "negative_prompt": "",
        "seed": 0,
        "checkpoint": fingerprint(MODEL),
    }
    assert len({edit["image"]["sha256"] for edit in edits}) == len(edits)
    assert [record["id"] for record in manifest if not record["edits"]] == [
        f"{k:08d}" for k in range(COUNT) if k != BROKEN
    ]


def test_what_cannot_be_edited_is_rejected_with_the_reason(whole):
    reasons = {record["id"]: record["rejected"]["reason"] for record in whole[1].rejected()}
    assert reasons.keys() == {f"{BROKEN:08d}", f"{LONG:08d}-1", f"{LONG:08d}-2"}
    assert "cannot be read" in reasons[f"{BROKEN:08d}"]
    assert "tokens, but the text encoder takes 77: shorten it" in reasons[f"{LONG:08d}-1"]


def test_a_killed_run_goes_on_to_the_same_bytes(whole, generated, tmp_path):
    shutil.copytree(generated, tmp_path, dirs_exist_ok=True)
    killed_after(3, augment, config_of(writer_threads=1), tmp_path, editing)
    assert 0 < len(content(tmp_path, "augment")) < len(content(whole[0], "augment"))
    augment.run(config_of(), open_workdir(tmp_path))
    assert content(tmp_path, "augment") == content(whole[0], "augment")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ("moon",)}, "config.augment.kinds.background.targets has 'moon'; use some of"),
        ({"count": 7}, "config.augment.kinds.background.count=7 is more than its 6 targets"),
    ],
)
def test_kinds_that_cannot_be_are_told_before_anything_runs(change, message):
    config = config_of()
    config.augment.kinds.background.update(change)
    with pytest.raises(UserError, match=message):
        augment.check(config)


def test_the_paper_s_attention_layers_are_not_in_every_model(generated, tmp_path):
    shutil.copytree(generated, tmp_path, dirs_exist_ok=True)
    config = config_of()
    config.augment.kinds.posture.count = 1
    with pytest.raises(UserError, match=r"config.augment.kinds.posture: .*would change nothing"):
        augment.run(config, open_workdir(tmp_path))
