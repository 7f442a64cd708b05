"""The upper garment: trunk, sleeves and the details of each type."""

import dataclasses

import numpy as np

from jaxtbpr.render import patterns
from jaxtbpr.render.canvas import Shape, circle
from jaxtbpr.render.loft import Loft
from jaxtbpr.render.palette import RGB, STEEL, accent, light, mix, seam, shade
from jaxtbpr.render.skeleton import free_hand
from jaxtbpr.render.sketch import SIDES, Layer, Sketch

LINEN = (240, 238, 232)  # what is worn below a suit jacket or a vest


@dataclasses.dataclass(frozen=True)
class Cut:
    """Where a garment ends below the neck [cm], how loose it is, how it flares at the hem."""

    length: float
    ease: float
    flare: float = 0.0
    top: float = 1.5


CUTS = {
    "t-shirt": Cut(55, 1.6, 0.8),
    "shirt": Cut(58, 1.4, 1.4),
    "sweater": Cut(56, 2.6, 0.0),
    "hoodie": Cut(57, 3.4, 0.0),
    "jacket": Cut(51, 3.2, 0.5),
    "coat": Cut(97, 3.6, 6.5),
    "vest": Cut(53, 2.0, 0.5),
    "suit jacket": Cut(62, 2.4, 2.4),
    "dress": Cut(94, 1.2, 9.5),
}


# How far below the neck the print of the front is [cm]: under lapels and pockets.
PRINTS = {"coat": 66.0, "suit jacket": 46.0, "vest": 37.0}


def layers(sketch: Sketch) -> list[Layer]:
    """Returns the layers of the upper garment; arms lie before the trunk."""
    out = [(_trunk_depth(sketch), lambda: _trunk(sketch))]
    for side, _ in SIDES:
        depth = sketch.depth(f"shoulder_{side}", f"elbow_{side}", f"hand_{side}") + 20
        out.append((depth, lambda side=side: _arm(sketch, side)))
    if sketch.attributes["upper"] == "hoodie":
        toward = sketch.camera.depth((0, 0, -1))  # on the back it lies below long hair
        out.append((16 + 4 * toward if toward > -0.2 else 14.0, lambda: _hood(sketch)))
    return out


def _trunk_depth(sketch: Sketch) -> float:
    """Long garments lie over the lap of one who sits; others under it."""
    long = sketch.attributes["upper"] in ("coat", "dress")
    if not long or sketch.attributes["posture"] != "sitting":
        return 15.0
    return max(15.0, sketch.depth("knee_r", "knee_l") / 2 + 6.0)


def trunk_of(sketch: Sketch) -> tuple[Loft, Cut]:
    """Returns the tube of the upper garment and its cut."""
    cut = CUTS[sketch.attributes["upper"]]
    return sketch.trunk(cut.top, cut.length, cut.ease, cut.flare), cut


def _trunk(sketch: Sketch) -> None:
    loft, cut = trunk_of(sketch)
    colour, pattern = sketch.colour("upper"), sketch.attributes["upper_pattern"]
    canvas, garment = sketch.canvas, sketch.attributes["upper"]
    canvas.part(loft.silhouette[::2], colour)  # the top is below collar and neck
    patterns.on_loft(canvas, loft, pattern, colour, cut.length - cut.top, PRINTS.get(garment, 18.0))
    loft.shadow(canvas, colour, sketch.lit)
    if sketch.fine or cut.length > 80:
        _folds(sketch, loft, cut, colour)
    Details(sketch, loft, cut, colour).draw()
    if sketch.attributes["upper"] in ("shirt", "jacket", "coat", "suit jacket"):
        _collar(sketch, colour)


def _folds(sketch: Sketch, loft: Loft, cut: Cut, colour: RGB) -> None:
    """Two creases at the waist and, on wide hems, folds that run down."""
    ink, v = seam(colour), 38.0 / cut.length
    for q0, q1, dv in ((-0.95, -0.45, 0.05), (0.95, 0.4, 0.07)):
        crease = [*loft.surface(q0, v), *loft.surface((q0 + q1) / 2, v + 0.2 * dv)]
        sketch.canvas.line([*crease, *loft.surface(q1, v + dv)], sketch.cm(0.7), ink, 0.55)
    if cut.length > 80:
        for q in (-0.6, -0.15, 0.3, 0.7):
            fold = [n for t in (0.62, 0.8, 1.0) for n in loft.surface(q * (0.7 + 0.3 * t), t)]
            sketch.canvas.line(fold, sketch.cm(1.1), ink, 0.6)


