"""Reads a caption back: which garment, colour and so on it names, by its words alone."""

import re

from jaxtbpr.captioning import vocabulary

_THINGS = ("upper", "lower", "shoes", "bag", "hat", "eyewear", "item")
_WORN = ("upper_colour", "upper_pattern", "sleeves")


def _nouns():
    """{noun: (slot, value)}; "long {} skirt" is read by `_read_skirt`."""
    found = {}
    for slot in _THINGS:
        for value, forms in vocabulary.NOUNS[slot].items():
            for form in forms:
                noun = form.split("{}")[-1].removeprefix("a ").strip()
                found[noun] = (slot, value)
    return found | {"skirt": ("lower", "skirt")}


def _adjectives():
    """{adjective: kind of slot}; colour words have the same values in all slots."""
    found = {}
    for slot in _WORN:
        kind = "colour" if slot.endswith("colour") else slot
        for value, forms in vocabulary.ADJECTIVES[slot].items():
            found |= {form: (kind, value) for form in forms if not form.startswith("with ")}
    return found


def _alternatives(phrases):
    return "|".join(re.escape(p) for p in sorted(phrases, key=len, reverse=True))


NOUNS, ADJECTIVES = _nouns(), _adjectives()
_THING = re.compile(
    rf"(?P<adjectives>(?:(?:long|{_alternatives(ADJECTIVES)}) )*)(?<![\w-])"
    rf"(?P<noun>{_alternatives(NOUNS)})(?P<behind>(?: with (?:stripes|dots|a print|a picture))?)"
    r"(?![\w-])"
)
_HAIR_COLOURS = {f: v for v, forms in vocabulary.ADJECTIVES["hair_colour"].items() for f in forms}
_HAIR = re.compile(
    rf"(?:(?P<colour>{_alternatives(_HAIR_COLOURS)}) )?(?:(?:short|long|curly) )?"
    r"\b(?:hair|ponytail|curls)\b"
)
_STYLES = {
    "short": r"\bshort (?:\w+ )?hair", "long": r"\blong (?:\w+ )?hair", "ponytail": "ponytail",
    "bun": r"\bbun\b", "curly": r"\bcurl", "bald": r"\b(?:bald|shaved)\b",
}  # fmt: skip
_BEHIND = {
    " with stripes": "striped", " with dots": "dotted", " with a print": "printed",
    " with a picture": "printed",
}  # fmt: skip
_SEXES = {
    "female": r"\b(?:woman|lady|female|girl|she|her)\b",
    "male": r"\b(?:man|gentleman|male|boy|he|his)\b",
}


def read(text):
    """Returns {slot: value} of the sex, hair, garments, things and colours that `text` names."""
    facts = {}
    for sex, pattern in _SEXES.items():
        if re.search(pattern, text, re.IGNORECASE):
            _add(facts, "sex", sex)
    for style, pattern in _STYLES.items():
        if re.search(pattern, text):
            _add(facts, "hair", style)
    for match in _HAIR.finditer(text):
        if match["colour"]:
            _add(facts, "hair_colour", _HAIR_COLOURS[match["colour"]])
    for match in _THING.finditer(text):
        _read_thing(match, facts)
    return facts


def _read_thing(match, facts):
    slot, value = NOUNS[match["noun"]]
    adjectives = match["adjectives"].split()
    if value == "skirt" and "long" in adjectives:
        value = "long skirt"
    if value:
        _add(facts, slot, value)
    for word in adjectives:
        kind, meaning = ADJECTIVES.get(word, ("long", None))
        if meaning:
            _add(facts, f"{slot}_colour" if kind == "colour" else kind, meaning)
    if match["behind"]:
        _add(facts, "upper_pattern", _BEHIND[match["behind"]])


def _add(facts, slot, value):
    if facts.setdefault(slot, value) != value:
        raise ValueError(f"the caption names {slot} both {facts[slot]!r} and {value!r}")
