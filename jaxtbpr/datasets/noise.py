"""Wrong captions on purpose: robustness to noise is measured with a known fraction of it.

The protocol of the noisy-correspondence literature (RDE, Qin et al., CVPR 2024, arXiv:2308.09911):
a random fraction of the training pairs exchange their captions, the same ones in every epoch.
"""

import io

import numpy as np
from etils import epath

from jaxtbpr.core import files, seeds

INDEX = "caption_noise.npz"


def exchange(pairs: int, fraction: float, seed: int) -> np.ndarray:
    """Returns whose caption each pair gets, int64 [pairs]; most get their own.

    fraction: of the pairs, 0..1, that pass their captions on in a ring, so that none of them keeps
    its own; the ring has two pairs or more, or there is none.
    """
    rng = seeds.rng(seed, "caption noise")
    ring = rng.permutation(pairs)[: round(fraction * pairs)]
    caption_of_pair = np.arange(pairs)
    if len(ring) > 1:
        caption_of_pair[ring] = np.roll(ring, 1)
    return caption_of_pair


def save_index(
    directory: epath.Path, caption_of_pair: np.ndarray, identity_of_pair: np.ndarray
) -> None:
    """Writes caption_noise.npz: of the pairs with another's caption, `pair`, `caption_of`, `wrong`.

    caption_of_pair: from `exchange`; identity_of_pair: [pairs]. Pairs are numbered through all
    train sets, image by image and caption by caption. wrong: whether the caption is of another
    identity.
    """
    pair = np.flatnonzero(caption_of_pair != np.arange(len(caption_of_pair)))
    wrong = identity_of_pair[caption_of_pair[pair]] != identity_of_pair[pair]
    data = io.BytesIO()
    np.savez_compressed(data, pair=pair, caption_of=caption_of_pair[pair], wrong=wrong)
    files.write_bytes_atomic(directory / INDEX, data.getvalue())
