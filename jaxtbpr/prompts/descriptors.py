"""Descriptor vocabularies: values of hair, garments, places and so on, read from JSON files.

A file is a JSON object {slot: entries}. An entry is a string, or an object:

  say      the words, with the article "a" where there is one; {colour}, in hair,
           item and wears, stands for a colour
  if       {slot: [values]}: the entry is for people whose earlier slots have these values
  set      {slot: [values]}: with this entry a later slot keeps to these values
  verb     of an item: what one does with it ("wearing", "carrying")
  wears, holds, at, around   words that belong to this profession, state or location alone

"" is a value that is not mentioned. `if` and `set` are the consistency rules: a skirt has
`"if": {"gender": ["female"]}`, a dress `"set": {"lower": [""]}`, so that no text has both. The
files in a user's folder replace those of the same name; SLOTS has the slots of each file.
The slots follow SynTBPR (arXiv:2503.22171); the words, the colours and the rules are ours.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError

PACKAGED = epath.Path(__file__).parent / "vocabulary"

SLOTS = {
    "appearance.json": (
        "gender", "age", "occasion", "build", "hair", "hair_colour", "upper", "pattern",
        "sleeves", "lower", "cut", "shoes", "item", "colour",
    ),
    "professions.json": ("profession",),
    "states.json": ("state",),
    "locations.json": ("location",),
    "scenes.json": ("space", "posture", "light", "camera", "picture"),
}  # fmt: skip
KINDS = ("appearance", "profession", "location", "state")

# Slots that use another slot's list, each balanced by itself.
_SAME_LIST: dict[str, str] = dict.fromkeys(
    ("upper_colour", "lower_colour", "shoes_colour"), "colour"
)
# Slots whose values are in the entry drawn for one of these slots.
DETAILS = {
    "wears": ("profession",),
    "holds": ("profession",),
    "at": ("profession", "state"),
    "around": ("location",),
}
# The order in which slots are drawn: `if` looks back, `set` looks ahead.
ORDER = (
    "kind", "gender", "age", "profession", "wears", "holds", "state", "at", "location", "around",
    "occasion", "space", "build", "hair", "hair_colour", "upper", "pattern", "sleeves",
    "upper_colour", "lower", "cut", "lower_colour", "shoes", "shoes_colour", "item", "colour",
    "posture", "light", "camera", "picture", "frame",
)  # fmt: skip


# Slots whose words may hold {colour}.
_COLOURED = ("hair", "item", "wears")
# Slots whose words decide which other slots there are: a colour only where {colour} is in them.
_SHAPING = {"kind", "wears", "holds", "hair", "item"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One value of a slot; see the head of this file. when: `if`; then: `set`."""

    say: str
    when: tuple[tuple[str, frozenset[str]], ...] = ()
    then: tuple[tuple[str, frozenset[str]], ...] = ()
    verb: str = "with"
    details: tuple[tuple[str, tuple[str, ...]], ...] = ()


Chosen = Mapping[str, Entry]  # {slot: what was drawn for it}


