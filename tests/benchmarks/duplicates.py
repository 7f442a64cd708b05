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
    images = [Image.fromarray(read_image(workdir.root, record)) for record in records]
    hashes = np.stack([perceptual_hash(image) for image in images])
    nearest = min(int(distances(hashes[k], hashes[:k]).min()) for k in range(1, len(hashes)))
    print(f"{len(images)} images; the two nearest differ in {nearest} bits")
    for name, change in {"JPEG 75": jpeg, "0.9 of the size": smaller, "1.1": larger}.items():
        found = [
            int(distances(perceptual_hash(change(image)), own[None])[0])
            for image, own in zip(images[:CHANGED], hashes, strict=False)
        ]
        print(f"{name}: at most {max(found)} bits, {np.mean(found):.1f} on average")


def jpeg(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=75)
    return Image.open(data)


def smaller(image: Image.Image) -> Image.Image:
    return scaled(image, 0.9)


def larger(image: Image.Image) -> Image.Image:
    return scaled(image, 1.1)


def scaled(image: Image.Image, factor: float) -> Image.Image:
    size = [round(side * factor) for side in image.size]
    return image.resize(size, Image.Resampling.BICUBIC)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="a run with finished stage generate")
    parser.add_argument("--images", type=int, default=3000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
