"""Convolutions by fewer products, beside XLA's direct ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.diffusion import convolution

SHAPES = [(1, 2, 2, 32, 32), (3, 4, 10, 5, 7), (2, 16, 8, 64, 32)]  # B, H, W, C, D


def direct(x, kernel, strides=(1, 1), padding="SAME"):
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=names)


def draw(batch, height, width, channels, out):
    rng = np.random.default_rng(0)
    shapes = (batch, height, width, channels), (3, 3, channels, out)
    return [rng.normal(size=shape).astype("f") for shape in shapes]


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_is_the_direct_one(shape):
    x, kernel = draw(*shape)
    assert_close(jax.jit(convolution.winograd)(x, kernel), direct(x, kernel))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_the_direct_ones(shape):
    x, kernel = draw(*shape)
    weights = np.random.default_rng(1).normal(size=(*shape[:3], shape[4])).astype("f")

    def gradients(convolve):
        def summed(x, kernel):
            return (convolve(x, kernel) * weights).sum()

        return jax.jit(jax.grad(summed, argnums=(0, 1)))(x, kernel)

    for found, expected in zip(gradients(convolution.winograd), gradients(direct), strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("shape", [(2, 16, 8, 64, 32), (2, 15, 8, 64, 32), (1, 4, 4, 4, 4)])
@pytest.mark.parametrize("strides", [1, (2, 2)])
@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), "VALID"])
def test_layers_take_any_way_to_the_same_numbers(shape, strides, padding):
    x, kernel = draw(*shape)
    pair = (strides, strides) if strides == 1 else strides
    found = convolution.convolve(x, kernel, strides, padding)
    assert_close(found, direct(x, kernel, pair, padding))


def test_one_by_one_is_a_product():
    x, kernel = draw(2, 5, 3, 6, 8)
    assert_close(convolution.convolve(x, kernel[:1, :1], 1, "VALID"), direct(x, kernel[:1, :1]))


@pytest.mark.parametrize("size", [(6, 4), (5, 4), (6, 3), (5, 3)])
def test_upsampling_takes_pytorchs_nearest_neighbours(size):
    x = np.arange(2 * 3 * 2 * 5).reshape(2, 3, 2, 5).astype("f")
    rows, columns = (
        np.floor(np.arange(new) * np.float32(old / new)).astype(int)
        for new, old in zip(size, (3, 2), strict=True)
    )
    np.testing.assert_array_equal(convolution.upsample(x, size), x[:, rows][:, :, columns])


@pytest.mark.parametrize("size", [(6, 4), (5, 4), (6, 3)])
def test_upsampling_with_a_convolution_is_one_after_the_other(size):
    x, kernel = draw(2, 3, 2, 5, 7)
    weights = np.random.default_rng(1).normal(size=(2, *size, 7)).astype("f")

    def weighted(convolve):
        def summed(x, kernel):
            return (convolve(x, kernel) * weights).sum()

        return jax.jit(jax.value_and_grad(summed, argnums=(0, 1)))(x, kernel)

    found = weighted(lambda x, kernel: convolution.upsample_and_convolve(x, kernel, size))
    expected = weighted(lambda x, kernel: direct(convolution.upsample(x, size), kernel))
    jax.tree.map(assert_close, found, expected)


@pytest.mark.parametrize(
    ("x", "out", "pays"),
    [
        (jax.ShapeDtypeStruct((8, 16, 8, 64), jnp.float32), 64, True),
        (jax.ShapeDtypeStruct((8, 15, 8, 64), jnp.float32), 64, False),  # odd
        (jax.ShapeDtypeStruct((8, 16, 8, 4), jnp.float32), 64, False),  # few channels
        (jax.ShapeDtypeStruct((1, 4, 4, 64), jnp.float32), 64, False),  # few places
        (jax.ShapeDtypeStruct((8, 16, 8, 64), jnp.bfloat16), 64, False),
    ],
)
def test_fewer_products_are_taken_where_they_pay(x, out, pays):
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[3], out), jnp.float32)
    assert convolution.winograd_pays(x, kernel) == (pays and jax.default_backend() == "cpu")
