"""The moving average of a model's weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def moving_average(average: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """Returns the average after the step of number `step` (from 0) has made `params`.

    The decay grows with the steps, min(decay, (1 + step) / (10 + step)), so that the weights of
    the start are soon forgotten.
    """
    kept = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, average, 1 - kept)
