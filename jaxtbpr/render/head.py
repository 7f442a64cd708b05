"""Neck, head, face and hair."""

import dataclasses
import functools
import math

import numpy as np

from jaxtbpr.render.canvas import Shape, arc, circle
from jaxtbpr.render.palette import HAIR, INK, RGB, WHITE, light, mix, shade
from jaxtbpr.render.sketch import Layer, Sketch

# Points where the face ends, from the top of the forehead down the person's left side to the
# chin, in coordinates of the head (left, up, front) in centimetres; the right side mirrors it.
HAIRLINES = {
    "short": ((0, 8.2, 7.4), (4, 8.0, 6.8), (6.9, 5.6, 5.2), (7.9, 2.0, 3.4), (8.1, -2, 1.6)),
    "long": ((0, 8.6, 7.0), (3.6, 7.4, 6.8), (6.0, 4.2, 6.0), (7.0, 0.5, 4.6), (7.0, -4, 4.0)),
    "curly": ((0, 6.2, 8.2), (3.4, 5.8, 7.8), (6.0, 4.0, 6.2), (7.1, 1.0, 4.6), (7.2, -3, 3.8)),
    "fringe": ((0, 4.2, 9.2), (3.6, 4.0, 8.6), (6.2, 3.2, 6.4), (7.0, 0.0, 5.0), (7.0, -5, 4.2)),
}
CHIN = ((6.6, -7.5, 3.6), (4.4, -10.8, 5.6), (0, -12.2, 6.8))


@dataclasses.dataclass(frozen=True)
class Head:
    """The coordinates of the head: `at` turns it into pixels."""

    sketch: Sketch

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        hx, hy, hz, scale = self._frame
        return self.sketch.camera((hx + scale * x, hy + scale * y, hz + scale * z))

    @functools.cached_property
    def _frame(self) -> tuple[float, float, float, float]:
        figure = self.sketch.figure
        return (*figure["head"].tolist(), figure.body.size * figure.body.head)

    def point(self, x: float, y: float, z: float) -> np.ndarray:
        body = self.sketch.figure.body
        return self.sketch.figure["head"] + body.size * body.head * np.array([x, y, z])

    def cm(self, length: float) -> float:
        return self.sketch.cm(length * self.sketch.figure.body.head)

    def blob(self, x: float, y: float, z: float, radii: tuple[float, float, float]) -> Shape:
        scale = self.sketch.figure.body.head
        return self.sketch.blob(self.point(x, y, z), [r * scale for r in radii])

    def faces(self, x: float, z: float) -> float:
        """Returns how far the side of the head at (x, z) is turned to the viewer [cm]."""
        return self.sketch.camera.depth((x, 0.0, z))

    @property
    def hair(self) -> RGB:
        colour = self.sketch.attributes["hair_colour"]
        return HAIR.get(colour, HAIR["grey"])


def layers(sketch: Sketch) -> list[Layer]:
    """Returns the layers of neck, head, face and hair."""
    head = Head(sketch)
    style = sketch.attributes["hair"]
    out = [(17.0, lambda: _neck(sketch)), (18.0, lambda: _head(head))]
    toward = sketch.camera.depth((0, 0, -1))  # > 0 where the back is seen
    if style == "long":
        out.append((18.0 + 12 * toward - 3.5, lambda: _curtain(head)))
        if toward < 0.3:
            out.append((25.0, lambda: _locks(head)))
    if style == "ponytail":
        out.append((18.0 + 10 * toward - 2, lambda: _ponytail(head)))
    if style == "bun":
        out.append((18.0 + 4 * toward - 1, lambda: _bun(head)))
    return out


def _neck(sketch: Sketch) -> None:
    f = sketch.figure
    base = f["neck"] - 1.0 * f.lean
    r = 4.6 * f.body.limb * (0.92 if sketch.attributes["sex"] == "female" else 1.06)
    top = f["head"] - np.array([0, 7.0, 1.0])
    sketch.limb([base, top], [r * 1.1, r], sketch.skin)
    chin = circle(sketch.px(f["head"] - np.array([0, 11.0, -1.0])), sketch.cm(r), sketch.cm(5.0))
    sketch.canvas.fill(chin, shade(sketch.skin, 0.5), 0.3)


def _head(head: Head) -> None:
    sketch, style = head.sketch, head.sketch.attributes["hair"]
    canvas, skin = sketch.canvas, head.sketch.skin
    male = sketch.attributes["sex"] == "male"
    skull = head.blob(0, 2.2, -0.6, (8.3, 9.9, 9.6))
    jaw = head.blob(0, -4.6, 1.8, (7.0 if male else 6.3, 7.7, 7.4))
    facing = head.faces(0, 1)
    canvas.part([jaw, skull], skin)
    if style == "bald":
        _shine(head, skull)
    else:
        _hair_shell(head)
        if facing > -0.82:
            face = _face_outline(head)
            canvas.fill(face, skin)
            if facing > -0.3:
                canvas.fill(jaw, skin)
    _ears(head)
    _face(head, facing)
    if style == "bald" and facing > 0:
        return
    _parting(head, facing)


