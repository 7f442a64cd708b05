"""The (image, caption) pairs that training batches are made of, and how one is made."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from jaxtbpr.core import seeds
from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.datasets import facts, noise, text_augmentation, transforms
from jaxtbpr.datasets.resizing import Resize
from jaxtbpr.datasets.source import ImageSource, RetrievalSet

Batch = dict[str, np.ndarray]
# Augmentations that change captions, which are then encoded for each batch.
_OF_CAPTIONS = ("word_deletion", "word_swap", "word_replacement", "word_insertion", "mix")


def captions_per_image(sets: Sequence[RetrievalSet]) -> list[int]:
    """Returns how many captions each image of the sets has."""
    return [len(captions) for one in sets for captions in one.captions]


class Images:
    """The images of all sets, decoded, under one numbering; kept in memory while there is room."""

    def __init__(self, sources: Sequence[ImageSource], cache_bytes: int):
        self._sources, self._room = sources, cache_bytes
        self._first = np.cumsum([0, *map(len, sources)])
        self._kept: dict[int, Image.Image] = {}

    def __getitem__(self, i: int) -> Image.Image:
        if i in self._kept:
            return self._kept[i]
        which = int(np.searchsorted(self._first, i, side="right")) - 1
        image = self._sources[which].open(i - int(self._first[which]))
        size = 4 * image.width * image.height  # Pillow spends four bytes on a pixel
        if size <= self._room:
            self._kept[i] = image
            self._room -= size
        return image


@dataclasses.dataclass(frozen=True)
class Views:
    """What a batch has besides images and captions.

    second: another random variant of each image ("second"); strong: two strong ones for SimCLR
    ("view_1", "view_2"); words: captions with masked words and what was there ("masked", "labels").
    captions: how many captions of its image a row has; those beyond its own are "more", int32
    [B, captions - 1, L], random ones, each at most once until all are there.
    facts: what the image shows ("shown", int32 [B, 1 + S]) and what each of its captions says
    ("mentioned", int32 [B, captions, 1 + S]); the identity, then the numbers of `datasets.facts`.
    """

    second: bool = False
    strong: bool = False
    words: bool = False
    captions: int = 1
    facts: bool = False


@dataclasses.dataclass(frozen=True)
class Pairs:
    """All (image, caption) pairs, and how a batch is made of some of them.

    image_of_pair: int64 [P]; identity_of_image: int32 [N], over all sets.
    tokens: int32 [P, L], or None where captions are changed; `captions` are empty otherwise.
    caption_of_pair: int64 [P], whose caption each pair has, see `noise`. weight_of_pair: float32
    [P], how much a pair counts in the losses, see stage denoise. rows: this process's rows
    of each batch. set_weights: of each set, empty for every pair once an epoch.
    shown int32 [N, S], mentioned int32 [P, S]: see `datasets.facts`; None without views of them.
    """

    images: Images
    image_of_pair: np.ndarray
    caption_of_pair: np.ndarray
    weight_of_pair: np.ndarray
    identity_of_image: np.ndarray
    captions: list[str]
    tokens: np.ndarray | None
    tokenizer: Tokenizer
    text_length: int
    image_size: tuple[int, int]
    resample: str
    resize: Resize
    augment: dict[str, Any]
    seed: int
    batch_size: int
    rows: slice
    views: Views = Views()
    set_weights: Sequence[float] = ()
    pairs_of_set: Sequence[int] = ()
    shown: np.ndarray | None = None
    mentioned: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        sets: Sequence[RetrievalSet],
        tokenizer: Tokenizer,
        *,
        text_length: int,
        augment: dict[str, Any],
        cache_bytes: int,
        caption_noise: float,
        seed: int,
        views: Views,
        **others: Any,
    ) -> "Pairs":
        """Returns the pairs of `sets`, their captions cleaned and, if they stay whole, encoded."""
        captions = [tokens.clean_caption(c) for one in sets for cs in one.captions for c in cs]
        caption_of_pair = noise.exchange(len(captions), caption_noise, seed)
        captions = [captions[n] for n in caption_of_pair]
        changes = any(rate > 0 for name, rate in augment.items() if name in _OF_CAPTIONS)
        shown, mentioned = facts.encode(sets) if views.facts else (None, None)
        return cls(
            images=Images([one.images for one in sets], cache_bytes),
            image_of_pair=np.repeat(np.arange(sum(map(len, sets))), captions_per_image(sets)),
            caption_of_pair=caption_of_pair,
            weight_of_pair=np.concatenate([one.caption_weights for one in sets]),
            identity_of_image=_joint_identities(sets),
            captions=captions if changes else [],
            tokens=None if changes else tokens.encode(tokenizer, captions, text_length),
            tokenizer=tokenizer,
            text_length=text_length,
            augment=augment,
            seed=seed,
            views=views,
            shown=shown,
            mentioned=None if mentioned is None else mentioned[caption_of_pair],
            **others,
        )

    def __len__(self) -> int:
        return len(self.image_of_pair)

    @property
    def steps_per_epoch(self) -> int:
        return len(self) // self.batch_size

    @property
    def identity_of_pair(self) -> np.ndarray:
        return self.identity_of_image[self.image_of_pair]

    def recipe(self) -> dict[str, Any]:
        """Returns what decides the order of the pairs."""
        weights = {"set_weights": list(self.set_weights)} if self.set_weights else {}
        return {"seed": self.seed, "batch_size": self.batch_size, "pairs": len(self)} | weights

    def load(self, batch_number: int, batch: np.ndarray) -> Batch:
        """Makes this process's rows of a batch. batch: numbers of pairs [B]."""
        # A generator per row, seeded by what the row is, so that neither workers nor threads nor
        # the number of processes change a batch. Draws are taken in a fixed order: image, caption,
        # then `_views` from top to bottom; a new view goes last, or it changes those after it.
        numbers = batch[self.rows]
        rngs = [
            seeds.rng(self.seed, "augment", *self._visit(batch_number, row), int(n))
            for row, n in enumerate(numbers, self.rows.start)
        ]
        index = self.image_of_pair[numbers]
        images = np.stack(
            [self._image(i, rng) for i, rng in zip(index.tolist(), rngs, strict=True)]
        )
        if mixed := self._mixed(len(numbers)):  # MixGen (Hao et al., arXiv:2206.08358)
            images[:mixed] = (images[:mixed].astype(np.uint16) + images[mixed : 2 * mixed]) // 2
        tokens = self._tokens(numbers, rngs)
        return {
            "image": images,
            "tokens": tokens,
            "identity": self.identity_of_image[index],
            "index": index,
            "pair": numbers,
        } | self._views(numbers, index, tokens, rngs)

    def _visit(self, batch_number: int, row: int) -> tuple[int, ...]:
        """The number of a visit of a pair: the epoch, or its place if it may come twice."""
        if self.set_weights:
            return batch_number, row
        return (batch_number // self.steps_per_epoch,)

    def _views(
        self, numbers: np.ndarray, index: np.ndarray, tokens: np.ndarray, rngs: list
    ) -> Batch:
        views = {}
        rows = list(zip(index.tolist(), rngs, strict=True))
        pairs = numbers[:, None]
        if self.views.captions > 1:
            others = [self._others(n, *row) for n, row in zip(numbers, rows, strict=True)]
            pairs = np.concatenate([pairs, others], axis=1)
            columns = [self._tokens(column, rngs) for column in pairs.T[1:]]
            views["more"] = np.stack(columns, axis=1)
        if self.shown is not None and self.mentioned is not None:
            identity = self.identity_of_image[index]
            views["shown"] = np.column_stack([identity, self.shown[index]])
            every = np.broadcast_to(identity[:, None, None], (*pairs.shape, 1))
            views["mentioned"] = np.concatenate([every, self.mentioned[pairs]], axis=2)
        if self.views.second:
            views["second"] = np.stack([self._image(i, rng) for i, rng in rows])
        for name in ("view_1", "view_2") if self.views.strong else ():
            how = self.image_size, self.resample, self.resize
            strong = [
                transforms.strong_view(self.images[i], how[0], rng, *how[1:]) for i, rng in rows
            ]
            views[name] = np.stack(strong)
        if self.views.words:
            masked = [
                mask_words(row, rng, self.tokenizer) for row, rng in zip(tokens, rngs, strict=True)
            ]
            views["masked"], views["labels"] = (
                np.stack(part) for part in zip(*masked, strict=True)
            )
        return views

    def _others(self, number: int, image: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers [captions - 1] of the image's other pairs, or `number` if there are none."""
        first, last = np.searchsorted(self.image_of_pair, (image, image + 1))
        others = np.delete(np.arange(first, last), number - first)
        others = rng.permutation(others) if len(others) else np.array([number])
        return np.resize(others, self.views.captions - 1)

    def _image(self, i: int, rng: np.random.Generator) -> np.ndarray:
        how = rng, self.augment, self.resample, self.resize
        return transforms.augment_image(self.images[i], self.image_size, *how)

    def _tokens(self, numbers: np.ndarray, rngs: list[np.random.Generator]) -> np.ndarray:
        if self.tokens is not None:
            return self.tokens[numbers]
        texts = [
            text_augmentation.change_words(self.captions[n], rng, self.augment)
            for n, rng in zip(numbers, rngs, strict=True)
        ]
        mixed = self._mixed(len(numbers))
        for n in range(mixed):
            texts[n] += " " + texts[n + mixed]
        return tokens.encode(self.tokenizer, texts, self.text_length)

    def _mixed(self, rows: int) -> int:
        """How many of the first rows are mixed with those that follow them."""
        return min(int(self.augment["mix"] * rows), rows // 2)


def mask_words(
    row: np.ndarray, rng: np.random.Generator, tokenizer: Tokenizer, rate: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (token ids with some masked, labels), int32 [L] both.

    Each token but padding, start and end is chosen with probability `rate`; of the chosen, four
    fifths become the mask token, a tenth any token, a tenth stay. The label is the id that was
    there, -100 where none was chosen. BERT's rule (Devlin et al., arXiv:1810.04805), as in IRRA and
    TBPS-CLIP.
    """
    start, end = tokens.special_ids(tokenizer)
    chosen = (rng.random(len(row)) < rate) & (row != 0) & (row != start) & (row != end)
    draw, other = rng.random(len(row)), rng.integers(0, end + 1, len(row))
    # A start or end token in the middle would be read as the caption's end.
    other = np.where(other >= start, row, other)
    masked = np.where(draw < 0.8, tokens.mask_id(tokenizer), np.where(draw < 0.9, other, row))
    labels = np.where(chosen, row, -100)
    return np.where(chosen, masked, row).astype(np.int32), labels.astype(np.int32)


def _joint_identities(sets: Sequence[RetrievalSet]) -> np.ndarray:
    """Returns int32 [N] over all sets; no two sets share an identity."""
    parts, offset = [], 0
    for one in sets:
        parts.append(one.identities + offset)
        offset += int(one.identities.max(initial=-1)) + 1
    return np.concatenate(parts).astype(np.int32)
