"""grain loaders: shuffled (image, caption) batches to train on, padded ones to evaluate with.

grain shuffles and batches the *numbers* of the pairs; images are read, decoded and augmented
a batch at a time in threads or worker processes. Which pairs a batch has, and what is done to each,
follows from (seed, number of the batch) alone, so that the state of an iterator is the count of
batches that it has yielded, whatever the number of workers or processes.

A worker takes some seconds to start: grain imports jax, though nothing here uses it.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags
from etils import epath
from tokenizers import Tokenizer

from jaxtbpr.core import process_pool as worker_processes
from jaxtbpr.core import seeds
from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.core.errors import InputError
from jaxtbpr.core.options import Option, Options
from jaxtbpr.datasets import noise, transforms
from jaxtbpr.datasets.pairs import Batch, Pairs, Views, captions_per_image
from jaxtbpr.datasets.resizing import MODES, SQUASH, Resize, fit
from jaxtbpr.datasets.source import RetrievalSet

LOADER_OPTIONS: Options = {
    "image_size": Option((128, 64), "height and width of the images", low=8, high=2048),
    "resample": Option(
        "bicubic", "interpolation filter of the resize", choices=tuple(transforms.FILTERS)
    ),
    "resize": Option(
        "squash",
        "squash: aspect ratio not kept; shortest: cropped; longest: padded; model: as published",
        choices=(*MODES, "model"),
    ),
    "text_length": Option(77, "tokens per caption, start and end included", low=4, high=4096),
    "augment": transforms.AUGMENT_OPTIONS,
    "caption_noise": Option(0.0, "fraction of train pairs that exchange captions", low=0, high=1),
    "set_weights": Option({}, "weight of each train set in a batch; {} = each pair once an epoch"),
    "workers": Option(
        0, "worker processes that make batches; 0 = threads only", low=0, high=256, runtime=True
    ),
    "threads": Option(2, "threads that make batches, in each worker", low=1, high=64, runtime=True),
    "cache_mb": Option(
        512, "MiB of memory, in each worker, for decoded images", low=0, runtime=True
    ),
}

NO_VIEWS = Views()

_READY_BATCHES = 4


class TrainLoader(Iterator[Batch]):
    """Endless training batches; make one with `train_loader`.

    next() gives {"image": uint8 [B, H, W, 3], "tokens": int32 [B, L], "identity": int32 [B],
    "index": int64 [B], of the image, "pair": int64 [B]} and what `Views` adds, B being this
    process's part of the batch. Identities, image and pair numbers of the second set follow those
    of the first, and so on.
    """

    def __init__(self, pairs: Pairs, *, workers: int, threads: int):
        self._pairs, self._workers, self._threads = pairs, workers, threads
        self._given = 0
        self._batches: grain.DatasetIterator | None = None

    def __next__(self) -> Batch:
        batches = iter(self._dataset()) if self._batches is None else self._batches
        self._batches = batches
        batch = next(batches)
        self._given += 1
        return batch

    @property
    def identities(self) -> int:
        """Number of identities of all sets."""
        return int(self._pairs.identity_of_image.max()) + 1

    @property
    def slots(self) -> int:
        """Number of slots of the facts, 0 without them."""
        return 0 if self._pairs.shown is None else self._pairs.shown.shape[1]

    @property
    def pairs(self) -> Pairs:
        """The pairs that batches are made of."""
        return self._pairs

    def save_noise(self, directory: epath.Path) -> None:
        """Writes which pairs have another's caption, where there are any; see `noise`."""
        caption_of_pair = self._pairs.caption_of_pair
        if (caption_of_pair != np.arange(len(caption_of_pair))).any():
            noise.save_index(directory, caption_of_pair, self._pairs.identity_of_pair)

    def get_state(self) -> dict[str, Any]:
        """Returns what `set_state` needs to resume after the last batch; plain JSON."""
        return {"batches": self._given, "recipe": self._pairs.recipe()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Resumes where another loader stopped.

        Raises InputError where it had other data, another seed or another batch size.
        """
        recipe, saved = self._pairs.recipe(), state["recipe"]
        if saved != recipe:
            raise InputError(
                f"the checkpoint's data order was {json.dumps(saved)}, this run's is "
                f"{json.dumps(recipe)}; give the run the same data, seed and batch size."
            )
        self.close()
        self._given = int(state["batches"])

    def close(self) -> None:
        """Ends the worker processes; next() starts them again."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None

    def _dataset(self) -> grain.IterDataset:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain's own; a program without absl.app has none
        pairs = self._pairs
        seed = int(seeds.rng(pairs.seed, "shuffle").integers(2**32))
        batches = _numbers(pairs, seed).map_with_index(pairs.load)
        ready = _prefetch(batches[self._given :], self._threads)
        # Through pipes: shared memory is 64 MB in a container by default, and a worker that finds
        # it full dies of a bus error.
        no_shared = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
        return grain.experimental.WithOptionsIterDataset(ready, no_shared).mp_prefetch(
            grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2),
            worker_init_fn=_end_with_parent,
        )


