"""Stage augment by instructions, with a tiny random InstructPix2Pix: images in, edits out."""

import pathlib
import shutil

import numpy as np
import pytest

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import Manifest
from jaxtbpr.diffusion.checkpoint import fingerprint
from jaxtbpr.prompts import template
from jaxtbpr.synthesis import augment, generate
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

REFERENCE = DATA / "reference" / "diffusion"
COUNT, BROKEN = 5, 3
SEED = 6  # some of its instructions are longer than the tiny text encoder takes


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    """The folder of a whole InstructPix2Pix."""
    folder = tmp_path_factory.mktemp("instruct") / "model"
    shutil.copytree(REFERENCE / "sd1_tiny", folder, copy_function=shutil.copyfile)
    for path in (REFERENCE / "ip2p_tiny" / "unet").iterdir():
        shutil.copyfile(path, folder / "unet" / path.name)
    return folder


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> pathlib.Path:
    """A run with stage generate finished, one of whose images is broken."""
    root = tmp_path_factory.mktemp("generated")
    workdir, rng = make_prompts(root, prompt_records(COUNT)), np.random.default_rng(0)
    made = []
    for record in prompt_records(COUNT):
        pixels = rng.integers(0, 256, (32, 16, 3), np.uint8)
        made.append(record | {"edits": [], "image": write_image(root, "generate", record, pixels)})
    (root / made[BROKEN]["image"]["path"]).write_bytes(b"no image")
    finish(workdir, "generate", made)
    return root


def config_of(model, **changes):
    config = generation_config("")
    config.seed = SEED
    config.generate.update(changes)
    config.augment.update(engine="instruct", edits=3)
    config.augment.change.update(dict.fromkeys(config.augment.change, 1.0))
    config.augment.instruct.update(model=str(model), sampler="euler_a", steps=2)
    return config


@pytest.fixture(scope="module")
def whole(model, generated, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(generated, root, dirs_exist_ok=True)
    done = augment.run(config_of(model), open_workdir(root))
    return root, Manifest(root / "augment", done["outputs"])


def test_edits_tell_their_instruction_and_are_of_the_same_person(whole, model):
    root, manifest = whole
    edits = [record for record in manifest if record["edits"]]
    rejected = sum(record["edits"] != [] for record in manifest.rejected())
    assert len(edits) == 3 * (COUNT - 1) - rejected
    for edit in edits:
        assert edit["identity"] == edit["id"].split("-")[0]
        assert edit["prompt"].startswith("a man in a ")  # what it shows
        assert (root / edit["image"]["path"]).exists()
        assert edit["generation"] == {
            "method": "instruct",
            "instruction": template.instruction(edit["scene"]),
            "negative_prompt": "",
            "seed": SEED,
            "sampler": "euler_a",
            "prediction_type": "epsilon",
            "steps": 2,
            "guidance_scale": 7.5,
            "image_guidance_scale": 1.5,
            "guidance_rescale": 0.0,
            "eta": 0.0,
            "dtype": "float32",
            "checkpoint": fingerprint(model),
        }
    assert len({edit["image"]["sha256"] for edit in edits}) == len(edits)
    bases = [record for record in manifest if not record["edits"]]
    assert len(bases) == COUNT - 1
    assert not any("generation" in base for base in bases)


def test_what_cannot_be_edited_is_rejected_with_the_reason(whole):
    broken, *edits = sorted(whole[1].rejected(), key=lambda record: len(record["edits"]))
    assert broken["id"] == f"{BROKEN:08d}"
    assert "cannot be read" in broken["rejected"]["reason"]
    assert edits
    for edit in edits:
        reason = edit["rejected"]["reason"]
        assert "tokens, but the text encoder takes 77: shorten it (augment.change): put" in reason


def test_a_killed_run_goes_on_to_the_same_bytes(whole, generated, model, tmp_path):
    shutil.copytree(generated, tmp_path, dirs_exist_ok=True)
    killed_after(4, augment, config_of(model, writer_threads=1), tmp_path)
    assert 0 < len(content(tmp_path, "augment")) < len(content(whole[0], "augment"))
    augment.run(config_of(model), open_workdir(tmp_path))
    assert content(tmp_path, "augment") == content(whole[0], "augment")


def test_an_edit_in_which_nothing_changes_is_rejected():
    record = {"id": "1-1", "prompt": "a man", "edits": [], "scene": {}}
    job = augment._instructed(record, np.zeros((2, 2, 3), np.uint8))
    assert not job.is_made
    assert job.record["rejected"]["reason"].startswith("nothing of the scene changes")


def test_a_drawn_person_s_instruction_names_what_changes_alone():
    looks = {"background": "forest", "weather": "clear", "sex": "male"}
    record = {"id": "1-1", "prompt": "a man", "edits": ["background"], "attributes": looks}
    job = augment._instructed(record, np.zeros((2, 2, 3), np.uint8))
    assert job.prompt == job.told["instruction"] == "put the person in a forest"


def test_the_model_must_be_named_and_of_that_kind_before_anything_runs(model):
    assert augment.fingerprint(config_of(model)) == {"model": fingerprint(model)}
    with pytest.raises(UserError, match=r"config.augment.instruct.model: .* InstructPix2Pix"):
        augment.fingerprint(config_of(""))
    augment.check(config_of(model))
    config = config_of(REFERENCE / "sd1_tiny")
    with pytest.raises(UserError, match=r"config.augment.instruct.model: .*use an InstructPix2Pix"):
        augment.check(config)
    generate.check(generation_config(REFERENCE / "sd1_tiny"))
    config = generation_config(model)
    with pytest.raises(UserError, match=r"config.generate.model: .*'instruct' of stage augment"):
        generate.check(config)