class Vocabulary:
    """The entries of all slots.

    entries: {slot: entries}; parents: the slots that others depend on; colours: the words of
    colours, which a text may have twice.
    """

    def __init__(self, entries: Mapping[str, tuple[Entry, ...]]):
        self.entries = dict(entries)
        self.parents = set(_SHAPING)
        for slot, slot_entries in self.entries.items():
            self.parents |= {slot for entry in slot_entries if entry.then or entry.details}
            self.parents |= {name for entry in slot_entries for name, _ in entry.when}
        named = itertools.chain(*(self.entries.get(slot, ()) for slot in ("colour", "hair_colour")))
        self.colours = {word for entry in named for word in entry.say.lower().split()}
        self._depends_on = self._dependencies()
        self._admissible: dict[tuple[str, ...], tuple[Entry, ...]] = {}

    def admissible(self, slot: str, chosen: Chosen) -> tuple[Entry, ...]:
        """Returns the entries of `slot` that go with what was drawn before it.

        A rule about a slot that was not drawn holds. Raises InputError where none is left.
        """
        if slot in DETAILS:
            return _details(slot, chosen)
        key = (
            slot,
            *(chosen[name].say if name in chosen else "-" for name in self._depends_on[slot]),
        )
        if key not in self._admissible:
            self._admissible[key] = self._choose(slot, chosen)
        return self._admissible[key]

    def _choose(self, slot: str, chosen: Chosen) -> tuple[Entry, ...]:
        kept = [values for entry in chosen.values() for name, values in entry.then if name == slot]
        entries = tuple(
            entry
            for entry in self.entries[_SAME_LIST.get(slot, slot)]
            if all(entry.say in values for values in kept) and _holds(entry, chosen)
        )
        if not entries:
            raise InputError(_nothing_left(slot, chosen))
        return entries

    def _dependencies(self) -> dict[str, tuple[str, ...]]:
        """The slots on which the entries that `slot` may take depend, {slot: names}."""
        depends_on: dict[str, set[str]] = {slot: set() for slot in (*self.entries, *_SAME_LIST)}
        for slot in depends_on:
            for entry in self.entries[_SAME_LIST.get(slot, slot)]:
                depends_on[slot] |= {name for name, _ in entry.when}
        for slot, slot_entries in self.entries.items():
            for name in {name for entry in slot_entries for name, _ in entry.then}:
                depends_on[name].add(slot)
        return {slot: tuple(sorted(names)) for slot, names in depends_on.items()}


def load(folder: str) -> Vocabulary:
    """Reads the packaged vocabulary; files of `folder` ("" = none) replace packaged ones.

    Raises InputError naming the file, the slot and the entry where something is wrong.
    """
    entries: dict[str, tuple[Entry, ...]] = {}
    origin = {}
    for name, path in paths(folder).items():
        table = files.read_json(path)
        _check_slots(table, name, path)
        for slot, values in table.items():
            entries[slot] = tuple(_entry(values, n, path, slot) for n in range(len(values)))
            origin[slot] = path
    for slot, values in entries.items():
        _check_rules(slot, values, entries, origin)
    return Vocabulary(entries)


def paths(folder: str) -> dict[str, epath.Path]:
    """Returns {file name: path}, those in `folder` before the packaged ones.

    Raises InputError where the folder is missing or has JSON files of other names.
    """
    user_files: dict[str, epath.Path] = {}
    if folder:
        place = epath.Path(folder).expanduser()
        if not place.is_dir():
            raise InputError(
                f"vocabulary={folder!r} is not a folder; give the folder of your "
                f"files ({', '.join(SLOTS)}), or '' for the packaged ones."
            )
        user_files = {path.name: path for path in place.iterdir() if path.suffix == ".json"}
        strange = sorted(user_files.keys() - SLOTS.keys())
        if strange or not user_files:
            raise InputError(
                f"{place / strange[0] if strange else place} "
                f"{'is not a' if strange else 'has no'} vocabulary file; name your files like the "
                f"packaged ones that they replace: {', '.join(SLOTS)}."
            )
    return {name: user_files.get(name, PACKAGED / name) for name in SLOTS}


def spell(words: str, colour: str = "") -> str:
    """Returns `words` with {colour} filled in, or left out where `colour` is ""."""
    return words.replace("{colour} ", f"{colour} " if colour else "").replace("{colour}", colour)


def _details(slot: str, chosen: Chosen) -> tuple[Entry, ...]:
    lists = (
        dict(chosen[parent].details).get(slot, ()) for parent in DETAILS[slot] if parent in chosen
    )
    return tuple(Entry(words) for words in itertools.chain(*lists)) or (Entry(""),)


def _holds(entry: Entry, chosen: Chosen) -> bool:
    return all(slot not in chosen or chosen[slot].say in values for slot, values in entry.when)


def _nothing_left(slot: str, chosen: Chosen) -> str:
    drawn = ", ".join(f"{name} {entry.say!r}" for name, entry in chosen.items() if entry.say)
    return (
        f"the prompt vocabulary has no {slot} that goes with {drawn}; relax an 'if' or 'set' of "
        f"{slot!r}, or add an entry for this case."
    )