def train_loader(
    sets: Sequence[RetrievalSet],
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    seed: int,
    image_size: tuple[int, int],
    text_length: int,
    resample: str = "bicubic",
    resize: Resize | str = SQUASH,
    augment: Mapping[str, float] = transforms.NO_AUGMENT,
    caption_noise: float = 0.0,
    views: Views = NO_VIEWS,
    set_weights: Mapping[str, float] | None = None,
    workers: int = 0,
    threads: int = 2,
    cache_mb: int = 512,
    process_index: int = 0,
    process_count: int = 1,
) -> TrainLoader:
    """Returns endless training batches over the (image, caption) pairs of `sets`.

    Reshuffled each epoch; the last pairs of an epoch that do not fill a batch are left out of it.
    With `set_weights` {set name: weight} each set gets that fraction of the pairs instead, and
    is reshuffled when it is through; an epoch is then as many batches as without.
    batch_size: of all processes together; process i of n gives rows [i B/n, (i+1) B/n) of each
    batch. image_size: (H, W). views: what else a batch has. augment: the values of
    `transforms.AUGMENT_OPTIONS`; default none. resize: one of `resizing.MODES`, or a Resize. The
    others: see `LOADER_OPTIONS`. Raises InputError for a batch larger than the sets or not a
    multiple of the processes.
    """
    if batch_size % process_count:
        raise InputError(
            f"a batch of {batch_size} cannot be divided evenly among {process_count} processes; "
            f"use a multiple of {process_count}."
        )
    _count_pairs(sets, batch_size)
    rows_of_process = batch_size // process_count
    pairs = Pairs.of(
        sets,
        tokenizer,
        text_length=text_length,
        image_size=tuple(image_size),
        resample=resample,
        resize=Resize(resize) if isinstance(resize, str) else resize,
        augment=dict(augment),
        cache_bytes=cache_mb << 20,
        caption_noise=caption_noise,
        views=views,
        set_weights=check_set_weights(set_weights or {}, sets),
        pairs_of_set=[sum(captions_per_image([one])) for one in sets],
        seed=seed,
        batch_size=batch_size,
        rows=slice(process_index * rows_of_process, (process_index + 1) * rows_of_process),
    )
    return TrainLoader(pairs, workers=workers, threads=threads)


def steps_per_epoch(sets: Sequence[RetrievalSet], batch_size: int) -> int:
    """Returns how many whole batches of (image, caption) pairs one epoch has.

    Raises InputError where the batch is larger than the sets.
    """
    return _count_pairs(sets, batch_size) // batch_size


