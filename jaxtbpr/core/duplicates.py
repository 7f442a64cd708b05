"""Near-duplicate images: a perceptual hash, and which image duplicates which.

The hash says which of the lowest frequencies of a small grey copy are above their median (the
"pHash" of Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010), of
16 x 16 frequencies here, since drawn people of one pose and place have the lowest 8 x 8 in common.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

BITS = 256
_SIDE, _KEPT = 32, 16  # pixels of the copy and frequencies, per axis
_COSINES = np.cos(
    np.pi * (np.arange(_SIDE) + 0.5) * np.arange(_KEPT)[:, None] / _SIDE
)  # [frequency, pixel], the DCT-II


def perceptual_hash(image: Image.Image) -> np.ndarray:
    """Returns the hash of an image, RGB or grey, uint8 [32]; the first bit, its mean's, is 0.

    Other encodings, brightnesses and sizes change few bits of it.
    """
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    # Rounded, so that the bits of a flat image are not those of rounding errors.
    waves = (_COSINES @ np.asarray(small, np.float64) @ _COSINES.T).reshape(-1)[1:].round(6)
    middle = len(waves) // 2  # they are odd in number; np.median takes longer than all the rest
    return np.packbits(np.concatenate([[False], waves > np.partition(waves, middle)[middle]]))


def distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the Hamming distances of `one`, uint8 [32], to `others` [N, 32]: int [N]."""
    apart = one.view(np.uint64) ^ others.view(np.uint64)
    return np.bitwise_count(apart).sum(axis=-1, dtype=np.int64)


def duplicates_by_id(
    ids: Sequence[str], hashes: np.ndarray, distance: int
) -> dict[str, tuple[str, int]]:
    """Returns {id: (id of what it duplicates, Hamming distance)}; the smallest id stays.

    hashes: uint8 [N, 32]. The result does not depend on the order of the rows, since no two have
    the same id. See `find_duplicates`.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    first_of = find_duplicates(hashes[order], distance)
    return {ids[order[row]]: (ids[order[first]], bits) for row, (first, bits) in first_of.items()}


def find_duplicates(hashes: np.ndarray, distance: int) -> dict[int, tuple[int, int]]:
    """Returns {row: (the row that it duplicates, Hamming distance)}.

    hashes: uint8 [N, 32], in order of precedence. A row duplicates the first row before it that is
    no duplicate itself and differs in at most `distance` bits. The bits are cut into distance + 1
    parts: rows that are so near agree in one part at least (pigeonhole), so only such rows are
    compared.
    """
    bits = np.unpackbits(hashes, axis=1)
    parts = [_alike(part) for part in np.array_split(bits, min(distance + 1, BITS), axis=1)]
    first_of: dict[int, tuple[int, int]] = {}
    is_first = np.ones(len(hashes), bool)
    for row in range(len(hashes)):
        near = np.concatenate([rows[start[row] : end[row]] for rows, start, end in parts])
        near = near[is_first[near]]
        bits_apart = distances(hashes[row], hashes[near])
        hits = np.flatnonzero(bits_apart <= distance)
        if len(hits):
            first = hits[near[hits].argmin()]
            first_of[row] = (int(near[first]), int(bits_apart[first]))
            is_first[row] = False
    return first_of


def _alike(part: np.ndarray) -> tuple[np.ndarray, list[int], list[int]]:
    """(rows, start, end): rows[start[k]:end[k]] are before row k and agree with it in `part`.

    part: some of the bits of each row, [N, bits].
    """
    packed = np.packbits(part, axis=1)
    _, group, count = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    rows = np.argsort(group, kind="stable")
    end = np.empty_like(rows)
    end[rows] = np.arange(len(rows))
    return rows, (np.cumsum(count) - count)[group].tolist(), end.tolist()