def _check_slots(table: Any, name: str, path: epath.Path) -> None:
    if not isinstance(table, dict):
        raise InputError(f"{path} must be a JSON object {{slot: [entries]}}.")
    wrong = sorted(table.keys() ^ set(SLOTS[name]))
    if wrong:
        state = "has the slot" if wrong[0] in table else "lacks the slot"
        raise InputError(f"{path} {state} {wrong[0]!r}; its slots are {', '.join(SLOTS[name])}.")
    for slot, values in table.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{path}: {slot!r} must be a list with at least one entry.")


def _entry(fields: list, number: int, path: epath.Path, slot: str) -> Entry:
    value = fields[number]
    where = f"{path}: entry {number + 1} of {slot!r}"
    table = {"say": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not isinstance(table.get("say"), str):
        raise InputError(f"{where} is {value!r}; it must be a string, or an object with 'say'.")
    known = {"say", "if", "set", "verb", *DETAILS}
    for key in table.keys() - known:
        raise InputError(f"{where} has the key {key!r}; it may have {', '.join(sorted(known))}.")
    if not isinstance(table.get("verb", ""), str):
        raise InputError(f"{where} has verb {table['verb']!r}; it must be a string.")
    details = [(key, _strings(table[key], where, key)) for key in DETAILS if key in table]
    for key, words in [(slot, (table["say"],)), *details]:
        _refuse_braces(words, where, coloured=key in _COLOURED)
    return Entry(
        " ".join(table["say"].split()),
        when=_rule(table.get("if", {}), where, "if"),
        then=_rule(table.get("set", {}), where, "set"),
        verb=table.get("verb", "with"),
        details=tuple(details),
    )


def _refuse_braces(words: tuple[str, ...], where: str, *, coloured: bool) -> None:
    for text in words:
        left = text.replace("{colour}", "") if coloured else text
        if "{" in left or "}" in left:
            raise InputError(
                f"{where} says {text!r}; the only braces allowed are {{colour}}, in the words of "
                f"{', '.join(_COLOURED)}."
            )


def _rule(value: Any, where: str, key: str) -> tuple[tuple[str, frozenset[str]], ...]:
    if not isinstance(value, dict):
        raise InputError(f"{where} has {key} {value!r}; it must be an object {{slot: [values]}}.")
    rules = {slot: _strings(values, where, f"{key}.{slot}") for slot, values in value.items()}
    return tuple((slot, frozenset(values)) for slot, values in rules.items())


def _strings(value: Any, where: str, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise InputError(f"{where} has {key} {value!r}; it must be a list of strings, not empty.")
    return tuple(" ".join(v.split()) for v in value)


def _check_rules(
    slot: str,
    slot_entries: tuple[Entry, ...],
    entries: Mapping[str, tuple[Entry, ...]],
    origin: Mapping[str, epath.Path],
) -> None:
    """Checks that every `if` and `set` names a slot in the right order, and values that it has."""
    says = [entry.say for entry in slot_entries]
    for number, entry in enumerate(slot_entries, 1):
        where = f"{origin[slot]}: entry {number} of {slot!r}"
        if says.index(entry.say) != number - 1:
            raise InputError(f"{where} repeats {entry.say!r}; remove it.")
        for key, other, values in _rules(entry):
            known = _values(other, entries)
            is_late = other in ORDER and (ORDER.index(other) > ORDER.index(slot)) == (key == "if")
            if not known or is_late or other == slot:
                raise InputError(
                    f"{where} has {key} {other!r}; '{key}' takes a slot drawn "
                    f"{'before' if key == 'if' else 'after'} it, in the order {', '.join(ORDER)}."
                )
            for value in sorted(values - known):
                raise InputError(
                    f"{where} has {key} {other}={value!r}, which {other!r} of "
                    f"{origin.get(_SAME_LIST.get(other, other), 'the grammar')} does not have."
                )


def _rules(entry: Entry) -> Iterator[tuple[str, str, frozenset[str]]]:
    for key, rules in (("if", entry.when), ("set", entry.then)):
        for slot, values in rules:
            yield key, slot, values


def _values(slot: str, entries: Mapping[str, tuple[Entry, ...]]) -> frozenset[str]:
    if slot == "kind":
        return frozenset((*KINDS, "plain"))
    return frozenset(entry.say for entry in entries.get(_SAME_LIST.get(slot, slot), ()))
