"""Position embeddings for another grid of patches or length of text."""

import math

import numpy as np

from jaxtbpr.core.errors import InputError


def resample_grid(
    positions: np.ndarray, grid: tuple[int, int], saved_grid: tuple[int, int] | None = None
) -> np.ndarray:
    """Positions [1 + n, W] of one grid of patches -> [1 + rows * columns, W] of another.

    saved_grid: (rows, columns) of the n patches; None: a square. The first position, of the class
    token, stays. Bilinear, see `_resize`. TBPS-CLIP's rule: where the form of the own grid is not
    told, a grid of as many patches is not resampled. Raises InputError where n is then no square.
    """
    rows, columns = grid
    count = len(positions) - 1
    if saved_grid == grid or (saved_grid is None and count == rows * columns):
        return positions
    if saved_grid is None and math.isqrt(count) ** 2 != count:
        raise InputError(
            f"positions of {count} patches, which are no square, cannot be resampled to "
            f"{rows}x{columns}; load the checkpoint at the image size that it was trained with."
        )
    side = math.isqrt(count)
    patches = positions[1:].reshape(*(saved_grid or (side, side)), -1)
    resized = _resize(_resize(patches, rows, axis=0), columns, axis=1).astype(positions.dtype)
    return np.concatenate([positions[:1], resized.reshape(rows * columns, -1)])


def resample_line(positions: np.ndarray, length: int) -> np.ndarray:
    """Positions [L, W] of text -> [length, W]; the first and the last stay, as in TBPS-CLIP."""
    inner = _resize(positions[1:-1], length - 2, axis=0).astype(positions.dtype)
    return np.concatenate([positions[:1], inner, positions[-1:]])


def _resize(x: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Linear interpolation between half-pixel centres, edges repeated, no antialiasing; float32."""
    x = x.astype(np.float32)
    old = x.shape[axis]
    at = np.maximum((np.arange(size, dtype=np.float32) + 0.5) * np.float32(old / size) - 0.5, 0)
    low = np.minimum(at.astype(np.int64), old - 1)
    high = np.minimum(low + 1, old - 1)
    weight = (at - low.astype(np.float32)).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight
