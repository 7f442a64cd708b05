"""The lower garment, legs and shoes."""

import numpy as np

from jaxtbpr.render.canvas import chain, circle, tube
from jaxtbpr.render.palette import RGB, STEEL, WHITE, light, luminance, mix, seam, shade
from jaxtbpr.render.sketch import SIDES, Layer, Sketch

# Radii [cm] at hip, knee and hem, and where along the leg the hem is (1: the ankle).
LEGS = {
    "trousers": ((9.8, 8.4, 7.9), 1.02),
    "jeans": ((9.2, 7.0, 6.2), 0.97),
    "leggings": ((8.5, 5.5, 3.9), 0.93),
    "shorts": ((10.4, 10.4), 0.42),
}
SKIRTS = {"skirt": (91.0, 10.0), "long skirt": (128.0, 14.0)}  # length, flare [cm]


def layers(sketch: Sketch) -> list[Layer]:
    """Returns the layers of feet, legs and lower garment."""
    out = []
    lower = sketch.attributes["lower"]
    sits = sketch.attributes["posture"] == "sitting"
    for side, _ in SIDES:
        depth = sketch.depth(f"hip_{side}", f"knee_{side}")
        if not sits:  # legs hang from the hips, below the hem of what is worn above
            depth = 0.15 * (depth + sketch.depth(f"ankle_{side}"))
        out.append((depth, lambda side=side: _leg(sketch, side)))
    if lower in LEGS:
        out.append((6.0, lambda: _seat(sketch)))
    if lower in SKIRTS:
        lap = sketch.depth("knee_r", "knee_l") / 2
        over = max(9.0, lap + 4.0, 1.0 + max(depth for depth, _ in out)) if sits else 9.0
        out.append((over, lambda: _skirt(sketch)))
    return out


def _leg(sketch: Sketch, side: str) -> None:
    f, limb = sketch.figure, sketch.figure.body.limb
    hip, knee, ankle = (f[f"{part}_{side}"] for part in ("hip", "knee", "ankle"))
    lower = sketch.attributes["lower"]
    if lower not in ("trousers", "jeans"):
        sketch.limb([hip, knee, ankle], [8.2 * limb, 5.2 * limb, 3.3 * limb], sketch.skin)
    boots = sketch.attributes["shoes"] == "boots"
    if not boots:
        shoe(sketch, side)
    if lower in LEGS:
        _trouser_leg(sketch, side, lower)
    if boots:
        shoe(sketch, side)


def _trouser_leg(sketch: Sketch, side: str, lower: str) -> None:
    f, colour = sketch.figure, sketch.colour("lower")
    radii, end = LEGS[lower]
    hip, knee, ankle = (f[f"{part}_{side}"] for part in ("hip", "knee", "ankle"))
    if lower == "shorts":
        points = [hip, hip + 2.05 * end * (knee - hip)]
    else:
        points = [hip, knee, knee + end * (ankle - knee)]
    widths = [r * f.body.limb for r in radii]
    if sketch.attributes["shoes"] == "boots" and len(points) == 3:
        widths[2] = min(widths[2], 5.6)  # tucked in
    sketch.limb(points, widths, colour, round_end=False)
    finish = {"trousers": _crease, "jeans": _denim, "leggings": _sheen, "shorts": _turn_up}
    finish[lower](sketch, points, widths, colour)


def _crease(sketch: Sketch, points, widths, colour: RGB) -> None:
    """The pressed line of trousers."""
    ahead = np.array([0, 0, 0.8 * widths[1]])
    line = [n for p in points for n in sketch.px(p + ahead)]
    sketch.canvas.line(line, sketch.cm(0.9), seam(colour), 0.75)


def _denim(sketch: Sketch, points, widths, colour: RGB) -> None:
    """Faded thighs, a yellow seam down the side, a light turned-up cuff."""
    hip, knee, hem = points
    for a, b, thick in ((hip, knee, 4.4), (knee, hem, 2.8)):
        spindle = [sketch.px(a + t * (b - a)) for t in (0.1, 0.35, 0.65, 0.95)]
        for grow in (1.0, 0.6):
            radii = [sketch.cm(thick * grow * r) for r in (0.1, 1.0, 0.9, 0.1)]
            sketch.canvas.fill(tube(spindle, radii), light(colour, 0.42), 0.24)
    out = np.array([np.sign(hip[0]) * widths[1] * 0.75, 0, 0])
    stitch = [n for p in points for n in sketch.px(p + out)]
    sketch.canvas.line(stitch, sketch.cm(0.7), (226, 170, 70), 0.9)
    cuff = hem + (knee - hem) * 0.14
    line = [*sketch.px(cuff), *sketch.px(hem)]
    sketch.canvas.line(line, 2.1 * sketch.cm(widths[2]), mix(colour, (190, 206, 226), 0.62))


