"""Training images a second of the loader, per core: `python tests/benchmarks/loader.py SET`.

SET is the folder of a built set, for example WORKDIR/build/synthetic. CPU time is counted, so
that other programs on the machine matter less.
"""

import sys
import time

import numpy as np

from jaxtbpr.core import options
from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.datasets import loader, transforms
from jaxtbpr.datasets.source import RetrievalSet

BATCH, BATCHES, REPEATS = 128, 8, 3


def images_per_second(one: RetrievalSet, words, **setup) -> float:
    """Returns the best of some repeats of the same batches, so that a cache is warm."""
    loading = loader.train_loader(
        [one], words, batch_size=BATCH, seed=0, image_size=(128, 64), text_length=40, **setup
    )
    pairs = loading._pairs
    numbers = np.random.default_rng(0).integers(len(pairs), size=(BATCHES, BATCH))
    best = float("inf")
    for _ in range(1 + REPEATS):
        began = time.process_time()
        for k in range(BATCHES):
            pairs.load(k, numbers[k])
        best = min(best, time.process_time() - began)
    return BATCHES * BATCH / best


def main() -> None:
    one = RetrievalSet(sys.argv[1], "train")
    words = tokens.learn([c for captions in one.captions for c in captions], 1000)
    default = options.default_config(transforms.AUGMENT_OPTIONS).to_dict()
    for label, setup in {
        "decode only": {"cache_mb": 0},
        "default changes": {"cache_mb": 0, "augment": default},
        "default changes, images kept decoded": {"augment": default},
        "and words deleted": {"augment": default | {"word_deletion": 0.1}},
    }.items():
        print(f"{label}: {images_per_second(one, words, **setup):.0f} images/s")


if __name__ == "__main__":
    main()
