"""Learning-rate schedule, soft-label ramp, weight-decay rule and AdamW."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtbpr.retrieval.clip.model import Clip, ClipConfig, init_params
from jaxtbpr.retrieval.clip.transformer import TowerConfig
from jaxtbpr.retrieval.training import optimizer

each_case = pytest.mark.parametrize("case", range(7))
each_model = pytest.mark.parametrize("model", ["syntbpr_eva02_b16", "tbpsclip_vitb16"])


def published_case(reference, case):
    """The settings of a case and its rates and soft-label ratios for every step."""
    settings = json.loads((reference / "lr_schedule.json").read_text())[case]
    arrays = np.load(reference / "lr_schedule.npz")
    return settings, arrays[f"case{case}_lr"], arrays[f"case{case}_alpha"]


def schedule_of(settings):
    per_epoch = settings["niter_per_ep"]
    return optimizer.warmup_cosine(
        learning_rate=settings["lr"],
        start=settings["lr_start"],
        end=settings["lr_end"],
        warmup_steps=settings["epoch_warmup"] * per_epoch,
        steps=settings["epoch"] * per_epoch,
    )


@each_case
def test_the_rate_on_the_host_equals_the_published_schedule(reference, case):
    settings, rates, _ = published_case(reference, case)
    schedule = schedule_of(settings)
    found = [schedule(step) for step in range(len(rates))]
    np.testing.assert_allclose(found, rates, rtol=1e-12, atol=0)


@each_case
def test_the_rate_inside_jit_equals_the_published_schedule(reference, case):
    settings, rates, _ = published_case(reference, case)
    found = jax.jit(jax.vmap(schedule_of(settings)))(jnp.arange(len(rates)))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rates, rtol=1e-6, atol=0)


@each_case
def test_the_soft_label_ratio_equals_the_published_one(reference, case):
    settings, _, ratios = published_case(reference, case)
    ratio = optimizer.soft_label_ratio(settings["softlabel_ratio"], settings["niter_per_ep"])
    steps = range(len(ratios))
    np.testing.assert_allclose([ratio(step) for step in steps], ratios, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(ratio)(jnp.arange(len(ratios))), ratios, rtol=1e-6)


def test_after_the_last_step_the_rate_stays_at_its_end():
    schedule = optimizer.warmup_cosine(
        learning_rate=1.0, start=0.1, end=0.25, warmup_steps=2, steps=6
    )
    assert schedule(6) == schedule(1000) == 0.25


@pytest.mark.parametrize("warmup_steps", [-1, 7])
def test_a_warm_up_outside_the_training_is_an_error(warmup_steps):
    with pytest.raises(ValueError, match=f"steps=6 cannot have warmup_steps={warmup_steps}"):
        optimizer.warmup_cosine(
            learning_rate=1.0, start=0.1, end=0.2, warmup_steps=warmup_steps, steps=6
        )


@each_model
def test_decay_acts_on_the_parameters_that_it_acts_on_in_the_published_code(reference, model):
    groups = json.loads((reference / f"param_groups_{model}.json").read_text())
    for name, shape in groups["weight_decay"].items():
        assert optimizer.decays(name, len(shape)), name
    for name, shape in groups["no_weight_decay"].items():
        assert not optimizer.decays(name, len(shape)), name


@each_model
def test_decay_goes_by_name_where_layers_are_stacked(reference, model):
    groups = json.loads((reference / f"param_groups_{model}.json").read_text())
    for name, shape in groups["no_weight_decay"].items():
        if name.endswith("bias"):
            assert not optimizer.decays(name, len(shape) + 1), name
    assert not optimizer.decays("vision/blocks/norm1/scale", 2)
    assert optimizer.decays("vision/blocks/attn_in/kernel", 3)


def test_decay_looks_for_words_and_not_for_letters():
    assert optimizer.decays("vulnerable_abnormal_bias2vec/kernel", 2) is False
    assert optimizer.decays("vulnerable_abnormal/kernel", 2)  # has "ln" and "bn" in it


def shapes_of(layers=1, **fields):
    """The parameters of a tiny model, as shapes."""
    tower = TowerConfig(width=8, layers=layers, heads=2)
    sizes = {"image_size": (16, 8), "patch_size": 8, "stem": "patch", "embed_dim": 8}
    words = {"text_length": 4, "vocab_size": 11}
    config = ClipConfig(vision=tower, text=tower, **sizes | words | fields)
    return jax.eval_shape(functools.partial(init_params, Clip(config)), jax.random.key(0))


def test_in_our_model_kernels_and_tables_decay_and_nothing_else():
    mask = optimizer.decay_mask(shapes_of(stem="hierarchical"))
    flat = jax.tree_util.tree_leaves_with_path(mask)
    last_words = {True: set(), False: set()}
    for path, decayed in flat:
        last_words[decayed].add(path[-1].key)
    assert last_words == {
        True: {"kernel", "embedding", "positional_embedding"},
        False: {"bias", "scale", "class_embedding", "logit_scale"},
    }


def numpy_adamw(parameter, gradients, rates, decay, b1=0.9, b2=0.98, eps=1e-8):
    """AdamW as PyTorch writes it: decay first, then the bias-corrected step."""
    first = second = np.zeros_like(parameter)
    for n, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        parameter = parameter * (1 - rate * decay)
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        root = np.sqrt(second / (1 - b2**n)) + eps
        parameter = parameter - rate * first / (1 - b1**n) / root
    return parameter


def test_three_steps_equal_a_numpy_twin():
    rng = np.random.default_rng(0)
    params = {"dense": {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}}
    gradients = [jax.tree.map(lambda x: rng.normal(size=x.shape), params) for _ in range(3)]
    schedule = optimizer.warmup_cosine(
        learning_rate=0.1, start=0.01, end=0.001, warmup_steps=2, steps=4
    )
    transform = optimizer.adamw(schedule, weight_decay=0.5)
    found, state = params, transform.init(params)
    for gradient in gradients:
        updates, state = transform.update(gradient, state, found)
        found = optax.apply_updates(found, updates)
    rates = [schedule(step) for step in range(3)]
    for name, decay in (("kernel", 0.5), ("bias", 0.0)):
        own = [gradient["dense"][name] for gradient in gradients]
        expected = numpy_adamw(params["dense"][name], own, rates, decay)
        np.testing.assert_allclose(found["dense"][name], expected, rtol=2e-5)


def test_clipping_limits_the_global_norm_of_the_gradients():
    params, gradients = {"kernel": jnp.ones((2, 2))}, {"kernel": jnp.full((2, 2), 1e-9)}
    large = jax.tree.map(lambda x: 1e12 * x, gradients)
    transform = optimizer.adamw(1.0, weight_decay=0.0, clip_norm=2e-9)

    def step(g):
        return transform.update(g, transform.init(params), params)[0]["kernel"]

    np.testing.assert_allclose(step(large), step(gradients), rtol=1e-5)


def test_a_block_learns_slower_than_the_one_above_it():
    plain = optimizer.lr_factors(shapes_of(3, scan=False), 0.5, 1.0)
    blocks = plain["image"]["transformer"]
    shares = [blocks[f"block_{n}"]["ln_1"]["bias"] for n in range(3)]
    assert shares == [0.125, 0.25, 0.5]
    assert plain["image"]["projection"]["kernel"] == plain["logit_scale"] == 1
    assert plain["text"]["token_embedding"]["embedding"] == 0.5**4
    scanned = optimizer.lr_factors(shapes_of(3, scan=True), 0.5, 1.0)["image"]["transformer"]
    assert scanned["blocks"]["attn_q"]["kernel"].shape == (2, 1, 1)
    assert scanned["blocks"]["attn_q"]["kernel"].ravel().tolist() == [0.125, 0.25]
    assert scanned["block_2"]["attn_q"]["kernel"] == 0.5


def test_shares_scale_the_whole_update():
    params = {
        "heads": {"words": {"kernel": jnp.ones((2, 2))}, "view": {"kernel": jnp.ones((2, 2))}}
    }
    gradients = jax.tree.map(jnp.ones_like, params)
    adamw = optimizer.adamw(0.1, weight_decay=0.5, head_lr_factor=5.0)
    updates, _ = adamw.update(gradients, adamw.init(params), params)
    heads = updates["heads"]
    np.testing.assert_allclose(heads["words"]["kernel"], 5 * heads["view"]["kernel"], rtol=1e-6)
