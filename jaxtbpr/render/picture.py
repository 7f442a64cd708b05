"""One person image: background, person, weather, style, in that order."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from jaxtbpr.core import seeds
from jaxtbpr.core.attributes import SCENE, check
from jaxtbpr.core.errors import InputError
from jaxtbpr.render import (
    accessories,
    head,
    headwear,
    lower,
    png,
    scene,
    styles,
    upper,
    weather,
)
from jaxtbpr.render.camera import PITCH, YAW, Camera
from jaxtbpr.render.canvas import Canvas, circle
from jaxtbpr.render.loft import loft
from jaxtbpr.render.skeleton import Figure, pose
from jaxtbpr.render.sketch import Layer, Sketch

HORIZON = {"eye level": 0.46, "high": 0.15}  # share of the height above the horizon
SMALLEST = 16  # pixels
MARGIN = np.array([(11, 19), (11, 12)])  # room round the joints [cm]: left, top; right, bottom


def render(
    attributes: dict[str, str], *, seed: int, record_id: str, height: int = 128, width: int = 64
) -> np.ndarray:
    """Draws one person in a scene. Returns uint8 [height, width, 3].

    attributes: a complete record (core.attributes.check), person and scene; the person's look
      comes from it alone.
    seed, record_id: decide the accidents (exact limb angles, framing, layout of the background,
      light); the same pair gives the same bytes.
    Raises InputError on an inconsistent record or a side below 16 pixels.
    """
    check(attributes)
    _check_size(attributes, height, width)
    rng = seeds.rng(seed, "render", record_id)
    lit = -1.0 if rng.random() < 0.5 else 1.0
    figure = pose(attributes, rng, accessories.reach(attributes))
    camera = _frame(figure, attributes, rng, height, width)
    image = _background(attributes, camera, rng, height, width)
    thick = 0.9 * camera.scale
    ink = max(thick, 0.55) if attributes["style"] == "anime" else 0.0
    canvas = Canvas(image, outline=ink, rim=0.7 * thick)
    weather.puddles(canvas, attributes["weather"], camera.origin[1], rng)
    painted = attributes["style"] in styles.STROKES
    empty = canvas.pixels() if painted else None
    _draw_person(Sketch(attributes, figure, camera, canvas, lit))
    person = None if empty is None else (canvas.pixels() != empty).any(2, keepdims=True)
    weather.fall(canvas, attributes["weather"], rng)
    if person is None:
        return styles.finish(canvas.pixels(), attributes["style"], rng)
    return styles.paint(canvas.pixels(), person, attributes["style"], rng)


def render_png(attributes: dict[str, str], **options) -> bytes:
    """Draws like `render`; returns the bytes of a PNG file."""
    return png.encode(render(attributes, **options))


def contact_sheet(images: Sequence[np.ndarray], columns: int, gap: int = 3) -> np.ndarray:
    """Lays equal images uint8 [H, W, 3] out in rows on white. Returns uint8 [H', W', 3]."""
    height, width, _ = images[0].shape
    rows = -(-len(images) // columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, 3)
    sheet = np.full(shape, 255, np.uint8)
    for i, image in enumerate(images):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = image
    return sheet


def _check_size(attributes: dict[str, str], height: int, width: int) -> None:
    if min(height, width) < SMALLEST:
        raise InputError(
            f"render got {height}x{width} pixels; each side must be {SMALLEST} or more."
        )
    missing = [slot for slot in SCENE if slot not in attributes]
    if missing:
        raise InputError(f"render needs the scene slots {missing}; see attributes.sample_scene.")


def _draw_person(sketch: Sketch) -> None:
    """Draws shadow, seat and all layers of the person from back to front."""
    _shadow(sketch)
    layers: list[Layer] = []
    for module in (lower, upper, head, headwear, accessories):
        layers += module.layers(sketch)
    if sketch.attributes["posture"] == "sitting":
        layers.append((sketch.camera.depth(_seat_top(sketch)), lambda: _seat(sketch)))
    for _, draw in sorted(layers, key=lambda layer: layer[0]):
        draw()


def _shadow(sketch: Sketch) -> None:
    """A soft shadow on the ground, away from the light."""
    f = sketch.figure
    feet = 0.5 * (f["ankle_r"] + f["ankle_l"])
    x, y = sketch.px(np.array([feet[0], 0.0, feet[2]]))
    high = sketch.attributes["camera"] == "high"
    for grow, alpha in ((1.15, 0.09), (0.98, 0.10), (0.8, 0.12), (0.6, 0.14)):
        rx, ry = sketch.cm(34 * grow), sketch.cm((16 if high else 7) * grow)
        at = (x - sketch.lit * sketch.cm(9), y + sketch.cm(1))
        sketch.canvas.fill(circle(at, rx, ry), (18, 18, 34), alpha)


def _seat_top(sketch: Sketch) -> np.ndarray:
    f = sketch.figure
    return 0.5 * (f["hip_r"] + f["hip_l"]) + np.array([0, -7.5 * f.body.size, 4.0])


def _seat(sketch: Sketch) -> None:
    """A round wooden stool below a sitting person."""
    size, top = sketch.figure.body.size, _seat_top(sketch)
    heights = (0.0, 3.5, 4.5, top[1] / size)
    radii = np.array([19.0, 19.0, 15.0, 17.0]) * size
    centres = [np.array([top[0], max(top[1] - h * size, 0.0), top[2]]) for h in heights]
    stool = loft(sketch.camera, centres, radii, radii)
    stool.paint(sketch.canvas, (150, 104, 66), sketch.lit)
    sketch.canvas.fill(stool.ends[0], (190, 142, 94))


def _frame(
    figure: Figure, attributes: dict[str, str], rng: np.random.Generator, height: int, width: int
) -> Camera:
    """Returns the camera that fits the figure into the image, a little differently each time."""
    turn = 24 if attributes["view"] in ("front", "back") else 14
    yaw = YAW[attributes["view"]] + rng.uniform(-turn, turn)
    pitch = PITCH[attributes["camera"]] + rng.uniform(-3, 3)
    camera = Camera(yaw, pitch)
    seen = camera.project(np.array(list(figure.joints.values())))
    (left, top), (right, bottom) = seen.min(0) - MARGIN[0], seen.max(0) + MARGIN[1]
    toes = [camera(figure[f"ankle_{side}"] + (0, 0, 15.0))[0] for side in "rl"]
    left, right = min(left, *(x - 5 for x in toes)), max(right, *(x + 5 for x in toes))
    left, right, top = _make_room(camera, figure, attributes, left, right, top)
    scale = min(0.93 * height / (bottom - top), 0.97 * width / (right - left))
    scale *= rng.uniform(0.93, 1.0)
    slack = width - scale * (right - left)
    x = slack * (0.5 + rng.uniform(-0.3, 0.3)) - scale * left
    slack = height - scale * (bottom - top)
    y = height - slack * rng.uniform(0.3, 0.6) - scale * bottom
    return Camera(yaw, pitch, scale, (x, y))


def _make_room(camera, figure, attributes, left, right, top) -> tuple[float, float, float]:
    """Widens the frame for what reaches beyond the joints."""
    size = figure.body.size
    if attributes["item"] == "umbrella":
        top -= 34 * size
        middle = camera(figure["head"])[0]
        left, right = min(left, middle - 44 * size), max(right, middle + 44 * size)
    if attributes["hat"] == "beanie" or attributes["hair"] == "bun":
        top -= 4
    if attributes["bag"] == "suitcase":
        x = camera(accessories.case_place(figure))[0]
        left, right = min(left, x - 14), max(right, x + 14)
    return left, right, top


def _background(
    attributes: dict[str, str], camera: Camera, rng: np.random.Generator, height: int, width: int
) -> Image.Image:
    """Draws background and light, a little out of focus."""
    horizon = HORIZON[attributes["camera"]] + rng.uniform(-0.05, 0.05)
    canvas = Canvas(Image.new("RGB", (width, height)))
    unit = height / 100
    scene.draw(
        scene.Scene(canvas, width / unit, 100 * horizon, unit, rng), attributes["background"]
    )
    image = canvas.image().filter(ImageFilter.BoxBlur(0.005 * height))
    image = weather.grade(image, attributes["weather"], horizon, rng)
    return styles.backdrop(image, attributes["style"])
