"""Stage finetune: drawn people in, a Diffusers folder out that generates and that PyTorch names."""

import json
import shutil

import jax
import numpy as np
import pytest
import transformers
from ml_collections import ConfigDict

from jaxtbpr import stages
from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.workdir import COMMIT, Workdir
from jaxtbpr.diffusion.checkpoint import fingerprint, open_checkpoint
from jaxtbpr.diffusion.generator import Generator, Sampling
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.synthesis import generate

STAGE = stages.STAGES["finetune"]
PHASE = {"steps": 20, "batch_size": 4, "checkpoint_every": 20, "warmup_steps": 2}


def config_of(**changes):
    config = stages.default_config()
    config.generate.update(height=32, width=16, processes=1)
    config.finetune.update(channels=(16, 32), vae_channels=(8, 16), text_width=16, text_layers=1)
    config.finetune.update({"bpe_merges": 200, "text_length": 77} | changes)
    config.finetune.vae.update(PHASE)
    config.finetune.unet.update(PHASE)
    return config


def open_workdir(root):
    return Workdir(root, order=stages.ORDER, chosen=("prompts", "generate"))


def commit(workdir, stage, config, run):
    part = ConfigDict({"seed": 0, stage: config[stage]})
    files.write_json_atomic(workdir.dir(stage) / COMMIT, run(part, workdir))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A workdir with eleven drawn people, one of them no train record."""
    workdir, config = open_workdir(tmp_path_factory.mktemp("run")), config_of()
    config.prompts.update(train=10, val=1, test=0)
    commit(workdir, "prompts", config, stages.STAGES["prompts"].run)
    commit(workdir, "generate", config, generate.run)
    return workdir


@pytest.fixture(scope="module")
def tuned(drawn):
    return STAGE.run(config_of(), drawn)


def test_the_model_is_a_folder_that_generates(drawn, tuned):
    assert (tuned["records_in"], tuned["records_out"], tuned["rejected"]) == (10, 10, 0)
    folder = drawn.dir("finetune") / "model"
    checkpoint = open_checkpoint(folder, "float32")
    assert checkpoint.sizes.vae["scaling_factor"] != 0.18215  # that of these latents
    generator = Generator(checkpoint, Sampling(steps=2), seed=0, batch_size=4)
    pixels, finite = generator(["a woman in a red coat"], ["0"]).wait()
    assert pixels.shape == (1, 32, 16, 3)
    assert finite.all()


def test_the_words_are_those_of_transformers_clip_tokenizer(drawn, tuned):
    folder = drawn.dir("finetune") / "model" / "tokenizer"
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    prompts = [record["prompt"] for record in drawn.manifest("generate")]
    expected = theirs(prompts, padding="max_length", truncation=True, max_length=77)["input_ids"]
    words = open_checkpoint(folder.parent).prompt_tokenizer
    np.testing.assert_array_equal(words.encode(prompts), expected)


def test_both_trainings_have_told_how_they_went(drawn, tuned):
    for part in ("vae", "unet"):
        rows = (drawn.dir("finetune") / part / "metrics.jsonl").read_text().splitlines()
        assert json.loads(rows[-1])["step"] == 20


def test_a_finished_stage_makes_the_same_folder_again(drawn, tuned):
    shutil.rmtree(drawn.dir("finetune") / "model")
    assert STAGE.run(config_of(), drawn)["outputs"] == tuned["outputs"]


@pytest.fixture(scope="module")
def gone_on(drawn, tuned, tmp_path_factory):
    """(workdir, what the stage returned, the torn record): decoder, UNet and text trained on."""
    root = tmp_path_factory.mktemp("more")
    shutil.copytree(drawn.root / "prompts", root / "prompts")
    shutil.copytree(drawn.root / "generate", root / "generate")
    workdir = open_workdir(root)
    torn = next(iter(workdir.manifest("generate")))
    (root / torn["image"]["path"]).write_bytes(b"torn")
    start = drawn.dir("finetune") / "model"
    config = config_of(model=str(start), vae_parts="decoder", text_length=20, channels=(8, 8))
    config.finetune.perceptual.weight = 0.1
    return workdir, STAGE.run(config, workdir), torn


def test_a_training_that_goes_on_may_leave_the_latents_as_they_are(drawn, gone_on):
    before, after = (
        open_checkpoint(workdir.dir("finetune") / "model", "float32")
        for workdir in (drawn, gone_on[0])
    )
    assert after.sizes == before.sizes  # whatever else the config says
    assert after.prompt_tokenizer.length == 77
    same = jax.tree.map(np.array_equal, before.params, after.params)
    assert all(jax.tree.leaves([same["vae"]["encoder"], same["vae"]["quant_conv"]]))
    for part in (same["vae"]["decoder"], same["unet"], same["text_encoder"]):
        assert not all(jax.tree.leaves(part))


def test_without_steps_all_stays_as_it_was(drawn, tuned, tmp_path):
    for stage in ("prompts", "generate"):
        shutil.copytree(drawn.root / stage, tmp_path / stage)
    config = config_of(model=str(drawn.dir("finetune") / "model"))
    config.finetune.vae.steps = config.finetune.unet.steps = 0
    assert STAGE.run(config, open_workdir(tmp_path))["outputs"] == tuned["outputs"]


def test_what_a_clip_sees_counts_where_it_is_wanted(drawn, gone_on):
    for workdir, is_wanted in ((drawn, False), (gone_on[0], True)):
        rows = (workdir.dir("finetune") / "vae" / "metrics.jsonl").read_text().splitlines()
        parts = json.loads(rows[-1])
        assert ("perceptual" in parts) == is_wanted
        expected = parts["pixels"] + parts["edges"] + 0.1 * parts.get("perceptual", 0.0)
        np.testing.assert_allclose(parts["loss"], expected, rtol=2e-2)  # and the divergence


def test_an_image_that_cannot_be_read_is_set_aside_with_the_reason(gone_on):
    workdir, done, torn = gone_on
    assert (done["records_in"], done["records_out"], done["rejected"]) == (10, 9, 1)
    (told,) = (workdir.dir("finetune") / "rejected.jsonl").read_text().splitlines()
    assert json.loads(told)["id"] == torn["id"]
    assert f"{torn['image']['path']} cannot be read" in told


def test_the_model_that_is_gone_on_from_is_part_of_the_recipe(drawn, tuned):
    config = config_of()
    assert STAGE.fingerprint(config) == {}
    config.finetune.model = str(drawn.dir("finetune") / "model")
    started = {"model": fingerprint(config.finetune.model)}
    assert STAGE.fingerprint(config) == started
    config.finetune.perceptual.weight = 0.1
    assert STAGE.fingerprint(config) == started | {"perceptual": scoring.fingerprint("tiny-clip")}
    config.finetune.perceptual.model = "nowhere"
    with pytest.raises(UserError, match="config.finetune.perceptual.model: nowhere does not exist"):
        STAGE.fingerprint(config)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"vae_parts": "decoder"}, "a new model has no autoencoder yet"),
        ({"vae": {"steps": 0}}, "a new model has no autoencoder yet"),
        ({"channels": (24, 48)}, r"config.finetune: channels \(24, 48\) must be multiples of 16"),
        ({"vae_channels": (8,) * 6}, "both must be multiples of 32"),  # of images of 32x16
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_trained(
    drawn, tmp_path, changes, told
):
    shutil.copytree(drawn.root / "prompts", tmp_path / "prompts")
    shutil.copytree(drawn.root / "generate", tmp_path / "generate")
    config = config_of()
    config.finetune.update(changes)
    with pytest.raises(UserError, match=told):
        STAGE.run(config, open_workdir(tmp_path))
    assert not (tmp_path / "finetune" / "vae").exists()


def test_prompts_that_are_too_long_are_counted_and_none_that_fits_is_told(drawn, tmp_path):
    shutil.copytree(drawn.root / "prompts", tmp_path / "prompts")
    shutil.copytree(drawn.root / "generate", tmp_path / "generate")
    config = config_of()
    config.finetune.text_length = 16
    with pytest.raises(
        UserError, match="every prompt is longer than the 16 tokens of the text encoder"
    ):
        STAGE.run(config, open_workdir(tmp_path))
