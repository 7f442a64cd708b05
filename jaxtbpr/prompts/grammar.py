"""Engine `grammar`: rough prompts enriched by a grammar, where the paper uses a language model.

SynTBPR (arXiv:2503.22171) has four rough templates: appearance, profession, location and state,
each a stub of a few words, which a language model expands to a rich description. Here a grammar
does so, over the same descriptors: the words of the stub always stay, everything else (clothes and
colours, place, light, camera) is drawn to match. A record keeps both texts.

Engine `llm` passes the same `rough` stubs to a language model, in place of `write`.
"""

from collections.abc import Iterator, Sequence

from jaxtbpr.core.english import agree_articles, enumerate_phrases
from jaxtbpr.prompts import plain
from jaxtbpr.prompts.clauses import Clause
from jaxtbpr.prompts.descriptors import Entry, Vocabulary, spell
from jaxtbpr.prompts.drawing import Writer, descriptors
from jaxtbpr.prompts.plain import modified

Chosen = dict[str, Entry]

_NOUN = {"female": "woman", "male": "man"}
# The order in which clauses are dropped from a text that is too long.
_DROP = {"camera": 1, "light": 2, "around": 3, "item": 4, "hair": 5, "place": 6}
_ROUGH = {  # the clauses that hold the words of a stub
    "appearance": {"hair", "item"},
    "profession": set(),
    "location": {"place"},
    "state": set(),
}


def writer(subject: str = "") -> Writer:
    """Returns the engine's writer. subject: "sks person", or "" for any person."""
    return Writer(slots, lambda chosen: write(chosen, subject), fields)


def with_choices(vocabulary: Vocabulary, kinds: Sequence[str], subject: str = "") -> Vocabulary:
    """Returns `vocabulary` with the slots that only the grammar has.

    kinds: of rough prompts, equally often, "plain" (which stays as it is) among them.
    """
    frames = [frame for frame in _ORDERS if not (subject and frame == "scene")]
    choices = {"kind": kinds, "frame": frames}
    added = {slot: tuple(map(Entry, values)) for slot, values in choices.items()}
    return Vocabulary(vocabulary.entries | added)


def slots(chosen: Chosen) -> Iterator[str]:
    """Yields the slots of a prompt; what is drawn first decides what else there is."""
    yield "kind"
    kind = chosen["kind"].say
    if kind == "plain":
        yield from plain.slots(chosen)
        return
    yield from ("gender", "age")
    yield from {
        "profession": ("profession", "wears", "holds", "at"),
        "state": ("state", "at"),
    }.get(kind, ("location", "around"))
    is_dressed = "wears" in chosen and bool(chosen["wears"].say)
    yield from (("space",) if is_dressed else ("occasion", "space"))
    yield from ("build", "hair")
    if "{colour}" in chosen["hair"].say:
        yield "hair_colour"
    yield from (() if is_dressed else _garments(chosen))
    if any("{colour}" in chosen[slot].say for slot in ("wears", "item") if slot in chosen):
        yield "colour"
    if kind in ("appearance", "location"):
        yield "posture"
    yield from ("light", "camera", "picture", "frame")


def fields(chosen: Chosen) -> dict:
    """Returns what the record of a prompt holds besides its text."""
    drawn = descriptors(chosen)
    kind = drawn.pop("kind")
    stub = {} if kind == "plain" else {"rough_prompt": rough(chosen)}
    return {"prompt_kind": kind} | stub | {"descriptors": drawn}


def rough(chosen: Chosen) -> str:
    """Returns the stub that the rich text was made from, for example "woman, in a library"."""
    say = {slot: spell(entry.say) for slot, entry in chosen.items()}
    details = {
        "appearance": ("hair", "upper", "lower", "shoes", "item"),
        "profession": ("profession",),
        "location": ("location",),
        "state": ("state",),
    }[say["kind"]]
    words = [_noun(say["gender"]), *(say[slot] for slot in details)]
    return agree_articles(", ".join(filter(None, words)))


def write(chosen: Chosen, subject: str = "") -> list[Clause]:
    """Returns the clauses of the rich text, whose optional ones may be dropped."""
    if chosen["kind"].say == "plain":
        return plain.write(chosen, subject)
    kind = chosen["kind"].say
    parts = _parts(chosen, subject)
    drop = {name: 0 if name in _ROUGH[kind] else rank for name, rank in _DROP.items()}
    ordered = [*_ORDERS[chosen["frame"].say](parts), ("stop", ".", "")]
    return [
        Clause(agree_articles(words), name, drop.get(name, 0), joint)
        for name, words, joint in ordered
    ]


def _garments(chosen: Chosen) -> Iterator[str]:
    yield from ("upper", "pattern", "sleeves", "upper_colour", "lower")
    if chosen["lower"].say:
        yield from ("cut", "lower_colour")
    yield from ("shoes", "shoes_colour", "item")


