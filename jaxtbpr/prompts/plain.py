"""Engine `plain`: the plain template of SynTBPR over the descriptor vocabularies.

Its slots in its order (arXiv:2503.22171): age, gender, subject / hair / pattern, upper garment and
sleeves / adjective and lower garment / pair of shoes / extra item / camera; no colours, and no
language model afterwards. For a fine-tuned generator the subject is its token (`subject`).
"""

from collections.abc import Iterator
from typing import Any

from jaxtbpr.core.english import agree_articles
from jaxtbpr.prompts.clauses import Clause
from jaxtbpr.prompts.descriptors import Entry, spell
from jaxtbpr.prompts.drawing import Writer, descriptors


def writer(subject: str = "") -> Writer:
    """Returns the engine's writer. subject: "sks person", or "" for any person."""
    return Writer(
        slots,
        lambda chosen: write(chosen, subject),
        lambda chosen: {"prompt_kind": "plain"} | fields(chosen),
    )


def slots(chosen: dict[str, Entry]) -> Iterator[str]:
    """Yields the slots of a prompt; the occasion is not mentioned, but makes the garments match."""
    yield from ("gender", "age", "occasion", "hair", "upper", "pattern", "sleeves", "lower")
    if chosen["lower"].say:
        yield "cut"
    yield from ("shoes", "item", "camera")


def fields(chosen: dict[str, Entry]) -> dict[str, Any]:
    """Returns what the record of a prompt holds besides its text."""
    return {"descriptors": descriptors(chosen)}


def write(chosen: dict[str, Entry], subject: str = "") -> list[Clause]:
    """Returns the groups of the template; none is optional."""
    say = {slot: spell(entry.say) for slot, entry in chosen.items()}
    sleeves = f"{say['sleeves']} sleeves" if say["sleeves"] else ""
    upper = modified(say["upper"], say["pattern"]) + (f" with {sleeves}" if sleeves else "")
    groups = [
        f"a {say['age']} {say['gender']} {subject or 'person'}",
        say["hair"],
        upper,
        modified(say["lower"], say.get("cut", "")),
        f"a pair of {say['shoes']}",
        say["item"],
        say["camera"],
    ]
    return [Clause(agree_articles(" ".join(group.split()))) for group in groups]


def modified(thing: str, *words: str) -> str:
    """Returns `thing` with `words` before its noun: ("a coat", "red") gives "a red coat"."""
    article, blank, noun = thing.partition(" ")
    if article not in ("a", "an"):
        return " ".join([*filter(None, words), thing]) if thing else ""
    return blank.join(["a", *filter(None, words), noun])
