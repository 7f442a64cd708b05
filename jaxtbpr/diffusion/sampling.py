"""The loop of all samplers, and classifier-free guidance: pure functions of arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtbpr.diffusion.samplers import Table

# (input [B, ...], timestep []) -> the network's output, [B, ...]; where something is carried from
# step to step, (input, timestep, number of steps before [], carry) -> (output, carry).
Predict = Callable[..., Any]
Noise = Callable[[jax.Array], jax.Array]


class Walk(NamedTuple):
    """The state of a sampling loop.

    x: the sample, [B, ...]; before: the one before it; kept: [memory, B, ...], what is kept of
    earlier steps, the newest first; i: number of finished steps, []; carry: what `predict`
    returned, any pytree; None: it carries nothing.
    """

    x: jax.Array
    before: jax.Array
    kept: jax.Array
    i: jax.Array
    carry: Any = None


def sample(
    predict: Predict,
    table: Table,
    start: jax.Array,
    noise: Noise | None = None,
    *,
    trajectory: bool = False,
    carry: Any = None,
) -> Any:
    """Runs the steps of `table` from `start` and returns the last sample, [B, ...] as `start`.

    predict: see `Predict`; noise: step [] -> noise [B, ...], for tables that add it
    (`samplers.adds_noise`). trajectory: returns all samples [n + 1, B, ...] instead, with the
    start first. carry: a pytree that each step passes to `predict` and gets back, here that of the
    first step; if it is not None, (samples, the last carry) is returned.

    >>> from jaxtbpr.diffusion.samplers import Schedule, make_table
    >>> table = make_table(Schedule(kind="ddim", alpha_to_one=True), 2)
    >>> found = sample(lambda x, t: jnp.zeros_like(x), table, jnp.ones(1))
    >>> print(f"{found[0]:.3f}")  # 1 / sqrt(alpha)
    1.902
    """

    def one(walk, row):
        walk = step(predict, row, walk, noise)
        return walk, walk.x if trajectory else None

    last, samples = jax.lax.scan(one, begin(table, start, carry), rows_of(table))
    samples = last.x if samples is None else jnp.concatenate([start[None], samples])
    return samples if carry is None else (samples, last.carry)


def begin(table: Table, start: jax.Array, carry: Any = None) -> Walk:
    """Returns the state before the first step."""
    memory = table.weights.shape[1] - 1
    kept = jnp.zeros((memory, *start.shape), start.dtype)
    return Walk(start, start, kept, jnp.int32(0), carry)


def rows_of(table: Table) -> Table:
    """Returns the columns of a table that `step` needs, each [n, ...], to scan over."""
    limit = jnp.broadcast_to(table.limit, table.timesteps.shape)
    return table._replace(limit=limit, start_x=None, start_noise=None, sigma=None)


def step(predict: Predict, row: Table, walk: Walk, noise: Noise | None = None) -> Walk:
    """Takes one step; row: of `rows_of`; see `samplers` for the rule."""
    x, before, kept, i, carry = walk
    # 1. The network's output at the scaled sample.
    answer = predict(row.scale * x, row.timesteps, *(() if carry is None else (i, carry)))
    if carry is not None:
        answer, carry = answer
    answer = answer.astype(x.dtype)
    # 2. What is kept of it: noise or image, limited where the sampler clips.
    new = jnp.clip(row.keep_x * x + row.keep_answer * answer, -row.limit, row.limit)
    # 3. Its weighted mean with what earlier steps kept.
    recent = jnp.concatenate([new[None], kept])
    mean = jnp.tensordot(row.weights, recent, axes=1, precision="highest")
    # 4. The next sample, from this one or, where a step is repeated, from the one before.
    base = jnp.where(row.restart, before, x)
    after = row.from_x * base + row.from_mean * mean + row.from_answer * answer
    if noise is not None:
        after += row.from_noise * noise(i)
    # 5. Keep it for later steps, except in a repeated step, whose mean used it already.
    kept = jnp.where(row.append, recent[: len(kept)], kept)
    return Walk(after, x, kept, i + 1, carry)


def advance(row: Table, x: jax.Array, answer: jax.Array) -> jax.Array:
    """Returns the sample after a step of a sampler without memory, such as DDIM.

    row: of `rows_of`; x, answer: the sample and the network's output at it, [B, ...].
    """
    return step(lambda *_: answer, row, begin(row._replace(weights=row.weights[None]), x)).x


def guide(
    predict: Callable[..., Any],
    text: jax.Array,
    negative: jax.Array | None,
    scale: jax.Array | float,
    rescale: jax.Array | float = 0.0,
) -> Predict:
    """Returns the `predict` of `sample` under classifier-free guidance (arXiv:2207.12598).

    predict: (input [B, ...], timestep, text states [B, L, D]) -> output, or with step and carry as
    in `Predict`; it is called with 2 B rows, those of the negative text first. text, negative:
    states [B, L, D]; negative None: no guidance, and half the work. scale: guidance scale; rescale:
    guidance rescale phi, which brings the standard deviation back to that of the text's output
    (arXiv:2305.08891, eq. 15 and 16).

    >>> predict = guide(lambda x, t, text: text, jnp.ones(1), jnp.zeros(1), scale=7.5)
    >>> print(predict(jnp.zeros(1), 0))
    [7.5]
    """
    if negative is None:
        return lambda x, t, *carried: predict(x, t, text, *carried)
    both = jnp.concatenate([negative, text])

    def combine(answers):
        without, with_text = jnp.split(answers, 2)
        answer = without + scale * (with_text - without)
        if isinstance(rescale, int | float) and rescale == 0:
            return answer  # not through the ratio below, which is 0 / 0 for a constant output
        axes = tuple(range(1, answer.ndim))
        # Standard deviations with n - 1, as in PyTorch.
        ratio = jnp.std(with_text, axes, ddof=1, keepdims=True) / jnp.std(
            answer, axes, ddof=1, keepdims=True
        )
        return answer * (rescale * ratio + (1 - rescale))

    def guided(x, t, *carried):
        answers = predict(jnp.concatenate([x, x]), t, both, *carried)
        if not carried:
            return combine(answers)
        answers, carry = answers
        return combine(answers), carry

    return guided
