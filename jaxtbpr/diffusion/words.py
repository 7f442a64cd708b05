"""Prompts to the token ids that a checkpoint's text encoder was trained with."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from tokenizers import Tokenizer

from jaxtbpr.core import files, tokenizer


@dataclasses.dataclass(frozen=True)
class Words:
    """The tokenizer of a Diffusers folder. pad: id after the end; length: tokens of every text."""

    tokenizer: Tokenizer
    pad: int
    length: int

    def encode(self, prompts: Sequence[str]) -> np.ndarray:
        """Returns ids int32 [N, length]: start, the prompt's, end, pads; too long ones are cut."""
        return tokenizer.encode(self.tokenizer, prompts, self.length, pad=self.pad)

    def count(self, prompt: str) -> int:
        """Returns how many tokens a prompt has, start and end included."""
        return tokenizer.count(self.tokenizer, prompt)

    def unlearned(self, prompt: str) -> list[str]:
        """Returns the learned tokens (<s0>) that a prompt asks for and the model has not."""
        asked = dict.fromkeys(tokenizer.LEARNED.findall(prompt))
        return [word for word in asked if self.tokenizer.token_to_id(word) is None]

    def problem(self, prompt: str) -> str:
        """Returns why a prompt cannot be read as it is meant, "" where it can."""
        if unlearned := self.unlearned(prompt):
            return f"has {', '.join(unlearned)}, which this model has not learned: leave it out"
        count = self.count(prompt)
        if count <= self.length:
            return ""
        return f"has {count} tokens, the text encoder takes {self.length}: shorten it"


def open_words(folder: epath.PathLike, length: int) -> Words:
    """Opens the tokenizer of `folder`, which holds CLIP's files or a tokenizer.json.

    length: of the text encoder's texts. Which token pads (the end token in Stable Diffusion 1.x,
    "!" in 2.x) is in special_tokens_map.json or tokenizer_config.json. Raises UserError where
    files are missing or do not fit.
    """
    folder = epath.Path(folder)
    found = tokenizer.load(folder)
    pad = tokenizer.END
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            pad = _content(files.read_json_object(folder / name).get("pad_token")) or pad
    number = found.token_to_id(pad)
    return Words(found, tokenizer.special_ids(found)[1] if number is None else number, length)


def _content(token: Any) -> str | None:
    """A token is written as a string, or as an entry that says how it is matched."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
