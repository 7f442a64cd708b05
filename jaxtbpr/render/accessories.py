"""What a person carries: bags, scarf, umbrella, phone, and the walking stick of the old."""

import math

import numpy as np

from jaxtbpr.render.canvas import circle
from jaxtbpr.render.loft import Loft, loft
from jaxtbpr.render.palette import INK, RGB, STEEL, accent, light, mix, seam, shade
from jaxtbpr.render.skeleton import Figure, free_hand
from jaxtbpr.render.sketch import Layer, Sketch
from jaxtbpr.render.upper import trunk_of

CANE_POSTURES = ("standing", "walking")
ITEM_SIDE, BAG_SIDE = "r", "l"  # which hand holds the item, and which the bag
GOLD = (222, 178, 84)


def reach(attributes: dict[str, str]) -> dict[str, np.ndarray]:
    """Returns where bound hands are, relative to their shoulder [cm] (see skeleton.pose)."""
    raised = attributes["posture"] == "raising hands"
    out = {}
    if attributes["item"] == "umbrella":
        out[ITEM_SIDE] = np.array([2.0, 6.0 if raised else -15.0, 20.0])
    if attributes["item"] == "phone" and not raised:
        out[ITEM_SIDE] = np.array([5.0, 4.0, 9.0])
    if attributes["bag"] == "suitcase" and attributes["posture"] in CANE_POSTURES:
        out[BAG_SIDE] = np.array([9.0, -49.0, -5.0])
    gesture = attributes["posture"] == "thumb up" and free_hand(attributes) == BAG_SIDE
    busy = gesture or attributes["posture"] in ("raising hands", "sitting")
    if attributes["bag"] == "handbag" and not busy:
        out[BAG_SIDE] = np.array([4.5, -37.0, 16.0])
    if cane_side(attributes):
        sign = -1 if cane_side(attributes) == "r" else 1
        out[cane_side(attributes)] = np.array([sign * 10.0, -44.0, 14.0])
    return out


def cane_side(attributes: dict[str, str]) -> str:
    """Returns the free hand that leans on a stick, "" where there is none."""
    if attributes["age"] != "old" or attributes["posture"] not in CANE_POSTURES:
        return ""
    if attributes["item"] not in ("umbrella", "phone"):
        return ITEM_SIDE
    return "" if attributes["bag"] in ("handbag", "suitcase") else BAG_SIDE


def layers(sketch: Sketch) -> list[Layer]:
    """Returns the layers of bag, item and stick."""
    bags = {
        "backpack": _backpack_layers,
        "handbag": _handbag_layers,
        "shoulder bag": _shoulder_bag_layers,
        "suitcase": _suitcase_layers,
        "none": lambda sketch: [],
    }
    items = {
        "scarf": _scarf_layers,
        "umbrella": _umbrella_layers,
        "phone": _phone_layers,
        "none": lambda sketch: [],
    }
    out = bags[sketch.attributes["bag"]](sketch) + items[sketch.attributes["item"]](sketch)
    if cane_side(sketch.attributes):
        side = cane_side(sketch.attributes)
        out.append((sketch.depth(f"hand_{side}") + 20.5, lambda: _cane(sketch, side)))
    return out


# -- bags ----------------------------------------------------------------------------------------


def _backpack_layers(sketch: Sketch) -> list[Layer]:
    toward = sketch.camera.depth((0, 0, -1))
    depth = 15.0 + 24 * toward if abs(toward) > 0.3 else 14.0
    return [(depth, lambda: _backpack(sketch)), (15.5, lambda: _straps(sketch))]


def _backpack(sketch: Sketch) -> None:
    f, colour, canvas = sketch.figure, sketch.colour("bag"), sketch.canvas
    size, deep = f.body.size, f.body.bust
    back = np.array([0, 0, -(deep + 7.0) * size])
    s = (-3.0, -1.0, 8.0, 22.0, 36.0, 42.0)
    centres = [f["neck"] - size * d * f.lean + back for d in s]
    widths = np.array([7.0, 11.5, 15.5, 16.5, 16.5, 13.5]) * size
    pack = loft(sketch.camera, centres, widths, np.array([4, 6, 8.5, 9.5, 9.5, 7]) * size)
    pack.paint(canvas, colour, sketch.lit)
    pocket = pack.patch([140, 220, 226, 134], [0.55, 0.55, 0.93, 0.93])
    if pocket:
        canvas.part([pocket], shade(colour, 0.2))
        zipper = pack.polyline([146, 180, 214], [0.60] * 3)
        canvas.line(zipper, sketch.cm(1.0), STEEL)
    lid = pack.polyline([130, 155, 180, 205, 230], [0.32] * 5)
    if len(lid) > 4:
        canvas.line(lid, sketch.cm(1.2), seam(colour))
    middle = pack.at(180, 0.38)
    if middle and pack.seam(180):
        tab = circle(middle, sketch.cm(2.0), sketch.cm(3.0))
        canvas.fill(tab, accent(colour))


