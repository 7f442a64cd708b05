"""Balanced sampling: each value of a slot is drawn once in a round, in shuffled order.

Independent draws would give counts that differ by chance, and rejecting duplicate prompts would
favour values with many combinations. Here the counts of one sampler's values differ by at most one,
however many are drawn: a rejected value is not thrown away, but exchanged for another one left in
the same round, or put back. A draw depends on the seed and the draws before it alone, so a run can
be repeated and a split extended.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from jaxtbpr.core.seeds import rng
from jaxtbpr.prompts.descriptors import Entry, Vocabulary


class BalancedSampler:
    """Draws `values` in shuffled rounds. names: of the random generator."""

    def __init__(self, values: Sequence[Entry], seed: int, *names: str | int):
        self._values = tuple(values)
        self._seed = seed
        self._names = names
        self._round = 0
        self._left: list[Entry] = []

    def draw(self) -> Entry:
        """Returns the next value; starts a new round where none is left."""
        if not self._left:
            order = rng(self._seed, *self._names, self._round).permutation(len(self._values))
            self._left = [self._values[k] for k in order]
            self._round += 1
        return self._left.pop()

    def alternatives(self, value: Entry) -> Iterator[Entry]:
        """Yields each other value left in this round, in exchange for the one before it.

        The caller keeps the value yielded last; the others, `value` among them, stay in the round.
        """
        for place in range(len(self._left)):
            self._left[place], value = value, self._left[place]
            yield value

    def put_back(self, value: Entry) -> None:
        """Returns `value` to the round, to be drawn last."""
        self._left.insert(0, value)


class PersonSampler:
    """Draws whole people from a vocabulary.

    seed, split: of the run; slots: which slots a person has, by those drawn so far.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        seed: int,
        split: str,
        slots: Callable[[dict[str, Entry]], Iterable[str]],
    ):
        self._vocabulary = vocabulary
        self._seed = seed
        self._split = split
        self._slots = slots
        self._samplers: dict[tuple[str, ...], BalancedSampler] = {}
        self.colours = vocabulary.colours

    def draw(self) -> tuple[dict[str, Entry], dict[str, BalancedSampler]]:
        """Returns {slot: entry} of one person, and {slot: sampler that drew it}."""
        chosen: dict[str, Entry] = {}
        samplers: dict[str, BalancedSampler] = {}
        for slot in self._slots(chosen):
            samplers[slot] = self._sampler(slot, self._vocabulary.admissible(slot, chosen))
            chosen[slot] = samplers[slot].draw()
        return chosen, samplers

    def variants(
        self, chosen: dict[str, Entry], samplers: dict[str, BalancedSampler]
    ) -> Iterator[None]:
        """Yields once for `chosen` as it is, then after each exchange of one of its values.

        Only slots on which no other depends change, so that the rules still hold. The caller
        stops at the first acceptable variant.
        """
        yield
        for slot, sampler in samplers.items():
            if slot in self._vocabulary.parents:
                continue
            for value in sampler.alternatives(chosen[slot]):
                chosen[slot] = value
                yield

    def _sampler(self, slot: str, values: tuple[Entry, ...]) -> BalancedSampler:
        key = (slot, *(entry.say for entry in values))
        if key not in self._samplers:
            self._samplers[key] = BalancedSampler(values, self._seed, "prompts", self._split, *key)
        return self._samplers[key]
