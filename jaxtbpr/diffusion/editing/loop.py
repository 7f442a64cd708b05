"""Inversion and the editing loop: pure functions of arrays, each one scan.

Letters: `I` images, `K` targets of each, `h`, `w`, `C` sides and channels of the latents, `n`
steps. See `edit_control` for the rows of a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtbpr.diffusion.editing.edit_control import EditControl
from jaxtbpr.diffusion.editing.noise_map import NoiseMapGuidance, guided_step
from jaxtbpr.diffusion.samplers import Table
from jaxtbpr.diffusion.sampling import Predict, advance, rows_of, sample

# (row of the table, goal of the step [I, h, w, C], level [], the sources' latents) -> the latents.
Lead = Callable[[Table, jax.Array, jax.Array, jax.Array], jax.Array]


class Path(NamedTuple):
    """Where an inversion leads the sources back, in the order of sampling.

    lead: what is done to them before each step; goals: [n, I, h, w, C]; levels: [n], of
    `noise_map.levels`.
    """

    lead: Lead
    goals: jax.Array
    levels: jax.Array


def by_noise_map(predict: Predict, guidance: NoiseMapGuidance) -> Lead:
    """Returns the lead of noise map guidance. predict: see `noise_map.guided_step`."""

    def lead(row, goal, level, x):
        return guided_step(predict, row, level, x, goal, guidance).after

    return lead


def by_replacing(row: Table, goal: jax.Array, level: jax.Array, x: jax.Array) -> jax.Array:
    """The lead of MasaCtrl's own code: the sources are put where the inversion was."""
    del row, level, x
    return goal


def invert(predict: Predict, table: Table, latents: jax.Array) -> jax.Array:
    """Returns the latents of a DDIM inversion, [n + 1, I, h, w, C], the images' first.

    predict: with the source prompt and no guidance; table: `samplers.inversion_table`.
    """
    return sample(predict, table, latents, trajectory=True)


def edit(
    predict: Predict,
    control: EditControl,
    table: Table,
    start: jax.Array,
    path: Path | None = None,
) -> jax.Array:
    """Edits images: from noise `start` [I, h, w, C] to latents [I, 1 + K, h, w, C].

    predict: guided by the prompts, (x [I (1 + K), h, w, C], timestep, step, carry) -> (prediction,
    carry), with `control` in the UNet. The sources are led along `path`; None: they are free.
    """
    images, height, width, _ = start.shape
    x = jnp.repeat(start[:, None], 1 + control.targets, axis=1)
    led = (None, None) if path is None else (path.goals, path.levels)
    scanned = jnp.arange(len(table.timesteps)), rows_of(table), *led

    def one(state, scanned):
        (x, carry), (i, row, goal, level) = state, scanned
        if path is not None:
            x = x.at[:, 0].set(path.lead(row, goal, level, x[:, 0]))
        x, carry = sampler_step(predict, row, i, x, carry)
        return (control.after_step(i, x, carry), carry), None

    (x, _), _ = jax.lax.scan(one, (x, control.begin((height, width), images)), scanned)
    return x


def sampler_step(
    predict: Predict, row: Table, i: jax.Array, x: jax.Array, carry: Any
) -> tuple[jax.Array, Any]:
    """Takes step i of all rows: latents [I, 1 + K, h, w, C] and carry to those after it."""
    rows = x.reshape(-1, *x.shape[2:])
    answer, carry = predict(row.scale * rows, row.timesteps, i, carry)
    return advance(row, rows, answer).reshape(x.shape), carry
