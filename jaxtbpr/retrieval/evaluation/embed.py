"""Features of whole sets: batches of one fixed shape through either tower, padding left out."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from PIL.Image import Image
from tokenizers import Tokenizer

from jaxtbpr.core import mesh as meshes
from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.core.dtypes import Array
from jaxtbpr.datasets import loader, transforms
from jaxtbpr.datasets.resizing import SQUASH, Resize
from jaxtbpr.datasets.source import RetrievalSet
from jaxtbpr.retrieval.clip.model import Clip
from jaxtbpr.retrieval.evaluation.metrics import Metrics, retrieval_metrics
from jaxtbpr.retrieval.training.losses import normalize

# Rows that a CPU computes at a time: what lies between two products then stays in its cache.
_CPU_ROWS = 32


@dataclasses.dataclass(frozen=True)
class Features:
    """The features of a set; all rows have length 1.

    images: float32 [G, D]; captions: float32 [Q, D]; image_of_caption: int64 [Q], the number of
    the image that a caption was written for.
    """

    images: np.ndarray
    captions: np.ndarray
    image_of_caption: np.ndarray

    def metrics(self, identities: np.ndarray) -> Metrics:
        """Scores every caption against all images; identities: int64 [G], of the images."""
        queries = identities[self.image_of_caption]
        return retrieval_metrics(self.captions, self.images, queries, identities)


class Embedder:
    """Embeds images and captions with one compiled program for each tower.

    batch_size: rows of a batch over all devices of `mesh`, rounded up to a multiple of them, at
    most; a smaller set has smaller batches, and a CPU takes no more than 32 rows at a time.
    resample: the filter that resizes images, and resize: how, as in training.
    """

    def __init__(
        self,
        model: Clip,
        tokenizer: Tokenizer,
        mesh: Mesh,
        *,
        batch_size: int,
        resample: str,
        resize: Resize = SQUASH,
    ):
        self._config, self._tokenizer, self._mesh = model.config, tokenizer, mesh
        rows = -(-batch_size // mesh.size)
        is_cpu = mesh.devices.flat[0].platform == "cpu"
        self._batch_size = (min(rows, _CPU_ROWS) if is_cpu else rows) * mesh.size
        self._resample, self._resize = resample, resize
        self._image, self._text = (
            meshes.compiled_together(
                jax.jit(
                    functools.partial(_unit, model, tower), out_shardings=meshes.replicated(mesh)
                )
            )
            for tower in (Clip.encode_image, Clip.encode_text)
        )

    def features(self, params: Any, one: RetrievalSet) -> Features:
        """Embeds all images and captions of a set."""
        captions, image_of_caption = self.captions(params, one)
        return Features(self.images(params, one), captions, image_of_caption)

    def images(self, params: Any, one: RetrievalSet) -> np.ndarray:
        """Returns the features float32 [G, D] of all images, in their order."""
        batches = loader.image_batches(
            one,
            image_size=self._config.image_size,
            batch_size=self._rows_of(len(one)),
            resample=self._resample,
            resize=self._resize,
        )
        return self._run(self._image, params, batches, "image")[0]

    def captions(self, params: Any, one: RetrievalSet) -> tuple[np.ndarray, np.ndarray]:
        """Returns the features float32 [Q, D] of all captions and the number of each's image."""
        batches = loader.caption_batches(
            one,
            self._tokenizer,
            text_length=self._config.text_length,
            batch_size=self._rows_of(sum(map(len, one.captions))),
        )
        return self._run(self._text, params, batches, "tokens")

    def encoded_images(self, params: Any, images: Iterable[bytes | Image]) -> np.ndarray:
        """Returns the features float32 [N, D] of images, encoded or opened; there must be one.

        They are taken and resized one by one, so that no more than a batch of them is held.
        """
        how = self._config.image_size, self._resample, self._resize

        def decode(some):
            return [transforms.decode_image(data, *how) for data in some]

        return self._rows(self._image, params, images, decode)

    def texts(self, params: Any, texts: Sequence[str]) -> np.ndarray:
        """Returns the features float32 [N, D] of texts, cleaned as captions are.

        A text that occurs many times is embedded once.
        """
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        cleaned = [tokens.clean_caption(text) for text in row_of]
        ids = tokens.encode(self._tokenizer, cleaned, self._config.text_length)
        return self._rows(self._text, params, ids, list)[[row_of[text] for text in texts]]

    def cut(self, texts: Iterable[str], what: str = "captions") -> tokens.Cut:
        """Counts the texts that the model does not read to their end."""
        return tokens.count_cut(self._tokenizer, texts, self._config.text_length, what)

    def _rows_of(self, count: int) -> int:
        """Rows of a batch of `count` items: no more than there are, over all devices."""
        return min(self._batch_size, -(-count // self._mesh.size) * self._mesh.size)

    def _rows(self, encode, params: Any, items: Iterable, make) -> np.ndarray:
        """Features of `items`; make: some of them -> rows of the tower's input."""

        def batches():
            left = iter(items)
            for start in itertools.count(0, self._batch_size):
                rows = np.asarray(make(itertools.islice(left, self._batch_size)))
                if not len(rows):
                    return
                missing = self._batch_size - len(rows)
                padded = np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1))
                mask = np.arange(self._batch_size) < len(rows)
                yield {"rows": padded, "index": start + np.arange(self._batch_size), "mask": mask}

        return self._run(encode, params, batches(), "rows")[0]

    def _run(self, encode, params: Any, batches: Iterable, key: str):
        rows = []
        for batch in batches:  # the device works on one batch while the next is made
            rows.append((encode(params, self._put(batch[key])), batch["index"], batch["mask"]))
        features = np.concatenate([np.asarray(x)[mask] for x, _, mask in rows])
        return features, np.concatenate([index[mask] for _, index, mask in rows])

    def _put(self, rows: np.ndarray) -> jax.Array:
        # Every process holds the whole batch and puts the rows of its own devices.
        sharding = meshes.batch_sharding(self._mesh)
        return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])


def _unit(model: Clip, method, params: Any, rows: jax.Array) -> Array:
    features: Any = model.apply({"params": params}, rows, method=method)
    return normalize(features)
