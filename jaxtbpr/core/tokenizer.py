"""Captions to token ids, with Hugging Face `tokenizers` files.

Whatever the vocabulary, id 0 pads and the end token has the greatest id, so that the position of
the greatest id is where the text tower reads out the caption.
"""

import dataclasses
import gzip
import html
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import ftfy
import numpy as np
from etils import epath
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError

PAD, MASK = "<|pad|>", "<|mask|>"
START, END = "<|startoftext|>", "<|endoftext|>"
SMALLEST_VOCABULARY = 300
LEARNED = re.compile(r"<[^<>\s]+>")  # a token that a model has learned by textual inversion: <s0>

# CLIP's words: contractions, letters, single digits, runs of anything else.
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLIP_SIZE = 49_408
_CHUNK = 16_384
PUNCTUATION = r"[.!\"()*#:;~]"  # what captions lose
_BLANKS = re.compile(r"\s{2,}")


def learn(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns a byte-level BPE vocabulary from `captions`, cleaned first.

    vocab_size: with the four special tokens and the 256 bytes, so that any text can be encoded;
    few captions give fewer. The same captions give the same tokenizer. Raises InputError where
    there is no caption or `vocab_size` is too small.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise InputError(
            f"a vocabulary of {vocab_size} tokens is too small; "
            f"it must have at least {SMALLEST_VOCABULARY}."
        )
    texts = [text for text in (_normalise(clean_caption(c)) for c in captions) if text]
    if not texts:
        raise InputError("there are no captions to learn a vocabulary from; check the train split.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 3,  # mask, start and end token come after the merges
        special_tokens=[PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([MASK, START, END])
    return _ready(tokenizer)


def learn_merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    """Learns at most `count` merges of CLIP's kind of vocabulary from `texts`, the best first.

    The vocabulary is then the 256 bytes, the same ending a word, the merges, start and end
    (`save_clip`). The same texts give the same merges.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = _clip_words()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * 256 + count,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(_normalise, texts), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(merge) for merge in merges[:count]]


def save_clip(merges: Sequence[tuple[str, str]], folder: epath.PathLike, length: int) -> None:
    """Writes the files of transformers' CLIPTokenizer, which `load` reads, too.

    length: of the model's texts. Texts are padded with the end token, as in Stable Diffusion 1.x.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json_atomic(folder / "vocab.json", _clip_vocabulary(merges))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    files.write_json_atomic(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **special}
    files.write_json_atomic(folder / "tokenizer_config.json", settings)
    lines = ["#version: 0.2", *map(" ".join, merges)]
    # Last, since whoever finds it takes the folder for whole.
    files.write_text_atomic(folder / "merges.txt", "\n".join(lines) + "\n")


def load(path: epath.PathLike, *, learned: bool = False) -> Tokenizer:
    """Loads a tokenizer file, or the one in a folder.

    path: tokenizer.json; a folder that holds CLIP's vocab.json and merges.txt, or tokenizer.json;
    or CLIP's merges alone (bpe_simple_vocab_16e6.txt, plain or .gz). Of CLIP's own vocabulary the
    last word, "jekyll", gives its id to the mask token, as in TBPS-CLIP. learned: whether tokens
    that were added later (textual inversion) may come after the end token. Raises InputError where
    the file is missing or unreadable, or lacks the start and end tokens.
    """
    path = epath.Path(path)
    is_clip = (path / "vocab.json").exists() and (path / "merges.txt").exists()
    if path.is_dir() and (is_clip or not (path / "tokenizer.json").exists()):
        vocab = files.read_json(path / "vocab.json")
        merges = _read_merges(path / "merges.txt")
        return _ready(_clip_tokenizer(vocab, merges, path), path)
    if path.name.endswith((".txt", ".txt.gz")):
        merges = _read_merges(path)
        return _ready(_clip_tokenizer(_clip_vocabulary(merges), merges, path), path)
    path = path / "tokenizer.json" if path.is_dir() else path
    files.read_json(path)  # its errors name the file
    try:
        tokenizer = Tokenizer.from_str(path.read_text())
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path} is not a tokenizer file ({error}); restore it.") from error
    return _ready(tokenizer, path, learned=learned)


def save(tokenizer: Tokenizer, path: epath.PathLike) -> None:
    """Writes a tokenizer.json that `load` and Hugging Face's libraries read."""
    files.write_text_atomic(path, tokenizer.to_str(pretty=True) + "\n")


def encode(
    tokenizer: Tokenizer,
    captions: Sequence[str],
    length: int,
    *,
    spelled: Mapping[str, int] | None = None,
    pad: int = 0,
) -> np.ndarray:
    """Returns token ids int32 [N, L]: start, the caption's, end, padded with `pad`.

    A caption that is too long is cut and its last id set to the end token. The captions are taken
    as they are; the loaders clean them first (`clean_caption`). Special tokens spelled
    out in a caption are ordinary text, but for those of `spelled` (word -> id), which the
    published code takes for the tokens that they spell.
    """
    start, end = special_ids(tokenizer)
    ids = np.full((len(captions), length), pad, np.int32)
    for first in range(0, len(captions), _CHUNK):
        texts = [_normalise(text) for text in captions[first : first + _CHUNK]]
        for row, inner in zip(ids[first:], _inner_ids(tokenizer, texts, spelled), strict=False):
            tokens = [start, *inner[: length - 2], end]
            row[: len(tokens)] = tokens
    return ids


def count(tokenizer: Tokenizer, caption: str) -> int:
    """Returns how many tokens a caption has, start and end included, before it is cut."""
    return 2 + len(inner_ids(tokenizer, caption))


def inner_ids(tokenizer: Tokenizer, caption: str) -> list[int]:
    """Returns the ids of all of a caption's tokens, without start and end."""
    return list(_inner_ids(tokenizer, [_normalise(caption)], None)[0])


@dataclasses.dataclass(frozen=True)
class Cut:
    """How many texts a model does not read to their end: `cut` of `all`, at `length` tokens."""

    cut: int
    all: int
    length: int
    what: str = "captions"

    def __add__(self, other: "Cut") -> "Cut":
        return dataclasses.replace(self, cut=self.cut + other.cut, all=self.all + other.all)

    def __str__(self) -> str:
        verb = "is" if self.cut == 1 else "are"
        return f"{self.cut:,} of {self.all:,} {self.what} {verb} cut at {self.length} tokens"


def count_cut(
    tokenizer: Tokenizer, texts: Iterable[str], length: int, what: str = "captions"
) -> Cut:
    """Counts the texts that, cleaned, have more than `length` tokens, start and end included."""
    cut, counts = Cut(0, 0, length, what), iter(Counter(texts).items())
    while some := dict(itertools.islice(counts, _CHUNK)):
        inner = _inner_ids(tokenizer, [_normalise(clean_caption(text)) for text in some], None)
        times = list(some.values())
        long = sum(n for n, ids in zip(times, inner, strict=True) if 2 + len(ids) > length)
        cut += Cut(long, sum(times), length)
    return cut


def _inner_ids(tokenizer: Tokenizer, texts: list[str], spelled: Mapping[str, int] | None):
    """The ids of each text, without start and end."""
    if not spelled:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]
    words = re.compile("(" + "|".join(map(re.escape, spelled)) + ")")

    def piece_ids(piece: str) -> list[int]:
        if piece in spelled:
            return [spelled[piece]]
        return tokenizer.encode(piece, add_special_tokens=False).ids

    return [[i for piece in words.split(text) for i in piece_ids(piece)] for text in texts]


def mask_id(tokenizer: Tokenizer) -> int:
    """Returns the id of the mask token. Raises InputError where the vocabulary has none."""
    mask = tokenizer.token_to_id(MASK)
    if mask is None:
        raise InputError(
            f"the tokenizer has no {MASK!r} token, which masked language modelling needs; use one "
            "learned here, or CLIP's vocab.json and merges.txt."
        )
    return mask


def special_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Returns the ids of the start and the end token."""
    return tokenizer.token_to_id(START), tokenizer.token_to_id(END)


def clean_caption(text: str, max_words: int | None = None) -> str:
    r"""Returns `text` as TBPS-CLIP and SynTBPR clean it before tokenising.

    Lower case; each of . ! " ( ) * # : ; ~ and each run of blanks becomes one space; the ends are
    stripped. They keep the first 77 words, the first `max_words` here: as many words never fit into
    77 tokens, so that the cut of `encode` comes first, and follows the length of the model.
    """
    text = _BLANKS.sub(" ", re.sub(PUNCTUATION, " ", text.lower()))
    return " ".join(text.rstrip("\n").strip(" ").split(" ")[:max_words])


def _normalise(text: str) -> str:
    """Fixes broken Unicode and entities, blanks and case, as CLIP's tokenizer does."""
    if not (text.isascii() and text.isprintable()) or "&" in text:  # else ftfy changes nothing
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _read_merges(path: epath.Path) -> list[tuple[str, ...]]:
    """The merges of a file, best first, without the lines that OpenAI's file has too many."""
    if not path.exists():
        raise InputError(f"{path} does not exist; a CLIP tokenizer needs it.")
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{path} does not hold BPE merges ({error}); download it again."
        ) from error
    lines = [line for line in text.split("\n") if line and "#version" not in line]
    return [tuple(line.split()) for line in lines][: _CLIP_SIZE - 512 - 2]


