"""The editing loop and noise map guidance, with a network that is a formula."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import samplers
from jaxtbpr.diffusion.editing import loop, noise_map
from jaxtbpr.diffusion.editing.edit_control import EditControl
from jaxtbpr.diffusion.sampling import rows_of
from jaxtbpr.diffusion.schedule import Schedule

STEPS, IMAGES, TARGETS = 4, 2, 3
SHAPE = (4, 2, 3)
SCHEDULE = Schedule(kind="ddim")
TABLE = samplers.make_table(SCHEDULE, STEPS)
ROWS = [jax.tree.map(lambda x, i=i: x[i], rows_of(TABLE)) for i in range(STEPS)]
LEVELS = noise_map.levels(SCHEDULE, TABLE)
GUIDANCE = noise_map.NoiseMapGuidance(2.0, 5.0)


def network(x, t):
    return 0.7 * jnp.sin(1.5 * x) + 0.3 * jnp.cos(0.01 * t)


def with_prompts(x, t, i, carry):
    """Each row has a prompt of its own, and the carry counts the calls."""
    prompts = jnp.arange(len(x)).reshape(-1, 1, 1, 1)
    return network(x, t) + 0.1 * prompts + 0.01 * i, carry + 1


class Halving(EditControl):
    """Takes half of the targets after each step but those of the first call."""

    def begin(self, size, images):
        assert size == SHAPE[:2]
        assert images == IMAGES
        return jnp.int32(0)

    def after_step(self, step, x, carry):
        assert x.shape == (IMAGES, 1 + TARGETS, *SHAPE)
        return jnp.where(carry > 1, x.at[:, 1:].multiply(0.5), x)


@functools.cache
def latents(count=IMAGES):
    return np.random.default_rng(0).normal(size=(count, *SHAPE)).astype("f")


@functools.cache
def goals():
    return np.random.default_rng(1).normal(size=(STEPS, IMAGES, *SHAPE)).astype("f")


@pytest.mark.parametrize("led", ["free", "by replacing", "by noise map"])
def test_the_loop_takes_its_steps_one_after_the_other(led):
    control = Halving(TARGETS)
    lead = loop.by_replacing
    if led == "by noise map":
        lead = loop.by_noise_map(network, GUIDANCE)
    path = None if led == "free" else loop.Path(lead, goals(), LEVELS)
    found = jax.jit(lambda start: loop.edit(with_prompts, control, TABLE, start, path))(latents())

    x, carry = np.repeat(latents()[:, None], 1 + TARGETS, 1), jnp.int32(0)
    for i, row in enumerate(ROWS):
        if led == "by replacing":
            x[:, 0] = goals()[i]
        elif led == "by noise map":
            source = x[:, 0]
            x[:, 0] = noise_map.guided_step(
                network, row, LEVELS[i], source, goals()[i], GUIDANCE
            ).after
        x, carry = loop.sampler_step(with_prompts, row, i, x, carry)
        x = np.array(control.after_step(i, x, carry))
    assert carry == STEPS
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-4)


def test_targets_do_not_change_the_source_nor_each_other():
    """What the loop shares is computed once, so it must not depend on how many share it."""

    def edited(targets):
        def predict(x, t, i, carry):
            number = (jnp.arange(len(x)) % (1 + targets)).reshape(-1, 1, 1, 1)
            return network(x, t) + 0.1 * number, carry

        path = loop.Path(loop.by_noise_map(network, GUIDANCE), goals(), LEVELS)
        return loop.edit(predict, EditControl(targets), TABLE, latents(), path)

    np.testing.assert_allclose(edited(3)[:, :2], edited(1), rtol=1e-6, atol=1e-6)


def test_images_do_not_touch_each_other():
    both = noise_map.guided_step(network, ROWS[1], LEVELS[1], latents(), goals()[1], GUIDANCE)
    for n in range(IMAGES):
        one = slice(n, n + 1)
        alone = noise_map.guided_step(
            network, ROWS[1], LEVELS[1], latents()[one], goals()[1][one], GUIDANCE
        )
        for found, expected in zip(both, alone, strict=True):
            np.testing.assert_allclose(found[one], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", noise_map.DISTANCES)
def test_guidance_leads_nearer_to_the_inversion(distance):
    guidance = noise_map.NoiseMapGuidance(1.0, 1e-2, distance)
    step = noise_map.guided_step(network, ROWS[1], LEVELS[1], latents(), goals()[1], guidance)

    def gaps(x):
        return noise_map.DISTANCES[distance](x - goals()[1]).mean((1, 2, 3))

    np.testing.assert_allclose(step.distances, gaps(step.unguided), rtol=1e-6)
    assert (gaps(step.after) < step.distances).all()


def test_a_model_of_velocities_is_guided_as_one_of_noise():
    """A velocity is (e - sqrt(1 - alpha) x) / sqrt(alpha), arXiv:2202.00512."""
    schedule = dataclasses.replace(SCHEDULE, prediction="v_prediction")
    table = samplers.make_table(schedule, STEPS)
    i = 1
    alpha = schedule.alphas_cumprod()[int(table.timesteps[i])]

    def velocity(x, t):
        return (network(x, t) - (1 - alpha) ** 0.5 * x) / alpha**0.5

    row = jax.tree.map(lambda x: x[i], rows_of(table))
    level = noise_map.levels(schedule, table)[i]
    found = noise_map.guided_step(velocity, row, level, latents(), goals()[i], GUIDANCE)
    expected = noise_map.guided_step(network, ROWS[i], LEVELS[i], latents(), goals()[i], GUIDANCE)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.after, expected.after, rtol=1e-4, atol=1e-4)


def test_a_goal_that_is_reached_has_no_gradient():
    for distance in noise_map.DISTANCES.values():
        assert jax.grad(lambda x, d=distance: d(x).sum())(jnp.zeros(3)).tolist() == [0, 0, 0]


def test_guidance_from_pure_noise_is_refused():
    schedule = Schedule(kind="ddim", zero_snr=True, spacing="trailing", prediction="v_prediction")
    with pytest.raises(InputError, match="the first timestep of this schedule is pure noise"):
        noise_map.levels(schedule, samplers.make_table(schedule, STEPS))