def _shine(head: Head, skull: Shape) -> None:
    x, y = head.at(0, 9, 0)
    glow = circle((x + head.cm(2.6) * head.sketch.lit, y), head.cm(3.0), head.cm(1.5))
    head.sketch.canvas.fill(glow, WHITE, 0.45)


def _hair_shell(head: Head) -> None:
    canvas, style, colour = head.sketch.canvas, head.sketch.attributes["hair"], head.hair
    female = head.sketch.attributes["sex"] == "female"
    shells = [head.blob(0, 3.8, -1.2, (9.7, 10.2, 10.6))]
    if style == "short" and female:  # a bob down to the chin
        shells += [head.blob(0, -2.5, -2.2, (10.0, 8.8, 9.2))]
    elif style == "short":
        shells += [head.blob(0, -0.5, -3.0, (8.9, 8.0, 8.2))]
    elif style == "long":
        shells += [head.blob(0, -3.5, -2.5, (10.0, 9.5, 9.0))]
    elif style == "curly":
        shells = _curls(head)
    else:
        shells += [head.blob(0, 0.5, -3.2, (8.8, 8.2, 8.0))]
    canvas.part(shells, colour)
    lit = head.sketch.lit
    x, y = head.at(0, 9.0, -1)
    shine = circle((x + lit * head.cm(3.0), y), head.cm(3.6), head.cm(1.3))
    canvas.fill(shine, light(colour, 0.5), 0.4)
    if style == "curly" and head.sketch.fine:
        for cx, cy, cz in _CURLS[::2]:
            centre = head.at(cx * 0.9, cy * 0.9, cz * 0.9)
            canvas.line(arc(centre, head.cm(2.1), 30, 200), head.cm(0.9), light(colour, 0.3), 0.5)


_CURLS = [
    (
        11.2 * math.sin(a) * math.cos(b),
        3.0 + 11.0 * math.sin(b),
        -1 + 11.0 * math.cos(a) * math.cos(b),
    )
    for b, n in ((1.35, 3), (0.8, 6), (0.2, 8), (-0.35, 8), (-0.85, 7))
    for a in (2 * math.pi * (i + 0.5 * (b > 0.5)) / n for i in range(n))
]


def _curls(head: Head) -> list[Shape]:
    """A cloud of round locks; those before the face are left out."""
    shells = [head.blob(0, 2.0, -1.5, (10.6, 11.0, 10.6))]
    for x, y, z in _CURLS:
        if not (z > 3.5 and y < 5.5):
            shells.append(circle(head.at(x, y, z), head.cm(3.5)))
    return shells


def _face_outline(head: Head) -> Shape:
    """The visible part of the face as a polygon; corners beyond the edge are pulled to it."""
    style, sex = head.sketch.attributes["hair"], head.sketch.attributes["sex"]
    key = {"long": "long", "curly": "curly"}.get(style, "short")
    if style == "short" and sex == "female":
        key = "fringe"
    left = (*HAIRLINES[key], *CHIN)
    points = [*left, *((-x, y, z) for x, y, z in reversed(left[1:-1]))]
    centre = head.at(0, 0, 0)
    rx = math.hypot(8.5 * head.faces(0, 1), 9.4 * head.faces(1, 0))
    out = []
    for x, y, z in points:
        px, py = head.at(x, y, z)
        if head.faces(x, z) < 0:
            px, py = _push_out((px, py), centre, head.cm(rx), head.cm(12.2))
        out += (px, py)
    return out


def _push_out(point, centre, rx: float, ry: float) -> tuple[float, float]:
    dx, dy = point[0] - centre[0], point[1] - centre[1]
    length = math.hypot(dx / rx, dy / ry) or 1.0
    return centre[0] + dx / length, centre[1] + dy / length


def _ears(head: Head) -> None:
    style, sex = head.sketch.attributes["hair"], head.sketch.attributes["sex"]
    if style in ("long", "curly") or (style == "short" and sex == "female"):
        return
    for side in (-1, 1):
        if head.faces(side, 0) > -0.5:
            ear = circle(head.at(side * 8.2, -1.0, -0.4), head.cm(1.5), head.cm(2.5))
            head.sketch.canvas.part([ear], head.sketch.skin)