@dataclasses.dataclass(frozen=True)
class Details:
    """Collars, zips, buttons, pockets: drawn on the trunk, hidden where they face away."""

    sketch: Sketch
    loft: Loft
    cut: Cut
    colour: RGB

    def draw(self) -> None:
        name = self.sketch.attributes["upper"].replace("-", "_").replace(" ", "_")
        getattr(self, name)()

    def t_shirt(self) -> None:
        self.neckline(6.6, 3.6)
        self.hem(1.2)

    def shirt(self) -> None:
        self.opening(1.8, light(self.colour, 0.3))
        self.buttons(9, 52, 6, 0.85)
        self.pocket(26, 16, 9.0, 9.0)

    def sweater(self) -> None:
        self.ring(5.0)
        self.hem(5.5, ribs=True)

    def hoodie(self) -> None:
        ink = seam(self.colour)
        self.hem(4.5, ribs=True)
        pouch = self.loft.patch(
            [-38, 38, 62, 62, -62, -62], [self.v(s) for s in (35, 35, 44, 51, 51, 44)]
        )
        if pouch:
            self.sketch.canvas.part([pouch], shade(self.colour, 0.12))
            self.outline(pouch, ink)
        for angle in (-16, 16):
            self.string(angle, 7, 21)

    def jacket(self) -> None:
        self.hem(4.5)
        self.stroke(0, 1, 55, STEEL, 1.5)
        ink = seam(self.colour)
        for angle in (-42, 42):
            self.slit(angle, 33, angle * 0.72, 43, STEEL)
        yoke = [n for q in (-1, -0.5, 0, 0.5, 1) for n in self.loft.surface(q, self.v(15))]
        self.sketch.canvas.line(yoke, self.sketch.cm(0.8), ink, 0.8)

    def coat(self) -> None:
        self.lapels(26)
        self.stroke(8, 26, 97, seam(self.colour), 0.9)
        for angle in (-13, 13):
            self.dots_down(angle, 28, 58, 3, 1.5)
        belt = self.loft.band(self.v(36), self.v(41))
        self.sketch.canvas.fill(belt, shade(self.colour, 0.45))
        for angle in (-45, 45):
            self.slit(angle, 50, angle * 0.9, 60, seam(self.colour))

    def vest(self) -> None:
        self.vee(22, 36)
        self.stroke(0, 22, 53, seam(self.colour), 0.8)
        self.buttons(25, 50, 4, 1.1)
        self.hem(1.4)

    def suit_jacket(self) -> None:
        self.shirt_front()
        self.lapels(31)
        self.stroke(3, 31, 62, seam(self.colour), 0.9)
        self.dots_down(1, 34, 42, 2, 1.2)
        for angle in (-48, 48):
            flap = self.loft.patch(
                [angle - 14, angle + 14, angle + 14, angle - 14],
                [self.v(s) for s in (44, 44, 48, 48)],
            )
            if flap:
                self.sketch.canvas.fill(flap, seam(self.colour), 0.8)

    def dress(self) -> None:
        self.neckline(7.6, 5.4)
        sash = self.loft.band(self.v(33), self.v(37))
        self.sketch.canvas.fill(sash, shade(self.colour, 0.5))
        self.hem(2.5)

    # -- the pieces --------------------------------------------------------------------------

    def v(self, centimetres: float) -> float:
        """Turns a distance below the neck into the loft's coordinate."""
        return (centimetres - self.cut.top) / (self.cut.length - self.cut.top)

    def neckline(self, width: float, drop: float) -> None:
        """Skin below a round neck, seen from the front."""
        middle = self.loft.at(0, 0.0)
        if middle and abs(self.loft.facing) <= 80:
            shape = circle(middle, self.sketch.cm(width), self.sketch.cm(drop))
            self.sketch.canvas.part([shape], self.sketch.skin)

    def ring(self, end: float) -> None:
        """A thick knitted collar."""
        band = self.loft.band(0.0, self.v(end))
        self.sketch.canvas.fill(band, shade(self.colour, 0.3))

    def hem(self, height: float, *, ribs: bool = False) -> None:
        v0 = self.v(self.cut.length - height)
        self.sketch.canvas.fill(self.loft.band(v0, 1.0), seam(self.colour), 0.5)
        if ribs and self.sketch.fine:
            for q in (-0.85, -0.6, -0.35, -0.1, 0.15, 0.4, 0.65, 0.88):
                line = [*self.loft.surface(q, v0), *self.loft.surface(q, 1.0)]
                self.sketch.canvas.line(line, self.sketch.cm(0.6), seam(self.colour), 0.8)

    def stroke(self, angle: float, start: float, end: float, colour: RGB, width: float) -> None:
        line = self.loft.seam(angle, self.v(start), self.v(end))
        if line:
            self.sketch.canvas.line(line, self.sketch.cm(width), colour)

    def slit(self, a0: float, s0: float, a1: float, s1: float, colour: RGB) -> None:
        one, two = self.loft.at(a0, self.v(s0)), self.loft.at(a1, self.v(s1))
        if one and two:
            self.sketch.canvas.line([*one, *two], self.sketch.cm(1.1), colour, 0.9)

    def opening(self, width: float, colour: RGB) -> None:
        self.stroke(0, 4, self.cut.length, colour, 2 * width)
        self.stroke(9, 4, self.cut.length, seam(self.colour), 0.5)

    def buttons(self, start: float, end: float, count: int, radius: float) -> None:
        self.dots_down(0, start, end, count, radius)

    def dots_down(self, angle: float, start: float, end: float, count: int, radius: float) -> None:
        ink = accent(self.colour)
        for s in np.linspace(start, end, count):
            at = self.loft.at(angle, self.v(float(s)))
            if at:
                self.sketch.canvas.fill(circle(at, self.sketch.cm(radius)), ink)

    def string(self, angle: float, start: float, end: float) -> None:
        self.stroke(angle, start, end, accent(self.colour), 0.9)
        at = self.loft.at(angle, self.v(end))
        if at:
            self.sketch.canvas.fill(circle(at, self.sketch.cm(1.0)), accent(self.colour))

    def pocket(self, angle: float, top: float, width: float, height: float) -> None:
        half = 1.6 * width
        patch = self.loft.patch(
            [angle - half, angle + half, angle + half, angle - half],
            [self.v(s) for s in (top, top, top + height, top + height)],
        )
        if patch:
            self.outline(patch, seam(self.colour))

    def outline(self, patch: Shape, ink: RGB) -> None:
        self.sketch.canvas.line([*patch, *patch[:4]], self.sketch.cm(0.8), ink, 0.85)

    def vee(self, depth: float, width: float) -> None:
        """A V-neck over a pale shirt."""
        patch = self.loft.patch([-width, width, 0], [0.0, 0.0, self.v(depth)])
        if patch:
            self.sketch.canvas.fill(patch, LINEN)
            self.outline(patch, seam(self.colour))

    def shirt_front(self) -> None:
        self.vee(31, 40)
        tie = self.loft.patch([-6, 6, 9, 0, -9], [self.v(s) for s in (3, 3, 24, 29, 24)])
        if tie:
            dark = self.colour[2] > self.colour[0]
            self.sketch.canvas.fill(tie, (150, 28, 48) if dark else (36, 52, 110))

    def lapels(self, depth: float) -> None:
        """Two turned-back fronts that meet at `depth`."""
        if self.sketch.attributes["upper"] == "coat":
            self.vee(depth, 26)
        for sign in (-1, 1):
            angles = [sign * a for a in (20, 44, 50, 34, 0)]
            patch = self.loft.patch(angles, [self.v(s) for s in (2, 5, 13, 15, depth)])
            if patch:
                self.sketch.canvas.part([patch], shade(light(self.colour, 0.18), 0.1))
                self.outline(patch, seam(self.colour))


