"""Stable Diffusion files that today's diffusers and transformers write, and ours in theirs."""

import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxtbpr.core import seeds
from jaxtbpr.diffusion import generator, weights
from jaxtbpr.diffusion.checkpoint import open_checkpoint
from jaxtbpr.diffusion.editing.instruct import InstructGenerator
from jaxtbpr.diffusion.networks import Networks
from tests.diffusion import single_file
from tests.isolated import environments

pytestmark = pytest.mark.isolated

SCRIPT = pathlib.Path(__file__).with_name("stable_diffusion_files.py")
PROMPTS = ["a woman in a red coat", "A MAN by <s0>, <s1> red", "<S0> My-Style <s0>x"]
MODELS = pytest.mark.parametrize("model", ["sd1_tiny", "sd2_tiny"])
ENVIRONMENTS = pytest.mark.parametrize("environment", ["torch", "newest"])


def theirs(environment, *words):
    environments.run(environments.find_python(environment), SCRIPT, *words)


def assert_same_numbers(environment, folder, tmp_path):
    """Asserts that ids, text states, a step of the UNet and a decoded image are theirs."""
    latents = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype("f")
    np.savez(tmp_path / "in.npz", prompts=PROMPTS, latents=latents)
    theirs(environment, "run", folder, tmp_path / "in.npz", tmp_path / "out.npz")
    expected = np.load(tmp_path / "out.npz")
    checkpoint = open_checkpoint(folder, "float32")
    networks = Networks(checkpoint.sizes)
    np.testing.assert_array_equal(checkpoint.prompt_tokenizer.encode(PROMPTS), expected["ids"])
    ids = expected["ids"].astype("int32")
    text = jax.jit(networks.encode_text)(checkpoint.params, ids)
    found = {
        "text": text,
        "predicted": jax.jit(networks.predict)(checkpoint.params, latents, 500, text),
        "decoded": jax.jit(networks.decode)(checkpoint.params, latents),
    }
    for name, array in found.items():
        error = np.abs(array - expected[name]).max() / max(np.std(expected[name]), 1)
        assert error < 2e-5, (name, error)


@MODELS
def test_a_single_file_that_diffusers_saved_as_a_folder_opens(tmp_path, reference, model):
    published = reference / "diffusion" / model
    safetensors.numpy.save_file(single_file.make(published), tmp_path / "x.safetensors")
    theirs("newest", "single", tmp_path / "x.safetensors", published, tmp_path / "model")
    stored = safetensors.numpy.load_file(tmp_path / "model/text_encoder/model.safetensors")
    assert "embeddings.token_embedding.weight" in stored  # what the test is about
    assert_same_numbers("newest", tmp_path / "model", tmp_path)


@MODELS
@ENVIRONMENTS
def test_a_model_with_learned_tokens_opens(tmp_path, reference, model, environment):
    theirs(environment, "learn", reference / "diffusion" / model, tmp_path / "model")
    added = tmp_path / "model" / "tokenizer" / "added_tokens.json"
    assert added.exists() == (environment == "torch")
    assert_same_numbers(environment, tmp_path / "model", tmp_path)


@ENVIRONMENTS
def test_what_we_save_opens_in_the_pipelines_that_look_at_versions(
    tmp_path, reference, environment
):
    sizes, params, scheduler, words = weights.load(reference / "diffusion" / "sd1_tiny")
    own = {key: x for key, x in scheduler.items() if not key.startswith("_")}
    weights.save(tmp_path / "model", sizes, params, own, words)
    theirs(environment, "open", tmp_path / "model")
    assert_same_numbers(environment, tmp_path / "model", tmp_path)


@ENVIRONMENTS
def test_an_instruct_pix2pix_edits_as_in_their_pipeline(tmp_path, reference, environment):
    theirs(environment, "make-instruct", reference / "diffusion" / "sd1_tiny", tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model", "float32")
    parts = checkpoint.sizes, checkpoint.params, checkpoint.scheduler, checkpoint.tokenizer
    weights.save(tmp_path / "saved", *parts)
    scales = {"guidance_scale": 5.0, "image_guidance_scale": 1.8}
    settings = generator.Sampling(steps=4, height=32, width=16, **scales)
    edits = InstructGenerator(checkpoint, settings, seed=3, batch_size=1)
    assert edits.schedule.sampler == "euler_a"  # of their folder
    records = ["00000000-01", "00000001-01"]
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 16, 3), np.uint8)
    # Theirs begin with our noise, and add ours.
    words = np.stack([seeds.words(record) for record in records])
    keys = generator.image_keys(jax.random.key_data(jax.random.key(3)), words)
    start, *noise = (
        np.asarray(generator.draw(keys, purpose, (16, 8, 4)))
        for purpose in (generator._START, *range(generator._STEPS, generator._STEPS + 4))
    )
    given = {"prompts": PROMPTS[:2], "images": images, "latents": start, "noise": np.stack(noise)}
    np.savez(tmp_path / "in.npz", **given, **scales)
    theirs(environment, "instruct", tmp_path / "saved", tmp_path / "in.npz", tmp_path / "out.npz")
    found, finite = edits.edit(PROMPTS[:2], records, images).wait()
    expected = np.load(tmp_path / "out.npz")["images"]
    assert finite.all()
    assert expected.std() > 0.05
    np.testing.assert_allclose(found / 255, expected, atol=0.5 / 255 + 1e-3)
