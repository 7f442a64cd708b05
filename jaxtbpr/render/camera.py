"""The camera: turns points of the person's space into pixels.

Person space, in centimetres: x to the person's left, y up from the ground, z to the front. The
camera turns round the upright axis (view) and looks down (camera "high"); a weak perspective
makes what is nearer larger, so that a high camera shortens the legs.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

# The side of the person that is turned to the viewer: "left" is seen from the person's left.
YAW = {"front": 0.0, "back": 180.0, "left": -90.0, "right": 90.0}
PITCH = {"eye level": 5.0, "high": 33.0}
DISTANCE = 520.0  # centimetres, for the perspective

Vector = np.ndarray | Sequence[float]


@dataclasses.dataclass(frozen=True)
class Camera:
    """yaw, pitch in degrees; scale: pixels per centimetre at the person; origin: the pixel of
    the point on the ground between the feet."""

    yaw: float
    pitch: float
    scale: float = 1.0
    origin: tuple[float, float] = (0.0, 0.0)
    _basis: tuple[float, float, float, float] = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        yaw, pitch = math.radians(self.yaw), math.radians(self.pitch)
        basis = (math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch))
        object.__setattr__(self, "_basis", basis)

    def direction(self, v: Vector) -> tuple[float, float, float]:
        """Returns (right, down, towards the viewer) of a direction, without perspective."""
        cy, sy, cp, sp = self._basis
        # Plain floats: arithmetic on the elements of an array is several times slower.
        x, y, z = v.tolist() if isinstance(v, np.ndarray) else v
        right, depth = x * cy + z * sy, z * cy - x * sy
        return right, depth * sp - y * cp, depth * cp + y * sp

    def zoom(self, v: Vector) -> float:
        """Returns pixels per centimetre at point v."""
        return self.scale * DISTANCE / (DISTANCE - self.direction(v)[2])

    def __call__(self, v: Vector) -> tuple[float, float]:
        """Returns the pixel (x, y) of point v."""
        cy, sy, cp, sp = self._basis
        x, y, z = v.tolist() if isinstance(v, np.ndarray) else v
        ahead = z * cy - x * sy
        zoom = self.scale * DISTANCE / (DISTANCE - ahead * cp - y * sp)
        ox, oy = self.origin
        return ox + (x * cy + z * sy) * zoom, oy + (ahead * sp - y * cp) * zoom

    def depth(self, v: Vector) -> float:
        """Returns how far v lies towards the viewer, measured along the ground [cm]."""
        _, sy, _, _ = self._basis
        return -v[0] * sy + v[2] * self._basis[0]

    def extent(self, radii: Vector) -> tuple[float, float]:
        """Returns the half width and half height of an upright ellipsoid with these half axes."""
        cy, sy, cp, sp = self._basis
        a, b, c = radii
        right = math.hypot(a * cy, c * sy)
        return right, math.hypot(b * cp, a * sy * sp, c * cy * sp)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Returns pixels [..., 2] of points [..., 3]."""
        cy, sy, cp, sp = self._basis
        turn = np.array([[cy, -sy * sp, -sy * cp], [0, -cp, sp], [sy, cy * sp, cy * cp]])
        seen = points @ turn
        zoom = self.scale * DISTANCE / (DISTANCE - seen[..., 2:])
        return seen[..., :2] * zoom + self.origin
