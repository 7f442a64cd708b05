"""How even counts are."""

import math
from collections import Counter

from jaxtbpr.core.balance import balance, evenness


def test_evenness_is_the_entropy_over_that_of_equal_shares():
    assert evenness(Counter(a=3, b=3)) == 1.0
    assert evenness(Counter(a=3), values=2) == 0.0
    assert evenness(Counter(a=5)) == evenness(Counter()) == 1.0
    two = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert math.isclose(evenness(Counter(a=3, b=1)), two)
    assert evenness(Counter(a=2, b=2), values=4) == 0.5


def test_balance_counts_each_slot():
    found = balance({"hat": Counter(cap=3, none=3), "bag": Counter(none=5, backpack=1)})
    assert found["hat"] == {"values": 2, "entropy": 1.0, "min": 3, "max": 3}
    assert found["bag"] == {"values": 2, "entropy": 0.65, "min": 1, "max": 5}
