"""Samplers: what holds for all of them, beside their trajectories (tests/oracles)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import samplers, scheduler_config
from jaxtbpr.diffusion.sampling import guide, sample
from jaxtbpr.diffusion.schedule import add_noise, velocity

SD = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
IMAGE = np.array([[0.9, -0.4, 0.1]], np.float32)


def of_one_image(schedule):
    """What a perfect network answers where IMAGE is all that there is; of samples as DDIM has."""
    alphas = jnp.asarray(schedule.alphas_cumprod())
    levels = jnp.arange(len(alphas), dtype=jnp.float32)

    def predict(x, t):
        alpha = jnp.interp(t, levels, alphas)
        noise = (x - alpha**0.5 * IMAGE) / (1 - alpha) ** 0.5
        if schedule.prediction == "epsilon":
            return noise
        return alpha**0.5 * noise - (1 - alpha) ** 0.5 * IMAGE

    return predict


@jax.jit
def walk_epsilon(table, start, noise):
    return sample(of_one_image(scheduler_config.from_config(SD)), table, start, lambda i: noise[i])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_every_sampler_finds_the_only_image_there_is(sampler, prediction):
    schedule = scheduler_config.from_config(SD | {"prediction_type": prediction}, sampler)
    table = samplers.make_table(schedule, 30)
    added = jnp.asarray(noise(31, 4, 3, seed=1))
    start = table.sigma * noise(4, 3)
    found = sample(of_one_image(schedule), table, start, lambda i: added[i])
    np.testing.assert_allclose(found, np.broadcast_to(IMAGE, found.shape), atol=0.08)


def assert_finite(table):
    assert all(np.isfinite(x).all() for x in table._replace(limit=0))


@given(
    sampler=st.sampled_from(sorted(samplers.SAMPLERS)),
    steps=st.integers(1, 60),
    spacing=st.sampled_from(["leading", "trailing", "linspace"]),
)
@settings(max_examples=80)
def test_tables_are_finite_and_go_down(sampler, steps, spacing):
    schedule = scheduler_config.from_config(SD | {"timestep_spacing": spacing}, sampler)
    table = samplers.make_table(schedule, steps)
    calls = steps + 1 if sampler == "pndm" and steps > 1 else steps
    assert len(table.timesteps) == calls
    assert (np.diff(table.timesteps) <= 0).all()
    assert_finite(table)
    np.testing.assert_allclose(table.weights.sum(axis=1), 1, rtol=1e-5)
    assert table.append[0]


@pytest.mark.parametrize("sampler", ["ddim", "pndm", "euler", "dpmpp_2m"])
def test_strength_says_how_many_steps_an_image_is_given(sampler):
    schedule = scheduler_config.from_config(SD, sampler)
    whole = samplers.make_table(schedule, 10)
    table = samplers.image_to_image_table(schedule, 10, 0.6)
    assert len(table.timesteps) == (7 if sampler == "pndm" else 6)
    np.testing.assert_array_equal(table.timesteps, whole.timesteps[-len(table.timesteps) :])
    signal = table.start_x / np.hypot(table.start_x, table.start_noise)
    alphas = schedule.alphas_cumprod()
    np.testing.assert_allclose(
        signal**2, np.interp(table.timesteps[0], np.arange(1000), alphas), rtol=0.02
    )
    with pytest.raises(InputError, match="strength=0.05 with steps=10 leaves no step"):
        samplers.image_to_image_table(schedule, 10, 0.05)


def test_inversion_leads_to_noise_that_leads_back():
    schedule = scheduler_config.from_config(SD, "ddim")
    network = of_one_image(schedule)
    start = IMAGE + 0.05 * noise(1, 3)
    for rule in ("current", "0.18"):
        inverted = sample(network, samplers.inversion_table(schedule, 50, rule), start)
        assert np.abs(inverted - start).max() > 0.1
        back = sample(network, samplers.make_table(schedule, 50), inverted)
        np.testing.assert_allclose(back, start, atol=0.12)


def test_one_program_serves_all_samplers_of_a_length_and_memory():
    start, added = noise(4, 3), noise(20, 4, 3)
    before = walk_epsilon._cache_size()
    for sampler in ("ddim", "euler", "euler_a"):
        schedule = scheduler_config.from_config(SD, sampler)
        walk_epsilon(samplers.make_table(schedule, 12), start, added)
    assert walk_epsilon._cache_size() == before + 1


def test_the_trajectory_ends_with_the_sample():
    table = samplers.make_table(scheduler_config.from_config(SD, "pndm"), 6)
    network = of_one_image(scheduler_config.from_config(SD))
    start = noise(2, 3)
    walked = sample(network, table, start, trajectory=True)
    assert walked.shape == (8, 2, 3)
    np.testing.assert_array_equal(walked[0], start)
    np.testing.assert_array_equal(walked[-1], sample(network, table, start))


def test_guidance_is_off_without_a_negative_prompt_and_linear_with_it():
    def predict(x, t, states):
        return x + states[:, 0, :3]

    text, negative, x = noise(2, 1, 3), noise(2, 1, 3, seed=1), noise(2, 3, seed=2)
    np.testing.assert_allclose(guide(predict, text, None, 8.5)(x, 0), x + text[:, 0])
    expected = x + negative[:, 0] + 8.5 * (text - negative)[:, 0]
    found = guide(predict, text, negative, 8.5)(x, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    whole = guide(predict, text, negative, 8.5, 1.0)(x, 0)
    np.testing.assert_allclose(whole.std(axis=1, ddof=1), (x + text[:, 0]).std(axis=1, ddof=1),
                               rtol=1e-4)  # fmt: skip


@pytest.mark.parametrize("rescale", [0, 0.0])
def test_a_constant_answer_stays_as_it_is_where_nothing_is_rescaled(rescale):
    guided = guide(
        lambda x, t, states: jnp.ones_like(x), noise(2, 1, 3), noise(2, 1, 3), 3.0, rescale
    )
    np.testing.assert_array_equal(guided(noise(2, 3), 0), np.ones((2, 3)))


def test_a_checkpoint_s_own_scheduler_is_the_default():
    own = scheduler_config.from_config(SD)
    assert (own.kind, own.spacing, own.offset) == ("pndm", "leading", 1)
    # Another class has its own way where the config says nothing.
    assert scheduler_config.from_config(SD, "euler").spacing == "linspace"
    assert scheduler_config.from_config({"_class_name": "DDIMScheduler"}).clip == 1.0
    assert scheduler_config.from_config(SD, "ddim").clip == np.inf
    assert scheduler_config.from_config(SD, "dpmpp_2m_karras").karras


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"_class_name": "UniPCMultistepScheduler"}, "'UniPCMultistepScheduler' is unknown"),
        ({"_class_name": ["PNDMScheduler"]}, r"\['PNDMScheduler'\] is unknown"),
        (SD | {"skip_prk_steps": False}, "skip_prk_steps=False"),
        (SD | {"prediction_type": "sample"}, "prediction_type='sample'"),
        (SD | {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule='squaredcos_cap_v2'"),
        (SD | {"_class_name": "DDIMScheduler", "thresholding": True}, "thresholding=True"),
        (SD | {"steps_offset": "1"}, "steps_offset='1'"),
        (SD | {"trained_betas": [0.1, 0.2]}, "trained_betas of another length than num_train"),
        (SD | {"timestep_spacing": "leadin"}, "timestep_spacing='leadin'"),
        (
            SD | {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True},
            "rescale_betas_zero_snr=True without v_prediction",
        ),
    ],
)
def test_what_is_not_done_is_refused(config, said):
    with pytest.raises(InputError, match=said):
        scheduler_config.from_config(config)


def test_unknown_sampler_is_not_taken_for_that_of_the_checkpoint():
    with pytest.raises(InputError, match=r"'dpm' is unknown; choose one of ddim, pndm, euler"):
        scheduler_config.from_config(SD, "dpm")


@pytest.mark.parametrize(
    ("config", "sampler"),
    [
        ({"_class_name": "DEISMultistepScheduler", "algorithm_type": "deis"}, "ddim"),
        ({"_class_name": "DEISMultistepScheduler", "solver_type": "logrho"}, "dpmpp_2m"),
        ({"_class_name": "UniPCMultistepScheduler", "solver_type": "bh2"}, "dpmpp_2m"),
        ({"_class_name": "DDPMScheduler", "variance_type": "fixed_small"}, "euler_a"),
    ],
)
def test_what_the_sampler_does_not_read_changes_nothing(config, sampler):
    assert scheduler_config.from_config(SD | config, sampler) == scheduler_config.from_config(
        SD | {"_class_name": config["_class_name"]}, sampler
    )


def test_the_end_of_a_walk_is_as_each_class_has_it_where_a_config_does_not_say():
    names = {kind: row.class_name for kind, row in samplers.KINDS.items()}
    ends = {
        kind: scheduler_config.from_config({"_class_name": name, "skip_prk_steps": True})
        for kind, name in names.items()
    }
    assert [kind for kind, schedule in ends.items() if schedule.alpha_to_one] == ["ddim"]
    told = {"_class_name": names["pndm"], "skip_prk_steps": True, "set_alpha_to_one": True}
    assert scheduler_config.from_config(told).alpha_to_one
    assert not scheduler_config.from_config(told, "euler").alpha_to_one  # it does not read that


def test_an_inversion_needs_steps_and_a_known_rule():
    schedule = scheduler_config.from_config(SD)
    with pytest.raises(InputError, match="steps=0 is out of range; it must be between 1 and 1000"):
        samplers.inversion_table(schedule, 0)
    with pytest.raises(ValueError, match="rule='018' is unknown"):
        samplers.inversion_table(schedule, 10, "018")


def test_steps_must_be_possible():
    with pytest.raises(InputError, match="steps=0 is out of range; it must be between 1 and 1000"):
        samplers.make_table(scheduler_config.from_config(SD), 0)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_the_most_steps_have_finite_tables(sampler, spacing):
    schedule = scheduler_config.from_config(SD | {"timestep_spacing": spacing}, sampler)
    if sampler.startswith("dpmpp"):
        with pytest.raises(
            InputError, match="steps=1000 is out of range; it must be between 1 and 999"
        ):
            samplers.make_table(schedule, 1000)
    elif spacing == "leading":
        said = "1000 steps start at timestep 1000, but the last timestep is 999 .*offset 1.*fewer"
        with pytest.raises(InputError, match=said):
            samplers.make_table(schedule, 1000)
    else:
        assert_finite(samplers.make_table(schedule, 1000))
    # DPM-Solver has 999 timesteps above 0, and the offset makes the last of them 1000.
    assert_finite(samplers.make_table(schedule, 998 if sampler.startswith("dpmpp") else 999))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_a_schedule_that_ends_in_pure_noise_has_finite_tables(sampler, spacing):
    config = SD | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    schedule = scheduler_config.from_config(config | {"timestep_spacing": spacing}, sampler)
    assert schedule.alphas_cumprod()[-1] == 0  # as training has it
    for steps in (1, 2, 20):
        assert_finite(samplers.make_table(schedule, steps))
    assert_finite(samplers.image_to_image_table(schedule, 20, 0.5))


def test_the_largest_sigma_of_pure_noise_is_diffusers_s():
    config = SD | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    table = samplers.make_table(scheduler_config.from_config(config, "euler"), 20)
    np.testing.assert_allclose(table.sigma, (2**24 - 1) ** 0.5, rtol=1e-6)


def test_noise_and_velocity_are_those_of_the_levels():
    schedule = dataclasses.replace(scheduler_config.from_config(SD), zero_snr=True)
    alphas = schedule.alphas_cumprod()
    x, z = noise(2, 3), noise(2, 3, seed=1)
    times = np.array([999, 0])
    noised = add_noise(alphas, x, z, times)
    np.testing.assert_allclose(noised[0], z[0], atol=1e-5)  # no signal is left
    np.testing.assert_allclose(velocity(alphas, x, z, times)[0], -x[0], atol=1e-5)
    np.testing.assert_allclose(noised[1], x[1], atol=0.12)
