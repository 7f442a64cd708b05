"""Facts as numbers: the same value has the same number, and what is not known has its own."""

import numpy as np
import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import facts


class Named:
    """As much of a RetrievalSet as facts are read from."""

    def __init__(self, name, rows):
        self.name = name
        self.image_ids = [f"{name}-{n}" for n in range(len(rows))]
        self.captions = [("a caption",) * count for count, _ in rows]
        self.facts = [known for _, known in rows]


RED, BLUE = {"upper_colour": "red"}, {"upper_colour": "blue"}


def test_values_are_numbered_over_all_sets():
    one = Named("one", [(2, {"shown": RED | {"bag": "backpack"}, "mentioned": [RED, {}]})])
    other = Named("other", [(1, {"shown": BLUE, "mentioned": [BLUE]})])
    shown, said = facts.encode([one, other])
    bag, colour = 0, 1  # the slots in order
    assert shown.dtype == said.dtype == np.int32
    assert shown[1, bag] == facts.NOT_SHOWN
    assert (said[:, bag] == facts.NOT_MENTIONED).all()
    assert said[1, colour] == facts.NOT_MENTIONED
    assert said[0, colour] == shown[0, colour] != shown[1, colour] == said[2, colour]
    assert min(shown[0, bag], *shown[:, colour]) >= 0


def test_a_set_without_facts_is_refused():
    for rows in ([(1, None)], [(2, {"shown": RED, "mentioned": [RED]})]):
        with pytest.raises(InputError, match="image real-0 of set real has no facts for each"):
            facts.encode([Named("real", rows)])
