"""Instructions for multimodal models: constant, or with a sentence pattern drawn per caption.

SynTBPR (arXiv:2503.22171) has both kinds, and gets better captions from variable instructions.
Its patterns are a list of 151; ours come from a grammar: which things are mentioned, in which
order, in how many sentences and by which phrases. Each pattern has a number, which the record of a
caption keeps. After LUPerson-MLLM (arXiv:2405.04940).
"""

import itertools
import math

import numpy as np

KINDS = ("constant", "variable")

CONSTANT = (
    "Describe the person in the image in one English sentence. Leave out the background. Tell "
    "the age and the sex, the upper garment, the lower garment, the hair, the shoes and what the "
    "person carries, with the colour and the kind of each. Leave out what cannot be seen, and "
    "answer with the sentence alone."
)
_VARIABLE = (
    "Describe the looks of the person in the image (clothes, shoes, hair, sex, belongings) in "
    "English, in the manner of this pattern:\n\n{pattern}\n\nPut what you see in place of the "
    "brackets, with colours and kinds. Leave out each bracket whose content cannot be seen, with "
    "the words that belong to it, and invent nothing. Speak neither of the picture nor of the "
    "surroundings, and answer with the description alone."
)

# The turns of phrase of each thing: right behind the subject, as a participle, as a predicate.
_FORMS = {
    "hair": (
        ("with [hair]",),
        ("with [hair]", "showing [hair]"),
        ("has [hair]", "shows [hair]"),
    ),
    "clothes": (
        ("in [top] and [bottom]", "dressed in [top] with [bottom]"),
        ("wearing [top] and [bottom]", "clad in [bottom] below [top]", "in [top] over [bottom]"),
        ("wears [top] with [bottom]", "is dressed in [top] and [bottom]", "has [top] on, [bottom]"),
    ),
    "shoes": (
        ("in [shoes]", "shod in [shoes]"),
        ("wearing [shoes]", "with [shoes] on the feet"),
        ("wears [shoes]", "has [shoes] on the feet"),
    ),
    "bag": (
        ("with [bag]", "with [bag] at hand"),
        ("carrying [bag]", "holding [bag]"),
        ("carries [bag]", "has [bag]", "is carrying [bag]"),
    ),
    "accessory": (
        ("with [accessory]",),
        ("wearing [accessory]", "adding [accessory]"),
        ("wears [accessory]", "is seen with [accessory]"),
    ),
    "posture": (
        ("who is [posture]",),
        ("[posture]",),
        ("is [posture]", "appears [posture]"),
    ),
}  # fmt: skip
_ALWAYS = ("hair", "clothes")
_MAYBE = ("shoes", "bag", "accessory", "posture")
_SUBJECTS = ("The [person]", "A [person]", "This [person]")
_BEHIND, _PARTICIPLE, _PREDICATE = range(3)


def _choices() -> list[tuple[tuple[str, ...], ...]]:
    """All skeletons, each a row of places with the turns of phrase that each place can have."""
    sentences = []
    for count in (1, 2, 3):
        for extra in itertools.combinations(_MAYBE, count):
            for order in itertools.permutations((*_ALWAYS, *extra)):
                sentences += [_one_sentence(order), _two_sentences(order)]
                if order[0] in ("hair", "clothes"):
                    sentences.append(_front(order))
    return sentences


def _one_sentence(order: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The [person] with [hair] wears [top] and [bottom], carrying [bag]."""
    first, second, *rest = order
    return (
        _SUBJECTS,
        _spaced(" ", first, _BEHIND),
        _spaced(" ", second, _PREDICATE),
        *(_spaced(", ", thing, _PARTICIPLE) for thing in rest),
        (".",),
    )


def _front(order: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """With [hair], the [person] wears [top] and [bottom], carrying [bag]."""
    first, second, *rest = order
    fronts = (form[0].upper() + form[1:] for form in _FORMS[first][_BEHIND])
    return (
        tuple(fronts),
        tuple(f", {subject[0].lower()}{subject[1:]}" for subject in _SUBJECTS),
        _spaced(" ", second, _PREDICATE),
        *(_spaced(", ", thing, _PARTICIPLE) for thing in rest),
        (".",),
    )


def _two_sentences(order: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The [person] has [hair], wearing [top] and [bottom]. [They] carries [bag]."""
    first, second, third, *rest = order
    return (
        _SUBJECTS,
        _spaced(" ", first, _PREDICATE),
        _spaced(", ", second, _PARTICIPLE),
        (". [She or he]", ". The same person"),
        _spaced(" ", third, _PREDICATE),
        *(_spaced(", ", thing, _PARTICIPLE) for thing in rest),
        (".",),
    )


def _spaced(before: str, thing: str, form: int) -> tuple[str, ...]:
    return tuple(before + words for words in _FORMS[thing][form])


_SKELETONS = _choices()
_ENDS = np.cumsum([math.prod(map(len, places)) for places in _SKELETONS])
PATTERNS = int(_ENDS[-1])


def pattern(number: int) -> str:
    """Returns sentence pattern `number`, of PATTERNS different ones."""
    which = int(np.searchsorted(_ENDS, number, side="right"))
    rest = number - int(_ENDS[which - 1] if which else 0)
    words = []
    for place in _SKELETONS[which]:
        rest, choice = divmod(rest, len(place))
        words.append(place[choice])
    return "".join(words)


def draw(instruction: str, rng: np.random.Generator) -> tuple[str, int | None]:
    """Returns an instruction and its pattern's number; kind "constant" has no pattern."""
    if instruction == "constant":
        return CONSTANT, None
    # A skeleton first, so that those with many turns of phrase are not all there is.
    which = int(rng.integers(len(_SKELETONS)))
    start = int(_ENDS[which - 1]) if which else 0
    number = int(rng.integers(start, _ENDS[which]))
    return _VARIABLE.format(pattern=pattern(number)), number
