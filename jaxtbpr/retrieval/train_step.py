"""The training state and the one compiled step that changes it."""

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

from jaxtbpr.core import mesh as meshes
from jaxtbpr.retrieval import losses
from jaxtbpr.retrieval.model import Clip, init_params
from jaxtbpr.retrieval.optimizer import frozen_mask

Batch = dict[str, jax.Array]
Step = Callable[["TrainState", Batch], tuple["TrainState", dict[str, jax.Array]]]


class TrainState(flax.struct.PyTreeNode):
    """All that a step changes, or depends on and a checkpoint must hold.

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
        """The parameters to evaluate and to keep: the moving average where there is one."""
        return self.params if self.ema is None else self.ema


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a step lowers: weight * loss, summed over N-ITC and R-ITC (SynTBPR: 1 and 1).

    soft_label_ratio: the share alpha of soft labels in the targets, by step; soft_labels: their
    kind; eps: of R-ITC. See `losses`.
    """

    nitc: float = 1.0
    ritc: float = 0.0
    soft_label_ratio: optax.Schedule = lambda step: 0.0
    soft_labels: str = "sigmoid"
    eps: float = 1e-8

    def __call__(self, mesh: Mesh, image, text, identity, logit_scale, step) -> dict:
        """Returns {"loss", and each part by name}, scalars over the global batch."""
        alpha = self.soft_label_ratio(step)
        options = {"alpha": alpha, "soft_labels": self.soft_labels}
        parts = {}
        if self.nitc:
            loss = functools.partial(losses.nitc_loss, **options)
            parts["nitc"] = losses.global_loss(mesh, loss)(image, text, identity, logit_scale)
        if self.ritc:
            loss = functools.partial(losses.ritc_loss, eps=self.eps, **options)
            parts["ritc"] = losses.global_loss(mesh, loss)(image, text, identity, logit_scale)
        total = sum(getattr(self, name) * value for name, value in parts.items())
        return {"loss": total} | (parts if len(parts) > 1 else {})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides what a step does, beside its data.

    ema: decay of the moving average of the parameters, 0 for none. chunks: in how many parts the
    towers take a batch; the loss always sees the whole of it (see `cached_gradients`). frozen:
    parameters that get no gradient, as for `optimizer.adamw`.
    """

    model: Clip
    optimizer: optax.GradientTransformation
    mesh: Mesh
    objective: Objective = Objective()
    ema: float = 0.0
    chunks: int = 1
    frozen: str = ""

    def features(self, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns (image features, text features, logit scale); no gradient to what is frozen."""
        if self.frozen:
            params = jax.tree.map(
                lambda x, held: jax.lax.stop_gradient(x) if held else x,
                params,
                frozen_mask(params, self.frozen),
            )
        return self.model.apply({"params": params}, batch["image"], batch["tokens"])


def create_state(key: jax.Array, recipe: Recipe) -> TrainState:
    """Returns the state before the first step, of new parameters; run it under jax.jit."""
    params_key, key = jax.random.split(key)
    return state_of(init_params(recipe.model, params_key), key, recipe)


def state_of(params: Any, key: jax.Array, recipe: Recipe) -> TrainState:
    """Returns the state before the first step, of given parameters; run it under jax.jit."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=recipe.optimizer.init(params),
        key=jax.random.key_data(key),
        ema=jax.tree.map(jnp.copy, params) if recipe.ema else None,
    )


def train_step(
    state: TrainState, batch: Batch, recipe: Recipe
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step over the global batch.

    batch: "image" uint8 [B, H, W, 3], "tokens" int32 [B, L], "identity" int32 [B]. Returns the
    next state and the scalars of this step, taken before the update.
    """
    differentiate = direct_gradients if recipe.chunks == 1 else cached_gradients
    scalars, gradients = differentiate(state, batch, recipe)
    updates, opt_state = recipe.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    scalars |= {
        "gradient_norm": optax.tree.norm(gradients),
        "logit_scale": jnp.exp(state.params["logit_scale"]),
    }
    ema = None
    if state.ema is not None:
        # The start counts for less and less: with few steps behind it the average is short, too.
        decay = jnp.minimum(recipe.ema, (1 + state.step) / (10 + state.step))
        ema = optax.incremental_update(params, state.ema, 1 - decay)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state, ema=ema), scalars


def direct_gradients(state: TrainState, batch: Batch, recipe: Recipe) -> tuple[dict, Any]:
    """Returns (scalars, gradients) of the objective in one pass over the whole batch."""

    def loss_of(params):
        image, text, scale = recipe.features(params, batch)
        found = recipe.objective(recipe.mesh, image, text, batch["identity"], scale, state.step)
        return found["loss"], found

    (_, scalars), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    return scalars, gradients


def cached_gradients(state: TrainState, batch: Batch, recipe: Recipe) -> tuple[dict, Any]:
    """Returns what `direct_gradients` does, in the activation memory of one chunk of the batch.

    The features of all chunks come first, without activations; the gradient of the loss by the
    features is then carried through each chunk's towers, computed a second time. Gao et al.,
    "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021,
    arXiv:2101.06983.
    """
    parts = _split(batch, recipe)

    def encode(params, part):
        return recipe.features(params, part)[:2]

    def loss_of(image, text, scale):
        ids = parts["identity"].reshape(-1)
        found = recipe.objective(recipe.mesh, _join(image), _join(text), ids, scale, state.step)
        return found["loss"], found

    def add_part(gradients, inputs):
        part, cotangents = inputs
        _, pull = jax.vjp(lambda params: encode(params, part), state.params)
        return jax.tree.map(jnp.add, gradients, pull(cotangents)[0]), None

    image, text = jax.lax.map(lambda part: encode(state.params, part), parts)
    differentiate = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
    (_, scalars), (by_image, by_text, by_scale) = differentiate(
        image, text, state.params["logit_scale"]
    )
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    gradients, _ = jax.lax.scan(add_part, zeros, (parts, (by_image, by_text)))
    held = frozen_mask(state.params, recipe.frozen)["logit_scale"]
    return scalars, gradients | ({} if held else {"logit_scale": by_scale})


def _split(batch: Batch, recipe: Recipe) -> Batch:
    """[B, ...] -> [chunks, B / chunks, ...]; each chunk has rows of every device, none moves."""
    mesh, chunks = recipe.mesh, recipe.chunks
    rows = NamedSharding(mesh, P(None, meshes.AXES))

    def split(x):
        x = x.reshape(mesh.size, chunks, -1, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(x.reshape(chunks, -1, *x.shape[3:]), rows)

    return jax.tree.map(split, batch)


def _join(features: jax.Array) -> jax.Array:
    return features.reshape(-1, features.shape[-1])


def compile_step(recipe: Recipe, *, shapes: TrainState, batch_size: int) -> Step:
    """Compiles `train_step` for one batch size; the state that it is given is donated.

    shapes: the state's arrays as jax.ShapeDtypeStruct with their shardings. The result accepts
    nothing else than these shapes, so no later step can compile anew.
    """
    config, rows = recipe.model.config, meshes.batch_sharding(recipe.mesh)
    arrays = {
        "image": ((*config.image_size, 3), jnp.uint8),
        "tokens": ((config.text_length,), jnp.int32),
        "identity": ((), jnp.int32),
    }
    batch = {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=rows)
        for name, (shape, dtype) in arrays.items()
    }
    step = functools.partial(train_step, recipe=recipe)
    out = (meshes.shardings_of(shapes), meshes.replicated(recipe.mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=out).lower(shapes, batch).compile()
