"""Stable Diffusion files that today's diffusers and transformers write, and ours in theirs."""

import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.checkpoint import open_checkpoint
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