def _parting(head: Head, facing: float) -> None:
    """A few strands, so that hair is not a flat patch; grey temples of the middle-aged."""
    sketch, colour = head.sketch, head.hair
    canvas = sketch.canvas
    if sketch.attributes["age"] == "middle-aged" and sketch.attributes["hair"] != "bald":
        for side in (-1, 1):
            if head.faces(side, 0.5) > 0:
                strand = [*head.at(side * 8.9, 4.5, 1.5), *head.at(side * 9.2, -0.5, -1.0)]
                canvas.line(strand, head.cm(1.9), mix(colour, (208, 208, 212), 0.75), 0.9)
    if not sketch.fine:
        return
    if sketch.attributes["hair"] in ("bun", "ponytail") and facing > 0:
        for x in (-5, -2, 2, 5):
            strand = [*head.at(x * 1.1, 8.6, 6.0), *head.at(x * 0.8, 12.4, -1)]
            canvas.line(strand, head.cm(0.5), shade(colour, 0.4), 0.6)
    if facing < -0.4 and sketch.attributes["hair"] not in ("bald", "curly"):
        for x in (-4.5, 0, 4.5):
            strand = [*head.at(x * 0.6, 9.5, -7), *head.at(x, 1, -10), *head.at(x, -5, -9)]
            canvas.line(strand, head.cm(0.7), shade(colour, 0.35), 0.45)


def _curtain(head: Head) -> None:
    """Long hair down the back."""
    sketch = head.sketch
    f = sketch.figure
    top, end = head.point(0, 2, -3), f["neck"] - 25 * f.lean + np.array([0, 0, -11.0])
    middle = 0.5 * (top + end) + np.array([0, 2.0, -1.5])
    scale = f.body.head
    sketch.limb([top, middle, end], [9.4 * scale, 9.8 * scale, 7.0], head.hair)
    for x in (-4.5, 0.5, 4.5):
        offset = np.array([x, 0, -6.0])
        strand = [*sketch.px(top + offset), *sketch.px(middle + offset), *sketch.px(end + offset)]
        sketch.canvas.line(strand, head.cm(0.7), shade(head.hair, 0.35), 0.5)


def _locks(head: Head) -> None:
    """Two locks of long hair that fall before the shoulders."""
    sketch = head.sketch
    f = sketch.figure
    for side in (-1, 1):
        if head.faces(side, 0.6) > -0.2:
            top = head.point(8.3 * side, 0.5, 0.5)
            bend = f["neck"] + np.array([9.6 * side, 1.0, 4.5])
            end = f["neck"] - 17 * f.lean + np.array([10.0 * side, 0, 9.5])
            sketch.limb([top, bend, end], [2.2, 3.5, 1.5], head.hair)


def _ponytail(head: Head) -> None:
    path = ((3.0, 7.5, -9.5), (9.5, 5.5, -14.0), (12.2, -1, -14), (12.8, -8, -13), (11.0, -21, -11))
    points = [head.point(*p) for p in path]
    head.sketch.limb(points, [2.6, 3.8, 4.2, 3.7, 0.9], head.hair)
    band = circle(head.at(3.6, 7.4, -10.2), head.cm(2.3))
    if head.faces(0, -1) > -0.2:
        head.sketch.canvas.fill(band, (232, 74, 106))


def _bun(head: Head) -> None:
    ball = circle(head.at(0, 13.4, -4.5), head.cm(5.4))
    head.sketch.canvas.part([ball], head.hair)
    x, y = head.at(0, 13.6, -4.5)
    ring = arc((x, y), head.cm(3.0), 20, 250)
    head.sketch.canvas.line(ring, head.cm(0.8), light(head.hair, 0.35), 0.7)


def _face(head: Head, facing: float) -> None:
    """Brows, eyes, nose, mouth, and the marks of age and sex."""
    if facing < -0.35:
        return
    sketch = head.sketch
    _nose(head, facing)
    for side in (-1, 1):
        if head.faces(side * 3.5, 8.0) > 1.8:
            _eye(head, side)
    _mouth(head)
    if sketch.attributes["age"] == "old":
        _wrinkles(head)
    elif sketch.attributes["age"] == "middle-aged" and sketch.attributes["sex"] == "male":
        _beard(head)


