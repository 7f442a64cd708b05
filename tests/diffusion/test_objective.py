"""What the networks are trained to, against the formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.diffusion import objective
from jaxtbpr.diffusion.schedule import Schedule

EPSILON = Schedule()
VELOCITY = dataclasses.replace(EPSILON, prediction="v_prediction")
TIMES = np.array([0, 400, 999])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


class Oracle:
    """Networks that answer what they are given, and an autoencoder that loses nothing."""

    def __init__(self, answer=None):
        self.answer = answer

    def predict(self, params, noised, timesteps, text):
        self.noised = noised
        return self.answer

    def encode_image(self, params, images):
        return images, jnp.full(images.shape, -60.0)

    def decode(self, params, latents):
        return latents


@pytest.mark.parametrize("schedule", [EPSILON, VELOCITY])
def test_the_target_is_noise_or_velocity_at_the_noised_latents(schedule):
    latents, noise = draw(3, 4, 2, 4), draw(3, 4, 2, 4, seed=1)
    alphas = schedule.alphas_cumprod()[TIMES].reshape(3, 1, 1, 1)
    target = noise if schedule is EPSILON else alphas**0.5 * noise - (1 - alphas) ** 0.5 * latents
    networks = Oracle(answer=target + np.array([0, 1, 2], np.float32).reshape(3, 1, 1, 1))
    found = objective.noise_errors(networks, {}, schedule, latents, noise, TIMES, None)
    np.testing.assert_allclose(found, [0, 1, 4], atol=1e-5)
    np.testing.assert_allclose(
        networks.noised, alphas**0.5 * latents + (1 - alphas) ** 0.5 * noise, rtol=1e-5, atol=1e-6
    )


def test_min_snr_weights_are_those_of_the_paper():
    alphas = EPSILON.alphas_cumprod()[TIMES].astype(np.float64)
    snr = alphas / (1 - alphas)
    found = objective.snr_weights(EPSILON, TIMES, 5.0)
    np.testing.assert_allclose(found, np.minimum(snr, 5) / snr, rtol=1e-4)
    found = objective.snr_weights(VELOCITY, TIMES, 5.0)
    np.testing.assert_allclose(found, np.minimum(snr, 5) / (snr + 1), rtol=1e-4)
    np.testing.assert_array_equal(objective.snr_weights(EPSILON, TIMES, 0.0), 1)


def test_an_autoencoder_that_loses_nothing_has_only_its_divergence():
    images = draw(2, 8, 4, 3)
    loss, parts = objective.autoencoder_loss(Oracle(), {}, images, jax.random.key(0))
    assert parts["pixels"] < 1e-6
    assert parts["edges"] < 1e-6
    expected = 0.5 * (images**2 + np.exp(-60) - 1 + 60).sum(axis=(1, 2, 3)).mean()
    np.testing.assert_allclose(parts["divergence"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, 1e-6 * expected, rtol=0.05)


def test_edges_count_where_neighbours_differ_in_their_error():
    class Shifted(Oracle):
        def decode(self, params, latents):
            return latents + self.answer

    def parts(error):
        images = jnp.zeros((1, 4, 4, 3))
        return objective.autoencoder_loss(Shifted(error), {}, images, jax.random.key(0))[1]

    even = parts(0.5)
    np.testing.assert_allclose([even["pixels"], even["edges"]], [0.5, 0], atol=1e-6)
    stripes = parts(jnp.where(jnp.arange(4) % 2, 0.5, -0.5)[:, None, None])
    np.testing.assert_allclose([stripes["pixels"], stripes["edges"]], [0.5, 1], atol=1e-6)


def test_what_a_network_sees_counts_by_its_weight():
    """Against a statement in NumPy of LPIPS without learned weights, on normalised tokens."""
    images, other = draw(2, 4, 4, 3), draw(2, 4, 4, 3, seed=1)

    def layers(pixels):
        tokens = pixels.reshape(2, -1, 3)
        return [jnp.tanh(tokens), jnp.tile(tokens[:, :5], 2)]

    def normal(x):
        return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-3)

    seen = zip(*[[np.array(x) for x in layers(some)] for some in (images, other)], strict=True)
    expected = np.mean([np.mean((normal(a) - normal(b)) ** 2) for a, b in seen])
    found = objective.perceptual_distance(layers(other), layers(images))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    given = (Oracle(), {}, other, images)  # its images are the latents
    plain, _ = objective.reconstruction_loss(*given)
    loss, parts = objective.reconstruction_loss(*given, layers=layers, perceptual=0.5)
    np.testing.assert_allclose(parts["perceptual"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, plain + 0.5 * expected, rtol=1e-5)
