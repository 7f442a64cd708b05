"""Captions on which the published tokenizers fail or nearly do: text_errors*.json."""

import json
import pathlib

import numpy as np

from jaxtbpr.core import tokenizer
from tests.oracles.clip_merges import clip_tokenizer
from tests.oracles.text import MASK


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (caption, number of wrong ids, 0); where they raise, ours must not give a mask."""
    clip, rows = clip_tokenizer(), []
    for entry in json.loads(pathlib.Path(path).read_text()):
        length = len(entry.get("ids", [0] * 77))
        ids = tokenizer.encode(clip, [entry["input"]], length)[0]
        wrong = (ids == MASK) if "raises" in entry else ids != np.array(entry["ids"])
        rows.append((f"{entry['function']}({entry['input']!r})", float(wrong.sum()), 0.0))
    return rows
