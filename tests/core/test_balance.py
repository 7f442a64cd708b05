"""How even counts are."""

import math
from collections import Counter

from jaxtbpr.core.balance import evenness


def test_evenness_is_the_entropy_over_that_of_equal_shares():
    assert evenness(Counter(a=3, b=3)) == 1.0
    assert evenness(Counter(a=3), values=2) == 0.0
    assert evenness(Counter(a=5)) == evenness(Counter()) == 1.0
    two = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert math.isclose(evenness(Counter(a=3, b=1)), two)
    assert evenness(Counter(a=2, b=2), values=4) == 0.5