def _straps(sketch: Sketch) -> None:
    """The two straps over the shoulders, seen from the front and the sides."""
    tube, cut = trunk_of(sketch)
    colour = sketch.colour("bag")
    v = lambda s: (s - cut.top) / (cut.length - cut.top)  # noqa: E731
    for sign in (-1, 1):
        angles = [sign * a for a in (62, 50, 46, 54, 86)]
        inner = [sign * a for a in (36, 28, 27, 34, 80)]
        heights = [v(s) for s in (3.5, 8.0, 15.0, 25.0, 35.0)]
        patch = tube.patch(angles + inner[::-1], heights + heights[::-1])
        if patch:
            sketch.canvas.part([patch], colour)
            buckle = tube.at(sign * 40, v(17.0))
            if buckle:
                sketch.canvas.fill(circle(buckle, sketch.cm(1.5), sketch.cm(1.0)), STEEL)


def _handbag_layers(sketch: Sketch) -> list[Layer]:
    depth = sketch.depth(f"elbow_{BAG_SIDE}", f"hand_{BAG_SIDE}") + 21
    return [(depth, lambda: _handbag(sketch))]


def _handbag(sketch: Sketch) -> None:
    """Hangs from the forearm where it is level, from the elbow where the hand is raised."""
    f, colour = sketch.figure, sketch.colour("bag")
    elbow, hand = f[f"elbow_{BAG_SIDE}"], f[f"hand_{BAG_SIDE}"]
    raised = BAG_SIDE not in f.hanging
    hold = elbow if raised else hand + 0.25 * (hand - elbow)
    if sketch.attributes["posture"] == "sitting":
        hold = hold + np.array([6.0, 0, 0])
    size = f.body.size
    heights = (-9.0, -10.5, -17.0, -25.0, -27.0)
    centres = [hold + np.array([1.0, h * size, 0]) for h in heights]
    widths = np.array([8.5, 10.5, 12.0, 13.0, 11.5]) * size
    _handle(sketch, centres[1], hold + np.array([0, 1.0, 0]), 7.5 * size, colour)
    bag = loft(sketch.camera, centres, widths, widths * 0.52)
    bag.paint(sketch.canvas, colour, sketch.lit)
    sketch.canvas.fill(bag.band(0.0, 0.36), seam(colour), 0.55)
    sketch.canvas.fill(circle(bag.surface(0, 0.4), sketch.cm(1.9)), GOLD)


def _handle(sketch: Sketch, base: np.ndarray, top: np.ndarray, half: float, colour: RGB) -> None:
    line = []
    for angle in np.linspace(-math.pi / 2, math.pi / 2, 9):
        along = half * math.sin(angle)
        side = np.array([along, 0, along * 0.5])
        line += sketch.px(base + side + math.cos(angle) ** 0.6 * (top - base))
    sketch.canvas.line(line, sketch.cm(1.7), shade(colour, 0.35))


def _shoulder_bag_layers(sketch: Sketch) -> list[Layer]:
    """The strap crosses from the right shoulder to the bag at the left hip."""
    side = sketch.camera.depth((1, 0, 0.25)) * 26
    return [
        (15.6, lambda: _cross_strap(sketch)),
        (max(16.0, 15.5 + side) if side > -4 else 5.0, lambda: _satchel(sketch)),
    ]


def _cross_strap(sketch: Sketch) -> None:
    tube, cut = trunk_of(sketch)
    ink = mix(sketch.colour("bag"), seam(sketch.colour("bag")), 0.35)
    v = lambda s: (s - cut.top) / (cut.length - cut.top)  # noqa: E731
    for front in (True, False):
        # Over the right shoulder (-50 degrees), down across the middle to the left hip (80).
        angles = np.linspace(-38, 84, 7) if front else np.linspace(218, 96, 7)
        depths = np.linspace(3.5, 48.0, 7)
        line = tube.polyline(angles.tolist(), [v(s) for s in depths.tolist()])
        if len(line) >= 6:
            sketch.canvas.line(line, sketch.cm(3.4), seam(sketch.colour("bag")))
            sketch.canvas.line(line, sketch.cm(2.6), ink)


