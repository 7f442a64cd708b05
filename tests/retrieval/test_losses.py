"""N-ITC and R-ITC against the published code's numbers, a NumPy twin, and themselves on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxtbpr.retrieval.training import losses

ITC = {"nitc": losses.nitc_loss, "ritc": losses.ritc_loss}
each_loss = pytest.mark.parametrize("name", sorted(ITC))
each_case = pytest.mark.parametrize("case", ["B6", "B16"])


@pytest.fixture(scope="module")
def published(reference):
    return np.load(reference / "losses_syntbpr.npz")


def inputs(published, case):
    keys = ("image_features", "text_features", "person_ids", "logit_scale")
    return [published[f"{case}/{key}"] for key in keys]


def random_inputs(rows=16, width=8, identities=5, seed=0):
    rng = np.random.default_rng(seed)
    image, text = rng.standard_normal((2, rows, width), dtype=np.float32)
    ids = rng.integers(0, identities, rows).astype(np.int32)
    return [image, text, ids, np.float32(2.5)]


@functools.cache
def value_and_gradients(name, kind):
    """Compiled: losses and gradients to features and logit scale for (inputs, alpha, options)."""
    differentiate = jax.value_and_grad(ITC[name], argnums=(0, 1, 3))
    return jax.jit(functools.partial(differentiate, soft_labels=kind))


def every_setting(published, name):
    """Yields (axes of the published results, soft label kind, keyword arguments)."""
    for i, kind in enumerate(published["softlabel_types"]):
        for j, alpha in enumerate(published["alphas"]):
            if name == "nitc":
                yield (i, j), str(kind), {"alpha": alpha}
            else:
                for k, eps in enumerate(published["ritc_eps"]):
                    yield (i, j, k), str(kind), {"alpha": alpha, "eps": eps}


@each_case
@each_loss
def test_values_and_gradients_equal_the_published_code(published, name, case):
    for at, kind, options in every_setting(published, name):
        loss, gradients = value_and_gradients(name, kind)(*inputs(published, case), **options)
        expected = published[f"{case}/{name}_loss"][at]
        assert abs(loss - expected) < 1e-5 * max(1, abs(expected))
        for gradient, key in zip(gradients, ("image", "text", "logit_scale"), strict=True):
            expected = published[f"{case}/{name}_grad_{key}"][at]
            atol = 5e-5 * max(1, np.abs(expected).max())
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=atol)


@each_case
@each_loss
def test_double_precision_equals_the_published_code_in_double(published, name, case):
    with jax.enable_x64(True):
        arguments = [np.asarray(x, np.float64) for x in inputs(published, case)]
        for at, kind, options in every_setting(published, name):
            loss, gradients = value_and_gradients(name, kind)(*arguments, **options)
            assert loss.dtype == jnp.float64
            assert abs(loss - published[f"{case}/{name}_loss_f64"][at]) < 1e-6
            assert abs(gradients[2] - published[f"{case}/{name}_grad_logit_scale_f64"][at]) < 1e-6


def numpy_nitc(image, text, ids, logit_scale):
    """N-ITC with hard targets, from the formula, in double precision and plain loops."""
    image, text = (
        x.astype(float) / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)
    )
    total = 0.0
    for rows, columns in ((image, text), (text, image)):
        for i in range(len(ids)):
            scores = [min(np.exp(logit_scale), 100) * rows[i] @ column for column in columns]
            log_sum = np.log(sum(np.exp(scores)))
            own = [s for s, other in zip(scores, ids, strict=True) if other == ids[i]]
            total += log_sum - sum(own) / len(own)
    return total / (2 * len(ids))


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_nitc_equals_a_numpy_twin(rows):
    arguments = random_inputs(rows)
    loss, gradients = value_and_gradients("nitc", "sigmoid")(*arguments)
    np.testing.assert_allclose(loss, numpy_nitc(*arguments), rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@each_loss
def test_the_order_of_the_batch_does_not_matter(name):
    image, text, ids, scale = random_inputs()
    order = np.random.default_rng(1).permutation(len(ids))
    loss = value_and_gradients(name, "sigmoid")
    one, _ = loss(image, text, ids, scale, alpha=0.1)
    other, _ = loss(image[order], text[order], ids[order], scale, alpha=0.1)
    np.testing.assert_allclose(one, other, rtol=1e-6)


@each_loss
def test_the_length_of_a_feature_does_not_matter(name):
    image, text, ids, scale = random_inputs()
    loss = value_and_gradients(name, "sigmoid")
    one, _ = loss(image, text, ids, scale)
    other, _ = loss(7 * image, 0.2 * text, ids, scale)
    np.testing.assert_allclose(one, other, rtol=1e-5)


@each_loss
def test_a_zero_feature_has_a_finite_gradient(name):
    image, text, ids, scale = random_inputs()
    image[3] = 0
    _, gradients = value_and_gradients(name, "sigmoid")(image, text, ids, scale)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@each_loss
def test_half_precision_features_are_computed_in_float32(name):
    image, text, ids, scale = random_inputs()
    image, text = jnp.asarray(image, jnp.bfloat16), jnp.asarray(text, jnp.bfloat16)
    loss = value_and_gradients(name, "sigmoid")
    half, _ = loss(image, text, ids, scale, alpha=0.005)
    full, _ = loss(image.astype(jnp.float32), text.astype(jnp.float32), ids, scale, alpha=0.005)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, rtol=1e-6)


def test_soft_labels_get_no_gradient():
    logits, same = jnp.array([[2.0, -1.0], [0.5, 3.0]]), jnp.eye(2, dtype=bool)
    total = lambda x: losses.soft_targets(x, same, 0.5, "softmax")[0, 1]  # noqa: E731
    np.testing.assert_array_equal(jax.grad(total)(logits), 0)


def test_the_scale_is_capped_but_its_gradient_is_not():
    value, gradient = jax.value_and_grad(losses.clamped_scale)(jnp.log(200.0))
    np.testing.assert_allclose([value, gradient], [100.0, 200.0], rtol=1e-6)
    value, gradient = jax.value_and_grad(losses.clamped_scale)(jnp.float32(1000.0))
    assert value == 100.0  # where the exponential is infinite
    assert jnp.isfinite(gradient)
    value, gradient = jax.value_and_grad(losses.clamped_scale)(jnp.log(20.0))
    np.testing.assert_allclose([value, gradient], [20.0, 20.0], rtol=1e-6)


def test_an_unknown_kind_of_soft_label_is_an_error():
    with pytest.raises(ValueError, match="soft_labels='sigmoids' is unknown; use one of sigmoid"):
        losses.nitc_loss(*random_inputs(2), soft_labels="sigmoids")


def on_mesh(name, devices, shape, arguments):
    mesh = Mesh(np.array(devices[: np.prod(shape)]).reshape(shape), ("data", "fsdp"))
    loss = losses.global_loss(mesh, functools.partial(ITC[name], alpha=0.1))
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 3)))(*arguments)


@pytest.mark.parametrize("shape", [(1, 1), (8, 1), (4, 2)])
@each_loss
def test_a_mesh_gives_the_loss_and_gradients_of_one_device(name, shape, devices):
    arguments = random_inputs()
    expected = value_and_gradients(name, "sigmoid")(*arguments, alpha=0.1)
    found = on_mesh(name, devices, shape, arguments)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, expected)


def test_global_nitc_takes_a_soft_label_ratio_that_changes_with_the_step(devices):
    mesh = Mesh(np.array(devices).reshape(8, 1), ("data", "fsdp"))
    arguments = random_inputs()

    @jax.jit
    def loss(alpha, *x):
        return losses.global_loss(mesh, functools.partial(losses.nitc_loss, alpha=alpha))(*x)

    for alpha in (0.0, 0.3):
        expected, _ = value_and_gradients("nitc", "sigmoid")(*arguments, alpha=alpha)
        np.testing.assert_allclose(loss(alpha, *arguments), expected, atol=1e-5)