def _collar(sketch: Sketch, colour: RGB) -> None:
    """A stand-up collar round the neck: two wings in front, a band behind."""
    f, garment = sketch.figure, sketch.attributes["upper"]
    tone = light(colour, 0.12)
    up = {"jacket": 5.0, "coat": 5.5}.get(garment, 3.6)
    front, back = (np.array([0, -2.0, 6.5]), np.array([0, up, -5.0]))
    neck = f["neck"]
    for sign in (-1, 1):
        side = np.array([sign * 7.0 * f.body.limb, up - 1.0, 1.0])
        wing = np.array([sign * 6.0, -8.0, 9.0])
        if sketch.camera.depth((sign * 0.8, 0, 1.0)) > 0.1:
            shape = [*sketch.px(neck + side), *sketch.px(neck + front), *sketch.px(neck + wing)]
            shape += sketch.px(neck + side + np.array([sign * 2.0, -5.0, 0.0]))
            sketch.canvas.part([shape], tone)
    if sketch.camera.depth((0, 0, -1)) > 0:
        line = [neck + np.array([s * 6.6 * f.body.limb, up * 0.4, -2.0]) for s in (-1, 1)]
        shape = [*sketch.px(line[0]), *sketch.px(neck + back), *sketch.px(line[1])]
        shape += sketch.px(neck + np.array([0, -4.0, -7.0]))
        sketch.canvas.part([shape], tone)