def _satchel(sketch: Sketch) -> None:
    f, colour = sketch.figure, sketch.colour("bag")
    size = f.body.size
    hip = f["neck"] - size * 46 * f.lean + np.array([(f.body.hip + 5.5) * size, 0, 2.0])
    centres = [hip + np.array([0, h * size, 0]) for h in (0.0, -2.0, -10.0, -20.0, -22.0)]
    wide = np.array([5.0, 5.6, 6.2, 6.2, 5.4]) * size
    bag = loft(sketch.camera, centres, wide, wide * 2.25)
    bag.paint(sketch.canvas, colour, sketch.lit)
    sketch.canvas.fill(bag.band(0.0, 0.52), mix(colour, seam(colour), 0.4))
    sketch.canvas.fill(circle(bag.surface(0, 0.55), sketch.cm(1.7)), GOLD)


def _suitcase_layers(sketch: Sketch) -> list[Layer]:
    place = case_place(sketch.figure)
    return [(sketch.camera.depth(place) + 16, lambda: _suitcase(sketch, place))]


def case_place(figure: Figure) -> np.ndarray:
    """Returns where a suitcase stands on the ground: at the left, a little behind."""
    size = figure.body.size
    return np.array([(figure.body.shoulder + 20.0) * size, 0.0, -8.0 * size])


def _suitcase(sketch: Sketch, place: np.ndarray) -> None:
    f, colour, canvas = sketch.figure, sketch.colour("bag"), sketch.canvas
    size = f.body.size
    up = lambda h: place + np.array([0, h * size, 0])  # noqa: E731
    tops = [up(54) + np.array([s * 6.0, 0, 0]) for s in (-1, 1)]
    held = sketch.attributes["posture"] in CANE_POSTURES
    grip = f[f"hand_{BAG_SIDE}"] + np.array([0, -4.0, 0]) if held else up(76)
    for sign, top in zip((-1, 1), tops, strict=True):
        end = grip + np.array([sign * 3.5, 0, 0])
        canvas.line([*sketch.px(top), *sketch.px(end)], sketch.cm(1.3), STEEL)
    ends = [grip + np.array([s * 4.5, 0, 0]) for s in (-1, 1)]
    canvas.line([*sketch.px(ends[0]), *sketch.px(ends[1])], sketch.cm(2.4), INK)
    for sign in (-1, 1):
        wheel = circle(sketch.px(place + np.array([sign * 10.0, 2.2, 0])), sketch.cm(2.6))
        canvas.fill(wheel, INK)
    heights = (56.0, 54.0, 30.0, 6.0, 4.0)
    widths = np.array([12.5, 15.0, 15.5, 15.0, 13.0]) * size
    case = loft(sketch.camera, [up(h) for h in heights], widths, widths * 0.66)
    case.paint(canvas, colour, sketch.lit)
    for q in (-0.55, 0.0, 0.55):
        canvas.fill(case.column(q - 0.03, q + 0.03), seam(colour), 0.8)
    canvas.fill(case.band(0.0, 0.09), seam(colour), 0.7)


# -- items ---------------------------------------------------------------------------------------


def _scarf_layers(sketch: Sketch) -> list[Layer]:
    return [(24.5, lambda: _scarf(sketch))]


def _scarf(sketch: Sketch) -> None:
    """Wound round the neck; one end hangs in front and one behind."""
    f, colour, canvas = sketch.figure, sketch.colour("item"), sketch.canvas
    size = f.body.size
    tube, cut = trunk_of(sketch)
    v = lambda s: (s - cut.top) / (cut.length - cut.top)  # noqa: E731
    for angles, end in (((6, 30, 32, 8), 31.0), ((150, 176, 174, 148), 25.0)):
        patch = tube.patch(angles, [v(5), v(5), v(end), v(end)])
        if patch:
            canvas.part([patch], colour)
            for s in (end - 4.5, end - 9.0):
                stripe = tube.polyline(angles[:2], [v(s)] * 2)
                canvas.line(stripe, sketch.cm(1.6), accent(colour))
    ring = [f["neck"] + np.array([0, h * size, 0.8]) for h in (5.0, 2.5, -2.5, -4.5)]
    widths = np.array([7.4, 9.2, 10.2, 9.0]) * size
    wrap = loft(sketch.camera, ring, widths, widths)
    wrap.paint(canvas, colour, sketch.lit)
    for t in (0.3, 0.62):
        fold = [n for q in (-0.9, -0.3, 0.3, 0.9) for n in wrap.surface(q, t + 0.12 * q)]
        canvas.line(fold, sketch.cm(1.0), seam(colour), 0.8)


def _umbrella_layers(sketch: Sketch) -> list[Layer]:
    depth = sketch.depth(f"hand_{ITEM_SIDE}") + 20
    return [(-60.0, lambda: _canopy(sketch)), (min(depth, 17.9), lambda: _shaft(sketch))]


