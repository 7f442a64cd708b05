"""Convolutions with small kernels, by the fastest algorithm.

XLA computes every product. Kernels of 3x3 need fewer, by Winograd's F(2x2, 3x3) (Lavin
and Gray, arXiv:1509.09308, section 4.1): an output tile of 2x2 is A^T [(G w G^T) * (B^T x B)] A,
where x is the input tile of 4x4 and w the kernel. The products `*` of all tiles are 16 matrix
products, between which are sums alone; 2.25 times fewer, and the gradients have the same form.

Letters: `B` batch, `H`, `W` sides of an image, `C` channels in, `D` channels out, `k` sides of a
kernel. A "4x4" is a list of 16 arrays, row by row: one for each place of a tile.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

_AROUND = ((1, 1), (1, 1))  # the padding with which a kernel of 3x3 keeps the sides


def convolve(
    x: jax.Array, kernel: jax.Array, strides: int | Sequence[int], padding: str | Sequence
) -> jax.Array:
    """Convolves [B, H, W, C] with kernel [k, k, C, D]; strides and padding as Flax has them."""
    strides = (strides, strides) if isinstance(strides, int) else tuple(strides)
    if strides == (1, 1) and kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]
    keeps = strides == (1, 1) and kernel.shape[:2] == (3, 3) and padding == _AROUND
    if keeps and winograd_pays(x, kernel):
        return winograd(x, kernel)
    return _direct(x, kernel, strides, padding)


def upsample_and_convolve(x: jax.Array, kernel: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Makes [B, H, W, C] as large as `size` says and convolves it with kernel [3, 3, C, D].

    size: see `upsample`. On a CPU a row of the larger image sees only two rows of the smaller,
    and even rows others than odd ones: four kernels of 2x2 do with 4/9 of the products.
    """
    if jax.default_backend() != "cpu" or size != (2 * x.shape[1], 2 * x.shape[2]):
        return convolve(upsample(x, size), kernel, 1, _AROUND)
    paddings = (1, 0), (0, 1)  # of even and of odd rows
    return _interleave(
        [
            [
                _direct(x, part, (1, 1), (rows, columns))
                for part, columns in zip(_pairs(half, 1), paddings, strict=True)
            ]
            for half, rows in zip(_pairs(kernel, 0), paddings, strict=True)
        ]
    )


def upsample(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Nearest neighbours to `size`, twice the sides of [B, H, W, C] or one less.

    For these sizes PyTorch's rule, row floor(i * H / size), is row i // 2: repeat, then cut.
    """
    batch, height, width, channels = x.shape
    shape = (batch, height, 2, width, 2, channels)
    doubled = jnp.broadcast_to(x[:, :, None, :, None], shape)
    return doubled.reshape(batch, 2 * height, 2 * width, channels)[:, : size[0], : size[1]]


@jax.custom_vjp
def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, C] with kernel [3, 3, C, D] -> [B, H, W, D]; zeros around, H and W even."""
    return _untile([v @ u for v, u in zip(_tile(x), _transform(kernel), strict=True)])


def _forward(x, kernel):
    return winograd(x, kernel), (x, kernel)


def _backward(saved, g):
    x, kernel = saved
    products = [
        jnp.einsum("bhwc,bhwd->cd", v, m) for v, m in zip(_tile(x), _spread(g), strict=True)
    ]
    return winograd(g, kernel[::-1, ::-1].swapaxes(2, 3)), _gather(products)


winograd.defvjp(_forward, _backward)


def winograd_pays(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether `winograd` takes less time than XLA, as measured on CPUs with AVX2."""
    batch, height, width, channels = x.shape
    return (
        jax.default_backend() == "cpu"
        and x.dtype == kernel.dtype == jnp.float32
        and height % 2 == width % 2 == 0
        and min(channels, kernel.shape[3]) >= 32
        and batch * height * width >= 128
    )


def _direct(x, kernel, strides, padding):
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=names)


def _pairs(kernel, axis):
    """The two kernels, half as wide, of even and of odd places of an image twice as large."""
    a, b, c = (jax.lax.index_in_dim(kernel, k, axis) for k in range(3))
    return jnp.concatenate([a, b + c], axis), jnp.concatenate([a + b, c], axis)


def _interleave(places):
    """2x2 arrays [B, H, W, D], of even and odd rows and columns -> [B, 2H, 2W, D]."""
    tiles = jnp.stack([jnp.stack(row, axis=3) for row in places], axis=2)
    batch, height, _, width, _, channels = tiles.shape
    return tiles.reshape(batch, 2 * height, 2 * width, channels)


# --- the transforms of Winograd's tiles ----------------------------------------------------------


def _tile(x):
    """B^T x B of every tile: 4x4 of [B, H/2, W/2, C]."""

    def along(x, axis):
        end = x.shape[axis] - 3
        a, b, c, d = (jax.lax.slice_in_dim(x, k, k + end, 2, axis) for k in range(4))
        return a - c, b + c, c - b, b - d

    padded = jnp.pad(x, ((0, 0), *_AROUND, (0, 0)))
    return [place for row in along(padded, 1) for place in along(row, 2)]


def _untile(places):
    """A^T m A of every tile: 4x4 of [B, H/2, W/2, D] -> [B, H, W, D]."""

    def along(a, b, c, d):
        return a + b + c, b - c - d

    columns = [along(*places[k::4]) for k in range(4)]
    return _interleave([along(*row) for row in zip(*columns, strict=True)])


def _spread(g):
    """A g A^T of every output tile, the transpose of `_untile`: 4x4 of [B, H/2, W/2, D]."""

    def along(g, axis):
        a, b = (jax.lax.slice_in_dim(g, k, None, 2, axis) for k in range(2))
        return a, a + b, a - b, -b

    return [place for row in along(g, 1) for place in along(row, 2)]


def _transform(kernel):
    """G w G^T: [3, 3, C, D] -> 4x4 of [C, D]."""

    def along(a, b, c):
        return a, (a + b + c) / 2, (a - b + c) / 2, c

    return [place for row in along(*kernel) for place in along(*row)]


def _gather(places):
    """G^T u G, the transpose of `_transform`: 4x4 of [C, D] -> [3, 3, C, D]."""

    def along(a, b, c, d):
        return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d

    columns = [along(*places[k::4]) for k in range(4)]
    return jnp.stack([jnp.stack(along(*row)) for row in zip(*columns, strict=True)])