def image_batches(
    images: RetrievalSet,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    resample: str = "bicubic",
    resize: Resize = SQUASH,
    threads: int = 2,
) -> Iterator[Batch]:
    """Yields each image once: {"image": uint8 [B, H, W, 3], "identity", "index", "mask"}.

    Every batch has B rows; those that only fill up the last one have mask False, identity and
    index -1 and black pixels. index: int64, the image's number in the set.
    """
    height, width = image_size

    def load(index: np.ndarray) -> Batch:
        pixels = np.zeros((batch_size, height, width, 3), np.uint8)
        for row, i in zip(pixels, index, strict=False):
            row[:] = np.asarray(fit(images.images.open(i), (height, width), resample, resize))
        return {"image": pixels} | _padded(index, images.identities[index], batch_size)

    return _in_order(len(images), batch_size, load, threads)


def caption_batches(
    captions: RetrievalSet, tokenizer: Tokenizer, *, text_length: int, batch_size: int
) -> Iterator[Batch]:
    """Yields each caption once: {"tokens": int32 [B, L], "identity", "index", "mask"}.

    In the order of the images, and of each image's captions; index: int64, the number of the
    caption's image in the set. Padding as in `image_batches`, with tokens 0.
    """
    texts = [tokens.clean_caption(c) for cs in captions.captions for c in cs]
    image = np.repeat(np.arange(len(captions)), captions_per_image([captions]))

    def load(index: np.ndarray) -> Batch:
        ids = np.zeros((batch_size, text_length), np.int32)
        ids[: len(index)] = tokens.encode(tokenizer, [texts[i] for i in index], text_length)
        owner = image[index]
        return {"tokens": ids} | _padded(owner, captions.identities[owner], batch_size)

    return _in_order(len(texts), batch_size, load, 1)


def _numbers(pairs: Pairs, seed: int) -> grain.MapDataset:
    """Endless batches of pairs' numbers: each once an epoch, or each set by its weight."""
    size = pairs.batch_size
    if not pairs.set_weights:
        numbers = grain.MapDataset.range(len(pairs)).shuffle(seed=seed)
        return numbers[: pairs.steps_per_epoch * size].batch(size).repeat()
    bounds = np.cumsum([0, *pairs.pairs_of_set])
    sets = [
        grain.MapDataset.range(int(low), int(high)).seed(seed + n).shuffle().repeat()
        for n, (low, high) in enumerate(itertools.pairwise(bounds))
    ]
    return grain.MapDataset.mix(sets, pairs.set_weights).batch(size)


def check_set_weights(weights: Mapping[str, float], sets: Sequence[RetrievalSet]) -> list[float]:
    """Returns the weights in the order of `sets`; [] where there are none.

    Raises InputError unless each set has one above 0.
    """
    if not weights:
        return []
    names = [one.name.split("/")[0] for one in sets]
    if set(weights) != set(names) or not all(weight > 0 for weight in weights.values()):
        raise InputError(
            f"set_weights={dict(weights)!r} must give each of the train sets "
            f"{', '.join(names)} a weight above 0."
        )
    return [float(weights[name]) for name in names]


def _end_with_parent(worker: int, count: int) -> None:
    del worker, count  # grain passes them
    worker_processes.end_with_parent()


def _count_pairs(sets: Sequence[RetrievalSet], batch_size: int) -> int:
    count = sum(captions_per_image(sets))
    if count < batch_size:
        names = ", ".join(one.name for one in sets)
        raise InputError(
            f"a batch of {batch_size} is larger than the {count} (image, caption) pairs of "
            f"{names}; make it {count} or less, or add data."
        )
    return count


def _padded(index: np.ndarray, identities: np.ndarray, batch_size: int) -> Batch:
    missing = (0, batch_size - len(index))
    return {
        "identity": np.pad(identities.astype(np.int32), missing, constant_values=-1),
        "index": np.pad(index.astype(np.int64), missing, constant_values=-1),
        "mask": np.arange(batch_size) < len(index),
    }


def _in_order(count: int, batch_size: int, load, threads: int) -> Iterator[Batch]:
    batches = grain.MapDataset.range(count).batch(batch_size).map(load)
    return iter(_prefetch(batches, threads))


def _prefetch(batches: grain.MapDataset, threads: int) -> grain.IterDataset:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_READY_BATCHES)
    return batches.to_iter_dataset(options)