def _apex(sketch: Sketch) -> np.ndarray:
    """The tip of the umbrella, above the head."""
    f = sketch.figure
    hand = f[f"hand_{ITEM_SIDE}"]
    rise = max(f["head"][1] + 47.0 * f.body.size, hand[1] + 60.0)
    return np.array([0.35 * hand[0], rise, 0.3 * hand[2]])


def _shaft(sketch: Sketch) -> None:
    hand, apex = sketch.figure[f"hand_{ITEM_SIDE}"], _apex(sketch)
    low = hand + 0.16 * (hand - apex)
    sketch.canvas.line([*sketch.px(low), *sketch.px(apex)], sketch.cm(1.7), (92, 84, 84))
    sketch.canvas.line([*sketch.px(low), *sketch.px(hand)], sketch.cm(3.0), INK)


def _canopy(sketch: Sketch) -> None:
    """An open umbrella of eight panels."""
    canvas, colour, size = sketch.canvas, sketch.colour("item"), sketch.figure.body.size
    apex = _apex(sketch)
    drop = np.array([0.3, 2.0, 7.5, 15.5, 24.0])
    centres = [apex - np.array([0, d * size, 0]) for d in drop]
    widths = np.array([1.5, 14.0, 29.0, 40.0, 46.0]) * size
    dome = loft(sketch.camera, centres, widths, widths)
    # From above the near rim hangs before the shaft; at eye level the lining shows below it.
    above = 1.0 if sketch.attributes["camera"] == "high" else 0.0
    canvas.part([dome.ends[1]], shade(colour, 0.45))
    canvas.part([_gore(dome, -1.0, 1.0, above)], colour)
    for q0, q1 in ((-0.92, -0.5), (0.0, 0.5), (0.92, 1.0)):
        canvas.fill(_gore(dome, q0, q1, above), light(colour, 0.35), 0.5)
    for q in (-0.92, -0.5, 0.0, 0.5, 0.92):
        rib = (dome.centre + q * dome.edge + above * math.sqrt(1 - q * q) * dome.front).ravel()
        canvas.line(rib.tolist(), sketch.cm(0.8), seam(colour), 0.8)
    x, y = sketch.px(apex)
    canvas.line([x, y, x, y - sketch.cm(5)], sketch.cm(1.6), INK)


def _gore(dome: Loft, q0: float, q1: float, above: float) -> list[float]:
    """The part of an umbrella between two ribs; above: 1 if its near rim is seen, else 0."""
    qs = np.linspace(q0, q1, 7)[:, None]
    left, right = (
        dome.centre + q * dome.edge + above * math.sqrt(1 - q * q) * dome.front for q in (q0, q1)
    )
    rim = dome.centre[-1] + qs * dome.edge[-1] + above * np.sqrt(1 - qs**2) * dome.front[-1]
    return np.concatenate([left, rim, right[::-1]]).ravel().tolist()


def _phone_layers(sketch: Sketch) -> list[Layer]:
    depth = sketch.depth(f"shoulder_{ITEM_SIDE}", f"elbow_{ITEM_SIDE}", f"hand_{ITEM_SIDE}")
    return [(max(depth + 20.5, 28.0), lambda: _phone(sketch))]


def _phone(sketch: Sketch) -> None:
    """A bright phone at the ear, or held up in a raised hand."""
    f = sketch.figure
    elbow, hand = f[f"elbow_{ITEM_SIDE}"], f[f"hand_{ITEM_SIDE}"]
    along = (hand - elbow) / float(np.linalg.norm(hand - elbow))
    centre = hand + 7.0 * along
    low, high = sketch.px(centre - 8.0 * along), sketch.px(centre + 8.0 * along)
    sketch.canvas.line([*low, *high], sketch.cm(7.6), (24, 26, 34))
    inner = [sketch.px(centre - 6.4 * along), sketch.px(centre + 6.4 * along)]
    sketch.canvas.line([*inner[0], *inner[1]], sketch.cm(5.2), (112, 206, 250))


def _cane(sketch: Sketch, side: str) -> None:
    hand = sketch.figure[f"hand_{side}"]
    grip = hand + np.array([0, -4.0, 2.0])
    tip = np.array([grip[0] * 1.05, 0.0, grip[2] + 3.0])
    hook = grip + np.array([0, 3.5, 9.0])
    line = [*sketch.px(tip), *sketch.px(grip + np.array([0, 2.0, 0])), *sketch.px(hook)]
    sketch.canvas.line(line, sketch.cm(2.4), (96, 58, 30))
