"""Balanced, distinct, consistent prompts, for all engines that draw descriptors.

A prompt's descriptors are drawn (see `balanced_sampler`). While an earlier prompt has the same,
they belong to another split, or the text breaks a rule, single values are exchanged, then all drawn
again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jaxtbpr.core.errors import InputError
from jaxtbpr.prompts import rules
from jaxtbpr.prompts.balanced_sampler import BalancedSampler, PersonSampler
from jaxtbpr.prompts.clauses import Clause, Fitted, Ruler
from jaxtbpr.prompts.descriptors import Entry, Vocabulary
from jaxtbpr.prompts.template import owner

_MAX_DRAWS = 200
_MAX_FAULTS = 20  # of one person: then no single value is to blame, and all are drawn again
# Choices of wording: two prompts that differ in nothing else are the same prompt.
_WORDING = ("picture", "frame")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt of an engine.

    text: fitted to the text encoder; fields: further fields of its records; redrawn: draws rejected
    because an earlier prompt is the same.
    """

    text: Fitted
    fields: dict[str, Any]
    redrawn: int = 0


@dataclasses.dataclass(frozen=True)
class Writer:
    """How an engine makes prompts of descriptors.

    slots: those that a person has, by the ones drawn so far (a generator may look at them as they
    come); write: {slot: entry} -> clauses; fields: {slot: entry} -> fields of the record.
    """

    slots: Callable[[dict[str, Entry]], Iterable[str]]
    write: Callable[[dict[str, Entry]], Sequence[Clause]]
    fields: Callable[[dict[str, Entry]], dict[str, Any]]


def draw_prompts(
    writer: Writer, vocabulary: Vocabulary, ruler: Ruler, seed: int, split: str, count: int
) -> Iterator[Prompt]:
    """Yields `count` prompts of a split, no two of them alike.

    Prompt k depends on the seed, the split, the vocabulary and k, not on `count`. A set of
    descriptors belongs to one split for good, so that test prompts are unseen in training. Keeps
    16 bytes for each prompt, and as many for its text. Raises InputError when the vocabulary runs
    out.
    """
    sampler = PersonSampler(vocabulary, seed, split, writer.slots)
    seen: set[bytes] = set()
    for number in range(count):
        made = _draw(sampler, writer, ruler, split, seen)
        if made is None:
            raise InputError(
                f"{split}={count} asks for more prompts than the vocabulary allows: "
                f"{number} were made, then {_MAX_DRAWS} draws gave none that is new and repeats no "
                "word; ask for fewer, or extend the vocabulary."
            )
        yield made


def descriptors(chosen: dict[str, Entry]) -> dict[str, str]:
    """Returns {slot: words} of what was drawn, "" where nothing is said; wording left out."""
    return {slot: entry.say for slot, entry in chosen.items() if slot not in _WORDING}


def _draw(
    sampler: PersonSampler, writer: Writer, ruler: Ruler, split: str, seen: set[bytes]
) -> Prompt | None:
    """Draws until a prompt is accepted; rejected values go back to the samplers."""
    rejected: list[tuple[dict[str, Entry], dict[str, BalancedSampler]]] = []
    redrawn, prompt = 0, None
    while prompt is None and len(rejected) < _MAX_DRAWS:
        chosen, samplers = sampler.draw()
        prompt, repeats = _choose(sampler, chosen, samplers, writer, ruler, split, seen)
        redrawn += repeats
        if prompt is None:
            rejected.append((chosen, samplers))
    for chosen, samplers in rejected:
        for slot, value_sampler in samplers.items():
            value_sampler.put_back(chosen[slot])
    return dataclasses.replace(prompt, redrawn=redrawn) if prompt else None


def _choose(
    sampler: PersonSampler,
    chosen: dict[str, Entry],
    samplers: dict[str, BalancedSampler],
    writer: Writer,
    ruler: Ruler,
    split: str,
    seen: set[bytes],
) -> tuple[Prompt | None, int]:
    """Returns the first new and consistent prompt, and how many equalled an earlier one."""
    repeats = faults = 0
    for _ in sampler.variants(chosen, samplers):  # which changes `chosen`
        key = _digest(descriptors(chosen))
        if owner(key) != split:
            continue
        text = ruler.fit(writer.write(chosen))
        keys = {key, _digest(text.text)}
        if keys & seen:
            repeats += 1
        elif rules.problem(text.text, sampler.colours):
            faults += 1
        else:
            seen |= keys
            return Prompt(text, writer.fields(chosen)), repeats
        if faults == _MAX_FAULTS:
            break
    return None, repeats


def _digest(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
