"""Layers whose rounding decides whether two implementations agree, channels last.

Letters: `B` batch, `H` and `W` sides, `C` channels.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.core.dtypes import widen


def group_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, groups: int, eps: float
) -> jax.Array:
    """GroupNorm of [B, ..., C] over all positions and the channels of a group; scale, bias: [C].

    Moments are taken in float32 at least, by the two-pass formula; the result has the dtype of
    `x`. Wu and He, ECCV 2018, arXiv:1803.08494.
    """
    channels = x.shape[-1]
    wide = widen(x).reshape(len(x), -1, channels)
    averaging = jnp.full(wide.shape[1], 1 / wide.shape[1], wide.dtype)

    def moment(values):
        # First over positions, and as a product: the order of a sum in XLA's CPU backend depends
        # on its number of threads, and so would the last bits of large images.
        over_places = jnp.einsum("p,bpc->bc", averaging, values, precision="highest")
        grouped = over_places.reshape(len(x), groups, -1).mean(axis=2)
        return jnp.repeat(grouped, channels // groups, axis=1)[:, None]

    moved = wide - moment(wide)
    factor = jax.lax.rsqrt(moment(jnp.square(moved)) + eps) * scale
    return (moved * factor + bias).reshape(x.shape).astype(x.dtype)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float) -> jax.Array:
    """LayerNorm of [..., C]; in float32 at least, by the two-pass formula, result as `x` is."""
    wide = widen(x)
    moved = wide - wide.mean(axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.square(moved).mean(axis=-1, keepdims=True) + eps)
    return (moved * factor * scale + bias).astype(x.dtype)


def timestep_features(
    timesteps: jax.Array, channels: int, *, cosine_first: bool = True, shift: float = 0
) -> jax.Array:
    """Sines and cosines of timesteps [B], which may be fractional: float32 [B, channels].

    Frequencies are 10000^(-i / (half - shift)), i = 0 ... half - 1, rounded as PyTorch rounds them:
    at t = 999 another order of the same operations is already 1e-5 away.
    """
    half = channels // 2
    exponents = np.float32(-math.log(10000)) * np.arange(half, dtype=np.float32)
    frequencies = np.exp(exponents / np.float32(half - shift), dtype=np.float32)
    angles = timesteps.astype(jnp.float32)[:, None] * frequencies
    parts = [jnp.cos(angles), jnp.sin(angles)]
    return jnp.concatenate(parts if cosine_first else parts[::-1], axis=1)


def from_pixels(pixels: jax.Array) -> jax.Array:
    """Returns uint8 pixels as the VAE has them: float32 in [-1, 1]."""
    return pixels / jnp.float32(127.5) - 1
