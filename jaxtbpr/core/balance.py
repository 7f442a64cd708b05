"""How even the counts of things are."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any


def balance(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, Any]]:
    """Returns {slot: {"values", "entropy", "min", "max"}} of {slot: counts of its values}.

    values: how many were counted; entropy: see `evenness`; min, max: counts of one value.
    """
    return {
        slot: {
            "values": len(numbers),
            "entropy": round(evenness(numbers), 4),
            "min": min(numbers.values()),
            "max": max(numbers.values()),
        }
        for slot, numbers in counts.items()
    }


def evenness(counts: Counter[str], values: int = 0) -> float:
    """Returns the normalised entropy of `counts`: 1 where all are equal, 0 for one value only.

    values: how many values there are, where some may never have been drawn.
    """
    total, kinds = sum(counts.values()), max(values, len(counts))
    if kinds < 2 or not total:
        return 1.0
    fractions = [count / total for count in counts.values() if count]
    return -sum(p * math.log(p) for p in fractions) / math.log(kinds) + 0.0
