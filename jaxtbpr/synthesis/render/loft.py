"""A loft: a tube of elliptic rings (trunk, skirt, hood, backpack) and what lies on its surface.

The surface is addressed in two ways: by what the viewer sees, `surface(q, v)` with q = -1 (left
edge) .. 1 (right edge), and by where it is on the body, `at(angle, v)` with 0 degrees at the
front and 90 at the person's left. v runs from 0 (first ring) to 1 (last).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxtbpr.synthesis.render.camera import Camera
from jaxtbpr.synthesis.render.canvas import Canvas, Point, Shape
from jaxtbpr.synthesis.render.palette import RGB, shade

ROWS = 13  # rings after smoothing


@dataclasses.dataclass(frozen=True)
class Loft:
    """centre, edge, front: [ROWS, 2] pixels. A ring is centre + edge * q + front * sqrt(1 - q^2)
    on the side that the viewer sees; facing: the angle of the body that faces the viewer [deg]."""

    centre: np.ndarray
    edge: np.ndarray
    front: np.ndarray
    facing: float
    ends: tuple[Shape, Shape]

    @functools.cached_property
    def _rows(self) -> list[tuple[float, ...]]:
        return np.concatenate([self.centre, self.edge, self.front], 1).tolist()

    def surface(self, q: float, v: float) -> Point:
        """Returns the pixel of a point of the visible surface."""
        t = min(max(v, 0.0), 1.0) * (ROWS - 1)
        i = min(int(t), ROWS - 2)
        t -= i
        a = self._rows[i]
        b = self._rows[i + 1]
        s = math.sqrt(max(0.0, 1 - q * q))
        x0, x1 = a[0] + a[2] * q + a[4] * s, b[0] + b[2] * q + b[4] * s
        y0, y1 = a[1] + a[3] * q + a[5] * s, b[1] + b[3] * q + b[5] * s
        return x0 + (x1 - x0) * t, y0 + (y1 - y0) * t

    def at(self, angle: float, v: float) -> Point | None:
        """Returns the pixel of a point of the body's surface, None on the far side."""
        turn = math.radians(angle - self.facing)
        return self.surface(math.sin(turn), v) if math.cos(turn) > 0 else None

    def patch(self, angles: Sequence[float], vs: Sequence[float]) -> Shape | None:
        """Returns the polygon through (angle, v) pairs, None if most of it is on the far side.

        Corners beyond the edge are pulled to the edge.
        """
        turns = [math.radians(a - self.facing) for a in angles]
        if sum(math.cos(t) > 0.05 for t in turns) * 2 <= len(turns):
            return None
        qs = [math.sin(t) if math.cos(t) > 0 else math.copysign(1, math.sin(t)) for t in turns]
        return [n for q, v in zip(qs, vs, strict=True) for n in self.surface(q, v)]

    def band(self, v0: float, v1: float, q0: float = -1.0, q1: float = 1.0) -> Shape:
        """Returns the part of the visible surface between two heights and two edges."""
        qs = [q0 + (q1 - q0) * i / 8 for i in range(9)]
        upper = [n for q in qs for n in self.surface(q, v0)]
        return upper + [n for q in reversed(qs) for n in self.surface(q, v1)]

    def column(self, q: float, width: float, v0: float = 0.0, v1: float = 1.0) -> Shape:
        """Returns an upright stripe round q of the given half-width (in q)."""
        vs = [v0 + (v1 - v0) * i / 6 for i in range(7)]
        left = [n for v in vs for n in self.surface(max(q - width, -1.0), v)]
        return left + [n for v in reversed(vs) for n in self.surface(min(q + width, 1.0), v)]

    def seam(self, angle: float, v0: float = 0.0, v1: float = 1.0) -> Shape | None:
        """Returns the polyline down the body at `angle`, None on the far side."""
        if math.cos(math.radians(angle - self.facing)) <= 0.08:
            return None
        vs = [v0 + (v1 - v0) * i / 5 for i in range(6)]
        return [n for v in vs for n in self.at(angle, v)]

    @functools.cached_property
    def silhouette(self) -> list[Shape]:
        """The shapes whose union is the whole."""
        left, right = self.centre - self.edge, self.centre + self.edge
        outline = np.concatenate([left, right[::-1]]).ravel().tolist()
        return [outline, *self.ends]

    def paint(self, canvas: Canvas, colour: RGB, lit: float = -1.0) -> None:
        """Draws the loft in `colour`, with its shaded side; lit: -1 light from the left, 1 right."""
        canvas.part(self.silhouette, colour)
        self.shadow(canvas, colour, lit)

    def shadow(self, canvas: Canvas, colour: RGB, lit: float = -1.0) -> None:
        """Darkens the side turned from the light, in three soft steps."""
        side = -lit
        for start, alpha in ((0.30, 0.16), (0.55, 0.20), (0.78, 0.24)):
            q0, q1 = sorted((side * start, side))
            canvas.fill(self.column((q0 + q1) / 2, (q1 - q0) / 2), shade(colour, 0.55), alpha)


