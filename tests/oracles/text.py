"""Cleaned captions and their token ids: text*.json with text*.npz."""

import json
import pathlib
import re

import numpy as np

from jaxtbpr.core import tokenizer
from tests.oracles.clip_merges import clip_tokenizer

MASK, START, END = 49405, 49406, 49407
# How the two tokenizers of the published code spell their special tokens.
SPELLED = {
    "token_ids": {"<|mask|>": MASK, "<|startoftext|>": START, "<|endoftext|>": END},
    "train_token_ids": {"<mask>": MASK, "<start_of_text>": START, "<end_of_text>": END},
}


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, number of captions that differ, 0)."""
    path = pathlib.Path(path)
    captions = json.loads(path.with_suffix(".json").read_text())
    rows = []
    for key in captions[0]:
        if found := re.fullmatch(r"pre_caption_(\d+)", key):
            words = int(found[1])
            wrong = sum(tokenizer.clean_caption(c["caption"], words) != c[key] for c in captions)
            rows.append((f"captions cleaned, {words} words", float(wrong), 0.0))
    return rows + _check_ids(np.load(path), captions)


def _check_ids(published, captions):
    clip, rows = clip_tokenizer(), []
    for key in published.files:
        found = re.fullmatch(r"(token_ids|train_token_ids)_(raw|pre(\d+))(_ctx\d+)?", key)
        if not found:
            continue
        source = "caption" if found[2] == "raw" else f"pre_caption_{found[3]}"
        texts, expected = [c[source] for c in captions], published[key]
        ids = tokenizer.encode(clip, texts, expected.shape[1], spelled=SPELLED[found[1]])
        rows.append((key, float((ids != expected).any(axis=1).sum()), 0.0))
        if key.startswith("token_ids") and not found[4]:
            whole = _lengths(clip, texts, SPELLED[found[1]])
            others = {
                "argmax": ids.argmax(1),
                "token_lengths": np.minimum(whole, expected.shape[1]),
                "full_lengths": whole,
            }
            rows += [
                (f"{name}_{found[2]}", float((ours != published[f"{name}_{found[2]}"]).sum()), 0.0)
                for name, ours in others.items()
                if f"{name}_{found[2]}" in published.files
            ]
    return rows


def _lengths(clip, texts, spelled):
    """Tokens of each text before it is cut; id 0, which pads elsewhere, is a real token: "!"."""
    most = max(map(len, map(str.encode, texts))) * 4 + 2  # ftfy may write a sign in several
    return (tokenizer.encode(clip, texts, most, spelled=spelled, pad=-1) >= 0).sum(axis=1)
