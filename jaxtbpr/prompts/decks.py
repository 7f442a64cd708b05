"""Balanced drawing: the values of a slot are dealt like cards, each once in a round.

Of values that compete with each other (a deck) no two counts differ by more than one, however
many are drawn. A card that will not do is exchanged for another of its round, so that rejecting
duplicates does not tilt the counts. Everything depends on the seed and the draws before alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from jaxtbpr.core.seeds import rng
from jaxtbpr.prompts.descriptors import Entry, Vocabulary


class Deck:
    """Deals `values` in shuffled rounds. names: what the randomness is named by."""

    def __init__(self, values: Sequence[Entry], seed: int, *names: str | int):
        self._values = tuple(values)
        self._seed = seed
        self._names = names
        self._round = 0
        self._left: list[Entry] = []

    def draw(self) -> Entry:
        """Returns the next card, of a new round where the last is used up."""
        if not self._left:
            order = rng(self._seed, *self._names, self._round).permutation(len(self._values))
            self._left = [self._values[k] for k in order]
            self._round += 1
        return self._left.pop()

    def exchange(self, card: Entry) -> Iterator[Entry]:
        """Yields each other card left in this round; the one yielded last is the caller's.

        The cards before it, `card` among them, are back in the deck.
        """
        for place in range(len(self._left)):
            self._left[place], card = card, self._left[place]
            yield card

    def put_back(self, card: Entry) -> None:
        """Lays `card` under the others."""
        self._left.insert(0, card)


class Dealer:
    """Deals whole people from a vocabulary.

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
        self._decks: dict[tuple[str, ...], Deck] = {}
        self.colours = vocabulary.colours

    def deal(self) -> tuple[dict[str, Entry], dict[str, Deck]]:
        """Returns {slot: entry} of one person and {slot: deck} that the entries came from."""
        hand: dict[str, Entry] = {}
        decks: dict[str, Deck] = {}
        for slot in self._slots(hand):
            decks[slot] = self._deck(slot, self._vocabulary.admissible(slot, hand))
            hand[slot] = decks[slot].draw()
        return hand, decks

    def variants(self, hand: dict[str, Entry], decks: dict[str, Deck]) -> Iterator[None]:
        """Yields, then exchanges in `hand` one card after another and yields each time.

        Only slots on which no other depends change. Stop when the hand will do.
        """
        yield
        for slot, deck in decks.items():
            if slot in self._vocabulary.parents:
                continue
            for card in deck.exchange(hand[slot]):
                hand[slot] = card
                yield

    def _deck(self, slot: str, values: tuple[Entry, ...]) -> Deck:
        key = (slot, *(entry.say for entry in values))
        if key not in self._decks:
            self._decks[key] = Deck(values, self._seed, "prompts", self._split, *key)
        return self._decks[key]
