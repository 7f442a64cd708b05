"""Captions exchanged on purpose: as many as asked for, the same every time, and recorded."""

import numpy as np
import pytest
from etils import epath
from hypothesis import given, strategies

from jaxtbpr.core import tokenizer
from jaxtbpr.datasets import loader, noise
from jaxtbpr.datasets.source import RetrievalSet
from tests.datasets.sets import build_folder


@given(strategies.integers(0, 200), strategies.floats(0, 1), strategies.integers(0, 9))
def test_the_share_exchanges_and_nobody_in_it_keeps_its_own(pairs, share, seed):
    whose = noise.exchange(pairs, share, seed)
    assert sorted(whose) == list(range(pairs))
    exchanged = np.count_nonzero(whose != np.arange(pairs))
    asked = round(share * pairs)
    assert exchanged == (asked if asked > 1 else 0)
    assert (whose == noise.exchange(pairs, share, seed)).all()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    root = tmp_path_factory.mktemp("noise")
    build_folder(root, people=4)
    return RetrievalSet(root / "run" / "build" / "real", "train")


def texts_by_image(real, share, tmp_path):
    """Returns {image number: token rows} of one epoch in batches of 1."""
    captions = [text for captions in real.captions for text in captions]
    words = tokenizer.learn(captions, 300)
    options = {"image_size": (16, 8), "text_length": 64, "cache_mb": 0, "threads": 1}
    batches = loader.train_loader(
        [real], words, batch_size=1, seed=0, caption_noise=share, **options
    )
    batches.save_noise(epath.Path(tmp_path))
    found: dict[int, list] = {}
    for _ in captions:
        batch = next(batches)
        found.setdefault(int(batch["index"][0]), []).append(tuple(batch["tokens"][0].tolist()))
    batches.close()
    return {image: sorted(rows) for image, rows in found.items()}


def test_batches_have_the_exchanged_captions_and_the_index_says_which(real, tmp_path):
    clean, noisy = (texts_by_image(real, share, tmp_path) for share in (0.0, 0.5))
    count = sum(map(len, real.captions))
    with np.load(tmp_path / noise.INDEX) as index:
        assert len(index["pair"]) == round(0.5 * count)
        image_of_pair = np.repeat(np.arange(len(real)), [len(c) for c in real.captions])
        people = real.identities[image_of_pair]
        assert (index["wrong"] == (people[index["pair"]] != people[index["caption_of"]])).all()
        touched = set(image_of_pair[index["pair"]].tolist())
    changed = {image for image in clean if clean[image] != noisy[image]}
    assert changed
    assert changed <= touched
    everything = [
        sorted(row for rows in found.values() for row in rows) for found in (clean, noisy)
    ]
    assert everything[0] == everything[1]


def test_without_noise_there_is_no_index(real, tmp_path):
    texts_by_image(real, 0.0, tmp_path)
    assert not (tmp_path / noise.INDEX).exists()
