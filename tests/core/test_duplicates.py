"""Near-duplicates: what the hash bears, and who stays."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxtbpr.core.duplicates import distances, duplicates_by_id, find_duplicates, perceptual_hash

DEFAULT = 24


def photo(seed, size=(64, 128)):
    """A picture with details of every size, the small ones weaker, as photographs have them."""
    rng, whole = np.random.default_rng(seed), np.zeros((size[1], size[0], 3))
    for scale in (2, 4, 8, 16, 32):
        noise = rng.integers(0, 256, (2 * scale, scale, 3), np.uint8)
        whole += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)) / scale
    return Image.fromarray((whole / whole.max() * 255).astype(np.uint8))


def encoded(image, quality):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


CHANGES = {
    "JPEG": lambda image: encoded(image, 75),
    "a tenth smaller": lambda image: image.resize((58, 115), Image.Resampling.BICUBIC),
    "twice as large": lambda image: image.resize((128, 256), Image.Resampling.BICUBIC),
    "brighter": lambda image: image.point(lambda value: min(255, value * 1.05)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_picture_in_another_form_is_near(change):
    images = [photo(seed) for seed in range(20)]
    apart = [
        distances(perceptual_hash(i), perceptual_hash(CHANGES[change](i))[None])[0] for i in images
    ]
    assert max(apart) <= DEFAULT


def test_different_pictures_are_far():
    hashes = np.stack([perceptual_hash(photo(seed)) for seed in range(100)])
    apart = np.concatenate([distances(hashes[k], hashes[:k]) for k in range(1, 100)])
    assert apart.min() > 2 * DEFAULT


def defined(hashes, distance):
    """The definition, word by word."""
    found, first = {}, []
    for row in range(len(hashes)):
        apart = [(other, int(distances(hashes[row], hashes[other])[()])) for other in first]
        near = [(other, bits) for other, bits in apart if bits <= distance]
        if near:
            found[row] = near[0]
        else:
            first.append(row)
    return found


@st.composite
def hashes(draw):
    """A few hashes and neighbours of them."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    bases = rng.integers(0, 2, (draw(st.integers(1, 4)), 256), np.uint8)
    rows = bases[rng.integers(0, len(bases), draw(st.integers(1, 20)))]
    for row in rows:
        flipped = rng.choice(256, draw(st.integers(0, 30)), replace=False)
        row[flipped] ^= 1
    return np.packbits(rows, axis=1)


@given(hashes(), st.sampled_from([0, 1, 7, 24, 40, 255]))
@settings(max_examples=60)
def test_duplicates_are_those_of_the_definition(rows, distance):
    assert find_duplicates(rows, distance) == defined(rows, distance)


@given(hashes(), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_first_by_id_stays_whatever_the_order(rows, random):
    ids = [f"{k:04d}" for k in range(len(rows))]
    found = duplicates_by_id(ids, rows, DEFAULT)
    assert all(first < name for name, (first, _) in found.items())
    order = list(range(len(rows)))
    random.shuffle(order)
    assert duplicates_by_id([ids[k] for k in order], rows[order], DEFAULT) == found
