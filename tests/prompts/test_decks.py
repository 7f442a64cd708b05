"""Balanced drawing: even whatever is exchanged, and the same for the same seed."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtbpr.prompts.decks import Deck
from jaxtbpr.prompts.descriptors import Entry

VALUES = tuple(Entry(letter) for letter in "abcde")


@given(st.integers(0, 40), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_counts_of_a_deck_differ_by_one_at_most(draws, seed):
    deck = Deck(VALUES, seed, "test")
    counts = Counter(deck.draw().say for _ in range(draws))
    assert max(counts.values(), default=0) - min(counts[v.say] for v in VALUES) <= 1


@given(st.lists(st.integers(0, 4), min_size=10, max_size=10), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_exchanged_cards_come_back_in_the_same_round(exchanges, seed):
    deck = Deck(VALUES, seed, "test")
    kept = []
    for wanted in exchanges:
        card = deck.draw()
        for number, other in enumerate(deck.exchange(card)):
            card = other
            if number == wanted:
                break
        kept.append(card.say)
    assert sorted(kept) == sorted("abcde" * 2)


def test_the_seed_and_the_names_decide_the_order():
    def order(*names):
        deck = Deck(VALUES, *names)
        return [deck.draw().say for _ in range(20)]

    assert order(0, "a") == order(0, "a")
    assert order(0, "a") != order(1, "a")
    assert order(0, "a") != order(0, "b")


def test_a_card_put_back_is_dealt_last():
    deck = Deck(VALUES, 0, "test")
    first = deck.draw()
    deck.put_back(first)
    assert [deck.draw() for _ in VALUES][-1] == first
