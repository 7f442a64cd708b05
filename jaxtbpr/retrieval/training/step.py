"""The training state and the compiled training step."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtbpr.core import lora
from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.average import moving_average
from jaxtbpr.retrieval.clip.model import Clip, init_params
from jaxtbpr.retrieval.training.objective import Objective, init_heads
from jaxtbpr.retrieval.training.optimizer import frozen_mask

Batch = dict[str, jax.Array]
Step = Callable[["TrainState", Batch], tuple["TrainState", dict[str, jax.Array]]]


class TrainState(flax.struct.PyTreeNode):
    """What a step changes or depends on, and a checkpoint holds.

    step: int32 [], finished steps; key: uint32, data of the run's random key; step n draws from
    fold_in(key, n). ema: the moving average of the parameters, None without one.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    key: jax.Array
    ema: Any = None

    @property
    def weights(self) -> Any:
        """The parameters to evaluate and to save: the moving average where there is one."""
        return clip_of(self.params) if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Everything that defines a step, except its data.

    ema_decay: decay of the moving average of the parameters, 0 = off. grad_cache_chunks: chunks of
    a batch that the towers process one by one; the loss always sees the whole batch (see
    `cached_gradients`). frozen: parameters that get no gradient, as for `optimizer.adamw`. lora:
    regular expression of the kernels that get an update of rank `lora_rank`, "" = no LoRA.
    """

    model: Clip
    optimizer: optax.GradientTransformation
    mesh: Mesh
    objective: Objective = dataclasses.field(default_factory=Objective)
    ema_decay: float = 0.0
    grad_cache_chunks: int = 1
    frozen: str = ""
    lora: str = ""
    lora_rank: int = 8

    def features(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns what the losses need of the towers; frozen parameters get no gradient."""
        params = stop_frozen_gradients(params, self.frozen)
        return self.objective.features(self.model, clip_of(params), batch)


def clip_of(params: Any) -> Any:
    """The parameters of the model: without the heads, and with LoRA merged in."""
    tree_of_clip = {name: tree for name, tree in params.items() if name not in ("heads", "lora")}
    return lora.merge(tree_of_clip, params["lora"]) if "lora" in params else tree_of_clip


def stop_frozen_gradients(params: Any, frozen: str) -> Any:
    """`params` with no gradient to those whose path the regular expression `frozen` matches."""
    if not frozen:
        return params
    mask = frozen_mask(params, frozen)
    return jax.tree.map(lambda x, m: jax.lax.stop_gradient(x) if m else x, params, mask)


def create_state(key: jax.Array, step_config: StepConfig) -> TrainState:
    """Returns the state before the first step, with new parameters; run it under jax.jit."""
    params_key, key = jax.random.split(key)
    return state_of(init_params(step_config.model, params_key), key, step_config)


def state_of(params: Any, key: jax.Array, step_config: StepConfig) -> TrainState:
    """Returns the state before the first step, with these parameters; run it under jax.jit.

    params: of the model; the heads of the objective and LoRA are initialised.
    """
    heads = init_heads(
        step_config.objective, step_config.model.config.embed_dim, jax.random.fold_in(key, 1)
    )
    ema = jax.tree.map(jnp.copy, params) if step_config.ema_decay else None
    added = {"heads": heads} if heads else {}
    if step_config.lora:
        change_key = jax.random.fold_in(key, 2)
        added["lora"] = lora.init(params, step_config.lora, step_config.lora_rank, change_key)
    params = dict(params) | added
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=step_config.optimizer.init(params),
        key=jax.random.key_data(key),
        ema=ema,
    )


