"""The noise-robust losses against plain statements of their formulas, and on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxtbpr.retrieval.training import losses


def make_inputs(rows=16, seed=0):
    rng = np.random.default_rng(seed)
    image, text = rng.normal(0, 1, (2, rows, 12)).astype("f")
    return image, text, rng.integers(0, 6, rows).astype("i4"), np.float32(1.7)


def directions(image, text, ids, logit_scale):
    """(scaled logits, cosines, same) of both directions, in double."""
    unit = [x.astype("f8") / np.linalg.norm(x.astype("f8"), axis=1)[:, None] for x in (image, text)]
    cosines = unit[0] @ unit[1].T
    same = ids[:, None] == ids[None]
    scale = np.exp(np.float64(logit_scale))
    return [(scale * cosines, cosines, same), (scale * cosines.T, cosines.T, same)]


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def targets(same):
    return same / same.sum(axis=1, keepdims=True)


def cross_entropy(p, q):
    return -(q * np.log(p)).sum(axis=1)


def smoothing(logits, cosines, same):
    return cross_entropy(softmax(logits), 0.9 * targets(same) + 0.1 / len(same))


def bootstrap(logits, cosines, same):
    p = softmax(logits)
    return cross_entropy(p, 0.95 * targets(same) + 0.05 * p)


def bootstrap_hard(logits, cosines, same):
    p = softmax(logits)
    return cross_entropy(p, 0.8 * targets(same) + 0.2 * np.eye(len(p))[p.argmax(axis=1)])


def gce(logits, cosines, same):
    return (1 - (softmax(logits) * same).sum(axis=1) ** 0.7) / 0.7


def symmetric(logits, cosines, same):
    p, q = softmax(logits), targets(same)
    log_q = np.where(same, np.log(np.where(same, q, 1)), -4)
    return 0.1 * cross_entropy(p, q) - (p * log_q).sum(axis=1)


def tal(logits, cosines, same):
    e = np.exp(cosines / 0.015)
    positive = (same * e * cosines).sum(axis=1) / (same * e).sum(axis=1)
    negative = 0.015 * np.log((~same * e).sum(axis=1))
    return 2 * np.maximum(0.1 - positive + negative, 0)  # RDE adds the directions


FORMULAS = {f.__name__: f for f in (smoothing, bootstrap, bootstrap_hard, gce, symmetric, tal)}


def test_each_loss_has_a_formula_here():
    assert FORMULAS.keys() == losses.ROBUST.keys()


@pytest.mark.parametrize("name", list(FORMULAS))
def test_the_value_is_that_of_the_formula(name):
    inputs = make_inputs()
    expected = np.mean([FORMULAS[name](*d).mean() for d in directions(*inputs)])
    np.testing.assert_allclose(losses.ROBUST[name](*inputs), expected, rtol=1e-5)


@pytest.mark.parametrize("name", list(FORMULAS))
def test_weights_are_those_of_a_mean(name):
    inputs, weights = make_inputs(), np.linspace(0, 1, 16).astype("f")
    rows = sum(FORMULAS[name](*d) for d in directions(*inputs)) / 2
    expected = (weights * rows).sum() / weights.sum()
    found = losses.ROBUST[name](*inputs, weights=weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    of_ones = losses.ROBUST[name](*inputs, weights=np.ones(16, "f"))
    np.testing.assert_allclose(of_ones, losses.ROBUST[name](*inputs), rtol=1e-5)


@pytest.mark.parametrize("name", list(FORMULAS))
def test_a_mesh_gives_the_value_and_gradients_of_one_device(devices, name):
    mesh = Mesh(np.array(devices).reshape(4, 2), ("data", "fsdp"))
    inputs, weights = make_inputs(), np.linspace(0.1, 1, 16).astype("f")
    rows = P(("data", "fsdp"))
    loss = losses.ROBUST[name]

    def local(image, text, ids, scale, weights):
        return loss(image, text, ids, scale, weights=weights, axis_name=mesh.axis_names)

    sharded = jax.shard_map(local, mesh=mesh, in_specs=(rows, rows, rows, P(), rows), out_specs=P())
    whole = jax.value_and_grad(lambda *x: loss(*x[:4], weights=x[4]), argnums=(0, 1, 3))
    value, gradients = jax.jit(whole)(*inputs, weights)
    found, others = jax.jit(jax.value_and_grad(sharded, argnums=(0, 1, 3)))(*inputs, weights)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    for one, other in zip(others, gradients, strict=True):
        largest = max(1.0, float(jnp.max(jnp.abs(other))))
        np.testing.assert_allclose(one, other, atol=5e-5 * largest)


@pytest.mark.parametrize("name", list(FORMULAS))
def test_gradients_are_finite_for_a_batch_of_one_identity_and_of_many(name):
    image, text, _, scale = make_inputs()
    for ids in (np.zeros(16, "i4"), np.arange(16, dtype="i4")):
        gradients = jax.grad(losses.ROBUST[name], argnums=(0, 1, 3))(image, text, ids, scale)
        assert all(np.isfinite(x).all() for x in gradients)


def test_gce_is_between_cross_entropy_and_absolute_error():
    inputs = make_inputs()
    inputs = (*inputs[:2], np.arange(16, dtype="i4"), inputs[3])
    cross = losses.nitc_loss(*inputs)
    np.testing.assert_allclose(losses.gce_loss(*inputs, power=1e-4), cross, rtol=1e-2)
    own = np.mean([np.diag(softmax(d[0])).mean() for d in directions(*inputs)])
    np.testing.assert_allclose(losses.gce_loss(*inputs, power=1.0), 1 - own, rtol=1e-5)


def test_the_reverse_part_of_the_symmetric_loss_is_ritc_with_its_entropy():
    inputs = make_inputs()
    inputs = (*inputs[:2], np.arange(16, dtype="i4"), inputs[3])
    eps = 1e-2
    reverse = losses.symmetric_loss(*inputs, forward=0.0, log_zero=float(np.log(eps)))
    entropy = np.mean(
        [cross_entropy(softmax(d[0]), softmax(d[0])).mean() for d in directions(*inputs)]
    )
    own = np.mean([np.diag(softmax(d[0])).mean() for d in directions(*inputs)])
    expected = losses.ritc_loss(*inputs, eps=eps) + entropy + own * np.log(1 + eps)
    np.testing.assert_allclose(reverse, expected, rtol=1e-5)


def test_small_losses_of_all_devices_are_kept(devices):
    values = np.random.default_rng(0).permutation(16).astype("f")
    found = losses.small_loss_weights(values, 0.75)
    assert (found.astype(bool) == (values < 12)).all()
    mesh = Mesh(np.array(devices), ("data",))
    select = functools.partial(losses.small_loss_weights, fraction=0.75, axis_name="data")
    sharded = jax.shard_map(select, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    np.testing.assert_array_equal(sharded(values), found)
    assert losses.small_loss_weights(values, 0.0).sum() == 1


def test_channels_go_in_both_modalities_alike():
    image, text, *_ = make_inputs()
    masked = losses.mask_channels(jax.random.key(3), image, text, 0.5)
    gone = [(np.asarray(x) == 0).all(axis=0) for x in masked]
    np.testing.assert_array_equal(*gone)
    assert 0 < gone[0].sum() < 12
    kept = ~gone[0]
    np.testing.assert_array_equal(np.asarray(masked[0])[:, kept], image[:, kept])
    with pytest.raises(ValueError, match="must be in"):
        losses.mask_channels(jax.random.key(0), image, text, 1.0)


@pytest.mark.parametrize("name", ["nitc", "ritc", "sdm", "tal"])
def test_a_few_rows_at_a_time_change_nothing_but_the_memory(name):
    every = {"nitc": losses.nitc_loss, "ritc": losses.ritc_loss, "sdm": losses.sdm_loss}
    loss = (every | losses.ROBUST)[name]
    inputs = make_inputs()
    whole = jax.value_and_grad(loss, argnums=(0, 1))(*inputs)
    parts = jax.value_and_grad(functools.partial(loss, at_once=4), argnums=(0, 1))(*inputs)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), parts, whole)


def test_a_batch_of_32k_fits_where_its_similarities_do_not():
    rows = 32_768
    shapes = [
        jax.ShapeDtypeStruct((rows, 64), jnp.float32),
        jax.ShapeDtypeStruct((rows, 64), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.float32),
    ]
    loss = functools.partial(losses.nitc_loss, at_once=256)
    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    matrix = 4 * rows**2
    assert compiled.memory_analysis().temp_size_in_bytes < matrix / 8
