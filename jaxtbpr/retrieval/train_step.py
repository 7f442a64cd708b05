"""The training state and the one compiled step that changes it."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxtbpr.core import mesh as meshes
from jaxtbpr.retrieval import losses
from jaxtbpr.retrieval.model import Clip, init_params

Batch = dict[str, jax.Array]
Step = Callable[["TrainState", Batch], tuple["TrainState", dict[str, jax.Array]]]


class TrainState(flax.struct.PyTreeNode):
    """All that a step changes, or depends on and a checkpoint must hold.

    step: int32 [], finished steps; key: uint32, data of the run's random key; step n draws from
    fold_in(key, n).
    """

    step: jax.Array
    params: Any
    opt_state: Any
    key: jax.Array


def create_state(
    key: jax.Array, *, model: Clip, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns the state before the first step; run it under jax.jit."""
    params_key, key = jax.random.split(key)
    params = init_params(model, params_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        key=jax.random.key_data(key),
    )


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Clip,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of N-ITC over the global batch.

    batch: "image" uint8 [B, H, W, 3], "tokens" int32 [B, L], "identity" int32 [B]. Returns the
    next state and the scalars of this step, taken before the update.
    """

    def loss_of(params):
        image, text, logit_scale = model.apply({"params": params}, batch["image"], batch["tokens"])
        return losses.global_nitc(mesh)(image, text, batch["identity"], logit_scale)

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    scalars = {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradients),
        "logit_scale": jnp.exp(state.params["logit_scale"]),
    }
    params = optax.apply_updates(state.params, updates)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), scalars


def compile_step(
    *,
    model: Clip,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    shapes: TrainState,
    batch_size: int,
) -> Step:
    """Compiles `train_step` for one batch size; the state that it is given is donated.

    shapes: the state's arrays as jax.ShapeDtypeStruct with their shardings. The result accepts
    nothing else than these shapes, so no later step can compile anew.
    """
    config, rows = model.config, meshes.batch_sharding(mesh)
    arrays = {
        "image": ((*config.image_size, 3), jnp.uint8),
        "tokens": ((config.text_length,), jnp.int32),
        "identity": ((), jnp.int32),
    }
    batch = {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=rows)
        for name, (shape, dtype) in arrays.items()
    }
    step = functools.partial(train_step, model=model, optimizer=optimizer, mesh=mesh)
    out = (meshes.shardings_of(shapes), meshes.replicated(mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=out).lower(shapes, batch).compile()
