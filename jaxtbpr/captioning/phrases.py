"""Noun phrases and verb phrases of a caption: the lower half of the grammar.

Each function takes `facts`, {slot: value} of the mentioned attributes, and skips slots that are not
in it. Articles are all "a"; `core.english.agree_articles` turns them into "an".
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxtbpr.captioning import vocabulary
from jaxtbpr.captioning.vocabulary import pick

Facts = Mapping[str, str]

_PLURAL_GARMENTS = ("lower", "shoes", "eyewear")


@dataclasses.dataclass(frozen=True)
class Subject:
    """The person: "woman", "slim young woman" (no article), and the pronouns.

    they: "she", "he" or "the person", since a verb in the singular follows; their: "their".
    """

    noun: str
    full: str
    they: str
    their: str


def subject(facts: Facts, rng: np.random.Generator) -> Subject:
    """Returns the words for the person, by sex, age and build."""
    sex, age = facts.get("sex"), facts.get("age")
    noun = pick(vocabulary.SUBJECTS[sex], rng)
    adjectives = [pick(vocabulary.ADJECTIVES["age"][age], rng)] if age else []
    if age == "young" and sex and rng.random() < 0.2:
        adjectives, noun = [], vocabulary.GIRL_OR_BOY[sex]
    behind = ""
    if "build" in facts:
        build = pick(vocabulary.BUILD[facts["build"]], rng)
        if build.startswith("of "):
            behind = " " + build
        else:
            adjectives.insert(0, build)
    they, their = vocabulary.PRONOUNS.get(sex or "", (f"the {noun}", "their"))
    return Subject(noun, " ".join([*adjectives, noun]) + behind, they, their)


def hair(facts: Facts, their: str, rng: np.random.Generator) -> list[str]:
    """Returns [] or one phrase like "long black hair"."""
    phrases = thing("hair", facts, rng)
    # Without a colour: "has her hair in a bun", since "has hair in a bun" tells nothing.
    return [f"{their} {p}" if p.startswith("hair ") else p for p in phrases]


def thing(slot: str, facts: Facts, rng: np.random.Generator) -> list[str]:
    """Returns [] or one phrase for a garment, a bag or the like: "a striped red sweater"."""
    adjectives = _adjectives(slot, facts, rng)
    forms = vocabulary.NOUNS[slot].get(facts.get(slot))
    if forms is None or not (adjectives or slot in facts):
        return []
    behind = [a for a in adjectives if a.startswith("with ")]
    before = [a for a in adjectives if not a.startswith("with ")]
    phrase = " ".join(pick(forms, rng).replace("{}", " ".join(before)).split())
    is_plural = slot in _PLURAL_GARMENTS and not phrase.startswith("a ")
    if is_plural and rng.random() < 0.2:
        phrase = "a pair of " + phrase
    return [" ".join([phrase, *behind])]


def carried(facts: Facts, their: str, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Returns (verb, phrase) of the bag, the umbrella and the phone that are named."""
    phrases = [("bag", phrase) for phrase in thing("bag", facts, rng)]
    if facts.get("item") in ("umbrella", "phone"):
        phrases += [("item", phrase) for phrase in thing("item", facts, rng)]
    out = []
    for slot, phrase in phrases:
        verbs, places = vocabulary.CARRIED[facts.get(slot)]
        place = pick(places, rng).format(their=their) if len(phrases) == 1 else ""
        out.append((pick(verbs, rng), f"{phrase} {place}".strip()))
    return out


def scene(facts: Facts, their: str, rng: np.random.Generator) -> list[str]:
    """Returns participles: "walking in a park", "seen from behind", "painted in oil"."""
    posture = _forms(vocabulary.POSTURE, "posture", facts, rng)
    where = _forms(vocabulary.PLACE, "background", facts, rng)
    where += _forms(vocabulary.WEATHER, "weather", facts, rng)
    seen = _forms(vocabulary.VIEW, "view", facts, rng)
    first = posture or seen or (["seen"] if where else [])
    whole = [" ".join([*first, *where])] if first else []
    style = _forms(vocabulary.STYLE, "style", facts, rng)
    return [p.format(their=their) for p in whole + (seen if posture else []) + style]


def _adjectives(slot: str, facts: Facts, rng: np.random.Generator) -> list[str]:
    """The adjectives of a thing in a natural order; those with "with" go behind the noun."""
    of_slot = ["upper_pattern", "upper_colour"] if slot == "upper" else [f"{slot}_colour"]
    if rng.random() < 0.3:
        of_slot.reverse()
    if slot == "upper":
        of_slot.insert(0, "sleeves")
    return [pick(vocabulary.ADJECTIVES[s][facts[s]], rng) for s in of_slot if s in facts]


def _forms(table: Mapping, slot: str, facts: Facts, rng: np.random.Generator) -> list[str]:
    return [pick(table[facts[slot]], rng)] if slot in facts else []
