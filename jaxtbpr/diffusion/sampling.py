"""The loop of all samplers, and classifier-free guidance: pure functions of arrays."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtbpr.diffusion.samplers import Table

Predict = Callable[[jax.Array, jax.Array], jax.Array]
Noise = Callable[[jax.Array], jax.Array]


class Walk(NamedTuple):
    """Where a walk is. x: the sample, [B, ...]; before: the one before it; kept: [memory, B, ...],
    what is kept of earlier steps, the newest first; i: number of finished steps, [].
    """

    x: jax.Array
    before: jax.Array
    kept: jax.Array
    i: jax.Array


def sample(
    predict: Predict,
    table: Table,
    start: jax.Array,
    noise: Noise | None = None,
    *,
    trajectory: bool = False,
) -> jax.Array:
    """Walks `table` from `start` and returns the last sample, [B, ...] as `start` is.

    predict: (input [B, ...], timestep []) -> answer of the network, [B, ...]; noise: step [] ->
    noise [B, ...], for samplers that add it (Schedule.stochastic). trajectory: returns all
    samples [n + 1, B, ...] instead, the start first.
    """

    def one(walk, row):
        walk = step(predict, row, walk, noise)
        return walk, walk.x if trajectory else None

    last, samples = jax.lax.scan(one, begin(table, start), rows_of(table))
    return jnp.concatenate([start[None], samples]) if trajectory else last.x


def begin(table: Table, start: jax.Array) -> Walk:
    """Returns a walk that has not taken a step."""
    memory = table.weights.shape[1] - 1
    kept = jnp.zeros((memory, *start.shape), start.dtype)
    return Walk(start, start, kept, jnp.int32(0))


def rows_of(table: Table) -> Table:
    """Returns what `step` needs of a table, each [n, ...], to be scanned over."""
    limit = jnp.broadcast_to(table.limit, table.timesteps.shape)
    return table._replace(limit=limit, start_x=None, start_noise=None, sigma=None)


def step(predict: Predict, row: Table, walk: Walk, noise: Noise | None = None) -> Walk:
    """Takes one step of a walk; row: of `rows_of`; see `samplers` for the rule."""
    x, before, kept, i = walk
    answer = predict(row.scale * x, row.timesteps).astype(x.dtype)
    new = jnp.clip(row.keep_x * x + row.keep_answer * answer, -row.limit, row.limit)
    recent = jnp.concatenate([new[None], kept])
    mean = jnp.tensordot(row.weights, recent, axes=1, precision="highest")
    base = jnp.where(row.restart, before, x)
    after = row.from_x * base + row.from_mean * mean + row.from_answer * answer
    if noise is not None:
        after += row.from_noise * noise(i)
    kept = jnp.where(row.append, recent[: len(kept)], kept)
    return Walk(after, x, kept, i + 1)


def guide(
    predict: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    text: jax.Array,
    negative: jax.Array | None,
    scale: jax.Array | float,
    rescale: jax.Array | float = 0.0,
) -> Predict:
    """Returns the `predict` of `sample` under classifier-free guidance (arXiv:2207.12598).

    predict: (input [B, ...], timestep, text states [B, L, D]) -> answer; text, negative: states
    [B, L, D]; negative None: no guidance, and half the work. scale: guidance scale; rescale: share
    phi of the answer whose deviation is set back to the text's (arXiv:2305.08891, eq. 15 and 16).
    """
    if negative is None:
        return lambda x, t: predict(x, t, text)
    both = jnp.concatenate([negative, text])

    def guided(x, t):
        without, with_text = jnp.split(predict(jnp.concatenate([x, x]), t, both), 2)
        answer = without + scale * (with_text - without)
        if isinstance(rescale, int | float) and rescale == 0:
            return answer  # what the ratio of a constant answer, 0 / 0, must not spoil
        axes = tuple(range(1, answer.ndim))
        # The deviations of samples, with n - 1, as PyTorch has it.
        ratio = jnp.std(with_text, axes, ddof=1, keepdims=True) / jnp.std(
            answer, axes, ddof=1, keepdims=True
        )
        return answer * (rescale * ratio + (1 - rescale))

    return guided
