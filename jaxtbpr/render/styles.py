"""Styles: photo, oil painting, anime, street photography, van gogh, pointillism.

The painterly ones re-lay the picture in brush strokes: a map, made once for each size and style,
says for every pixel which pixel its stroke takes its colour from and how the stroke's relief
lights it. Anime is drawn flat with ink lines (see canvas.Canvas.outline).
"""

import dataclasses
import functools
import math

import numpy as np
from PIL import Image

VARIANTS = 4  # stroke maps for each size and style, drawn at random


@dataclasses.dataclass(frozen=True)
class Stroke:
    """Lengths in percent of the image's height."""

    length: float
    width: float
    relief: float  # how strongly the relief lights the paint
    saturation: float
    keep: float  # share of the unpainted picture left under the paint, for small things


STROKES = {
    "oil painting": Stroke(4.2, 1.7, 0.16, 1.15, 0.35),
    "van gogh": Stroke(6.5, 1.5, 0.30, 1.35, 0.25),
    "pointillism": Stroke(1.9, 1.9, 0.10, 1.35, 0.22),
}


def finish(pixels: np.ndarray, style: str, rng: np.random.Generator) -> np.ndarray:
    """Returns the finished picture, uint8 [H, W, 3], from the drawn one, which is not painted."""
    if style == "anime":
        return _clip(_saturate(pixels.astype(np.float32), 1.25) * 1.06 + 4)
    height, width, _ = pixels.shape
    strong = style == "street photography"
    x = pixels * _vignette(height, width, 2.2 if strong else 1.0)
    x += _grain(height, width, 1.6 if strong else 0.55, rng)
    return _clip(x)


def backdrop(image: Image.Image, style: str) -> Image.Image:
    """Returns the background in the style, behind the person."""
    if style == "street photography":  # hard black and white; the person keeps the colours
        x = _saturate(np.asarray(image, np.float32), 0.06)
        return Image.fromarray(_clip((x - 128) * 1.35 + 116))
    if style == "anime":
        return Image.blend(image, Image.new("RGB", image.size, (255, 255, 255)), 0.22)
    return image


def paint(
    pixels: np.ndarray, person: np.ndarray, style: str, rng: np.random.Generator
) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], in strokes; style: one of STROKES.

    person: bool [H, W, 1], where the person is: strokes are half as large there.
    """
    height, width, _ = pixels.shape
    stroke, variant = STROKES[style], int(rng.integers(VARIANTS))
    index, relief = (
        np.where(person, small, large)
        for small, large in zip(
            *(_stroke_map(height, width, style, size, variant) for size in (0.5, 1.0)), strict=True
        )
    )
    paint = pixels.reshape(-1, 3)[index[..., 0]].astype(np.float32)
    paint += stroke.keep * (pixels - paint)
    return _clip(_saturate(paint, stroke.saturation) * relief)


def _saturate(x: np.ndarray, amount: float) -> np.ndarray:
    grey = (x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    return grey + np.float32(amount) * (x - grey)


def _clip(x: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x, 0, out=x), 255, out=x).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _vignette(height: int, width: int, strength: float) -> np.ndarray:
    y = np.linspace(-1, 1, height)[:, None]
    x = np.linspace(-1, 1, width)[None]
    shade = (1.02 - 0.066 * (x**2 + y**2)) ** strength
    return np.repeat(shade[..., None], 3, axis=2).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _grain_tile(height: int, width: int, strength: float) -> np.ndarray:
    noise = np.random.Generator(np.random.Philox(key=7)).normal(size=(2 * height, 2 * width, 1))
    return np.repeat(3.2 * strength * noise, 3, axis=2).astype(np.float32)


def _grain(height: int, width: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A window of film grain [H, W, 3] at a random place of a fixed tile."""
    y, x = int(rng.integers(height)), int(rng.integers(width))
    return _grain_tile(height, width, strength)[y : y + height, x : x + width]


@functools.lru_cache(maxsize=32)
def _stroke_map(
    height: int, width: int, style: str, size: float, variant: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (index of the source pixel, relief), both [H, W, 1], of a canvas full of strokes.

    Each pixel belongs to the stroke whose seed is nearest in a metric stretched along the
    direction of painting; every stroke takes the colour below its seed.
    """
    rng = np.random.Generator(np.random.Philox(key=11 + variant))
    stroke, unit = STROKES[style], size * height / 100
    length, wide = max(stroke.length * unit, 1.6), max(stroke.width * unit, 1.3)
    cell = 0.9 * math.sqrt(length * wide)  # one stroke in each cell of a grid
    rows, columns = int(height / cell) + 1, int(width / cell) + 1
    seeds = (np.indices((rows, columns)) + rng.random((2, rows, columns))) * cell
    angle = _field(seeds[1] / height, seeds[0] / height, style, variant)
    over = 0.3 * rng.random((rows, columns))  # which stroke lies on top
    y, x = np.indices((height, width)) + 0.5
    best = np.full((height, width), np.inf)
    index, across = np.zeros((height, width), np.int64), np.zeros((height, width))
    for dy, dx in np.ndindex(5, 5):
        at = (
            np.clip((y / cell).astype(int) + dy - 2, 0, rows - 1),
            np.clip((x / cell).astype(int) + dx - 2, 0, columns - 1),
        )
        sy, sx, cos, sin = seeds[0][at], seeds[1][at], np.cos(angle)[at], np.sin(angle)[at]
        u = ((x - sx) * cos + (y - sy) * sin) / length
        v = ((y - sy) * cos - (x - sx) * sin) / wide
        near = u * u + v * v + over[at]
        closer = near < best
        source = np.clip(sy, 0, height - 1).astype(int) * width + np.clip(sx, 0, width - 1).astype(
            int
        )
        best, across = np.where(closer, near, best), np.where(closer, v, across)
        index = np.where(closer, source, index)
    dome = 0.9 * best * (style == "pointillism")
    relief = 1.03 - stroke.relief * np.clip(across + dome, -1, 1)
    return index[..., None], relief[..., None].astype(np.float32)


def _field(x: np.ndarray, y: np.ndarray, style: str, variant: int) -> np.ndarray:
    """The direction of painting at (x, y): slanted for oil, whirls for van gogh [radians]."""
    if style != "van gogh":
        return 0.9 + 0.5 * np.sin(5 * x + 3 * y + variant)
    angle = 0.4 * np.sin(9 * y + variant)
    for cx, cy in ((0.1 + 0.05 * variant, 0.16), (0.42, 0.3 + 0.06 * variant), (0.12, 0.75)):
        near = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.05)
        angle += near * (np.arctan2(y - cy, x - cx) + math.pi / 2)
    return angle
