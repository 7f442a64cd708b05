"""A thin layer over aggdraw: anti-aliased shapes in pixels, with outlines.

aggdraw (Anti-Grain Geometry) was chosen over resvg by measurement: a shape costs 7 microseconds
instead of 70, and its wheel needs no system library. It has no gradients, so soft shading is
built from translucent shapes.
"""

import math
from collections.abc import Sequence

import aggdraw
import numpy as np
from PIL import Image

from jaxtbpr.render.palette import RGB, shade

Point = tuple[float, float]
Shape = Sequence[
    float
]  # a polygon x0, y0, x1, y1, ... in pixels; four numbers: the box of an ellipse


def circle(centre: Point, rx: float, ry: float | None = None) -> Shape:
    """Returns an upright ellipse; radii in pixels."""
    ry = rx if ry is None else ry
    return (centre[0] - rx, centre[1] - ry, centre[0] + rx, centre[1] + ry)


def arc(centre: Point, radius: float, start: float, stop: float) -> Shape:
    """Returns the polyline of an arc; angles in degrees, 0 to the right, 90 up."""
    out: list[float] = []
    for k in range(9):
        angle = math.radians(start + (stop - start) * k / 8)
        out += (centre[0] + radius * math.cos(angle), centre[1] - radius * math.sin(angle))
    return out


def tube(points: Sequence[Point], radii: Sequence[float]) -> Shape:
    """Returns the polygon of a bent band through `points` with half-widths `radii`."""
    left: list[float] = []
    right: list[float] = []
    last = len(points) - 1
    for i in range(last):
        (x0, y0), (x1, y1) = points[i], points[i + 1]
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        nx, ny = (y0 - y1) / length, (x1 - x0) / length
        a, b = radii[i], radii[i + 1]
        left += (x0 + nx * a, y0 + ny * a, x1 + nx * b, y1 + ny * b)
        # Kept as (y, x), since the list is reversed number by number.
        right += (y0 - ny * a, x0 - nx * a, y1 - ny * b, x1 - nx * b)
    return left + right[::-1]


def chain(points: list[Point], radii: list[float], *, round_end: bool = True) -> list[Shape]:
    """Returns the shapes whose union is a bent limb through `points` with the given radii."""
    count = len(points) if round_end else len(points) - 1
    joints = [circle(points[i], radii[i]) for i in range(count)]
    return [tube(points, radii), *joints]


class Canvas:
    """Draws on a copy of an image; all coordinates and widths are in pixels.

    outline: width of the dark line round each part, 0 for the soft rim of its own colour.
    """

    def __init__(self, image: Image.Image, outline: float = 0.0, rim: float = 0.0):
        self.size = image.size
        self.outline = outline
        self.rim = rim
        self._draw = aggdraw.Draw(image)
        self._ellipse, self._polygon = self._draw.ellipse, self._draw.polygon

    def fill(self, shape: Shape, colour: RGB, alpha: float = 1.0) -> None:
        """Fills one polygon."""
        draw = self._ellipse if len(shape) == 4 else self._polygon
        draw(shape, aggdraw.Brush(colour, int(255 * alpha + 0.5)))

    def line(self, shape: Shape, width: float, colour: RGB, alpha: float = 1.0) -> None:
        """Strokes one open polyline; `width` in pixels (thinner than 0.6 is drawn fainter)."""
        if width < 0.6:
            alpha, width = alpha * width / 0.6, 0.6
        self._draw.line(shape, aggdraw.Pen(colour, width, round(255 * alpha)))

    def ring(self, shape: Shape, width: float, colour: RGB, alpha: float = 1.0) -> None:
        """Strokes a closed shape."""
        draw = self._ellipse if len(shape) == 4 else self._polygon
        draw(shape, aggdraw.Pen(colour, max(width, 0.6), round(255 * alpha)))

    def part(self, shapes: list[Shape], colour: RGB) -> None:
        """Fills the union of `shapes` with a rim round the whole."""
        tools = [aggdraw.Brush(colour)]
        if self.outline or self.rim:
            ink = (24, 20, 30) if self.outline else shade(colour, 0.38)
            width = 2 * (self.outline or self.rim)
            tools.insert(0, aggdraw.Pen(ink, width, 255 if self.outline else 190))
        calls = [(self._ellipse if len(s) == 4 else self._polygon, s) for s in shapes]
        for tool in tools:  # all rims below all fillings, so that the parts look like one
            for draw, shape in calls:
                draw(shape, tool)

    def image(self) -> Image.Image:
        """Returns what is drawn so far."""
        return Image.frombytes("RGB", self.size, self._draw.tobytes())

    def pixels(self) -> np.ndarray:
        """Returns what is drawn so far, uint8 [H, W, 3]."""
        width, height = self.size
        return np.frombuffer(self._draw.tobytes(), np.uint8).reshape(height, width, 3)
