"""Weights of the training pairs, from their losses after every epoch."""

import dataclasses
import io
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxtbpr.core import files, seeds
from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import InputError
from jaxtbpr.core.progress import say
from jaxtbpr.datasets.pairs import Pairs
from jaxtbpr.datasets.source import RetrievalSet
from jaxtbpr.retrieval.evaluation.embed import Embedder
from jaxtbpr.retrieval.training import losses, mixture

METHODS = ("", "mixture", "consensus")
_FOLDER = "pair_losses"
_directions = jax.jit(losses.direction_losses)


@dataclasses.dataclass
class PairWeights:
    """The weights of all pairs in this epoch; all 1 at first.

    method: "" only writes the losses; "mixture" weights each pair by the probability that it is
    right; "consensus" drops those that both directions call wrong (`mixture`). warmup_epochs:
    epochs without weights. directory: WORKDIR/train; a file per epoch goes to its pair_losses/,
    from which a resumed run reads its weights.
    """

    method: str
    warmup_epochs: int
    directory: epath.Path
    embedder: Embedder
    train: list[RetrievalSet]
    pairs: Pairs

    def __post_init__(self):
        self._weights = np.ones(len(self.pairs), np.float32)

    def of(self, pairs: np.ndarray) -> np.ndarray:
        """Returns the weights float32 [B] of the pairs with these indices."""
        return self._weights[pairs]

    def restore(self, epoch: int) -> None:
        """Reads the weights that were computed after `epoch` epochs."""
        if epoch == 0:
            return
        path = self._path(epoch)
        if not path.exists():
            raise InputError(
                f"{path}, which this run resumes from, is missing; restore it, or start again "
                "with --rerun."
            )
        self._weights = np.load(io.BytesIO(path.read_bytes()))["weight"]

    def update(self, params: Any, epoch: int) -> None:
        """Measures every pair after `epoch` epochs, sets the weights and writes both."""
        by_image, by_text = self._measure(params, epoch)
        if self.method and epoch >= self.warmup_epochs:
            self._weights = self._weights_from(by_image, by_text, epoch)
            say(f"train: pair weights of epoch {epoch + 1}: mean {self._weights.mean():.3f}")
        if meshes.is_primary_process():
            self._path(epoch).parent.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            np.savez(buffer, image_to_text=by_image, text_to_image=by_text, weight=self._weights)
            files.write_bytes_atomic(self._path(epoch), buffer.getvalue(), durable=True)

    def _weights_from(self, by_image: np.ndarray, by_text: np.ndarray, epoch: int) -> np.ndarray:
        if self.method == "mixture":
            return mixture.clean_probability(0.5 * (by_image + by_text)).astype(np.float32)
        rng = seeds.rng(self.pairs.seed, "consensus", epoch)
        clean = mixture.clean_probability
        return mixture.confident_consensus(clean(by_image), clean(by_text), rng)

    def _measure(self, params: Any, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """N-ITC of every pair in both directions, float32 [P], each in a random batch.

        Without augmentation; the last batch is filled with pairs of the first ones.
        """
        features = [self.embedder.features(params, one) for one in self.train]
        images = np.concatenate([one.images for one in features])
        captions = np.concatenate([one.captions for one in features])[self.pairs.caption_of_pair]
        count, size = len(self.pairs), self.pairs.batch_size
        order = seeds.rng(self.pairs.seed, "pair losses", epoch).permutation(count)
        batches = np.resize(order, -(-count // size) * size).reshape(-1, size)
        scale = np.float32(jax.device_get(params["logit_scale"]))
        out = np.zeros((2, count), np.float32)
        for batch in batches[::-1]:  # backwards, so that a pair's first batch decides
            ids = self.pairs.identity_of_pair[batch]
            out[:, batch] = _directions(
                images[self.pairs.image_of_pair[batch]], captions[batch], ids, scale
            )
        return out[0], out[1]

    def _path(self, epoch: int) -> epath.Path:
        return self.directory / _FOLDER / f"epoch_{epoch:04d}.npz"