def _parts(chosen: Chosen, subject: str) -> dict[str, str]:
    """The words for each part of the text: {name of its clause: words, "" for none}."""
    say = {slot: entry.say for slot, entry in chosen.items()}
    holds = say.get("holds", "")
    is_act = holds.split(" ")[0].endswith("ing")
    item, worn = ("" if is_act else holds), []
    if "item" in chosen:
        phrase = spell(say["item"], say.get("colour", ""))
        is_worn = chosen["item"].verb == "wearing"
        item, worn = ("", [phrase]) if is_worn else (f"{chosen['item'].verb} {phrase}", [])
    hair = spell(say["hair"], say.get("hair_colour", ""))
    return {
        "picture": say["picture"],
        "person": _person(say, subject),
        "hair": f"with {hair}" if hair else "",
        "clothes": f"wearing {enumerate_phrases([*_clothes(chosen, say), *filter(None, worn)])}",
        "item": item,
        "doing": say.get("state") or say.get("posture") or (holds if is_act else ""),
        "place": say.get("at") or say.get("location", ""),
        "around": say.get("around", ""),
        "light": say["light"],
        "camera": say["camera"],
    }


def _person(say: dict[str, str], subject: str) -> str:
    looks = ["a", say["build"], say["age"]]
    profession = say.get("profession", "")
    if subject:
        looks += [say["gender"], subject, f"working as a {profession}" if profession else ""]
    else:
        looks += [say["gender"], profession] if profession else [_noun(say["gender"])]
    return " ".join(filter(None, looks))


def _clothes(chosen: Chosen, say: dict[str, str]) -> list[str]:
    if say.get("wears"):
        return [spell(say["wears"], say.get("colour", ""))]
    # The sleeves of a garment that allows only one kind are not mentioned.
    is_open = len(dict(chosen["upper"].then).get("sleeves", "12")) > 1
    sleeves = f"{say['sleeves']}-sleeved" if is_open and say["sleeves"] else ""
    worn = [
        modified(say["upper"], sleeves, say["pattern"], say["upper_colour"]),
        modified(say["lower"], say.get("cut", ""), say.get("lower_colour", "")),
        modified(say["shoes"], say["shoes_colour"]),
    ]
    return [phrase for phrase in worn if phrase]


# Each order yields (name of the clause, words, what stands before it).
Order = list[tuple[str, str, str]]


def _looks(parts: dict[str, str]) -> Order:
    """A photo of a woman with long hair, wearing a coat, carrying a bag, walking in a park, ..."""
    return [
        ("person", f"{parts['picture']} {parts['person']}", ""),
        ("hair", parts["hair"], " "),
        ("clothes", parts["clothes"], ", "),
        ("item", parts["item"], ", "),
        ("doing", parts["doing"], ", "),
        ("place", parts["place"], " " if parts["doing"] else ", "),
        *_setting(parts),
    ]


def _doing(parts: dict[str, str]) -> Order:
    """A photo of a woman walking in a park, with long hair, wearing a coat, carrying a bag, ..."""
    return [
        ("person", f"{parts['picture']} {parts['person']}", ""),
        ("doing", parts["doing"], " "),
        ("place", parts["place"], " "),
        ("hair", parts["hair"], ", "),
        ("clothes", parts["clothes"], ", "),
        ("item", parts["item"], ", "),
        *_setting(parts),
    ]


def _sentence(parts: dict[str, str]) -> Order:
    """A woman with long hair is walking in a park, wearing a coat, carrying a bag. ..."""
    around, light, camera = _setting(parts)
    return [
        ("person", parts["person"], ""),
        ("hair", parts["hair"], " "),
        ("doing", f"is {parts['doing'] or 'at work'}", " "),
        ("place", parts["place"], " "),
        ("clothes", parts["clothes"], ", "),
        ("item", parts["item"], ", "),
        (*camera[:2], ". "),
        light,
        around,
    ]


def _scene(parts: dict[str, str]) -> Order:
    """In a park, a woman with long hair is walking, wearing a coat, carrying a bag, ..."""
    return [
        ("place", parts["place"], ""),
        ("person", parts["person"], ", "),
        ("hair", parts["hair"], " "),
        ("doing", f"is {parts['doing'] or 'at work'}", " "),
        ("clothes", parts["clothes"], ", "),
        ("item", parts["item"], ", "),
        *_setting(parts),
    ]


def _setting(parts: dict[str, str]) -> Order:
    return [(name, parts[name], ", ") for name in ("around", "light", "camera")]


def _noun(gender: str) -> str:
    return _NOUN.get(gender, f"{gender} person")


# In "scene" the place comes first, hence not with a subject token: that must stand in the first
# clause.
_ORDERS = {"looks": _looks, "doing": _doing, "sentence": _sentence, "scene": _scene}
