"""How often a Stable Diffusion draws what its prompts ask for, attribute by attribute.

    python tests/benchmarks/drawn.py --renders=RUN --generated=OTHER_RUN --judge=FOLDER

RUN is a run of configs/tiny_sd.py: a convolutional network learns to name the attributes of its
train images, which were drawn from known attributes, and is kept in FOLDER for the next time.
Printed are its accuracy on the renders of RUN's test split, which it has not seen, and how often
it finds in the images of OTHER_RUN what their prompts asked for. Only what can be seen counts.
"""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxtbpr.core import attributes, files
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.diffusion import convolution, fit, layers
from jaxtbpr.synthesis.images import read_image

SLOTS = tuple(
    slot
    for slot in (*attributes.PERSON, *attributes.SCENE)
    if slot not in ("complexion", "camera")  # the first is never said, the second a trifle
)
VALUES = {slot: {**attributes.PERSON, **attributes.SCENE}[slot] for slot in SLOTS}
CHANNELS = (16, 32, 64, 128, 192)  # each but the first at half the sides of the one before
FEATURES = 512
GROUPS = 8
SHIFT = 4  # pixels that a train image is moved by at most
BARS = {
    "upper_colour": 95, "lower_colour": 92, "upper": 85, "lower": 85, "background": 95,
}  # fmt: skip
OTHERS = 80


def main() -> None:
    options = parse()
    renders = read(options.renders, "test")
    params = learned(options, renders)
    own = accuracy(params, *renders)
    drawn = accuracy(params, *read(options.generated, "test")) if options.generated else {}
    print("| attribute | judge on renders, % | drawn as asked, % | bar, % | images |")
    print("|---|---|---|---|---|")
    for slot in SLOTS:
        right, count = drawn.get(slot, (float("nan"), 0))
        bar = BARS.get(slot, OTHERS)
        print(f"| {slot} | {100 * own[slot][0]:.1f} | {100 * right:.1f} | {bar} | {count} |")
    if options.output:
        files.write_json_atomic(options.output, {"judge": own, "drawn": drawn})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--renders", required=True, help="a run whose images are drawn")
    parser.add_argument("--generated", default="", help="a run whose images are judged")
    parser.add_argument("--judge", required=True, help="folder of the judge's checkpoints")
    parser.add_argument("--steps", type=int, default=2000, help="training steps of 64 images")
    parser.add_argument("--output", default="", help="file for the shares as JSON")
    return parser.parse_args()


def read(run: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [N, H, W, 3], labels int [N, slots], -1 where there is nothing to see)."""
    workdir = Workdir(run, order=(), chosen=())
    records = [r for r in workdir.manifest("generate") if r["split"] == split]
    if not records:
        sys.exit(f"{run} has no images of split {split!r}.")
    images = np.stack([read_image(workdir.root, record) for record in records])
    return images, np.array([labels(record["attributes"]) for record in records])


def labels(looks: dict[str, str]) -> list[int]:
    """The number of each slot's value, -1 where it cannot be seen or is not there."""
    looks = looks | {"view": "left" if looks["view"] == "right" else looks["view"]}
    hidden = attributes.hidden(looks)
    absent = {slot for slot in SLOTS if looks[slot] == "none" and slot.endswith("_colour")}
    return [
        -1 if slot in hidden or slot in absent else VALUES[slot].index(looks[slot])
        for slot in SLOTS
    ]


def learned(options: argparse.Namespace, renders: tuple[np.ndarray, np.ndarray]) -> dict:
    """The judge's parameters, trained or read."""
    params = init(jax.random.key(0), renders[0].shape[1:3])
    folder = epath.Path(options.judge)
    recipe = fit.Fit(steps=options.steps, batch_size=64, learning_rate=1e-2, ema_decay=0.998)
    images, truth = read(options.renders, "train")
    return fit.fit(
        loss, params, {"image": images, "label": truth}, recipe, seed=0, directory=folder
    )


