"""The layers whose numbers decide whether two implementations agree, channels last.

Letters: `B` batch, `H` and `W` sides, `C` channels; of attention: `T` queries, `S` keys, `N` heads,
`D` channels of a head.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def group_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, groups: int, eps: float
) -> jax.Array:
    """GroupNorm of [B, ..., C] over all places and the channels of a group; scale, bias: [C].

    Moments are taken in float32 at least, by the two-pass formula; the result has the dtype of
    `x`. Wu and He, ECCV 2018, arXiv:1803.08494.
    """
    channels = x.shape[-1]
    wide = _widen(x).reshape(len(x), -1, channels)

    def moment(values):  # first over places: sums of whole rows, which is what CPUs are good at
        grouped = values.mean(axis=1).reshape(len(x), groups, -1).mean(axis=2)
        return jnp.repeat(grouped, channels // groups, axis=1)[:, None]

    moved = wide - moment(wide)
    factor = jax.lax.rsqrt(moment(jnp.square(moved)) + eps) * scale
    return (moved * factor + bias).reshape(x.shape).astype(x.dtype)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float) -> jax.Array:
    """LayerNorm of [..., C]; in float32 at least, by the two-pass formula, result as `x` is."""
    wide = _widen(x)
    moved = wide - wide.mean(axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.square(moved).mean(axis=-1, keepdims=True) + eps)
    return (moved * factor * scale + bias).astype(x.dtype)


def attention(q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool = False) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v of every head: [B, T, N, D] and twice [B, S, N, D].

    causal: a token sees itself and those before it. The softmax is taken in float32 at least.
    """
    # JAX's takes the softmax of doubles in float32, and on CPUs twice the time.
    if q.dtype == jnp.float64 or jax.default_backend() == "cpu":
        return attend(attention_map(q, k, causal=causal), v)
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal)


def attention_map(q: jax.Array, k: jax.Array, *, causal: bool = False) -> jax.Array:
    """The weights of attention, [B, N, T, S] in float32 at least; each row sums to 1."""
    q, k = q.swapaxes(1, 2), k.swapaxes(1, 2)  # CPUs want the rows of a head in a row
    wide = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.matmul(q, k.swapaxes(2, 3), preferred_element_type=wide) * q.shape[-1] ** -0.5
    if causal:
        seen = jnp.arange(q.shape[2])[:, None] >= jnp.arange(k.shape[2])
        logits = jnp.where(seen, logits, -jnp.inf)
    return jax.nn.softmax(logits)


def attend(weights: jax.Array, v: jax.Array) -> jax.Array:
    """Takes the mean of the values by `attention_map`'s weights: [B, S, N, D] -> [B, T, N, D]."""
    return jnp.matmul(weights.astype(v.dtype), v.swapaxes(1, 2)).swapaxes(1, 2)


def upsample(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Nearest neighbours to `size`, twice the sides of [B, H, W, C] or one less.

    For these sizes PyTorch's rule, row floor(i * H / size), is row i // 2: repeat, then cut.
    """
    batch, height, width, channels = x.shape
    shape = (batch, height, 2, width, 2, channels)
    doubled = jnp.broadcast_to(x[:, :, None, :, None], shape)
    return doubled.reshape(batch, 2 * height, 2 * width, channels)[:, : size[0], : size[1]]


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


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
