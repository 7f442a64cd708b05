"""Facts as numbers: what images show and captions say, so that a loss knows which match."""

import itertools
from collections.abc import Sequence

import numpy as np

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets.source import RetrievalSet

NOT_MENTIONED = -1  # of a caption: it fits any value
NOT_SHOWN = -2  # of an image: it fits no value


def encode(sets: Sequence[RetrievalSet]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (shown int32 [N, S] of all images, mentioned int32 [P, S] of all captions).

    A column for each slot that any image shows, and in it a number for each value; NOT_SHOWN and
    NOT_MENTIONED where there is none. Raises InputError for a set without facts.
    """
    shown, mentioned = [], []
    for one in sets:
        for name, captions, facts in zip(one.image_ids, one.captions, one.facts, strict=True):
            if facts is None or len(facts.get("mentioned", ())) != len(captions):
                raise InputError(
                    f"image {name} of set {one.name} has no facts for each of its captions, which "
                    "targets='facts' needs; use 'identity', or stage 'caption'."
                )
            shown.append(facts["shown"])
            mentioned += facts["mentioned"]
    slots = sorted({slot for facts in itertools.chain(shown, mentioned) for slot in facts})
    numbers = {
        slot: {value: n for n, value in enumerate(sorted(_values(slot, shown, mentioned)))}
        for slot in slots
    }

    def table(rows: list[dict], missing: int) -> np.ndarray:
        codes = [[numbers[s][row[s]] if s in row else missing for s in slots] for row in rows]
        return np.array(codes, np.int32).reshape(len(rows), len(slots))

    return table(shown, NOT_SHOWN), table(mentioned, NOT_MENTIONED)


def _values(slot: str, *tables: list[dict]) -> set[str]:
    return {facts[slot] for facts in itertools.chain(*tables) if slot in facts}
