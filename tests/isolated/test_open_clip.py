"""What is exported for open_clip opens there by its ordinary calls, with the same features."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.datasets.resizing import SQUASH, Resize
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.model import Clip, init_params
from jaxtbpr.retrieval.clip.published import PUBLISHED
from jaxtbpr.retrieval.clip.transformer import TowerConfig
from tests.isolated import environments
from tests.isolated.test_torch_clip import CAPTIONS, make_model, ours

pytestmark = pytest.mark.isolated

OTHER = ((0.5, 0.25, 0.125), (0.5, 0.3, 0.7))


def eva02():
    """timm has EVA02-CLIP's vision tower in its published size alone."""
    words = tokens.learn([*CAPTIONS, "a red coat"] * 3, 320)
    config = dataclasses.replace(
        PUBLISHED["eva02_clip_b16"],
        text=TowerConfig(16, 2, 2, activation="gelu"),
        text_length=24,
        vocab_size=words.get_vocab_size(),
        embed_dim=12,
    )
    shapes = jax.eval_shape(lambda: init_params(Clip(config), jax.random.key(0)))
    rng = np.random.default_rng(0)
    return config, jax.tree.map(lambda x: rng.normal(0, 0.05, x.shape).astype("f"), shapes), words


def with_tower(activation, eps):
    config, params, words = make_model(activation)
    towers = {n: dataclasses.replace(getattr(config, n), eps=eps) for n in ("vision", "text")}
    return dataclasses.replace(config, **towers, pixels=OTHER), params, words


def tall():
    config, _, words = make_model("gelu")
    config = dataclasses.replace(config, image_size=(96, 32))
    params = jax.jit(lambda key: init_params(Clip(config), key))(jax.random.key(1))
    return config, params, words


@pytest.mark.parametrize(
    ("kind", "make", "resample", "resize"),
    [
        ("openai", lambda: with_tower("quick_gelu", 1e-3), "bilinear", Resize("shortest")),
        ("openai", lambda: with_tower("gelu_tanh", 1e-5), "bicubic", Resize("longest", fill=99)),
        ("openai", tall, "bicubic", Resize("shortest")),
        ("openai", tall, "bilinear", Resize("longest")),
        ("timm", eva02, "bicubic", SQUASH),
    ],
    ids=["quick_gelu, cropped", "gelu_tanh, padded", "tall, cropped", "tall, padded", "timm"],
)
def test_open_clip_gives_the_same_features(tmp_path, kind, make, resample, resize):
    config, params, words = make()
    how = {"resample": resample, "resize": resize}
    weights.save_folder(tmp_path / "x", params, config, words, kind=kind, **how)
    # 48x23.05 and 99x48: a middle, or what is left of the square, is half a pixel off.
    images = np.random.default_rng(0).integers(0, 256, (2, 127, 61, 3), np.uint8)
    np.savez(tmp_path / "in.npz", images=images, captions=CAPTIONS)
    script = pathlib.Path(__file__).with_name("open_clip_features.py")
    python = environments.find_python("newest")
    environments.run(python, script, tmp_path / "x", tmp_path / "in.npz", tmp_path / "out.npz")
    theirs = np.load(tmp_path / "out.npz")
    image, text, ids, scale = ours(tmp_path / "x", images)
    np.testing.assert_array_equal(theirs["ids"], ids)
    np.testing.assert_allclose(theirs["image"], image, atol=3e-5)
    np.testing.assert_allclose(theirs["text"], text, atol=3e-5)
    np.testing.assert_allclose(theirs["logit_scale"], scale, rtol=1e-6)
