"""Hats and eyewear."""

import math

import numpy as np

from jaxtbpr.render.canvas import Shape, circle
from jaxtbpr.render.head import Head
from jaxtbpr.render.loft import Loft, loft
from jaxtbpr.render.palette import INK, RGB, WHITE, accent, light, seam, shade
from jaxtbpr.render.sketch import Layer, Sketch


def layers(sketch: Sketch) -> list[Layer]:
    """Returns the layers of hat and eyewear."""
    head, out = Head(sketch), []
    if sketch.attributes["eyewear"] != "none":
        out.append((18.5, lambda: _eyewear(head)))
    hat = sketch.attributes["hat"]
    if hat == "sun hat":
        out.append((17.5, lambda: _brim(head, behind=True)))
    if hat != "none":
        draw = {"cap": _cap, "beanie": _beanie, "sun hat": _sun_hat}[hat]
        out.append((27.0, lambda: draw(head, sketch.colour("hat"))))
    return out


def _dome(head: Head, base: float, top: float, puff: float) -> Loft:
    """A round crown from the height `top` down to `base`, both in the head's centimetres."""
    t = np.array([0.04, 0.25, 0.5, 0.75, 1.0])
    heights = top - (top - base) * t
    widths = np.sqrt(np.clip(1 - (1 - t) ** 2.2, 0.02, 1)) * (9.5 + puff)
    scale = head.sketch.figure.body.head * head.sketch.figure.body.size
    centres = [head.point(0, float(h), -1.0) for h in heights]
    return loft(head.sketch.camera, centres, widths * scale, widths * 1.08 * scale)


def _disc(head: Head, height: float, radii: tuple[float, float], z: float, start: int, stop: int):
    """The points of a level disc round the head from angle `start` to `stop` (0: front)."""
    out: Shape = []
    for angle in np.linspace(math.radians(start), math.radians(stop), 18):
        out += head.at(radii[0] * math.sin(angle), height, z + radii[1] * math.cos(angle))
    return out


def _cap(head: Head, colour: RGB) -> None:
    canvas = head.sketch.canvas
    dome = _dome(head, 5.0, 14.8, 0.6)
    peak = _disc(head, 5.0, (8.8, 18.0), -1.5, -88, 88)
    ahead = head.faces(0, 1)
    if ahead < -0.2:
        canvas.part([peak], shade(colour, 0.25))
    dome.paint(canvas, colour, head.sketch.lit)
    for angle in (-50, 0, 50, 130, 180, 230):
        line = dome.seam(angle, 0.1, 1.0)
        if line:
            canvas.line(line, head.cm(0.5), seam(colour), 0.7)
    badge = dome.at(0, 0.62)
    if badge:
        canvas.fill(circle(badge, head.cm(2.5)), accent(colour))
    canvas.fill(circle(dome.surface(0, 0.0), head.cm(1.1)), seam(colour))
    if ahead >= -0.2:
        canvas.part([peak], shade(colour, 0.22))
        canvas.line(_disc(head, 5.0, (8.4, 17.2), -1.5, -60, 60), head.cm(0.7), seam(colour), 0.8)


def _beanie(head: Head, colour: RGB) -> None:
    canvas = head.sketch.canvas
    dome = _dome(head, 4.8, 18.0, 1.0)
    dome.paint(canvas, colour, head.sketch.lit)
    for q in (-0.75, -0.4, 0.0, 0.4, 0.75):
        line = [n for v in (0.15, 0.45, 0.7) for n in dome.surface(q * (0.4 + 0.6 * v), v)]
        canvas.line(line, head.cm(0.7), seam(colour), 0.6)
    fold = dome.band(0.70, 1.0)
    canvas.part([fold], light(colour, 0.22))
    for q in (-0.9, -0.7, -0.45, -0.2, 0.05, 0.3, 0.55, 0.8) if head.sketch.fine else ():
        rib = [*dome.surface(q, 0.72), *dome.surface(q, 0.99)]
        canvas.line(rib, head.cm(0.5), seam(colour), 0.7)
    x, y = dome.surface(0, 0.0)
    canvas.part([circle((x, y - head.cm(1.5)), head.cm(3.6))], light(colour, 0.35))


def _brim(head: Head, *, behind: bool) -> None:
    """A wide brim; the half behind the head is drawn before the head."""
    colour = head.sketch.colour("hat")
    disc = _disc(head, 5.2, (19.5, 19.5), -1.0, 0, 360)
    if behind:
        head.sketch.canvas.part([disc], shade(colour, 0.3))
        return
    facing = round(math.degrees(math.atan2(head.faces(1, 0), head.faces(0, 1))))
    near = _disc(head, 5.2, (19.5, 19.5), -1.0, facing - 92, facing + 92)
    inner = _disc(head, 6.4, (10.4, 11.2), -1.0, facing + 96, facing - 96)
    head.sketch.canvas.part([near + inner], colour)
    head.sketch.canvas.line(near, head.cm(0.8), seam(colour), 0.6)


def _sun_hat(head: Head, colour: RGB) -> None:
    dome = _dome(head, 5.2, 16.5, 0.6)
    _brim(head, behind=False)
    dome.paint(head.sketch.canvas, colour, head.sketch.lit)
    ribbon = accent(colour)
    head.sketch.canvas.fill(dome.band(0.66, 1.0), ribbon)


def _eyewear(head: Head) -> None:
    """Round glasses with clear lenses, or dark sunglasses; arms run to the ears."""
    canvas = head.sketch.canvas
    dark = head.sketch.attributes["eyewear"] == "sunglasses"
    frame = (16, 16, 22) if dark else INK
    for side in (-1, 1):
        if head.faces(side, 0.15) > 0.1:
            arm = [*head.at(side * 6.0, 0.8, 8.0), *head.at(side * 8.6, 0.2, 0.0)]
            canvas.line(arm, head.cm(1.5), frame)
    if head.faces(0, 1) < -0.25:
        return
    _bridge(head, frame)
    for side in (-1, 1):
        if head.faces(side * 4.0, 8.0) > 1.4:
            _lens(head, side, dark, frame)


def _bridge(head: Head, frame: RGB) -> None:
    if head.faces(0, 1) > 0.35:
        line = [*head.at(-1.4, 0.9, 9.6), *head.at(1.4, 0.9, 9.6)]
        head.sketch.canvas.line(line, head.cm(1.5), frame)


def _lens(head: Head, side: int, dark: bool, frame: RGB) -> None:
    canvas = head.sketch.canvas
    squash = max(0.5, head.faces(side * 0.35, 0.94))
    centre = head.at(side * 3.9, -0.2, 9.2)
    if dark:
        lens = circle(centre, head.cm(4.2 * squash), head.cm(3.4))
        canvas.fill(lens, frame)
        x, y = centre
        glint = [x - head.cm(1.6 * squash), y + head.cm(0.4), x, y - head.cm(1.4)]
        canvas.line(glint, head.cm(0.7), WHITE, 0.7)
        return
    lens = circle(centre, head.cm(3.8 * squash), head.cm(3.4))
    canvas.fill(lens, (222, 242, 255), 0.6)
    canvas.ring(lens, head.cm(1.25), frame)
