"""Cleaned captions: text*.json. The token ids of text*.npz are not compared yet, and say so."""

import json
import pathlib
import re

from jaxtbpr.datasets import transforms


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, number of captions that differ, 0)."""
    captions = json.loads(pathlib.Path(path).with_suffix(".json").read_text())
    rows = []
    for key in captions[0]:
        if found := re.fullmatch(r"pre_caption_(\d+)", key):
            words = int(found[1])
            wrong = sum(transforms.clean_caption(c["caption"], words) != c[key] for c in captions)
            rows.append((f"captions cleaned, {words} words", float(wrong), 0.0))
    return [*rows, ("token ids: not compared yet", float("nan"), 0.0)]
