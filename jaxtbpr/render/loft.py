"""A loft: a tube of elliptic rings (trunk, skirt, hood, backpack) and what lies on its surface.

The surface is addressed in two ways: by what the viewer sees, `surface(q, v)` with q = -1 (left
edge) .. 1 (right edge), and by where it is on the body, `at(angle, v)` with 0 degrees at the
front and 90 at the person's left. v runs from 0 (first ring) to 1 (last).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxtbpr.render.camera import Camera
from jaxtbpr.render.canvas import Canvas, Point, Shape, circle
from jaxtbpr.render.palette import RGB, shade

ROWS = 13  # rings after smoothing
Pixels = NDArray[np.complex128]  # x + iy


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
    def _rows(self) -> list[list[float]]:
        return self._table.reshape(ROWS, 6).tolist()

    @functools.cached_property
    def _table(self) -> np.ndarray:
        return np.stack([self.centre, self.edge, self.front], 1)

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

    def polyline(self, angles: Sequence[float], vs: Sequence[float]) -> Shape:
        """Returns the polyline through those of the (angle, v) pairs that are on the near side."""
        points = (self.at(angle, v) for angle, v in zip(angles, vs, strict=True))
        return [n for point in points if point for n in point]

    def band(self, v0: float, v1: float) -> Shape:
        """Returns the part of the visible surface between two heights."""
        points = np.concatenate([_ARCH @ self._row(v0), _ARCH[::-1] @ self._row(v1)])
        return points.ravel().tolist()

    def _row(self, v: float) -> np.ndarray:
        """Returns (centre, edge, front) of the ring at v, [3, 2]."""
        t = min(max(v, 0.0), 1.0) * (ROWS - 1)
        i = min(int(t), ROWS - 2)
        return self._table[i] * (1 - t + i) + self._table[i + 1] * (t - i)

    def column(self, q0: float, q1: float) -> Shape:
        """Returns the upright stripe of the visible surface from q0 to q1."""
        sides = (
            self.centre + self.edge * q + self.front * math.sqrt(max(0.0, 1 - q * q))
            for q in (max(q0, -1.0), min(q1, 1.0))
        )
        left, right = sides
        return np.concatenate([left, right[::-1]]).ravel().tolist()

    def seam(self, angle: float, v0: float = 0.0, v1: float = 1.0) -> Shape | None:
        """Returns the polyline down the body at `angle`, None on the far side."""
        if math.cos(math.radians(angle - self.facing)) <= 0.08:
            return None
        return self.polyline([angle] * 6, [v0 + (v1 - v0) * i / 5 for i in range(6)])

    @functools.cached_property
    def silhouette(self) -> list[Shape]:
        """The shapes whose union is the whole."""
        left, right = self.centre - self.edge, self.centre + self.edge
        outline = np.concatenate([left, right[::-1]]).ravel().tolist()
        return [outline, *self.ends]

    def paint(self, canvas: Canvas, colour: RGB, lit: float = -1.0) -> None:
        """Draws the loft in `colour` with its shaded side; lit: -1 for light from the left."""
        canvas.part(self.silhouette, colour)
        self.shadow(canvas, colour, lit)

    def shadow(self, canvas: Canvas, colour: RGB, lit: float = -1.0) -> None:
        """Darkens the side turned from the light, in two soft steps."""
        # The edges of the two steps, all rings at once: [3, ROWS, 2].
        edges = self.centre - lit * _SHADE_Q * self.edge + _SHADE_S * self.front
        for i, alpha in ((0, 0.22), (1, 0.30)):
            shape = np.concatenate([edges[i], edges[2, ::-1]]).ravel().tolist()
            canvas.fill(shape, shade(colour, 0.55), alpha)


def loft(
    camera: Camera,
    centres: Sequence[np.ndarray] | np.ndarray,
    widths: np.ndarray,
    depths: np.ndarray,
) -> Loft:
    """Returns the loft through K rings, smoothed to ROWS.

    centres: K points of person space; widths, depths: half axes of each ring, to the side and
    across (to the front where the tube is upright), in centimetres.
    """
    rings = np.empty((len(centres), 5))
    rings[:, :3], rings[:, 3], rings[:, 4] = centres, widths, depths
    rows = _spline(len(rings)) @ rings
    path = rows[:, :3]
    y, z = (_SLOPE @ path[:, 1:]).T
    # The front of a ring is at right angles to the tube and to the person's side.
    length = np.hypot(y, z) + 1e-9
    up, ahead = z / length, -y / length
    points = np.empty((3, ROWS, 3))  # centres, sides, fronts
    points[:] = path
    points[1, :, 0] += rows[:, 3]
    points[2, :, 1] += rows[:, 4] * up
    points[2, :, 2] += rows[:, 4] * ahead
    centre, side, front = camera.project(points).view(np.complex128)[..., 0]
    middle = (0.0, float(up[ROWS // 2]), float(ahead[ROWS // 2]))
    facing = math.atan2(camera.direction((1.0, 0.0, 0.0))[2], camera.direction(middle)[2])
    return _seen(camera.scale, centre, side - centre, front - centre, facing)


def _seen(scale: float, centre: Pixels, side: Pixels, front: Pixels, facing: float) -> Loft:
    """Turns ring axes [ROWS] into (edge, front) pairs as the viewer sees them."""
    tangent = _SLOPE @ centre
    # Seen along the tube there is no edge across it: fall back to left and right.
    normal: Pixels = np.where(np.abs(tangent) < 0.35 * scale, 1.0, 1j * tangent)
    normal = np.where(normal.real < 0, -normal, normal).conj()
    s, f = (side * normal).real, (front * normal).real
    length = np.hypot(s, f) + 1e-9
    s, f = s / length, f / length
    edge, bulge = side * s + front * f, front * s - side * f
    # The half of each ring that is turned to the viewer, at the angle `facing` of the body.
    near = side * math.sin(facing) + front * math.cos(facing)
    bulge = np.where((near * bulge.conj()).real < 0, -bulge, bulge)
    axes = [z.view(np.float64).reshape(ROWS, 2) for z in (centre, edge, bulge)]
    first, last = (_ring(*(axis[i] for axis in axes)) for i in (0, -1))
    return Loft(*axes, facing=math.degrees(facing), ends=(first, last))


def _ring(centre: np.ndarray, edge: np.ndarray, bulge: np.ndarray) -> Shape:
    if abs(edge[1]) < 0.12 * abs(edge[0]):  # upright, or as good as upright
        return circle(centre.tolist(), abs(float(edge[0])), abs(float(bulge[1])))
    return (centre + _COS * edge + _SIN * bulge).ravel().tolist()


@functools.cache
def _spline(knots: int) -> np.ndarray:
    """The matrix [ROWS, knots] of the Catmull-Rom spline through evenly spaced knots."""
    t = np.linspace(0, 1, ROWS) * (knots - 1)
    i = np.minimum(t.astype(int), knots - 2)
    t = (t - i)[:, None]
    identity = np.eye(knots)
    slope = np.gradient(identity, axis=0)
    h = 3 * t**2 - 2 * t**3
    ends = (1 - h) * identity[i] + h * identity[i + 1]
    return ends + (t**3 - 2 * t**2 + t) * slope[i] + (t**3 - t**2) * slope[i + 1]


_SLOPE = np.gradient(np.eye(ROWS), axis=0)
_SHADE_Q = np.array([0.34, 0.68, 1.0])[:, None, None]  # where shadows begin, and the edge
_SHADE_S = np.sqrt(1 - _SHADE_Q**2)
_STEPS = np.linspace(-1, 1, 9)
_ARCH = np.stack([np.ones(9), _STEPS, np.sqrt(1 - _STEPS**2)], 1)  # q -> centre, edge, front
_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)[:, None]
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)