def loft(
    camera: Camera,
    centres: Sequence[np.ndarray],
    widths: Sequence[float],
    depths: Sequence[float],
) -> Loft:
    """Returns the loft through K rings, smoothed to ROWS.

    centres: K points of person space; widths, depths: half axes of each ring, to the side and
    across (to the front where the tube is upright), in centimetres.
    """
    v = np.linspace(0, 1, ROWS)
    knots = np.linspace(0, 1, len(centres))
    rows = np.column_stack([np.asarray(centres), widths, depths])
    rows = _smooth(rows, knots, v)
    path = rows[:, :3]
    across = _across(path)
    centre = camera.project(path)
    side = camera.project(path + rows[:, 3:4] * np.array([1.0, 0.0, 0.0])) - centre
    front = camera.project(path + rows[:, 4:5] * across) - centre
    middle = ROWS // 2
    facing = _facing(camera, across[middle])
    return _seen(camera, centre, side, front, across, facing)


def _smooth(rows: np.ndarray, knots: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Catmull-Rom spline through `rows` [K, 5] at the positions v [ROWS]."""
    if len(rows) < 3:
        return np.stack([np.interp(v, knots, column) for column in rows.T], 1)
    tangents = np.gradient(rows, axis=0)
    i = np.minimum((v * (len(rows) - 1)).astype(int), len(rows) - 2)
    t = (v * (len(rows) - 1) - i)[:, None]
    h = 2 * t**3 - 3 * t**2
    return (
        (1 + h) * rows[i]
        - h * rows[i + 1]
        + (t**3 - 2 * t**2 + t) * tangents[i]
        + (t**3 - t**2) * tangents[i + 1]
    )


def _across(path: np.ndarray) -> np.ndarray:
    """Unit vectors [ROWS, 3] at right angles to the tube and to the person's side."""
    tangent = np.gradient(path, axis=0)
    y, z = tangent[:, 1], tangent[:, 2]
    length = np.sqrt(y * y + z * z) + 1e-9
    # For a tube that runs down (y < 0) this is the front.
    return np.stack([np.zeros_like(y), z / length, -y / length], 1)


def _facing(camera: Camera, across: np.ndarray) -> float:
    side = camera.direction((1.0, 0.0, 0.0))[2]
    front = camera.direction(across)[2]
    return math.degrees(math.atan2(side, front))


def _seen(camera, centre, side, front, across, facing) -> Loft:
    """Turns ring axes into (edge, front) pairs as the viewer sees them."""
    tangent = np.gradient(centre, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    # Seen along the tube there is no edge across it: fall back to left and right.
    weak = (np.abs(tangent).sum(1) < 0.35 * camera.scale)[:, None]
    normal = np.where(weak, [1.0, 0.0], normal)
    normal *= np.where(normal[:, :1] < 0, -1.0, 1.0)
    s, f = (side * normal).sum(1, keepdims=True), (front * normal).sum(1, keepdims=True)
    length = np.sqrt(s * s + f * f) + 1e-9
    edge = (side * s + front * f) / length
    arc = (front * s - side * f) / length
    ends = tuple(_ring(centre[i], edge[i], arc[i]) for i in (0, -1))
    # The near half of each ring: the side whose angle is `facing`.
    a = math.radians(facing)
    near = side * math.sin(a) + front * math.cos(a)
    sign = np.sign((near * arc).sum(1, keepdims=True))
    sign = np.where(sign == 0, 1.0, sign)
    return Loft(centre, edge, arc * sign, facing, ends)


def _ring(centre: np.ndarray, edge: np.ndarray, arc: np.ndarray) -> Shape:
    return (centre + _COS * edge + _SIN * arc).ravel().tolist()


_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)[:, None]
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)
Profile = Callable[[float], float]