def _hood(sketch: Sketch) -> None:
    """The hood lies on the back; from the front its rim frames the neck."""
    f, colour = sketch.figure, sketch.colour("upper")
    toward = sketch.camera.depth((0, 0, -1))
    if toward > -0.2:
        shape = sketch.blob(f["neck"] + np.array([0, -3.5, -9.0]), (11.0, 11.5, 5.0))
        sketch.canvas.part([shape], shade(colour, 0.1))
        inner = sketch.blob(f["neck"] + np.array([0, 1.5, -9.5]), (7.5, 5.0, 4.0))
        sketch.canvas.fill(inner, shade(colour, 0.45))
    else:
        shape = sketch.blob(f["neck"] + np.array([0, 2.5, -4.0]), (12.0, 6.5, 5.5))
        sketch.canvas.part([shape], shade(colour, 0.3))


def _arm(sketch: Sketch, side: str) -> None:
    """Skin of the arm and hand, then the sleeve over it."""
    f, attributes = sketch.figure, sketch.attributes
    shoulder, elbow, hand = (f[f"{part}_{side}"] for part in ("shoulder", "elbow", "hand"))
    limb = f.body.limb
    _hand(sketch, side)
    if attributes["sleeves"] != "long":
        sketch.limb([shoulder, elbow, hand], [4.3 * limb, 3.8 * limb, 3.0 * limb], sketch.skin)
    if attributes["sleeves"] == "none":
        return
    ease = CUTS[attributes["upper"]].ease
    points, radii = [shoulder, elbow, hand], [4.5, 4.4, 3.6]
    if attributes["sleeves"] == "short":
        points, radii = [shoulder, shoulder + 0.68 * (elbow - shoulder)], [4.5, 5.3]
    widths = [r * limb + ease * 0.4 for r in radii]
    _sleeve(sketch, points, widths)


def _sleeve(sketch: Sketch, points: list[np.ndarray], widths: list[float]) -> None:
    canvas, colour = sketch.canvas, sketch.colour("upper")
    pattern, garment = sketch.attributes["upper_pattern"], sketch.attributes["upper"]
    sketch.limb(points, widths, colour, round_end=False)
    flat, radii = [sketch.px(p) for p in points], [sketch.cm(w) for w in widths]
    if pattern in ("striped", "checked", "dotted"):
        step = sketch.cm(patterns.PITCH)
        patterns.on_limb(canvas, flat, radii, pattern, colour, step)
    cuff = {"sweater": 4.0, "hoodie": 4.0, "shirt": 3.0, "jacket": 3.0}.get(garment, 1.2)
    tone = light(colour, 0.3) if garment == "shirt" else mix(colour, seam(colour), 0.5)
    end, before = points[-1], points[-2]
    back = end + (before - end) * (cuff / max(float(np.linalg.norm(before - end)), cuff))
    line = [*sketch.px(back), *sketch.px(end)]
    canvas.line(line, 2 * sketch.cm(widths[-1]) * 1.02, tone, 0.9)


def _hand(sketch: Sketch, side: str) -> None:
    """A palm with a thumb; the thumb stands up in the posture "thumb up"."""
    f, limb = sketch.figure, sketch.figure.body.limb
    elbow, wrist = f[f"elbow_{side}"], f[f"hand_{side}"]
    along = (wrist - elbow) / max(float(np.linalg.norm(wrist - elbow)), 1e-6)
    palm = wrist + 3.5 * along
    sketch.limb([wrist, wrist + 6.5 * along], [3.0 * limb, 3.6 * limb], sketch.skin)
    if sketch.attributes["posture"] == "thumb up" and side == free_hand(sketch.attributes):
        sketch.limb([palm, palm + np.array([0.2, 0, 0])], [4.8, 4.8], sketch.skin)
        thumb = palm + np.array([0, 12.0, 0.0])
        sketch.limb([palm + np.array([0, 2.5, 0]), thumb], [2.4, 2.1], sketch.skin)
