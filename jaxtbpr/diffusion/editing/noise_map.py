"""Noise map guidance: keeps the source on the path of its inversion (NMG, arXiv:2402.01312).

Before each step of the edit the source's latents take a step of their own. Its prediction without
text is moved along the gradient of the distance between where it leads and the inversion's latents
there. Letters: `I` images, `h`, `w`, `C` sides and channels of the latents.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.samplers import Table
from jaxtbpr.diffusion.sampling import Predict, advance
from jaxtbpr.diffusion.schedule import Schedule

_SMOOTH = 1e-4  # where smooth L1 turns from a parabola into a line
DISTANCES = {
    # Its gradient at 0 is 0, as in PyTorch; that of jnp.abs is 1.
    "l1": lambda gap: gap * jax.lax.stop_gradient(jnp.sign(gap)),
    "l2": jnp.square,
    "smooth_l1": lambda gap: jnp.where(
        jnp.abs(gap) < _SMOOTH, 0.5 * gap**2 / _SMOOTH, jnp.abs(gap) - 0.5 * _SMOOTH
    ),
}


class NoiseMapGuidance(flax.struct.PyTreeNode):
    """Settings. scale: guidance scale, float32 []; gradient_scale: of the gradient, float32 [].

    The distance is a mean over the latents, so its gradient shrinks with their number: the paper's
    5000 belongs to 64 x 64 x 4. distance: of DISTANCES; static.
    """

    scale: ArrayLike = 10.0
    gradient_scale: ArrayLike = 5000.0
    distance: str = flax.struct.field(pytree_node=False, default="l1")


class GuidedStep(NamedTuple):
    """A step of noise map guidance. after: the latents after it, [I, h, w, C].

    distances: [I]; gradient: minus that of the distance, answer: the prediction without text,
    unguided: where it leads, guided: the prediction that was taken, [I, h, w, C] each.
    """

    after: jax.Array
    distances: jax.Array
    gradient: jax.Array
    answer: jax.Array
    unguided: jax.Array
    guided: jax.Array


def guided_step(
    predict: Predict,
    row: Table,
    level: jax.Array,
    x: jax.Array,
    goal: jax.Array,
    guidance: NoiseMapGuidance,
) -> GuidedStep:
    """Takes one step of latents x [I, h, w, C] towards `goal`, of the same shape.

    predict: without text, (x, timestep) -> prediction; row: of `sampling.rows_of`; level: of
    `levels`, []. Sections 3.2 and 3.3 of the paper, with signs as in its code.
    """

    def distance(x):
        answer = predict(row.scale * x, row.timesteps)
        unguided = advance(row, x, answer)
        gaps = DISTANCES[guidance.distance](unguided - goal)
        distances = gaps.mean(range(1, gaps.ndim))
        return distances.sum(), (distances, answer, unguided)  # images do not touch each other

    gradient, (distances, answer, unguided) = jax.grad(distance, has_aux=True)(x)
    conditioned = answer + level * guidance.gradient_scale * gradient
    guided = answer + guidance.scale * (conditioned - answer)
    return GuidedStep(advance(row, x, guided), distances, -gradient, answer, unguided, guided)


def levels(schedule: Schedule, table: Table) -> np.ndarray:
    """Returns what noise map guidance multiplies the gradient with, at each step, float32 [n].

    sqrt(1 - alpha) where the network predicts noise e. A velocity is (e - sqrt(1 - alpha) x) /
    sqrt(alpha), so there it is divided by sqrt(alpha). Raises InputError for a schedule that is
    pure noise at a step, from which no latents follow.
    """
    alphas = schedule.alphas_cumprod()[table.timesteps.astype(int)]
    if not alphas.all():
        raise InputError(
            "noise map guidance needs some signal at every step, but the first timestep of this "
            "schedule is pure noise; take more steps, or spacing leading."
        )
    level = (1 - alphas) ** 0.5
    return level / alphas**0.5 if schedule.prediction == "v_prediction" else level