def _clip_vocabulary(merges: Sequence[tuple[str, ...]]) -> dict[str, int]:
    """CLIP's ids: 256 bytes, printable ones first, the same ending a word, the merges, specials."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(byte) for byte in printable]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    words = letters + [letter + "</w>" for letter in letters]
    words += ["".join(merge) for merge in merges] + [START, END]
    return {word: number for number, word in enumerate(words)}


def _clip_tokenizer(
    vocab: dict[str, int], merges: list[tuple[str, ...]], path: epath.Path
) -> Tokenizer:
    """CLIP's way of splitting words, for its vocabulary or one of its kind."""
    if len(vocab) == _CLIP_SIZE and merges:
        word = "".join(merges.pop())
        vocab = {MASK if other == word else other: number for other, number in vocab.items()}
    try:
        model = models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token=END)
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path} has vocabulary files that do not match ({error}).") from error
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = _clip_words()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _clip_words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _ready(
    tokenizer: Tokenizer, path: epath.PathLike = "the tokenizer", *, learned: bool = False
) -> Tokenizer:
    """Checks the special tokens; turns off those in a caption's text, padding and truncation."""
    size = tokenizer.get_vocab_size()
    start, end = special_ids(tokenizer)
    if start is not None and end is not None and learned:
        added = tokenizer.get_added_tokens_decoder()
        size -= sum(number > end and not token.special for number, token in added.items())
    if start is None or end != size - 1:
        raise InputError(
            f"{os.fspath(path)} must have {START!r}, and {END!r} as its last token of {size} "
            f"(ids found: {start} and {end}); use a CLIP tokenizer or one learned here."
        )
    tokenizer.encode_special_tokens = True
    # Whatever last used the file may have left its settings in it; `encode` pads, cuts and counts
    # by itself, and the same caption has the same tokens each time.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if isinstance(tokenizer.model, models.BPE):
        tokenizer.model.dropout = None
    return tokenizer
