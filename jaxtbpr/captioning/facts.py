"""The content of a caption: which attributes it mentions, and which of them wrongly.

People nearly always mention garments and their colours, often hair and shoes, and hardly ever the
scene. So do the captions of CUHK-PEDES and ICFG-PEDES, and SynTBPR's instruction asks for the same
(appearance, no surroundings, nothing that cannot be seen; arXiv:2503.22171).
"""

from collections.abc import Mapping

import numpy as np

from jaxtbpr.core.attributes import PERSON, SCENE, SLEEVES, hidden

Attributes = Mapping[str, str]

# The probability that a caption mentions a visible slot.
MENTION = {
    "sex": 0.95,
    "age": 0.35,
    "build": 0.15,
    "hair": 0.55,
    "hair_colour": 0.55,
    "upper": 0.97,
    "upper_colour": 0.97,
    "upper_pattern": 0.8,
    "sleeves": 0.3,
    "lower": 0.96,
    "lower_colour": 0.95,
    "shoes": 0.5,
    "shoes_colour": 0.6,
    "bag": 0.75,
    "bag_colour": 0.75,
    "hat": 0.7,
    "hat_colour": 0.7,
    "eyewear": 0.5,
    "item": 0.6,
    "item_colour": 0.75,
    "posture": 0.1,
    "view": 0.06,
    "background": 0.08,
    "weather": 0.04,
    "style": 0.0,  # of the picture; descriptions of people do not mention it
}

# Slots that are mentioned only together with this other slot.
_NEEDS = {"item_colour": "item"}
# Ordinary values are mentioned more rarely, by this factor.
_ORDINARY = {"upper_pattern": "plain", "build": "average", "weather": "clear", "style": "photo"}
_ORDINARY_FACTOR = 0.1
# Values of a slot that are not different to a reader.
_ALIKE = ({"skirt", "long skirt"}, {"left", "right"})


def visible(attributes: Attributes) -> list[str]:
    """Returns the slots that are present, visible in this view and have words."""
    out_of_sight = hidden(attributes)
    # Sleeves "none" are visible; any other "none" is not.
    return [
        slot
        for slot in MENTION
        if slot not in out_of_sight and (attributes[slot] != "none" or slot == "sleeves")
    ]


def rank(
    attributes: Attributes, rng: np.random.Generator, mention: Mapping[str, float]
) -> tuple[list[str], int]:
    """Returns the visible slots, the most likely first, and how many are mentioned.

    mention: {slot: probability}; a slot without one is never mentioned, not even to make a
    caption longer.
    """
    # A slot is named where u < p; u / p also tells which slot comes next and which goes first.
    draws = dict(zip(MENTION, rng.random(len(MENTION)), strict=True))
    chances = {slot: _chance(slot, attributes, mention) for slot in visible(attributes)}
    ratios = {slot: draws[slot] / p for slot, p in chances.items() if p > 0}
    slots = sorted(ratios, key=ratios.__getitem__)
    return slots, sum(ratio < 1 for ratio in ratios.values())


def misread(
    attributes: Attributes, rng: np.random.Generator, wrong: float, missing: float
) -> dict[str, str | None]:
    """Returns {visible slot: value as this writer sees it}; None where it is overlooked.

    wrong: probability that a slot is mistaken for another of its values; missing: probability that
    it is overlooked, which is drawn first.
    """
    slots = visible(attributes)
    seen: dict[str, str | None] = {}
    for slot, (miss, mistake, which) in zip(slots, rng.random((len(slots), 3)), strict=True):
        seen[slot] = attributes[slot]
        if miss < missing:
            seen[slot] = None
        elif mistake < wrong:
            others = _other_values(slot, attributes)
            seen[slot] = others[int(which * len(others))]
    return seen


def mentioned(slots: list[str], seen: Mapping[str, str | None]) -> dict[str, str]:
    """Returns {slot: value} that a writer who sees `seen` mentions of `slots`."""
    facts = {slot: value for slot in slots if (value := seen[slot]) is not None}
    return {slot: v for slot, v in facts.items() if _NEEDS.get(slot, slot) in facts}


def labels(facts: Mapping[str, str]) -> dict[str, str]:
    """Returns `facts` with one value for those that words do not distinguish: "right" is "left"."""
    is_side = facts.get("view") == "right"
    return {**facts, "view": "left"} if is_side else dict(facts)


def noise(
    slots: list[str], seen: Mapping[str, str | None], attributes: Attributes
) -> list[list[str | None]]:
    """Returns [slot, true value, stated value or None] for each slot that is wrong or missing."""
    return [
        [slot, attributes[slot], seen[slot]] for slot in slots if seen[slot] != attributes[slot]
    ]


def _chance(slot: str, attributes: Attributes, mention: Mapping[str, float]) -> float:
    value = attributes[slot]
    is_implied = slot == "sleeves" and len(SLEEVES[attributes["upper"]]) == 1
    is_ordinary = is_implied or _ORDINARY.get(slot) == value
    return mention.get(slot, 0.0) * (_ORDINARY_FACTOR if is_ordinary else 1.0)


def _other_values(slot: str, attributes: Attributes) -> list[str]:
    """The values that a slot may be mistaken for: those that mean something else."""
    true = attributes[slot]
    alike = next((values for values in _ALIKE if true in values), {true})
    # A dress replaces both garments, and a bald head has no hair colour.
    out_of_place = {"none", "bald"} | ({"dress"} if attributes["lower"] != "none" else set())
    values = {**PERSON, **SCENE}[slot]
    return [value for value in values if value not in alike | out_of_place]
