"""Light and weather. The background takes most of it; the clothes keep their colours."""

import functools

import numpy as np
from PIL import Image

from jaxtbpr.render.canvas import Canvas, circle

GREY_RAIN, GREY_FOG, SNOW = (92, 108, 130), (206, 211, 216), (242, 246, 252)
VEILS = {"fog": (GREY_FOG, 0.13), "rain": (GREY_RAIN, 0.07)}  # over the person: clothes stay clear


def grade(
    image: Image.Image, weather: str, horizon: float, rng: np.random.Generator
) -> Image.Image:
    """Returns the background in its light: time of day, then the weather's tint.

    horizon: its y as a share of the height.
    """
    tint = rng.uniform(0.84, 1.06) * (1 + rng.uniform(-0.05, 0.05) * np.array([1.0, 0.0, -1.0]))
    if weather == "clear":  # a table of 256 is quicker than arithmetic on the pixels
        table = np.minimum(np.arange(256) * tint[:, None], 255).astype(int)
        return image.point(table.ravel().tolist())
    x = np.asarray(image) * tint.astype(np.float32)
    if weather == "rain":
        x = _toward(_grey(x, 0.45) * np.float32(0.86), GREY_RAIN, 0.30)
    elif weather == "fog":
        x = _toward(x, GREY_FOG, _fog_density(len(x), round(horizon, 2)))
    elif weather == "snow":
        x = _toward(_grey(x, 0.25), SNOW, _snow_cover(len(x), round(horizon, 2)))
    return Image.fromarray(np.minimum(np.maximum(x, 0, out=x), 255, out=x).astype(np.uint8))


def fall(canvas: Canvas, weather: str, rng: np.random.Generator) -> None:
    """Draws what is between the viewer and the person: veil, rain, flakes."""
    width, height = canvas.size
    unit, wide = height / 100, 100 * width / height
    if weather in VEILS:
        canvas.fill([0, 0, width, 0, width, height, 0, height], *VEILS[weather])
    if weather == "rain":
        slant = rng.uniform(0.12, 0.3)
        for x, y, size in rng.random((round(0.9 * wide), 3)).tolist():
            x, y, size = x * wide * unit, y * 104 * unit, (3 + 5 * size) * unit
            canvas.line([x, y - size, x - slant * size, y], 0.45 * unit, (226, 236, 250), 0.62)
    elif weather == "snow":
        for x, y, size in rng.random((round(1.1 * wide), 3)).tolist():
            radius = (0.45 + 0.75 * size) * unit
            canvas.fill(circle((x * width, y * height), radius), (255, 255, 255), 0.92)


def puddles(canvas: Canvas, weather: str, feet: float, rng: np.random.Generator) -> None:
    """Wet ground: pale mirrors round the feet. feet: y of the feet in pixels."""
    if weather != "rain":
        return
    width, height = canvas.size
    for x, dy, size in rng.random((5, 3)).tolist():
        at = (x * width, feet + (dy - 0.6) * 0.12 * height)
        rx = (0.05 + 0.06 * size) * height
        canvas.fill(circle(at, rx, 0.2 * rx), (196, 212, 232), 0.5)


def _toward(x: np.ndarray, colour: tuple[int, int, int], weight) -> np.ndarray:
    return x + (np.array(colour, np.float32) - x) * np.float32(weight)


def _grey(x: np.ndarray, weight: float) -> np.ndarray:
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    return x + np.float32(weight) * (grey[..., None] - x)


@functools.lru_cache(maxsize=64)
def _fog_density(height: int, horizon: float) -> np.ndarray:
    """[H, 1, 1]: thickest at the horizon, thinner on the near ground."""
    y = np.linspace(0, 1, height)[:, None, None]
    density = np.where(y < horizon, 0.80, 0.80 - 0.42 * (y - horizon) / (1.001 - horizon))
    return density.astype(np.float32)


@functools.lru_cache(maxsize=64)
def _snow_cover(height: int, horizon: float) -> np.ndarray:
    """[H, 1, 1]: the ground lies under snow, what stands behind only wears a dusting."""
    y = np.linspace(0, 1, height)[:, None, None]
    return np.clip(0.30 + 8.0 * (y - horizon), 0.30, 0.80).astype(np.float32)
