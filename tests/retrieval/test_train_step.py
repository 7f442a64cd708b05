"""The compiled step: chunks change nothing, frozen parameters stay, the average follows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import UserError
from jaxtbpr.retrieval.clip.model import Clip, ClipConfig
from jaxtbpr.retrieval.clip.transformer import TowerConfig
from jaxtbpr.retrieval.training import optimizer as optimizers
from jaxtbpr.retrieval.training.objective import LOSSES, Objective
from jaxtbpr.retrieval.training.options import OPTIONS
from jaxtbpr.retrieval.training.setup import check_batch
from jaxtbpr.retrieval.training.step import (
    StepConfig,
    cached_gradients,
    create_state,
    direct_gradients,
    train_step,
)
from jaxtbpr.stages import default_config

TOWER = TowerConfig(16, 1, 2)
SIZES = {"image_size": (16, 8), "patch_size": 8, "stem": "patch", "vision": TOWER, "text": TOWER}
MODEL = Clip(ClipConfig(**SIZES, text_length=6, vocab_size=32, embed_dim=8))
BOTH = Objective(nitc=1.0, ritc=0.5, soft_label_ratio=lambda step: 0.1)


def make_step_config(mesh, **options):
    optimizer = options.pop("optimizer", optax.sgd(0.1))
    return StepConfig(MODEL, optimizer, mesh, BOTH, **options)


def make_batch(rows=16):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (rows, 16, 8, 3), np.uint8),
        "tokens": rng.integers(1, 32, (rows, 6)).astype(np.int32),
        "identity": rng.integers(0, 6, rows).astype(np.int32),
        "weight": np.ones(rows, np.float32),
    }


@pytest.fixture(scope="module")
def state():
    return jax.jit(lambda key: create_state(key, make_step_config(meshes.make_mesh())))(
        jax.random.key(0)
    )


def largest_error(one, other):
    scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(other))
    errors = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), one, other)
    return max(jax.tree.leaves(errors)) / scale


@pytest.mark.parametrize(("count", "fsdp"), [(1, 1), (4, 2)])
def test_gradients_of_chunks_equal_those_of_the_whole_batch(state, devices, count, fsdp):
    mesh = meshes.make_mesh(fsdp, devices[:count])
    batch = meshes.put_batch(make_batch(), mesh)
    whole = jax.jit(functools.partial(direct_gradients, step_config=make_step_config(mesh)))
    parts = jax.jit(
        functools.partial(cached_gradients, step_config=make_step_config(mesh, grad_cache_chunks=4))
    )
    state = jax.device_put(state, meshes.replicated(mesh))
    (scalars, gradients), (again, others) = whole(state, batch), parts(state, batch)
    assert largest_error(again, scalars) < 1e-5
    assert largest_error(others, gradients) < 1e-5


def test_chunks_change_nothing_for_losses_with_heads_and_views(devices):
    objective = Objective(
        citc=0.1, simclr=0.4, identity=1.0, mlm=1.0, multi_view=True, channel_mask=0.3,
        identities=6, vocab_size=32, mlm_layers=1, small_loss_fraction=0.75, captions=3,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    batch = make_batch() | {
        name: rng.integers(0, 256, (16, 16, 8, 3), np.uint8)
        for name in ("second", "view_1", "view_2")
    }
    batch["more"] = rng.integers(1, 32, (16, 2, 6)).astype(np.int32)
    batch["masked"] = rng.integers(1, 32, (16, 6)).astype(np.int32)
    batch["labels"] = np.where(rng.random((16, 6)) < 0.3, batch["tokens"], -100).astype(np.int32)
    assert batch.keys() == objective.inputs(MODEL.config).keys()
    mesh = meshes.make_mesh(devices=devices[:2])
    step_config = StepConfig(MODEL, optax.sgd(0.1), mesh, objective)
    state = jax.jit(functools.partial(create_state, step_config=step_config))(jax.random.key(0))
    assert state.params["heads"].keys() == {"view", "identity", "words"}
    batch = meshes.put_batch(batch, mesh)
    state = jax.device_put(state, meshes.replicated(mesh))
    parts = dataclasses.replace(step_config, grad_cache_chunks=4)
    scalars, gradients = jax.jit(functools.partial(direct_gradients, step_config=step_config))(
        state, batch
    )
    again, others = jax.jit(functools.partial(cached_gradients, step_config=parts))(state, batch)
    assert largest_error(again, scalars) < 1e-5
    assert largest_error(others, gradients) < 1e-5


def test_a_second_view_loses_the_same_channels(devices):
    mesh = meshes.make_mesh(devices=devices[:1])
    rng = np.random.default_rng(0)
    features = {name: jnp.asarray(rng.normal(size=(8, 16)), "f4") for name in ("image", "text")}
    batch = {"identity": jnp.arange(8), "weight": jnp.ones(8)}
    params, key = {"logit_scale": jnp.float32(2.6)}, jax.random.key(1)
    one = Objective(channel_mask=0.5)(mesh, features, batch, params, 0, key)
    features["second"] = features["image"]
    two = Objective(channel_mask=0.5, multi_view=True)(mesh, features, batch, params, 0, key)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss_rows": 3}, "loss_rows=3 must divide the 8 rows"),
        ({"loss_rows": 4, "citc": 0.1}, "loss_rows=4 cannot be used with config.train.citc"),
        (
            {"loss_rows": 4, "small_loss_fraction": 0.5},
            "loss_rows=4 cannot be used with config.train.small_loss_fraction",
        ),
    ],
)
def test_rows_at_a_time_that_would_not_be_kept_to_are_refused(devices, changes, said):
    options = default_config().train
    options.update(batch_size=16, **changes)
    with pytest.raises(UserError, match=said):
        check_batch(options, meshes.make_mesh(devices=devices[:2]))
    options.update(loss_rows=8)  # all that a device has
    check_batch(options, meshes.make_mesh(devices=devices[:2]))


@pytest.mark.parametrize("name", [row.name for row in LOSSES])
def test_a_loss_that_does_not_pair_images_and_captions_is_not_enough(devices, name):
    options = default_config().train
    options.update({"batch_size": 16, "nitc": 0.0, name: 1.0})
    mesh = meshes.make_mesh(devices=devices[:2])
    if name in ("nitc", "ritc", "sdm", "robust"):
        check_batch(options, mesh)
    else:
        with pytest.raises(UserError, match="no contrastive loss is enabled"):
            check_batch(options, mesh)


def test_several_captions_are_the_mean_of_each_alone(state, devices):
    mesh = meshes.make_mesh(devices=devices[:2])
    rng = np.random.default_rng(2)
    batch = make_batch() | {"more": rng.integers(1, 32, (16, 2, 6)).astype(np.int32)}
    objective = dataclasses.replace(BOTH, sdm=0.3, captions=3)

    def differentiate(objective, batch):
        step_config = StepConfig(MODEL, optax.sgd(0.1), mesh, objective)
        run = jax.jit(functools.partial(direct_gradients, step_config=step_config))
        return run(jax.device_put(state, meshes.replicated(mesh)), meshes.put_batch(batch, mesh))

    found = differentiate(objective, batch)
    captions = [batch["tokens"], *batch.pop("more").swapaxes(0, 1)]
    alone = dataclasses.replace(objective, captions=1)
    each = [differentiate(alone, batch | {"tokens": tokens}) for tokens in captions]
    mean = jax.tree.map(lambda *values: sum(values) / len(values), *each)
    assert largest_error(found, mean) < 1e-5


def test_facts_decide_which_captions_match(state, devices):
    mesh = meshes.make_mesh(devices=devices[:2])
    rng = np.random.default_rng(3)
    shown = rng.integers(0, 2, (16, 4)).astype(np.int32)
    said = np.repeat(shown[:, None], 2, axis=1)
    said[:, :, 1:] = np.where(rng.random((16, 2, 3)) < 0.5, -1, said[:, :, 1:])
    shown[:, 0], said[:, :, 0] = np.arange(16), np.arange(16)[:, None]  # nobody twice
    batch = make_batch() | {"more": rng.integers(1, 32, (16, 1, 6)).astype(np.int32)}
    batch |= {"shown": shown, "mentioned": said}
    objective = Objective(captions=2, facts=3)
    assert batch.keys() == objective.inputs(MODEL.config).keys()
    step_config = StepConfig(MODEL, optax.sgd(0.1), mesh, objective)
    run = jax.jit(functools.partial(direct_gradients, step_config=step_config))
    placed = jax.device_put(state, meshes.replicated(mesh))
    scalars, _ = run(placed, meshes.put_batch(batch, mesh))

    features = objective.features(MODEL, state.params, batch)
    image, *texts = (
        np.array(x) / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (features["image"], features["text"], features["more"][:, 0])
    )
    total = 0.0
    for n, text in enumerate(texts):
        true = [
            [all(w in (-1, v) for v, w in zip(shown[i, 1:], said[j, n, 1:], strict=True))
             for j in range(16)] for i in range(16)
        ]  # fmt: skip
        true = np.array(true) | np.eye(16, dtype=bool)
        assert true.sum() > 32  # not only the pairs themselves
        logits = np.exp(float(state.params["logit_scale"])) * image @ text.T
        for rows, same in ((logits, true), (logits.T, true.T)):
            log_p = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
            total -= (log_p * same / same.sum(axis=1, keepdims=True)).sum(axis=1).mean() / 4
    np.testing.assert_allclose(float(scalars["loss"]), total, rtol=1e-5)


def test_chunks_take_the_memory_of_one(devices):
    long = Clip(
        ClipConfig(**SIZES | {"image_size": (64, 32)}, text_length=48, vocab_size=32, embed_dim=8)
    )
    mesh = meshes.make_mesh(devices=devices[:1])
    shapes = jax.eval_shape(
        lambda: create_state(jax.random.key(0), StepConfig(long, optax.sgd(0.1), mesh))
    )
    batch = {
        "image": jax.ShapeDtypeStruct((64, 64, 32, 3), jnp.uint8),
        "tokens": jax.ShapeDtypeStruct((64, 48), jnp.int32),
        "identity": jax.ShapeDtypeStruct((64,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((64,), jnp.float32),
    }

    def temporary(differentiate, grad_cache_chunks):
        step_config = StepConfig(long, optax.sgd(0.1), mesh, grad_cache_chunks=grad_cache_chunks)
        compiled = jax.jit(functools.partial(differentiate, step_config=step_config)).lower(
            shapes, batch
        )
        return compiled.compile().memory_analysis().temp_size_in_bytes

    assert temporary(cached_gradients, 16) < 0.25 * temporary(direct_gradients, 1)


@pytest.mark.parametrize("grad_cache_chunks", [1, 2])
def test_frozen_parameters_stay_and_have_no_moments(devices, grad_cache_chunks):
    mesh = meshes.make_mesh(devices=devices[:1])
    frozen = "image/.*|logit_scale"
    optimizer = optimizers.adamw(0.1, weight_decay=0.5, frozen=frozen)
    step_config = make_step_config(
        mesh, optimizer=optimizer, frozen=frozen, grad_cache_chunks=grad_cache_chunks
    )
    before = create_state(jax.random.key(0), step_config)
    after, _ = jax.jit(functools.partial(train_step, step_config=step_config))(before, make_batch())
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before.params, after.params)
    assert not any(jax.tree.leaves(moved["image"]))
    assert not moved["logit_scale"]
    assert all(jax.tree.leaves(moved["text"]["projection"]))
    sizes = [x.size for x in jax.tree.leaves(before.opt_state)]
    assert sum(sizes) < 2.1 * sum(x.size for x in jax.tree.leaves(before.params["text"]))


def test_the_average_follows_the_parameters_and_is_what_is_kept(devices):
    step_config = make_step_config(meshes.make_mesh(devices=devices[:1]), ema_decay=0.5)
    start = create_state(jax.random.key(0), step_config)
    step = jax.jit(functools.partial(train_step, step_config=step_config))
    one, _ = step(start, make_batch())
    two, _ = step(one, make_batch())
    for share, before, after in ((1 / 10, start, one), (2 / 11, one, two)):
        expected = jax.tree.map(
            lambda e, p, share=share: share * e + (1 - share) * p, before.ema, after.params
        )
        assert largest_error(after.ema, expected) < 1e-6
    assert two.weights is two.ema


def test_clipping_bounds_the_update(devices):
    optimizer = optimizers.adamw(1.0, weight_decay=0.0, clip_norm=1e-9)
    params = {"kernel": jnp.ones((2, 2))}
    updates, _ = optimizer.update({"kernel": jnp.full((2, 2), 1e3)}, optimizer.init(params), params)
    assert float(jnp.max(jnp.abs(updates["kernel"]))) < 0.1


def test_each_loss_is_one_row_that_has_a_weight_among_options_and_objective():
    for row in LOSSES:
        assert OPTIONS[row.name].default == row.default
        assert Objective(**{row.name: 0.25}).weight(row) == 0.25
    assert len({row.name for row in LOSSES}) == len(LOSSES)
