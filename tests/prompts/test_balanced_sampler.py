"""Balanced drawing: even whatever is exchanged, and the same for the same seed."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtbpr.prompts.balanced_sampler import BalancedSampler
from jaxtbpr.prompts.descriptors import Entry

VALUES = tuple(Entry(letter) for letter in "abcde")


@given(st.integers(0, 40), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_counts_of_a_deck_differ_by_one_at_most(draws, seed):
    sampler = BalancedSampler(VALUES, seed, "test")
    counts = Counter(sampler.draw().say for _ in range(draws))
    assert max(counts.values(), default=0) - min(counts[v.say] for v in VALUES) <= 1


@given(st.lists(st.integers(0, 4), min_size=10, max_size=10), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_exchanged_cards_come_back_in_the_same_round(exchanges, seed):
    sampler = BalancedSampler(VALUES, seed, "test")
    kept = []
    for wanted in exchanges:
        value = sampler.draw()
        for number, other in enumerate(sampler.alternatives(value)):
            value = other
            if number == wanted:
                break
        kept.append(value.say)
    assert sorted(kept) == sorted("abcde" * 2)


def test_the_seed_and_the_names_decide_the_order():
    def order(*names):
        sampler = BalancedSampler(VALUES, *names)
        return [sampler.draw().say for _ in range(20)]

    assert order(0, "a") == order(0, "a")
    assert order(0, "a") != order(1, "a")
    assert order(0, "a") != order(0, "b")


def test_a_card_put_back_is_dealt_last():
    sampler = BalancedSampler(VALUES, 0, "test")
    first = sampler.draw()
    sampler.put_back(first)
    assert [sampler.draw() for _ in VALUES][-1] == first