def _sheen(sketch: Sketch, points, widths, colour: RGB) -> None:
    """The shine of tight cloth and a stripe of light down the side."""
    hip, knee, hem = points
    for a, b, w in ((hip, knee, 1.8), (knee, hem, 1.2)):
        line = [*sketch.px(a + 0.2 * (b - a)), *sketch.px(a + 0.85 * (b - a))]
        sketch.canvas.line(line, sketch.cm(w), light(colour, 0.55), 0.7)


def _turn_up(sketch: Sketch, points, widths, colour: RGB) -> None:
    start, end = points
    line = [*sketch.px(end + 0.12 * (start - end)), *sketch.px(end)]
    sketch.canvas.line(line, 2.04 * sketch.cm(widths[1]), seam(colour), 0.55)


def _seat(sketch: Sketch) -> None:
    """From the waist to the top of the legs, with belt or pockets."""
    lower, colour = sketch.attributes["lower"], sketch.colour("lower")
    ease = {"leggings": 0.3, "jeans": 0.8}.get(lower, 1.4)
    seat = sketch.trunk(37, 58, ease)
    sketch.canvas.part(seat.silhouette[::2], colour)
    seat.shadow(sketch.canvas, colour, sketch.lit)
    if lower != "leggings":
        sketch.canvas.fill(
            seat.band(0.0, 0.16), (58, 40, 30) if lower != "shorts" else seam(colour)
        )
        buckle = seat.at(0, 0.08)
        if buckle:
            sketch.canvas.fill(circle(buckle, sketch.cm(1.6)), STEEL)


def _skirt(sketch: Sketch) -> None:
    """A pleated skirt to the knee, or a tiered one to the ankle."""
    length, flare = SKIRTS[sketch.attributes["lower"]]
    canvas, colour = sketch.canvas, sketch.colour("lower")
    cloth = sketch.trunk(38, length, 1.2, flare)
    canvas.part(cloth.silhouette, colour)
    cloth.shadow(canvas, colour, sketch.lit)
    for q in (-0.8, -0.48, -0.16, 0.16, 0.48, 0.8):
        pleat = [n for v in (0.12, 0.5, 1.0) for n in cloth.surface(q, v)]
        canvas.line(pleat, sketch.cm(1.0), seam(colour), 0.7)
    canvas.fill(cloth.band(0.0, 0.05), shade(colour, 0.4))
    if sketch.attributes["lower"] == "long skirt":
        for v in (0.42, 0.72):
            canvas.fill(cloth.band(v, v + 0.02), seam(colour), 0.8)
        canvas.fill(cloth.band(0.95, 1.0), light(colour, 0.35))


# -- shoes ---------------------------------------------------------------------------------------


