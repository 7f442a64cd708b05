"""The common argument of all drawing functions: the figure, the camera and the canvas."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxtbpr.render.camera import Camera
from jaxtbpr.render.canvas import Canvas, Point, Shape, chain, circle, tube
from jaxtbpr.render.loft import Loft, loft
from jaxtbpr.render.palette import GARMENT, RGB, SKIN, shade
from jaxtbpr.render.skeleton import Figure

Layer = tuple[float, Callable[[], None]]  # depth towards the viewer [cm], what draws it

# Trunk of the bare body: distance down from the neck [cm], and where its rings get their sizes.
LEVELS = (0.0, 3.5, 7.0, 11.0, 22.0, 35.0, 48.0, 56.0)
LONG = 70.0  # centimetres; shorter garments end at the hips
SIDES = (("r", -1.0), ("l", 1.0))


@dataclasses.dataclass(frozen=True)
class Sketch:
    """attributes: the record; lit: -1 where the light comes from the left, 1 from the right."""

    attributes: dict[str, str]
    figure: Figure
    camera: Camera
    canvas: Canvas
    lit: float
    _tubes: dict[tuple[float, ...], Loft] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def fine(self) -> bool:
        """Whether strokes of half a centimetre are worth drawing: half a pixel and more."""
        return self.camera.scale > 1.0

    @property
    def skin(self) -> RGB:
        return SKIN[self.attributes["complexion"]]

    def colour(self, slot: str) -> RGB:
        """Returns the garment colour of a slot, for example "upper" or "bag"."""
        return GARMENT[self.attributes[f"{slot}_colour"]]

    def px(self, point: np.ndarray) -> Point:
        """Returns the pixel of a point of person space."""
        return self.camera(point)

    def cm(self, length: float) -> float:
        """Returns a length at the person in pixels."""
        return length * self.camera.scale * self.figure.body.size

    def depth(self, *names: str) -> float:
        """Returns the mean depth of joints towards the viewer [cm]."""
        return sum(self.camera.depth(self.figure[name]) for name in names) / len(names)

    def toward(self, start: str, end: str, t: float) -> np.ndarray:
        """Returns the point that lies `t` of the way from one joint to another."""
        a, b = self.figure[start], self.figure[end]
        return a + t * (b - a)

    def limb(
        self,
        points: Sequence[np.ndarray],
        radii: Sequence[float],
        colour: RGB,
        *,
        round_end: bool = True,
    ) -> list[Shape]:
        """Draws a bent tube through 3-D points, its radii in centimetres, with a lit side."""
        flat = [self.px(p) for p in points]
        widths = [self.cm(r) for r in radii]
        shapes = chain(flat, widths, round_end=round_end)
        self.canvas.part(shapes, colour)
        shift = [(x - self.lit * 0.5 * w, y) for (x, y), w in zip(flat, widths, strict=True)]
        self.canvas.fill(tube(shift, [0.46 * w for w in widths]), shade(colour, 0.5), 0.22)
        return shapes

    def blob(self, centre: np.ndarray, radii: Sequence[float]) -> Shape:
        """Returns the outline of an ellipsoid with half axes (side, up, front) in centimetres."""
        right, down = self.camera.extent(radii)
        return circle(self.px(centre), self.cm(right), self.cm(down))

    def trunk(self, start: float, end: float, ease: float, flare: float = 0.0) -> Loft:
        """Returns the tube of the trunk between two distances below the neck [cm].

        ease: how far the cloth lies off the body [cm]; flare: extra half width at the end. Below
        the pelvis (54 cm) a long tube follows the legs, so coats and skirts sit down with them.
        """
        key = (start, end, ease, flare)
        if key not in self._tubes:
            self._tubes[key] = self._trunk(*key)
        return self._tubes[key]

    def _trunk(self, start: float, end: float, ease: float, flare: float) -> Loft:
        if end < LONG and self.attributes["posture"] == "sitting":
            end = min(end, 54.0)
        if self.attributes["posture"] == "sitting":
            flare *= 0.4  # the lap carries the cloth
        s, at_levels, below_waist = _samples(start, end)
        widths, depths = self._girth @ at_levels
        grow = ease + flare * below_waist
        centres, spread = self._spine(s)
        widths = np.maximum(widths + grow, spread[:, 0] + grow * (spread[:, 0] > 0))
        depths = np.maximum(depths + grow, spread[:, 1] + grow * (spread[:, 1] > 0))
        size = self.figure.body.size
        return loft(self.camera, centres, widths * size, depths * size)

    @functools.cached_property
    def _girth(self) -> np.ndarray:
        """Half widths and half depths of the bare trunk at LEVELS, [2, 8]."""
        b = self.figure.body
        neck = 6.0 * b.limb
        out = b.shoulder
        widths = (neck, 0.55 * out, 0.86 * out, 0.98 * out, b.chest, b.waist, b.hip, b.hip)
        deep = max(0.62 * b.hip, 0.9 * b.belly)
        flat = 0.8 * b.bust
        depths = (neck, 0.62 * b.bust, flat, 0.9 * b.bust, b.bust, b.belly, deep, deep)
        return np.array([widths, depths])

    def _spine(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centres [K, 3] at distances s below the neck, and the half spread of the legs [K, 2]."""
        f, size = self.figure, self.figure.body.size
        hip = 0.5 * (f["hip_r"] + f["hip_l"])
        centres = f["neck"] + (hip - f["neck"]) * (s / 54)[:, None]
        spread = np.zeros((len(s), 2))
        for i, distance in enumerate(s.tolist()):
            if distance > 54 and s[-1] > LONG:
                right, left = (self._along_leg(side, distance - 54) for side in "rl")
                centres[i] = 0.5 * (right + left)
                gap = np.abs(left - right) / (2 * size)
                radius = (8.4 - 3.0 * min((distance - 54) / 42, 1.0)) * f.body.limb
                spread[i] = gap[0] + radius, math.hypot(gap[1], gap[2]) * 0.9 + radius
        return centres, spread

    def _along_leg(self, side: str, distance: float) -> np.ndarray:
        if distance <= 42:
            return self.toward(f"hip_{side}", f"knee_{side}", distance / 42)
        return self.toward(f"knee_{side}", f"ankle_{side}", min((distance - 42) / 40, 1.0))


@functools.lru_cache(maxsize=256)
def _samples(start: float, end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eleven distances s from start to end, the matrix [8, 11] that interpolates LEVELS there,
    and how far below the waist they are as a share of the way to the end."""
    s = np.linspace(start, end, 11)
    at_levels = np.stack([np.interp(s, LEVELS, row) for row in np.eye(len(LEVELS))])
    return s, at_levels, np.clip((s - 38) / max(end - 38, 1.0), 0, 1)