def _eye(head: Head, side: int) -> None:
    canvas, attributes = head.sketch.canvas, head.sketch.attributes
    squash = max(0.45, head.faces(side * 0.3, 0.95))
    big = 1.35 if canvas.outline else 1.0
    centre = head.at(side * 3.5, 0.0, 8.4)
    canvas.fill(circle(centre, head.cm(1.9 * squash * big), head.cm(1.35 * big)), WHITE)
    canvas.fill(circle(centre, head.cm(1.15 * squash * big), head.cm(1.3 * big)), (46, 34, 34))
    x, y = centre
    if head.sketch.fine:
        canvas.fill(circle((x - head.cm(0.4), y - head.cm(0.45)), head.cm(0.35)), WHITE)
    brow = head.hair if attributes["hair_colour"] not in ("blond",) else shade(head.hair, 0.3)
    if attributes["age"] == "old":
        brow = (214, 214, 218)
    inner, outer = head.at(side * 1.7, 2.7, 9.0), head.at(side * 5.3, 3.0, 7.4)
    heavy = 1.1 if attributes["sex"] == "male" else 0.75
    canvas.line([*inner, *outer], head.cm(heavy), shade(brow, 0.15))
    if attributes["sex"] == "female" and head.sketch.fine:
        lid = [*head.at(side * 1.8, 1.1, 8.8), *head.at(side * 3.8, 1.6, 8.5)]
        lid += head.at(side * 6.0, 1.3, 7.0)
        canvas.line(lid, head.cm(0.7), INK)


def _nose(head: Head, facing: float) -> None:
    canvas, skin = head.sketch.canvas, head.sketch.skin
    bridge, tip, base = head.at(0, 1.0, 9.0), head.at(0, -3.4, 11.6), head.at(0, -4.3, 8.9)
    if abs(head.faces(1, 0)) > 0.5:
        canvas.part([[*bridge, *tip, *base]], skin)
        canvas.fill([*bridge, *tip, *base, *head.at(0, 0, 6), *bridge], skin)
    else:
        side = head.at(-1.3 * head.sketch.lit, -3.8, 9.4)
        canvas.line([*side, *base], head.cm(0.8), shade(skin, 0.35), 0.8)


def _mouth(head: Head) -> None:
    canvas, attributes = head.sketch.canvas, head.sketch.attributes
    skin = head.sketch.skin
    points = [(-2.5, -6.8, 7.6), (-1.0, -7.4, 8.6), (1.0, -7.4, 8.6), (2.5, -6.8, 7.6)]
    seen = [head.at(*p) for p in points if head.faces(p[0], p[2]) > 1.0]
    if len(seen) < 2:
        return
    female = attributes["sex"] == "female"
    colour = mix(skin, (196, 36, 62), 0.75) if female else mix(skin, (110, 40, 40), 0.6)
    canvas.line([n for p in seen for n in p], head.cm(1.3 if female else 0.8), colour)
    if attributes["age"] == "young":
        for side in (-1, 1):
            if head.faces(side * 5, 6.4) > 3:
                cheek = circle(head.at(side * 4.9, -3.6, 6.8), head.cm(1.5), head.cm(1.1))
                canvas.fill(cheek, mix(skin, (240, 80, 90), 0.6), 0.5)


def _wrinkles(head: Head) -> None:
    canvas, skin = head.sketch.canvas, head.sketch.skin
    ink = shade(skin, 0.45)
    for y in (5.0, 6.6):
        points = [
            p for p in ((-3.4, y, 8), (0, y + 0.3, 9), (3.4, y, 8)) if head.faces(p[0], p[2]) > 1
        ]
        if len(points) > 1:
            canvas.line([n for p in points for n in head.at(*p)], head.cm(0.5), ink, 0.7)
    for side in (-1, 1):
        if head.faces(side * 4, 8) > 1.8:
            fold = [*head.at(side * 2.4, -3.8, 8.6), *head.at(side * 4.2, -7.0, 7.0)]
            canvas.line(fold, head.cm(0.6), ink, 0.8)
            bag = [*head.at(side * 2.2, -1.7, 8.8), *head.at(side * 5.0, -1.8, 7.6)]
            canvas.line(bag, head.cm(0.5), ink, 0.7)


def _beard(head: Head) -> None:
    """A short full beard: jaw, moustache, mouth left free."""
    canvas = head.sketch.canvas
    colour = mix(head.hair, head.sketch.skin, 0.18)
    edge = [(-7.6, -3.5, 3.0), (-5.4, -4.6, 7.0), (-2.4, -5.4, 8.8), (2.4, -5.4, 8.8)]
    edge += [(5.4, -4.6, 7.0), (7.6, -3.5, 3.0), (6.4, -9.2, 4.2), (3.4, -12.3, 6.6)]
    edge += [(-3.4, -12.3, 6.6), (-6.4, -9.2, 4.2)]
    centre, out = head.at(0, -3, 0), []
    rx = math.hypot(7.4 * head.faces(0, 1), 8.8 * head.faces(1, 0))
    for x, y, z in edge:
        point = head.at(x, y, z)
        if head.faces(x, z) < 0:
            point = _push_out(point, centre, head.cm(rx), head.cm(9.6))
        out += point
    canvas.fill(out, colour)
    _mouth(head)
