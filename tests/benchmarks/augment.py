"""Where should training images be changed? On the host by Pillow, or inside the jitted step?

    python tests/benchmarks/augment.py

Times the same work both ways in one run, with the default options and images of 128x64 pixels:
random resized crop, mirror, brightness and contrast, erased rectangle. Host: one core of the
loader. Device: one jitted program per batch, all the cores that XLA takes (or the accelerator).
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxtbpr.core import options, seeds
from jaxtbpr.datasets import transforms

BATCH, REPEATS = 128, 5
SIZE = (128, 64)
OPTIONS = options.default_config(transforms.AUGMENT_OPTIONS).to_dict()


def on_host(images: list[Image.Image]) -> None:
    for n, image in enumerate(images):
        transforms.augment_image(image, SIZE, seeds.rng(0, "benchmark", n), OPTIONS)


def on_device(key: jax.Array, image: jax.Array) -> jax.Array:
    """One image uint8 [H, W, 3], changed as `transforms.augment_image` does."""
    height, width = SIZE
    keys = jax.random.split(key, 9)
    draw = [jax.random.uniform(k) for k in keys[:8]]
    side = jnp.where(
        draw[0] < OPTIONS["crop"],
        jnp.sqrt(jax.random.uniform(keys[8], (), minval=OPTIONS["crop_area"])),
        1.0,
    )
    scale = jnp.full(2, 1 / side)
    shift = -jnp.array([draw[1] * height, draw[2] * width]) * (1 - side) / side
    x = jax.image.scale_and_translate(
        image.astype(jnp.float32), (*SIZE, 3), (0, 1), scale, shift, "cubic"
    )
    x = jnp.where(draw[3] < OPTIONS["flip"], x[:, ::-1], x)
    strength = OPTIONS["jitter_strength"]
    change = 1 + strength * (2 * jnp.array(draw[4:6]) - 1) * (draw[6] < OPTIONS["jitter"])
    grey = jnp.mean(x)
    x = (x * change[0] - grey) * change[1] + grey
    top, left = draw[1] * height * 0.7, draw[2] * width * 0.7
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    inside = (rows >= top) & (rows < top + 0.3 * height) & (columns >= left)
    inside &= (columns < left + 0.3 * width) & (draw[7] < OPTIONS["erase"])
    x = jnp.where(inside, 255 * jax.random.uniform(keys[7], x.shape), x)
    return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8)


def best_of(run, clock) -> float:
    """Images a second in the best of some runs; the first one compiles and warms up."""
    run()
    seconds = []
    for _ in range(REPEATS):
        began = clock()
        run()
        seconds.append(clock() - began)
    return BATCH / min(seconds)


def main() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, *SIZE, 3), np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    program = jax.jit(jax.vmap(on_device))
    keys = jax.random.split(jax.random.key(0), BATCH)
    batch = jnp.asarray(pixels)
    host = best_of(lambda: on_host(images), time.process_time)
    device = best_of(lambda: jax.block_until_ready(program(keys, batch)), time.monotonic)
    print(f"host, one core:        {host:8.0f} images/s")
    print(f"device, {jax.devices()[0].platform:12s}   {device:8.0f} images/s")
    print(f"ratio host / device:   {host / device:8.2f}")


if __name__ == "__main__":
    main()
