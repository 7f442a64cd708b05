"""Pairs are weighed by the loss of the caption that training gives them."""

import types

import numpy as np
import pytest
from etils import epath

from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.evaluation.embed import Features
from jaxtbpr.retrieval.training.pair_weights import PairWeights

PEOPLE = 64
PARAMS = {"logit_scale": np.float32(3.0)}


class KnowsEverybody:
    """An embedder for which every person is a direction of its own."""

    def features(self, params, one):
        person = np.eye(PEOPLE, dtype=np.float32)
        return Features(images=person, captions=person, image_of_caption=np.arange(PEOPLE))


class Pairs(types.SimpleNamespace):
    def __len__(self):
        return PEOPLE


def make_weights(directory, kind):
    """Of 64 pairs, one per person, the first 16 of which have each other's captions."""
    given = np.arange(PEOPLE)
    given[:16] = np.roll(given[:16], 1)
    pairs = Pairs(
        caption_of_pair=given,
        image_of_pair=np.arange(PEOPLE),
        identity_of_pair=np.arange(PEOPLE),
        batch_size=PEOPLE,
        seed=0,
    )
    return PairWeights(kind, 1, epath.Path(directory), KnowsEverybody(), [None], pairs)


@pytest.mark.parametrize("kind", ["mixture", "consensus"])
def test_exchanged_captions_lose_their_weight_and_a_later_process_knows(tmp_path, kind):
    weights = make_weights(tmp_path, kind)
    assert (weights.of(np.arange(PEOPLE)) == 1).all()
    weights.update(PARAMS, epoch=1)
    found = weights.of(np.arange(PEOPLE))
    assert found[:16].max() < 0.1
    assert found[16:].min() > 0.9
    again = make_weights(tmp_path, kind)
    again.restore(1)
    np.testing.assert_array_equal(again.of(np.arange(PEOPLE)), found)


def test_weights_wait_for_their_epoch(tmp_path):
    weights = make_weights(tmp_path, "mixture")
    weights.warmup_epochs = 2
    weights.update(PARAMS, epoch=1)
    assert (weights.of(np.arange(PEOPLE)) == 1).all()
    weights.update(PARAMS, epoch=2)
    assert weights.of(np.arange(16)).max() < 0.1


def test_lost_weights_are_named(tmp_path):
    with pytest.raises(
        InputError, match=r"epoch_0003.npz, which this run resumes from, is missing; .*--rerun"
    ):
        make_weights(tmp_path, "mixture").restore(3)
