"""Half precision is for products; sums, norms and softmax are taken in float32 at least."""

import jax
import jax.numpy as jnp


def widen(x: jax.Array) -> jax.Array:
    """Returns an array of any real type as float32, or as it is where it is float64."""
    return x.astype(wide(x.dtype))


def wide(dtype) -> jnp.dtype:
    """Returns the type that `widen` gives an array of `dtype`."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
