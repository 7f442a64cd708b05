"""Instructions: one constant, and as many patterns as the grammar says, each with its number."""

import re

import numpy as np
import pytest

from jaxtbpr.captioning import instructions
from jaxtbpr.captioning.instructions import PATTERNS, draw, pattern
from jaxtbpr.core.seeds import rng

NUMBERS = np.random.default_rng(0).choice(PATTERNS, 3000, replace=False)


def test_there_are_more_than_two_hundred_thousand_patterns_and_all_differ():
    assert PATTERNS > 200_000
    assert len({pattern(int(number)) for number in NUMBERS}) == len(NUMBERS)
    assert pattern(0) != pattern(PATTERNS - 1)


def test_a_pattern_has_hair_and_clothes_always_and_no_slot_twice():
    for number in NUMBERS[:500]:
        slots = re.findall(r"\[(\w+)\]", pattern(int(number)))
        things = [slot for slot in slots if slot != "person"]
        assert {"hair", "top", "bottom"} < set(things)
        assert len(set(things)) == len(things)
        assert set(things) <= {"hair", "top", "bottom", "shoes", "bag", "accessory", "posture"}


def test_a_pattern_reads_as_one_or_two_sentences():
    for number in NUMBERS[:500]:
        text = pattern(int(number))
        assert re.fullmatch(r"[A-Z][^.]+(?:\. [A-Z\[][^.]+)?\.", text), text
        assert "  " not in text
        assert " ," not in text
        assert " a [person]" not in text or text.startswith(("With", "In", "Dressed"))


def test_what_is_drawn_depends_on_the_seed_alone_and_varies():
    drawn = [draw("variable", rng(0, "x", k)) for k in range(300)]
    assert drawn == [draw("variable", rng(0, "x", k)) for k in range(300)]
    assert len({number for _, number in drawn}) > 290
    for text, number in drawn[:20]:
        assert pattern(number) in text


@pytest.mark.parametrize("slot", ["shoes", "bag", "accessory", "posture"])
def test_each_thing_is_asked_for_often(slot):
    asked = [f"[{slot}]" in draw("variable", rng(1, k))[0] for k in range(300)]
    assert 0.4 < np.mean(asked) < 0.95


def test_the_constant_instruction_has_no_pattern():
    assert draw("constant", rng(0)) == (instructions.CONSTANT, None)
