"""How far apart the hashes of different images are, and of one image that was changed a little.

    python tests/benchmarks/duplicates.py --workdir=RUN [--images=3000]

Filter engine `quality` takes two images for the same where their hashes differ in at most
`filter.quality.duplicate_distance` bits: more than what saving and scaling change, fewer than what
lies between the two people who look most alike.
"""

import argparse
import io
import itertools

import numpy as np
from PIL import Image

from jaxtbpr.core.duplicates import distances, perceptual_hash
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.synthesis.images import read_image

CHANGED = 1000  # images that are changed


def main():
    options = parse()
    workdir = Workdir(options.workdir, order=(), chosen=())
    records = itertools.islice(workdir.manifest("generate"), options.images)
    images = [read_image(workdir.root, record) for record in records]
    hashes = np.stack([perceptual_hash(pixels) for pixels in images])
    nearest = min(int(distances(hashes[k], hashes[:k]).min()) for k in range(1, len(hashes)))
    print(f"{len(images)} images; the two nearest differ in {nearest} bits")
    for name, change in {"JPEG 75": jpeg, "0.9 of the size": smaller, "1.1": larger}.items():
        found = [
            int(distances(perceptual_hash(change(pixels)), own[None])[0])
            for pixels, own in zip(images[:CHANGED], hashes, strict=False)
        ]
        print(f"{name}: at most {max(found)} bits, {np.mean(found):.1f} on average")


def jpeg(pixels: np.ndarray) -> np.ndarray:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=75)
    return np.asarray(Image.open(data))


def smaller(pixels: np.ndarray) -> np.ndarray:
    return scaled(pixels, 0.9)


def larger(pixels: np.ndarray) -> np.ndarray:
    return scaled(pixels, 1.1)


def scaled(pixels: np.ndarray, factor: float) -> np.ndarray:
    size = [round(side * factor) for side in (pixels.shape[1], pixels.shape[0])]
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="a run with finished stage generate")
    parser.add_argument("--images", type=int, default=3000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