def train_step(
    state: TrainState, batch: Batch, step_config: StepConfig
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step over the global batch.

    batch: the arrays of `Objective.inputs`. Returns the next state and the scalars of this step,
    taken before the update.
    """
    differentiate = direct_gradients if step_config.grad_cache_chunks == 1 else cached_gradients
    scalars, gradients = differentiate(state, batch, step_config)
    updates, opt_state = step_config.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    scalars |= {
        "gradient_norm": optax.tree.norm(gradients),
        "logit_scale": jnp.exp(state.params["logit_scale"]),
    }
    ema = None
    if state.ema is not None:
        ema = moving_average(state.ema, clip_of(params), state.step, step_config.ema_decay)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state, ema=ema), scalars


def direct_gradients(state: TrainState, batch: Batch, step_config: StepConfig) -> tuple[dict, Any]:
    """Returns (scalars, gradients) of the objective in one pass over the whole batch."""

    def loss_of(params):
        features = step_config.features(params, batch)
        rest = _loss_params(stop_frozen_gradients(params, step_config.frozen))
        loss = step_config.objective(
            step_config.mesh, features, batch, rest, state.step, _key_of(state)
        )
        return loss["loss"], loss

    (_, scalars), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    return scalars, gradients


def cached_gradients(state: TrainState, batch: Batch, step_config: StepConfig) -> tuple[dict, Any]:
    """Returns what `direct_gradients` does, in the activation memory of one chunk of the batch.

    A contrastive loss needs the features of the whole batch, but activations are needed only for
    the backward pass of the towers, which is separate for each row. So (GradCache, Gao et al.,
    "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021,
    arXiv:2101.06983):

    1. compute the features of all chunks, one chunk at a time, and keep no activations;
    2. compute the loss on all features, and its gradient by the features and by the parameters
       of the loss itself (logit scale, heads);
    3. for each chunk, compute the towers a second time and pull the gradient of its features back
       to the parameters; add up over the chunks.
    """
    parts = _split(batch, step_config)
    whole = jax.tree.map(_join, parts)  # in the order of the chunks

    def loss_of(features, rest):
        features = jax.tree.map(_join, features)
        rest = stop_frozen_gradients(rest, step_config.frozen)
        loss = step_config.objective(
            step_config.mesh, features, whole, rest, state.step, _key_of(state)
        )
        return loss["loss"], loss

    def add_part(gradients, inputs):
        part, cotangents = inputs
        _, pull = jax.vjp(lambda params: step_config.features(params, part), state.params)
        return jax.tree.map(jnp.add, gradients, pull(cotangents)[0]), None

    # 1. Features.
    features = jax.lax.map(lambda part: step_config.features(state.params, part), parts)
    # 2. The loss and its gradients.
    differentiate = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
    (_, scalars), (by_features, by_rest) = differentiate(features, _loss_params(state.params))
    # 3. Back through the towers.
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    gradients, _ = jax.lax.scan(add_part, zeros, (parts, by_features))
    return scalars, gradients | by_rest


def _loss_params(params: Any) -> Any:
    """The parameters that the losses use besides features: the logit scale and the heads."""
    return {name: params[name] for name in ("logit_scale", "heads") if name in params}


def _key_of(state: TrainState) -> jax.Array:
    """The random key of this step."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)


def _split(batch: Batch, step_config: StepConfig) -> Batch:
    """[B, ...] -> [chunks, B / chunks, ...].

    Each chunk takes the same number of rows of every device, so that no row moves between devices.
    """
    mesh, grad_cache_chunks = step_config.mesh, step_config.grad_cache_chunks
    rows = NamedSharding(mesh, P(None, meshes.AXES))

    def split(x):
        x = x.reshape(mesh.size, grad_cache_chunks, -1, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(
            x.reshape(grad_cache_chunks, -1, *x.shape[3:]), rows
        )

    return jax.tree.map(split, batch)


def _join(rows: jax.Array) -> jax.Array:
    """[chunks, B / chunks, ...] -> [B, ...]."""
    return rows.reshape(-1, *rows.shape[2:])


def compile_step(step_config: StepConfig, *, shapes: TrainState, batch_size: int) -> Step:
    """Compiles `train_step` for one batch size; its state argument is donated.

    shapes: the state's arrays as jax.ShapeDtypeStruct with their shardings. The result accepts
    only these shapes, so no later step can compile again.
    """
    rows = meshes.batch_sharding(step_config.mesh)
    arrays = step_config.objective.inputs(step_config.model.config)
    batch = {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=rows)
        for name, (shape, dtype) in arrays.items()
    }
    step = functools.partial(train_step, step_config=step_config)
    out = (meshes.shardings_of(shapes), meshes.replicated(step_config.mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=out).lower(shapes, batch).compile()
