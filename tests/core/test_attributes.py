"""The attribute record: consistent, diverse, and clear about what is wrong."""

import collections
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtbpr.core import attributes, seeds
from jaxtbpr.core.attributes import COLOURS, PERSON, SCENE, check, normalise
from jaxtbpr.core.errors import InputError

PEOPLE = [attributes.sample_person(seeds.rng(0, "test", i)) for i in range(3000)]
ANYONE = st.fixed_dictionaries({slot: st.sampled_from(values) for slot, values in PERSON.items()})


def share(slot: str, value: str) -> float:
    return sum(person[slot] == value for person in PEOPLE) / len(PEOPLE)


def test_sampled_people_and_scenes_are_consistent():
    for i, person in enumerate(PEOPLE[:500]):
        check(person)
        check(person | attributes.sample_scene(seeds.rng(0, i)))


@given(ANYONE)
def test_normalise_makes_any_record_consistent_and_is_idempotent(record):
    once = normalise(record)
    check(once)
    assert normalise(once) == once


def test_normalise_leaves_its_argument_and_the_scene_alone():
    record = PEOPLE[0] | attributes.sample_scene(seeds.rng(1))
    before = dict(record)
    assert normalise(record | {"hat": "none"})["posture"] == record["posture"]
    assert record == before


@pytest.mark.parametrize(
    ("change", "slot", "value"),
    [
        ({"sex": "male", "upper": "dress"}, "upper", "shirt"),
        ({"sex": "male", "upper": "coat", "lower": "long skirt"}, "lower", "trousers"),
        ({"sex": "female", "hair": "bald"}, "hair", "short"),
        ({"sex": "male", "hair": "bald"}, "hair_colour", "none"),
        ({"sex": "female", "upper": "dress"}, "lower", "none"),
        ({"sex": "female", "upper": "dress"}, "lower_colour", "none"),
        ({"upper": "vest"}, "sleeves", "none"),
        ({"upper": "hoodie"}, "sleeves", "long"),
        ({"sex": "male", "upper": "shirt", "lower": "jeans", "lower_colour": "pink"},
         "lower_colour", "blue"),
        ({"item": "phone", "item_colour": "red"}, "item_colour", "none"),
        ({"bag": "none", "bag_colour": "red"}, "bag_colour", "none"),
        ({"bag": "suitcase", "bag_colour": "none"}, "bag_colour", "black"),
    ],
)  # fmt: skip
def test_the_rules_agree_slots(change, slot, value):
    assert normalise(PEOPLE[0] | change)[slot] == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shoe": "boots"}, "slot 'shoe'"),
        ({"upper": "toga"}, "upper='toga'; it must be one of ['t-shirt'"),
        ({"bag": "none", "bag_colour": "red"}, "bag_colour='red', which does not go"),
    ],
)
def test_check_names_slot_and_value(change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check(PEOPLE[0] | change)


def test_check_wants_every_slot_of_a_scene_that_it_is_given():
    with pytest.raises(InputError, match="weather=None"):
        check(PEOPLE[0] | {"background": "park"})


def test_every_value_is_drawn():
    scenes = [attributes.sample_scene(seeds.rng(0, "scene", i)) for i in range(1000)]
    for slots, records in ((PERSON, PEOPLE), (SCENE, scenes)):
        for slot, values in slots.items():
            assert {record[slot] for record in records} == set(values)


def test_about_half_carry_a_bag_and_a_third_wear_a_hat():
    assert 0.5 < 1 - share("bag", "none") < 0.7
    assert 0.3 < 1 - share("hat", "none") < 0.45


def test_garment_colours_are_near_uniform():
    for colour in COLOURS:
        assert 0.06 < share("upper_colour", colour) < 0.11
        assert 0.06 < share("shoes_colour", colour) < 0.11


def test_upper_and_lower_colours_are_independent():
    pairs = collections.Counter(
        (p["upper_colour"], p["lower_colour"])
        for p in PEOPLE
        if p["lower"] not in ("none", "jeans")
    )
    table = np.array([[pairs[upper, lower] for lower in COLOURS] for upper in COLOURS], float)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert chi2 < 121 + 4 * np.sqrt(2 * 121)  # (12 - 1)^2 degrees of freedom, four deviations


def test_a_short_description_tells_nearly_all_people_apart():
    slots = ("sex", "upper", "upper_colour", "lower", "lower_colour", "shoes_colour", "bag")
    described = collections.Counter(tuple(p[slot] for slot in slots) for p in PEOPLE[:1500])
    assert sum(n == 1 for n in described.values()) > 0.95 * 1500
