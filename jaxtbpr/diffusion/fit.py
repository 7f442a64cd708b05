"""The training loop of the networks of Stable Diffusion.

The data are on the device; the rows of a step, and all else that is random in it, follow from the
seed and the step's number. So a killed run resumes from its last checkpoint to the same bits. Steps
are dispatched without waiting for those before; the host reads the loss only every `look_every`
steps. (Not one program of many steps: inside a loop XLA's CPU backend computes gradients of
convolutions slowly, and a step of an autoencoder took 13 times as long.)
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from etils import epath

from jaxtbpr.core import compilation, files, preemption
from jaxtbpr.core.average import moving_average
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.metrics_writer import MetricsWriter
from jaxtbpr.core.progress import progress

# (parameters, rows of the data, key) -> (loss, other scalars)
Loss = Callable[[Any, Any, jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]]
State = dict[str, Any]
_RMS = 0.2  # of Muon's updates, as AdamW's have it (arXiv:2502.16982, section 2.2)


@dataclasses.dataclass(frozen=True)
class Fit:
    """The recipe of a training, with a linear warm-up and a cosine to 0.

    Kernels are trained by Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon),
    with which an autoencoder needed about two thirds of AdamW's steps; all else by AdamW. Both
    change a weight by about 0.2 `learning_rate` per step. ema_decay: decay of the moving average of
    the parameters, which is the result; look_every: steps between reads of the loss;
    checkpoint_every: steps between checkpoints, rounded up to a multiple of look_every.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    look_every: int = 20
    checkpoint_every: int = 1000

    def optimizer(self) -> optax.GradientTransformation:
        """Returns the optimizer with its schedule."""
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warmup_steps, max(self.steps, self.warmup_steps + 1)
        )
        return optax.contrib.muon(
            rate,
            weight_decay=self.weight_decay,
            adam_weight_decay=self.weight_decay,
            adam_learning_rate=lambda count: _RMS * rate(count),
            consistent_rms=_RMS,
            muon_weight_dimension_numbers=_matrices,
        )


def _matrices(params: Any) -> Any:
    """How Muon reads kernels as matrices: their last axis is the output's channels."""

    def axes(path, leaf):
        if path[-1].key != "kernel":
            return None  # for Adam
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def fit(
    loss: Loss, params: Any, data: Any, recipe: Fit, *, seed: int, directory: epath.PathLike
) -> Any:
    """Trains `params` and returns their moving average.

    data: a tree of arrays [N, ...], of which each step draws `batch_size` rows; directory: of the
    checkpoints and metrics.jsonl. Raises UserError where the loss is not finite, and, after saving
    a checkpoint, on SIGTERM.
    """
    directory = epath.Path(directory)
    label = directory.name
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=True)
    run = jax.jit(functools.partial(step, loss, recipe), donate_argnums=0)
    run = compilation.announced(run, label)
    key = jax.random.key(seed)
    data = jax.device_put(data)
    place = files.LiteralPath(directory / "checkpoints").resolve()
    with ocp.CheckpointManager(place, options=options) as saved:
        done = saved.latest_step() or 0
        if done:
            shapes = jax.eval_shape(functools.partial(begin, recipe=recipe), params)
            place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            shapes = jax.tree.map(lambda x: x.update(sharding=place), shapes)
            state = saved.restore(done, args=ocp.args.StandardRestore(shapes))
        else:
            state = begin(params, recipe)
        todo = range(done, recipe.steps, recipe.look_every)
        shown = progress(todo, total=len(todo), label=label, unit=f"x {recipe.look_every} steps")
        writer = MetricsWriter(directory, resume_step=done + 1)
        with contextlib.closing(writer), preemption.watch() as preempted:
            for first in shown:
                parts = []
                for _ in range(recipe.look_every):
                    state, scalars = run(state, data, key)
                    parts.append(scalars)
                scalars = jax.tree.map(lambda *x: float(np.mean(x)), *jax.device_get(parts))
                after = first + recipe.look_every
                if not np.isfinite(list(scalars.values())).all():
                    raise UserError(
                        f"{label}: the loss of steps {first} to {after} is not finite; lower the "
                        "learning rate and start again with --rerun."
                    )
                writer.write(after, scalars)
                stop = preempted(after)
                is_due = after // recipe.checkpoint_every > first // recipe.checkpoint_every
                if stop or is_due or after >= recipe.steps:
                    saved.save(after, args=ocp.args.StandardSave(state), force=True)
                if stop:
                    saved.wait_until_finished()
                    raise UserError(
                        f"{label}: stopped by SIGTERM after step {after}; rerun the same command "
                        f"to resume."
                    )
    return state["ema"]


def begin(params: Any, recipe: Fit) -> State:
    """Returns the state before the first step."""
    copy = functools.partial(jax.tree.map, lambda x: jnp.array(x, jnp.float32))
    params = copy(params)
    opt_state = recipe.optimizer().init(params)
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "ema": copy(params),
        "opt_state": opt_state,
    }


def step(loss: Loss, recipe: Fit, state: State, data: Any, key: jax.Array):
    """Returns (the next state, scalars) of one step on rows drawn by its number."""
    rows_key, loss_key = jax.random.split(jax.random.fold_in(key, state["step"]))
    count = jax.tree.leaves(data)[0].shape[0]
    rows = jax.random.randint(rows_key, (recipe.batch_size,), 0, count)
    batch = jax.tree.map(lambda x: x[rows], data)
    graded = jax.value_and_grad(loss, has_aux=True)
    (value, parts), gradients = graded(state["params"], batch, loss_key)
    updates, opt_state = recipe.optimizer().update(gradients, state["opt_state"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    ema = moving_average(state["ema"], params, state["step"], recipe.ema_decay)
    scalars = {"loss": value, "gradient_norm": optax.tree.norm(gradients), **parts}
    return {
        "step": state["step"] + 1,
        "params": params,
        "ema": ema,
        "opt_state": opt_state,
    }, scalars
