"""A thin layer over aggdraw: anti-aliased shapes in pixels, outlines, clipping.

aggdraw (Anti-Grain Geometry) was chosen over resvg by measurement: a shape costs 7 microseconds
instead of 70, and its wheel needs no system library. It has no gradients, so soft shading is
built from translucent shapes.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator

import aggdraw
import numpy as np
from PIL import Image

from jaxtbpr.synthesis.render.palette import RGB, shade

Point = tuple[float, float]
Shape = list[float]  # x0, y0, x1, y1, ... in pixels

_ARC = [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 16, endpoint=False)]
_FINE_ARC = [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 40, endpoint=False)]


def flat(points: Iterable[Point]) -> Shape:
    """Returns [x0, y0, x1, y1, ...] of points [(x, y), ...]."""
    return [number for point in points for number in point]


def circle(centre: Point, rx: float, ry: float | None = None, angle: float = 0.0) -> Shape:
    """Returns an ellipse as a polygon; angle in radians; radii in pixels."""
    ry = rx if ry is None else ry
    cos, sin, (x, y) = math.cos(angle), math.sin(angle), centre
    arc = _FINE_ARC if max(abs(rx), abs(ry)) > 6 else _ARC
    return [
        number
        for c, s in arc
        for number in (x + rx * c * cos - ry * s * sin, y + rx * c * sin + ry * s * cos)
    ]


def taper(a: Point, ra: float, b: Point, rb: float) -> Shape:
    """Returns the quadrangle from a (half-width ra) to b (half-width rb)."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.hypot(dx, dy) or 1.0
    nx, ny = -dy / length, dx / length
    return [
        a[0] + nx * ra, a[1] + ny * ra, b[0] + nx * rb, b[1] + ny * rb,
        b[0] - nx * rb, b[1] - ny * rb, a[0] - nx * ra, a[1] - ny * ra,
    ]  # fmt: skip


def chain(points: list[Point], radii: list[float], *, round_end: bool = True) -> list[Shape]:
    """Returns the shapes whose union is a bent limb through `points` with the given radii."""
    shapes = [circle(points[0], radii[0])]
    for i in range(len(points) - 1):
        shapes.append(taper(points[i], radii[i], points[i + 1], radii[i + 1]))
        if round_end or i + 2 < len(points):
            shapes.append(circle(points[i + 1], radii[i + 1]))
    return shapes


class Canvas:
    """Draws on a copy of an image; all coordinates and widths are in pixels.

    outline: width of the dark line round each part, 0 for the soft rim of its own colour.
    """

    def __init__(self, image: Image.Image, outline: float = 0.0, rim: float = 0.0):
        self.size = image.size
        self.outline = outline
        self.rim = rim
        self._image = image
        self._draw = aggdraw.Draw(image)

    def fill(self, shape: Shape, colour: RGB, alpha: float = 1.0) -> None:
        """Fills one polygon."""
        self._draw.polygon(shape, aggdraw.Brush(colour, round(255 * alpha)))

    def line(self, shape: Shape, width: float, colour: RGB, alpha: float = 1.0) -> None:
        """Strokes one open polyline; `width` in pixels (thinner than 0.6 is drawn fainter)."""
        if width < 0.6:
            alpha, width = alpha * width / 0.6, 0.6
        self._draw.line(shape, aggdraw.Pen(colour, width, round(255 * alpha)))

    def part(self, shapes: list[Shape], colour: RGB) -> None:
        """Fills the union of `shapes` with a rim round the whole."""
        if self.outline or self.rim:
            width = 2 * (self.outline or self.rim)
            ink = (24, 20, 30) if self.outline else shade(colour, 0.38)
            pen = aggdraw.Pen(ink, width, 255 if self.outline else 190)
            for shape in shapes:
                self._draw.polygon(shape, pen)
        brush = aggdraw.Brush(colour)
        for shape in shapes:
            self._draw.polygon(shape, brush)

    @contextlib.contextmanager
    def clip(self, shapes: list[Shape]) -> Iterator[None]:
        """What is drawn inside the block shows only within the union of `shapes`."""
        before = self.image()
        yield
        mask = aggdraw.Draw("L", self.size, 0)
        for shape in shapes:
            mask.polygon(shape, aggdraw.Brush(255))
        mask = Image.frombytes("L", self.size, mask.tobytes())
        before.paste(self.image(), mask=mask)
        self._draw.frombytes(before.tobytes())

    def image(self) -> Image.Image:
        """Returns what is drawn so far."""
        return Image.frombytes("RGB", self.size, self._draw.tobytes())
