"""Encodes prompts as token ids, as a checkpoint's text encoder was trained with."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from tokenizers import Tokenizer

from jaxtbpr.core import files, tokenizer


@dataclasses.dataclass(frozen=True)
class PromptTokenizer:
    """The tokenizer of a Diffusers folder. pad: id after the end; length: tokens of every text.

    learned: {token: id} of those that were added by textual inversion. cased: whether their case
    matters in a prompt. A token of several vectors ("<s0>", "<s0>_1", ...) stands for all of them,
    as in diffusers' pipelines.
    """

    tokenizer: Tokenizer
    pad: int
    length: int
    learned: Mapping[str, int] = dataclasses.field(default_factory=dict)
    cased: bool = True

    @property
    def size(self) -> int:
        """How many tokens there are, the learned ones included."""
        return max([self.tokenizer.get_vocab_size(), *(n + 1 for n in self.learned.values())])

    def encode(self, prompts: Sequence[str]) -> np.ndarray:
        """Returns ids int32 [N, length]: start, the prompt's, end, pads; too long ones are cut."""
        if not self.learned:
            return tokenizer.encode(self.tokenizer, prompts, self.length, pad=self.pad)
        start, end = tokenizer.special_ids(self.tokenizer)
        ids = np.full((len(prompts), self.length), self.pad, np.int32)
        for row, prompt in zip(ids, prompts, strict=True):
            row_ids = [start, *self._inner_ids(prompt)[: self.length - 2], end]
            row[: len(row_ids)] = row_ids
        return ids

    def count(self, prompt: str) -> int:
        """Returns how many tokens a prompt has, start and end included."""
        return 2 + len(self._inner_ids(prompt))

    def unlearned(self, prompt: str) -> list[str]:
        """Returns the learned tokens (<s0>) of a prompt that the model does not have."""
        used = dict.fromkeys(tokenizer.LEARNED.findall(" ".join(self._pieces(prompt)[::2])))
        return [word for word in used if self.tokenizer.token_to_id(word) is None]

    def _inner_ids(self, prompt: str) -> list[int]:
        ids: list[int] = []
        for n, piece in enumerate(self._pieces(prompt)):
            ids += self._vectors(piece) if n % 2 else tokenizer.inner_ids(self.tokenizer, piece)
        return ids

    def _pieces(self, prompt: str) -> list[str]:
        """Cuts a prompt at its learned tokens, which are every second piece."""
        if not self.learned:
            return [prompt]
        several = "|".join(map(re.escape, sorted(self.learned, key=len, reverse=True)))
        return re.split(f"({several})", prompt, flags=0 if self.cased else re.IGNORECASE)

    def _vectors(self, word: str) -> list[int]:
        if word not in self.learned:  # in other letters
            word = next(one for one in self.learned if one.lower() == word.lower())
        names = itertools.chain([word], (f"{word}_{n}" for n in itertools.count(1)))
        return [self.learned[one] for one in itertools.takewhile(self.learned.__contains__, names)]

    def problem(self, prompt: str) -> str:
        """Returns why a prompt cannot be encoded as it is meant, "" where it can."""
        if unlearned := self.unlearned(prompt):
            return f"has {', '.join(unlearned)}, which this model has not learned: leave it out"
        count = self.count(prompt)
        if count <= self.length:
            return ""
        return f"has {count} tokens, but the text encoder takes {self.length}: shorten it"


def open_prompt_tokenizer(folder: epath.PathLike, length: int) -> PromptTokenizer:
    """Opens the tokenizer of `folder`, which holds CLIP's files or a tokenizer.json.

    length: of the text encoder's texts. Which token pads (the end token in Stable Diffusion 1.x,
    "!" in 2.x) is in special_tokens_map.json or tokenizer_config.json. Raises InputError where
    files are missing or do not fit.
    """
    folder = epath.Path(folder)
    loaded = tokenizer.load(folder, learned=True)
    pad = tokenizer.END
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            pad = _content(files.read_json_object(folder / name).get("pad_token")) or pad
    number = loaded.token_to_id(pad)
    end = tokenizer.special_ids(loaded)[1]
    learned, cased = _learned(folder, end)
    return PromptTokenizer(loaded, end if number is None else number, length, learned, cased)


def _learned(folder: epath.Path, end: int) -> tuple[dict[str, int], bool]:
    """Returns {token: id} of those added after the end token, and whether their case matters.

    transformers 4 writes added_tokens.json beside vocab.json and matches these tokens as they are
    spelled; transformers 5 has them in tokenizer.json alone, and matches in lower case.
    """
    added, whole = folder / "added_tokens.json", folder / "tokenizer.json"
    if (folder / "vocab.json").exists() or not whole.exists():
        tokens = files.read_json_object(added) if added.exists() else {}
        return {token: number for token, number in tokens.items() if number > end}, True
    entries = [
        entry for entry in files.read_json_object(whole)["added_tokens"] if entry["id"] > end
    ]
    cased = not all(entry["normalized"] for entry in entries)
    return {entry["content"]: entry["id"] for entry in entries}, cased


def _content(token: Any) -> str | None:
    """A token is written as a string, or as an entry that says how it is matched."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
