"""Patterns of the upper garment: striped, checked, dotted, printed.

On a loft (the trunk) they follow the body's roundness; on a limb (a sleeve) they run across it.
"""

import math

from jaxtbpr.render.canvas import Canvas, Point, Shape, circle
from jaxtbpr.render.loft import Loft
from jaxtbpr.render.palette import RGB, accent, mix

PITCH = 8.5  # centimetres from one stripe to the next


def on_loft(
    canvas: Canvas, loft: Loft, pattern: str, colour: RGB, length: float, chest: float
) -> None:
    """Draws a pattern over the visible side of `loft`, `length` centimetres long.

    chest: where the print of the front is, in centimetres below the neck.
    """
    ink = accent(colour)
    rows = max(2, round(length / PITCH))
    if pattern == "striped":
        for i in range(rows):
            canvas.fill(loft.band((i + 0.3) / rows, (i + 0.72) / rows), ink)
    elif pattern == "checked":
        _checks(canvas, loft, mix(colour, ink, 0.85), rows)
    elif pattern == "dotted":
        _dots(canvas, loft, ink, rows)
    elif pattern == "printed":
        _print(canvas, loft, ink, colour, length, chest)


def on_limb(
    canvas: Canvas, points: list[Point], radii: list[float], pattern: str, colour: RGB, step: float
) -> None:
    """Draws a pattern along a bent limb given in pixels; step: pixels from band to band."""
    ink = accent(colour)
    for i in range(len(points) - 1):
        (x0, y0), (x1, y1) = points[i], points[i + 1]
        length = math.hypot(x1 - x0, y1 - y0)
        count = max(1, round(length / step))
        for k in range(count):
            t = (k + 0.5) / count
            at = (x0 + t * (x1 - x0), y0 + t * (y1 - y0))
            r = radii[i] + t * (radii[i + 1] - radii[i])
            along = ((x1 - x0) / (length + 1e-6), (y1 - y0) / (length + 1e-6))
            _mark(canvas, at, along, r, step, pattern, ink, k)


def _mark(canvas, at, along, r, step, pattern, ink, k) -> None:
    """One band, check or dot of a sleeve."""
    (x, y), (tx, ty) = at, along
    nx, ny = -ty * r * 0.98, tx * r * 0.98
    if pattern == "striped":
        canvas.line([x - nx, y - ny, x + nx, y + ny], 0.42 * step, ink)
    elif pattern == "checked":
        canvas.line([x - nx, y - ny, x + nx, y + ny], 0.3 * step, ink, 0.55)
        half = 0.55 * step
        stripe = [x - tx * half, y - ty * half, x + tx * half, y + ty * half]
        canvas.line(stripe, 0.3 * step, ink, 0.55)
    elif pattern == "dotted":
        shift = 0.4 if k % 2 else -0.4
        canvas.fill(circle((x + shift * nx, y + shift * ny), 0.22 * step), ink)


def _checks(canvas: Canvas, loft: Loft, ink: RGB, rows: int) -> None:
    for i in range(rows):
        canvas.fill(loft.band((i + 0.3) / rows, (i + 0.66) / rows), ink, 0.55)
    for angle in range(-75, 76, 30):
        q = math.sin(math.radians(angle))
        width = 0.085 * math.cos(math.radians(angle)) + 0.015
        canvas.fill(loft.column(q - width, q + width), ink, 0.55)


def _dots(canvas: Canvas, loft: Loft, ink: RGB, rows: int) -> None:
    radius = 0.27 * abs(loft.surface(0, 0.5)[1] - loft.surface(0, 0.5 + 1 / rows)[1])
    radius = max(radius, 0.06 * abs(loft.surface(1, 0.5)[0] - loft.surface(-1, 0.5)[0]))
    for i in range(rows):
        start = -60 if i % 2 else -75
        start = -30 if i == 0 else start  # the shoulders slope away
        for angle in range(start, 1 - start, 30):
            turn = math.radians(angle)
            at = loft.surface(math.sin(turn), (i + 0.5) / rows)
            canvas.fill(circle(at, radius * max(math.cos(turn), 0.3), radius), ink)


def _print(canvas: Canvas, loft: Loft, ink: RGB, colour: RGB, length: float, chest: float) -> None:
    """A large sun-like emblem on chest and back, with a word-like bar below."""
    for angle, down in ((0.0, chest), (180.0, 20.0)):
        turn = math.radians(angle - loft.facing)
        if math.cos(turn) < 0.12:
            continue
        q, squash = math.sin(turn), math.cos(turn)
        v = down / length
        at = loft.surface(0.8 * q, v)
        size = 0.62 * abs(loft.surface(1, v)[0] - loft.surface(0, v)[0])
        canvas.fill(_star(at, size * squash, size), ink)
        canvas.fill(circle(at, 0.42 * size * squash, 0.42 * size), colour)
        canvas.fill(circle(at, 0.26 * size * squash, 0.26 * size), ink)
        x, y = loft.surface(0.8 * q, (down + 13.0) / length)
        canvas.line([x - size * squash, y, x + size * squash, y], 0.22 * size, ink)


def _star(at: Point, rx: float, ry: float) -> Shape:
    out = []
    for k in range(16):
        r = 1.0 if k % 2 == 0 else 0.62
        a = math.pi * k / 8
        out += (at[0] + rx * r * math.sin(a), at[1] - ry * r * math.cos(a))
    return out
