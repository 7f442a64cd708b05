"""Balanced drawing: the values of a slot are dealt like cards, each once in a round.

Of values that compete with each other (of one sampler) no two counts differ by more than one,
however many are drawn. A value that will not do is exchanged for another of its round, so that
rejecting duplicates does not tilt the counts. Everything depends on the seed and the draws before
alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from jaxtbpr.core.seeds import rng
from jaxtbpr.prompts.descriptors import Entry, Vocabulary


class BalancedSampler:
    """Draws `values` in shuffled rounds. names: what the randomness is named by."""

    def __init__(self, values: Sequence[Entry], seed: int, *names: str | int):
        self._values = tuple(values)
        self._seed = seed
        self._names = names
        self._round = 0
        self._left: list[Entry] = []

    def draw(self) -> Entry:
        """Returns the next value, of a new round where the last is used up."""
        if not self._left:
            order = rng(self._seed, *self._names, self._round).permutation(len(self._values))
            self._left = [self._values[k] for k in order]
            self._round += 1
        return self._left.pop()

    def exchange(self, value: Entry) -> Iterator[Entry]:
        """Yields each other value left in this round; the one yielded last is the caller's.

        The values before it, `value` among them, are left again.
        """
        for place in range(len(self._left)):
            self._left[place], value = value, self._left[place]
            yield value

    def put_back(self, value: Entry) -> None:
        """Lays `value` under the others."""
        self._left.insert(0, value)


class PersonSampler:
    """Draws whole people from a vocabulary.

    seed, split: of the run; slots: which slots a person has, given the slots drawn so far.
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
        """Returns {slot: entry} of one person and {slot: sampler} that the entries came from."""
        chosen: dict[str, Entry] = {}
        samplers: dict[str, BalancedSampler] = {}
        for slot in self._slots(chosen):
            samplers[slot] = self._sampler(slot, self._vocabulary.admissible(slot, chosen))
            chosen[slot] = samplers[slot].draw()
        return chosen, samplers

    def variants(
        self, chosen: dict[str, Entry], samplers: dict[str, BalancedSampler]
    ) -> Iterator[None]:
        """Yields, then exchanges in `chosen` one value after another and yields each time.

        Only slots on which no other depends change. Stop when what is chosen will do.
        """
        yield
        for slot, sampler in samplers.items():
            if slot in self._vocabulary.parents:
                continue
            for value in sampler.exchange(chosen[slot]):
                chosen[slot] = value
                yield

    def _sampler(self, slot: str, values: tuple[Entry, ...]) -> BalancedSampler:
        key = (slot, *(entry.say for entry in values))
        if key not in self._samplers:
            self._samplers[key] = BalancedSampler(values, self._seed, "prompts", self._split, *key)
        return self._samplers[key]