def foot(sketch: Sketch, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns heel, ball and toe of a foot; flat on the ground unless the leg is lifted."""
    f = sketch.figure
    knee, ankle = f[f"knee_{side}"], f[f"ankle_{side}"]
    shin = (ankle - knee) / max(float(np.linalg.norm(ankle - knee)), 1e-6)
    forward, down = np.array([0.0, shin[2], -shin[1]]), shin
    if ankle[1] < 13.0 and shin[2] > -0.5:
        forward, down = np.array([0.0, 0.0, 1.0]), np.array([0.0, -1.0, 0.0])
    forward = forward + np.array([0.22 * (1 if side == "l" else -1), 0.0, 0.0])
    heel = ankle + 3.6 * down - 3.5 * forward
    return heel, heel + 11.5 * forward, heel + 20.0 * forward + 0.4 * down


def shoe(sketch: Sketch, side: str) -> None:
    """Draws one shoe."""
    kinds = {"trainers": _trainer, "leather shoes": _leather, "boots": _boot, "sandals": _sandal}
    kinds[sketch.attributes["shoes"]](sketch, side, *foot(sketch, side), sketch.colour("shoes"))


def _sole(sketch: Sketch, heel, ball, toe, colour: RGB, thickness: float) -> None:
    down = np.array([0, -thickness, 0])
    points = [sketch.px(heel + down), sketch.px(toe + down)]
    sketch.canvas.part(chain(points, [sketch.cm(5.2), sketch.cm(5.2)]), colour)


def _trainer(sketch: Sketch, side: str, heel, ball, toe, colour: RGB) -> None:
    sole = WHITE if luminance(colour) < 225 else (196, 202, 210)
    _sole(sketch, heel, ball, toe, sole, 2.0)
    ankle = sketch.figure[f"ankle_{side}"]
    sketch.limb([ankle, heel + np.array([0, 1.5, 0]), ball, toe], [5.0, 5.8, 5.8, 4.7], colour)
    mid = 0.5 * (heel + ball) + np.array([0, 3.0, 0])
    for t in (0.25, 0.6) if sketch.fine else ():
        at = mid + t * (toe - mid)
        lace = [*sketch.px(at + np.array([-2.6, 1.6, 0])), *sketch.px(at + np.array([2.6, 1.6, 0]))]
        sketch.canvas.line(lace, sketch.cm(1.1), sole)
    stripe = [*sketch.px(heel + np.array([0, 2.5, 2.0])), *sketch.px(ball - np.array([0, 0.8, 1]))]
    sketch.canvas.line(stripe, sketch.cm(1.4), sole)


def _leather(sketch: Sketch, side: str, heel, ball, toe, colour: RGB) -> None:
    tip = toe + 0.28 * (toe - ball)
    _sole(sketch, heel, ball, tip, (40, 26, 20), 1.2)
    sketch.limb([heel + np.array([0, 1.0, 0]), ball, tip], [4.8, 4.9, 3.0], colour)
    x, y = sketch.px(0.5 * (ball + tip) + np.array([0, 1.2, 0]))
    sketch.canvas.fill(circle((x, y), sketch.cm(1.7), sketch.cm(0.9)), WHITE, 0.75)
    line = [*sketch.px(ball + np.array([-4, 1.5, 0])), *sketch.px(ball + np.array([4, 1.5, 0]))]
    sketch.canvas.line(line, sketch.cm(0.8), seam(colour))


def _boot(sketch: Sketch, side: str, heel, ball, toe, colour: RGB) -> None:
    _sole(sketch, heel, ball, toe, (34, 28, 26), 2.2)
    ankle, knee = sketch.figure[f"ankle_{side}"], sketch.figure[f"knee_{side}"]
    top = ankle + 0.56 * (knee - ankle)
    sketch.limb([ball, toe], [5.8, 5.1], colour)
    sketch.limb([top, ankle, heel + np.array([0, 2.0, 0])], [7.8, 6.3, 5.4], colour, round_end=True)
    rim = top + 0.16 * (ankle - top)
    sketch.canvas.line([*sketch.px(top), *sketch.px(rim)], 2 * sketch.cm(7.9), light(colour, 0.35))
    for t in (0.45, 0.7):
        at = top + t * (ankle - top)
        lace = [*sketch.px(at + np.array([-4, 0, 5])), *sketch.px(at + np.array([4, 0, 5]))]
        sketch.canvas.line(lace, sketch.cm(0.9), seam(colour))


def _sandal(sketch: Sketch, side: str, heel, ball, toe, colour: RGB) -> None:
    _sole(sketch, heel, ball, toe, shade(colour, 0.25), 2.0)
    ankle = sketch.figure[f"ankle_{side}"]
    sketch.limb([ankle, heel + np.array([0, 1, 0])], [3.4, 3.8], sketch.skin)
    sketch.limb([heel, ball, toe], [4.2, 4.9, 4.3], sketch.skin)
    for at, up in ((0.5 * (ball + toe), 1.5), (0.6 * heel + 0.4 * ball, 3.0)):
        strap = [*sketch.px(at + np.array([-4.6, 0, 0])), *sketch.px(at + np.array([0, up, 1.5]))]
        strap += sketch.px(at + np.array([4.6, 0, 0]))
        sketch.canvas.line(strap, sketch.cm(3.0), colour)
    cuff = [*sketch.px(ankle + np.array([-3.6, 1.0, 0])), *sketch.px(ankle + np.array([3.6, 1, 0]))]
    sketch.canvas.line(cuff, sketch.cm(2.2), colour)
