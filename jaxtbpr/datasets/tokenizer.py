"""Captions to token ids, with Hugging Face `tokenizers` files.

Whatever the vocabulary, id 0 pads and the end token has the greatest id, so that the position of
the greatest id is where the text tower reads out the caption.
"""

import html
import os
from collections.abc import Iterable, Sequence

import ftfy
import numpy as np
from etils import epath
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets.transforms import clean_caption

PAD, START, END = "<|pad|>", "<|startoftext|>", "<|endoftext|>"
SMALLEST_VOCABULARY = 300

# CLIP's words: contractions, letters, single digits, runs of anything else.
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CHUNK = 16_384


def learn(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns a byte-level BPE vocabulary from `captions`, cleaned first.

    vocab_size: with the three special tokens and the 256 bytes, so that any text can be encoded;
    few captions give fewer. The same captions give the same tokenizer. Raises UserError where
    there is no caption or `vocab_size` is too small.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            f"a vocabulary of {vocab_size} tokens is too small; "
            f"it must have at least {SMALLEST_VOCABULARY}."
        )
    texts = [text for text in (_normalise(clean_caption(c)) for c in captions) if text]
    if not texts:
        raise UserError("there are no captions to learn a vocabulary from; check the train split.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,  # the start and the end token come after the merges
        special_tokens=[PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([START, END])
    return _ready(tokenizer)


def load(path: epath.PathLike) -> Tokenizer:
    """Loads a tokenizer.json, a folder that holds one, or one with CLIP's vocab.json, merges.txt.

    Raises UserError where the file is missing or unreadable, or lacks the start and end tokens.
    """
    path = epath.Path(path)
    if path.is_dir() and not (path / "tokenizer.json").exists():
        return _ready(_load_clip(path), path)
    path = path / "tokenizer.json" if path.is_dir() else path
    files.read_json(path)  # its errors name the file
    try:
        tokenizer = Tokenizer.from_str(path.read_text())
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is not a tokenizer file ({error}); restore it.") from error
    return _ready(tokenizer, path)


def save(tokenizer: Tokenizer, path: epath.PathLike) -> None:
    """Writes a tokenizer.json that `load` and Hugging Face's libraries read."""
    files.write_text_atomic(path, tokenizer.to_str(pretty=True) + "\n")


def encode(tokenizer: Tokenizer, captions: Sequence[str], length: int) -> np.ndarray:
    """Returns token ids int32 [N, L]: start, the caption's, end, padded with 0.

    A caption that is too long is cut and its last id set to the end token. The captions are taken
    as they are; the loaders clean them first (`transforms.clean_caption`). Special tokens spelled
    out in a caption are ordinary text.
    """
    start, end = special_ids(tokenizer)
    ids = np.zeros((len(captions), length), np.int32)
    for first in range(0, len(captions), _CHUNK):
        texts = [_normalise(text) for text in captions[first : first + _CHUNK]]
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for row, encoding in zip(ids[first:], encodings, strict=False):
            tokens = [start, *encoding.ids[: length - 2], end]
            row[: len(tokens)] = tokens
    return ids


def special_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Returns the ids of the start and the end token."""
    return tokenizer.token_to_id(START), tokenizer.token_to_id(END)


def _normalise(text: str) -> str:
    """Mends broken Unicode and entities, squeezes blanks, lowers: as CLIP's tokenizer does."""
    if not (text.isascii() and text.isprintable()) or "&" in text:  # else ftfy changes nothing
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _load_clip(folder: epath.Path) -> Tokenizer:
    """Reads the vocabulary files of OpenAI's CLIP and sets up its way of splitting words."""
    vocab = files.read_json(folder / "vocab.json")
    merges_path = folder / "merges.txt"
    if not merges_path.exists():
        raise UserError(f"{merges_path} does not exist; a CLIP tokenizer needs it.")
    lines = merges_path.read_text().splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    try:
        model = models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token=END)
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{folder} has vocabulary files that do not fit ({error}).") from error
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _ready(tokenizer: Tokenizer, path: epath.PathLike = "the tokenizer") -> Tokenizer:
    """Checks the special tokens, and makes those in a caption's own text ordinary text."""
    size = tokenizer.get_vocab_size()
    start, end = special_ids(tokenizer)
    if start is None or end != size - 1:
        raise UserError(
            f"{os.fspath(path)} must have {START!r}, and {END!r} as its last token of {size} "
            f"(ids found: {start} and {end}); use a CLIP tokenizer or one learned here."
        )
    tokenizer.encode_special_tokens = True
    return tokenizer
