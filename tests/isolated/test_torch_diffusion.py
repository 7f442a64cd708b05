"""Stable Diffusion and PyTorch: a folder that we write gives the same there.

./tests/run.sh --isolated makes the environment with torch, which JAXTBPR_TORCH_PYTHON names.
"""

import pathlib

import jax
import numpy as np
import pytest

from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.networks import Networks
from tests.isolated import environments

pytestmark = pytest.mark.isolated

PROMPTS = ["a woman in a red coat", ""]


@pytest.mark.parametrize("model", ["sd1_tiny", "sd2_tiny"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_saved_folder_gives_the_same_output_in_pytorch(tmp_path, reference, model, dtype):
    sizes, params, scheduler, words = weights.load(reference / "diffusion" / model)
    # Other weights than the reference's, so that PyTorch reads what was written now.
    params = jax.tree.map(lambda x: 1.1 * x + 0.01 * np.sign(x), params)
    weights.save(tmp_path / "model", sizes, params, scheduler, words, dtype=dtype)
    rng = np.random.default_rng(0)
    networks = Networks(sizes)
    given = {
        "prompts": PROMPTS,
        "latents": rng.normal(size=(2, 10, 6, 4)).astype("f"),
        "steps": np.array([981, 3]),
        "image": rng.uniform(-1, 1, (1, 16, 8, 3)).astype("f"),
        "z": rng.normal(size=(1, 4, 6, 4)).astype("f"),
    }
    np.savez(tmp_path / "in.npz", **given)
    script = pathlib.Path(__file__).with_name("torch_diffusion.py")
    arguments = (script, tmp_path / "model", tmp_path / "in.npz", tmp_path / "out.npz")
    environments.run(environments.find_python("torch"), *arguments)
    theirs = np.load(tmp_path / "out.npz")

    params = weights.load(tmp_path / "model", "float32")[1]
    text = jax.jit(networks.encode_text)(params, theirs["ids"].astype("int32"))
    predicted = jax.jit(networks.predict)(params, given["latents"], given["steps"], text)
    mean, _ = jax.jit(networks.encode_image)(params, given["image"])
    ours = {
        "text": text,
        "predicted": predicted,
        "mean": mean,
        "decoded": jax.jit(networks.decode)(params, given["z"]),
    }
    assert str(theirs["prediction_type"]) == scheduler["prediction_type"]
    for name, found in ours.items():
        error = np.abs(found - theirs[name]).max() / max(np.std(theirs[name]), 1)
        assert error < 2e-5, (name, error)
