"""Half precision is for products; sums, norms and softmax are taken in float32 at least.

`Array` and `Scalar` are for annotations with shapes, as ``Float[Array, "b d"]`` (jaxtyping), which
the tests check at every call.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

Array = jax.Array | np.ndarray
Scalar = Shaped[Array, ""] | float | int | np.number


def widen(x: jax.Array) -> jax.Array:
    """Returns an array of any real type as float32, or as it is where it is float64."""
    return x.astype(wide(x.dtype))


def wide(dtype) -> jnp.dtype:
    """Returns the type that `widen` gives an array of `dtype`."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