def init(key: jax.Array, size: tuple[int, int]) -> dict:
    """Random parameters for images of (H, W)."""
    keys = iter(jax.random.split(key, 64))

    def weight(*shape):
        return jax.random.normal(next(keys), shape) * np.prod(shape[:-1]) ** -0.5

    def convolution(inward, outward):
        norm = {"scale": jnp.ones(outward), "bias": jnp.zeros(outward)}
        return {"kernel": weight(3, 3, inward, outward), **norm}

    inward = (3, *CHANNELS)
    places = size[0] * size[1] // 4 ** (len(CHANNELS) - 1)
    return {
        "narrow": [convolution(a, b) for a, b in zip(inward, CHANNELS, strict=False)],
        "keep": [convolution(c, c) for c in CHANNELS[1:]],
        "features": weight(places * CHANNELS[-1], FEATURES),
        "heads": {slot: weight(FEATURES, len(VALUES[slot])) for slot in SLOTS},
    }


def logits(params: dict, images: jax.Array) -> dict[str, jax.Array]:
    """{slot: [B, values]} of images [B, H, W, 3] in [-1, 1]."""
    x = block(params["narrow"][0], images, 1)
    for narrow, keep in zip(params["narrow"][1:], params["keep"], strict=True):
        x = block(narrow, x, 2)
        x = x + block(keep, x, 1)
    x = jax.nn.relu(x.reshape(len(x), -1) @ params["features"])
    return {slot: x @ head for slot, head in params["heads"].items()}


def block(params: dict, x: jax.Array, stride: int) -> jax.Array:
    x = convolution.convolve(x, params["kernel"], stride, ((1, 1), (1, 1)))
    return jax.nn.relu(
        layers.group_norm(x, params["scale"], params["bias"], groups=GROUPS, eps=1e-5)
    )


def loss(params: dict, rows: dict, key: jax.Array) -> tuple[jax.Array, dict]:
    """Cross-entropy summed over what can be seen, on images moved and mirrored at random."""
    found = logits(params, moved(layers.from_pixels(rows["image"]), key))
    total, right, seen = 0.0, 0.0, 0.0
    for column, slot in enumerate(SLOTS):
        truth = rows["label"][:, column]
        shown = truth >= 0
        errors = -jnp.take_along_axis(
            jax.nn.log_softmax(found[slot]), jnp.maximum(truth, 0)[:, None], axis=1
        )[:, 0]
        total += (errors * shown).mean()
        right += ((found[slot].argmax(axis=1) == truth) & shown).sum()
        seen += shown.sum()
    return total, {"right": right / seen}


def moved(images: jax.Array, key: jax.Array) -> jax.Array:
    keys = jax.random.split(key, 3)
    count, height, width, _ = images.shape
    wide = jnp.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    starts = jax.random.randint(keys[0], (count, 2), 0, 2 * SHIFT + 1)

    def cut(image, start):
        return jax.lax.dynamic_slice(image, (*start, 0), (height, width, 3))

    images = jax.vmap(cut)(wide, starts)
    mirrored = jax.random.bernoulli(keys[1], shape=(count, 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def accuracy(params: dict, images: np.ndarray, truth: np.ndarray) -> dict[str, tuple[float, int]]:
    """{slot: (share named rightly, of so many images that show it)}."""
    answer = jax.jit(
        lambda some: {
            k: v.argmax(axis=1) for k, v in logits(params, layers.from_pixels(some)).items()
        }
    )
    parts = [answer(images[k : k + 100]) for k in range(0, len(images), 100)]
    found = {}
    for column, slot in enumerate(SLOTS):
        said = np.concatenate([part[slot] for part in parts])
        shown = truth[:, column] >= 0
        found[slot] = (float((said == truth[:, column])[shown].mean()), int(shown.sum()))
    return found


if __name__ == "__main__":
    main()
