"""Colours of garments, skin and hair as drawn, and the few operations on colours.

The twelve garment colours are spread over hue and lightness (tests measure the least distance),
since at 128x64 a garment is a few hundred pixels and its colour is most of what a model sees.
"""

import functools

RGB = tuple[int, int, int]

GARMENT: dict[str, RGB] = {
    "black": (30, 30, 36),
    "white": (246, 246, 244),
    "grey": (134, 138, 144),
    "red": (208, 30, 40),
    "orange": (246, 128, 16),
    "yellow": (252, 218, 44),
    "green": (34, 140, 62),
    "blue": (28, 88, 204),
    "purple": (118, 46, 162),
    "pink": (250, 136, 186),
    "brown": (112, 64, 30),
    "beige": (220, 196, 156),
}
SKIN: dict[str, RGB] = {
    "light": (250, 215, 190),
    "tan": (228, 175, 132),
    "brown": (164, 108, 72),
    "dark": (98, 62, 46),
}
HAIR: dict[str, RGB] = {
    "black": (36, 31, 34),
    "brown": (104, 62, 36),
    "blond": (236, 200, 104),
    "grey": (182, 184, 190),
    "red": (186, 72, 30),
}
INK: RGB = (34, 30, 40)
WHITE: RGB = (250, 250, 250)
STEEL: RGB = (176, 182, 190)


@functools.cache
def mix(one: RGB, two: RGB, weight: float) -> RGB:
    """Returns `one` with `weight` (0..1) of `two` in it."""
    r, g, b = (round(a + (b - a) * weight) for a, b in zip(one, two, strict=True))
    return r, g, b


def shade(colour: RGB, amount: float = 0.3) -> RGB:
    """Returns the colour in shadow: darker and a little bluer, as under the sky."""
    return mix(colour, (16, 14, 44), amount)


def light(colour: RGB, amount: float = 0.25) -> RGB:
    """Returns the colour in light: nearer to a warm white."""
    return mix(colour, (255, 252, 240), amount)


def luminance(colour: RGB) -> float:
    """Returns the brightness that the eye gives to `colour`, 0..255 (ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def accent(colour: RGB) -> RGB:
    """Returns what a pattern on a garment of `colour` is drawn in: cream, or navy on light."""
    return (36, 42, 92) if luminance(colour) > 150 else (250, 244, 226)


def seam(colour: RGB) -> RGB:
    """Returns the colour of seams and folds: darker, but lighter on black, so that both show."""
    return light(colour, 0.32) if luminance(colour) < 60 else shade(colour, 0.42)
