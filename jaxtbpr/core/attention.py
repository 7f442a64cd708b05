"""Attention of many heads, for the towers and for Stable Diffusion.

Letters: `B` batch, `T` queries, `S` keys, `N` heads, `D` channels of a head.
"""

import jax
import jax.numpy as jnp

from jaxtbpr.core.dtypes import wide


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    causal: bool = False,
    kv_lengths: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(D)) v of every head: [B, T, N, D] and twice [B, S, N, D].

    causal: a token attends to itself and earlier ones; kv_lengths: int32 [B], to how many keys,
    from the first, each row attends. The softmax is taken in float32 at least.
    """
    # JAX's function takes the softmax of float64 in float32, and twice the time on CPUs.
    if q.dtype == jnp.float64 or jax.default_backend() == "cpu":
        return apply_map(attention_map(q, k, causal=causal, kv_lengths=kv_lengths), v)
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal, key_value_seq_lengths=kv_lengths)


def attention_map(
    q: jax.Array, k: jax.Array, *, causal: bool = False, kv_lengths: jax.Array | None = None
) -> jax.Array:
    """The weights of attention, [B, N, T, S] in float32 at least; each row sums to 1."""
    q, k = q.swapaxes(1, 2), k.swapaxes(1, 2)  # faster on CPUs: a head's rows contiguous
    products = jnp.matmul(q, k.swapaxes(2, 3), preferred_element_type=wide(q.dtype))
    logits = products * q.shape[-1] ** -0.5
    at = jnp.arange(k.shape[2])
    if causal:
        logits = jnp.where(jnp.arange(q.shape[2])[:, None] >= at, logits, -jnp.inf)
    if kv_lengths is not None:
        logits = jnp.where(at < kv_lengths[:, None, None, None], logits, -jnp.inf)
    return jax.nn.softmax(logits)


def apply_map(weights: jax.Array, v: jax.Array) -> jax.Array:
    """The output of attention: [B, N, T, S] and values [B, S, N, D] -> [B, T, N, D].

    In the dtype of `v`.
    """
    return jnp.matmul(weights.astype(v.dtype), v.swapaxes(1, 2)).swapaxes(1, 2)
