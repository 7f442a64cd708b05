"""Training losses of the networks of Stable Diffusion: pure functions of arrays.

Letters: `B` images, `h`, `w`, `C` of their latents, `H`, `W` sides of the images.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxtbpr.diffusion.networks import Networks
from jaxtbpr.diffusion.schedule import Schedule, add_noise, velocity

Layers = Callable[[jax.Array], Sequence[jax.Array]]  # images in [-1, 1] -> tokens [B, L, D] each


def noise_errors(
    networks: Networks,
    params: Any,
    schedule: Schedule,
    latents: jax.Array,
    noise: jax.Array,
    timesteps: jax.Array,
    text: jax.Array,
) -> jax.Array:
    """Returns the mean square error of each image's prediction, [B] (DDPM, eq. 14).

    latents, noise: [B, h, w, C]; timesteps: int [B]; text: states [B, L, D]. The target, noise or
    velocity, follows from the schedule's prediction type.
    """
    alphas = schedule.alphas_cumprod()
    noised = add_noise(alphas, latents, noise, timesteps)
    target = noise
    if schedule.prediction == "v_prediction":
        target = velocity(alphas, latents, noise, timesteps)
    predicted = networks.predict(params, noised, timesteps, text)
    return jnp.square(predicted - target).mean(axis=(1, 2, 3))


def snr_weights(schedule: Schedule, timesteps: jax.Array, gamma: float) -> jax.Array:
    """Returns the weight of each timestep's error, [B]: min-SNR (arXiv:2303.09556, section 3.4).

    min(SNR, gamma) / SNR for noise, / (SNR + 1) for velocity, so that both give the error of the
    image the same weight. gamma 0 = all weights 1.
    """
    if not gamma:
        return jnp.ones(timesteps.shape)
    alphas = jnp.asarray(schedule.alphas_cumprod())[timesteps]
    snr = alphas / (1 - alphas)
    divisor = snr + 1 if schedule.prediction == "v_prediction" else snr
    return jnp.minimum(snr, gamma) / divisor


def draw_latents(mean: jax.Array, deviation: jax.Array, key: jax.Array) -> jax.Array:
    """Samples latents of the encoder's normal distribution, all [B, h, w, C]."""
    return mean + deviation * jax.random.normal(key, mean.shape)


def autoencoder_loss(
    networks: Networks,
    params: Any,
    images: jax.Array,
    key: jax.Array,
    *,
    divergence: float = 1e-6,
    **weights: Any,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns (loss, its parts) of the VAE on images [B, H, W, 3] in [-1, 1].

    `reconstruction_loss`, which gets `weights`, plus `divergence` times the
    Kullback-Leibler divergence of the latents from a normal distribution (arXiv:1312.6114, eq. 10).
    """
    mean, logvar = networks.encode_image(params, images)
    latents = draw_latents(mean, jnp.exp(logvar / 2), key)
    loss, parts = reconstruction_loss(networks, params, latents, images, **weights)
    away = jnp.square(mean) + jnp.exp(logvar) - 1 - logvar
    parts["divergence"] = 0.5 * away.sum(axis=(1, 2, 3)).mean()
    return loss + divergence * parts["divergence"], parts


def reconstruction_loss(
    networks: Networks,
    params: Any,
    latents: jax.Array,
    images: jax.Array,
    *,
    edge_weight: float = 1.0,
    perceptual: float = 0.0,
    layers: Layers | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns (loss, its parts) of decoding latents [B, h, w, C] to images [B, H, W, 3].

    The absolute error of pixels plus `edge_weight` times that of the differences of neighbours,
    which keeps edges sharp where the error of pixels alone blurs them. layers: of a network for the
    perceptual distance, whose weight is `perceptual`.
    """
    decoded = networks.decode(params, latents)
    error = decoded - images
    parts = {
        "pixels": jnp.abs(error).mean(),
        "edges": sum(jnp.abs(jnp.diff(error, axis=axis)).mean() for axis in (1, 2)),
    }
    loss = parts["pixels"] + edge_weight * parts["edges"]
    if layers is not None:
        parts["perceptual"] = perceptual_distance(layers(decoded), layers(images))
        loss += perceptual * parts["perceptual"]
    return loss, parts


def perceptual_distance(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    """Returns the mean over layers of the mean square difference of tokens [B, L, D].

    As in LPIPS (arXiv:1801.03924, eq. 1), without learned weights, but each token has mean 0 and
    deviation 1 over its channels, as the next layer of a transformer takes it.
    """

    def normal(x):
        return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-3)

    return jnp.stack(
        [jnp.square(normal(x) - normal(y)).mean() for x, y in zip(a, b, strict=True)]
    ).mean()
