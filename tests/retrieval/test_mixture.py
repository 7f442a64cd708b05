"""The mixture finds two humps, and its verdict finds captions that were exchanged."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.training import mixture


def two_humps(count=2000, wrong=0.3, seed=0):
    rng = np.random.default_rng(seed)
    is_wrong = rng.random(count) < wrong
    return np.where(is_wrong, rng.normal(5, 0.6, count), rng.normal(1, 0.4, count)), is_wrong


def test_the_mixture_finds_both_humps():
    values, is_wrong = two_humps()
    found = mixture.fit_mixture(values)
    np.testing.assert_allclose(found.means, [1, 5], atol=0.06)
    np.testing.assert_allclose(np.sqrt(found.variances), [0.4, 0.6], atol=0.05)
    np.testing.assert_allclose(found.weights, [1 - is_wrong.mean(), is_wrong.mean()], atol=0.01)


def test_wrong_pairs_are_told_from_their_losses():
    losses, is_wrong = two_humps()
    probability = mixture.clean_probability(losses)
    assert ((probability < 0.5) == is_wrong).mean() > 0.999
    assert probability.min() >= 0
    assert probability.max() <= 1


@hypothesis.given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50), st.floats(0.1, 10), st.floats(-5, 5)
)
def test_scale_and_shift_of_the_losses_change_nothing(values, scale, shift):
    losses = np.array(values)
    hypothesis.assume(np.ptp(losses) > 1e-3)
    expected = mixture.clean_probability(losses)
    assert np.isfinite(expected).all()
    found = mixture.clean_probability(scale * losses + shift)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_equal_losses_tell_nothing():
    assert (mixture.clean_probability(np.full(5, 2.0)) == 1).all()


def test_consensus_takes_what_both_say_and_flips_a_coin_for_the_rest():
    first = np.tile([0.9, 0.9, 0.1, 0.1], 1000)
    second = np.tile([0.8, 0.2, 0.7, 0.3], 1000)
    found = mixture.confident_consensus(first, second, np.random.default_rng(0)).reshape(-1, 4)
    assert (found[:, 0] == 1).all()
    assert (found[:, 3] == 0).all()
    np.testing.assert_allclose(found[:, 1:3].mean(axis=0), 0.5, atol=0.06)


def test_who_calls_everything_right_is_not_believed():
    probability = np.linspace(0.6, 1, 200)
    found = mixture.confident_consensus(probability, probability, np.random.default_rng(0))
    assert found.sum() == 198
    assert found[:2].tolist() == [0, 0]


def test_too_few_or_broken_losses_are_an_error():
    with pytest.raises(InputError, match="a mixture cannot be fitted to 1 losses"):
        mixture.fit_mixture(np.array([1.0]))
    with pytest.raises(InputError, match="all finite"):
        mixture.fit_mixture(np.array([1.0, np.nan]))
