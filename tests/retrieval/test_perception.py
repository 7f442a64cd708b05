"""What a CLIP sees in images: the tokens of each of its layers, for images of any sides."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.retrieval.clip.model import Clip
from jaxtbpr.retrieval.judging import perception
from jaxtbpr.retrieval.saved import open_saved


def test_each_layer_s_tokens_are_given_and_images_have_a_gradient():
    see = perception.layers("tiny-clip")
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 32, 16, 3)), jnp.float32)
    seen, gradient = jax.jit(
        lambda x: (see(x), jax.grad(lambda x: sum(jnp.square(y).sum() for y in see(x)))(x))
    )(images)
    config = open_saved("tiny-clip").config
    tokens = 1 + config.grid[0] * config.grid[1]
    shape = (2, tokens, config.vision.width)
    assert [x.shape for x in seen] == [shape] * (config.vision.layers + 1)  # and the embedding
    assert np.all(np.abs(gradient).max(axis=(1, 2, 3)) > 0)


def test_they_are_those_that_lead_to_the_model_s_own_features():
    saved = open_saved("tiny-clip")
    clip, params = Clip(saved.config), saved.read_params()
    images = np.random.default_rng(0).integers(0, 256, (1, *saved.config.image_size, 3))
    seen = perception.layers("tiny-clip")(jnp.asarray(images, jnp.float32) / 127.5 - 1)
    end = params["image"]["ln_post"]
    expected = clip.apply({"params": params}, images, method="encode_image")
    # The last layer is the one whose class token, normalised and projected, is the feature.
    token = np.stack([np.asarray(x[:, 0]) for x in seen])
    normal = (token - token.mean(-1, keepdims=True)) / (token.std(-1, keepdims=True) + 1e-6)
    features = (normal * end["scale"] + end["bias"]) @ params["image"]["projection"]["kernel"]
    errors = np.abs(features - np.asarray(expected)).max(axis=(1, 2))
    assert errors.min() < 1e-3 < np.median(errors)
