"""Wrong captions on purpose: how well a loss survives noise is measured with a known share of it.

The protocol of the noisy-correspondence literature (RDE, Qin et al., CVPR 2024, arXiv:2308.09911):
a random share of the training pairs exchange their captions, the same ones in every epoch.
"""

import io

import numpy as np
from etils import epath

from jaxtbpr.core import files, seeds

INDEX = "caption_noise.npz"


def exchange(pairs: int, share: float, seed: int) -> np.ndarray:
    """Returns whose caption each pair gets, int64 [pairs]; most get their own.

    share: of the pairs, 0..1, that pass their captions on in a ring, so that none of them keeps
    its own; the ring has two pairs or more, or there is none.
    """
    rng = seeds.rng(seed, "caption noise")
    ring = rng.permutation(pairs)[: round(share * pairs)]
    given = np.arange(pairs)
    if len(ring) > 1:
        given[ring] = np.roll(ring, 1)
    return given


def save_index(directory: epath.Path, given: np.ndarray, identity_of_pair: np.ndarray) -> None:
    """Writes caption_noise.npz: of the pairs with another's caption, `pair`, `caption_of`, `wrong`.

    given: from `exchange`; identity_of_pair: [pairs]. Pairs are numbered through all train sets,
    image by image and caption by caption. wrong: whether the caption is of another identity.
    """
    pair = np.flatnonzero(given != np.arange(len(given)))
    wrong = identity_of_pair[given[pair]] != identity_of_pair[pair]
    data = io.BytesIO()
    np.savez_compressed(data, pair=pair, caption_of=given[pair], wrong=wrong)
    files.write_bytes_atomic(directory / INDEX, data.getvalue())
