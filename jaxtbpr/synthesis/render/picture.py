"""One person image: background, person, weather, style, in that order."""

import io

import numpy as np
from PIL import Image

from jaxtbpr.core import seeds
from jaxtbpr.core.attributes import check
from jaxtbpr.synthesis.render import accessories, head, headwear, lower, upper
from jaxtbpr.synthesis.render.camera import PITCH, YAW, Camera
from jaxtbpr.synthesis.render.canvas import Canvas, circle
from jaxtbpr.synthesis.render.sketch import Sketch
from jaxtbpr.synthesis.render.skeleton import Figure, pose


def render(
    attributes: dict[str, str], *, seed: int, record_id: str, height: int = 128, width: int = 64
) -> np.ndarray:
    rng = seeds.rng(seed, "render", record_id)
    figure = pose(attributes, rng, accessories.reach(attributes))
    camera = frame(figure, attributes, rng, height, width)
    lit = -1.0
    image = Image.new("RGB", (width, height), (200, 205, 210))
    canvas = Canvas(image, rim=0.5 * camera.scale)
    draw_person(Sketch(attributes, figure, camera, canvas, lit))
    return np.asarray(canvas.image())


def draw_person(sketch: Sketch) -> None:
    layers = []
    for module in (lower, upper, head, headwear, accessories):
        layers += module.layers(sketch)
    for _, draw in sorted(layers, key=lambda layer: layer[0]):
        draw()


def frame(figure: Figure, attributes, rng, height: int, width: int) -> Camera:
    yaw = YAW[attributes["view"]] + rng.uniform(-18, 18)
    pitch = PITCH[attributes["camera"]] + rng.uniform(-2, 3)
    camera = Camera(yaw, pitch)
    points = np.array(list(figure.joints.values()))
    seen = camera.project(points)
    top, bottom = seen[:, 1].min() - 17, seen[:, 1].max() + 12
    left, right = seen[:, 0].min() - 9, seen[:, 0].max() + 9
    if attributes["item"] == "umbrella":
        top -= 36
    scale = min(0.92 * height / (bottom - top), 0.94 * width / (right - left))
    origin = (width / 2 - scale * (left + right) / 2, 0.96 * height - scale * bottom)
    return Camera(yaw, pitch, scale, origin)


def contact_sheet(images, columns):
    h, w, _ = images[0].shape
    rows = -(-len(images) // columns)
    out = np.full((rows * (h + 2), columns * (w + 2), 3), 255, np.uint8)
    for i, im in enumerate(images):
        r, c = divmod(i, columns)
        out[r * (h + 2) : r * (h + 2) + h, c * (w + 2) : c * (w + 2) + w] = im
    return out


def render_png(*a, **k):
    b = io.BytesIO()
    Image.fromarray(render(*a, **k)).save(b, "PNG", compress_level=1)
    return b.getvalue()
