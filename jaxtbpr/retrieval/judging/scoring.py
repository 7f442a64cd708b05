"""Scores of (image, text) pairs by a CLIP, and measures of whole sets.

The measures are pure functions of features [N, D] of length 1. Texts are cleaned and tokenized,
and images resized, by the functions of the training loaders.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from PIL.Image import Image

from jaxtbpr.core import files, tokenizer
from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.dtypes import Array
from jaxtbpr.core.images import ImageError, attempt, open_image
from jaxtbpr.core.manifest import Record
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.progress import say
from jaxtbpr.datasets import rows
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.model import Clip
from jaxtbpr.retrieval.evaluation.embed import Embedder
from jaxtbpr.retrieval.saved import (
    MODEL,
    RESIZE_HELP,
    RESIZES,
    Saved,
    open_saved,
    trained_folder,
)

JUDGE_OPTIONS: Options = {
    "model": Option("tiny-clip", "CLIP that scores: WORKDIR/train, a published one or tiny-clip"),
    "resize": Option("", RESIZE_HELP, choices=RESIZES),
    "batch_size": Option(128, "images or texts embedded per batch", low=1, high=1_000_000),
}
CUT_OPTIONS: Options = {
    "clauses": Option(True, "score a text by the mean over its clauses, not as a whole"),
    "min_score": Option(0.0, "cosine below which method threshold rejects", low=-1.0, high=1.0),
    "reject_fraction": Option(0.05, "fraction that method quantile rejects", low=0.0, high=1.0),
}

CLIP_SCORE_WEIGHT = 2.5
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0

# What decides the features of a published model besides its weights: its sizes, its words and how
# its images are prepared.
_BESIDE = (
    "config.json", "open_clip_config.json", "model_config.json", "preprocessor_config.json",
    "processor_config.json", "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json",
)  # fmt: skip
_CLAUSES = re.compile(r"[,.;:]|\band\b|\bwith\b")
_KERNEL_ROWS = 1024


class Scorer:
    """Embeds images and texts with one model; one compiled program for each tower.

    batch_size: rows of a batch over all devices of `mesh`, rounded up to a multiple of them.
    """

    def __init__(self, saved: Saved, batch_size: int = 128, mesh: Mesh | None = None):
        mesh = mesh or meshes.make_mesh()
        self._params = jax.device_put(saved.read_params(), meshes.replicated(mesh))
        self._embedder = Embedder(
            Clip(saved.config),
            saved.tokenizer(),
            mesh,
            batch_size=batch_size,
            resample=saved.resample,
            resize=saved.resize,
        )
        self.width = saved.config.embed_dim
        self.logit_scale = float(np.exp(self._params["logit_scale"]))

    def images(self, images: Iterable[bytes | Image]) -> np.ndarray:
        """Returns the features float32 [N, D], of length 1, of images, encoded or opened."""
        left = iter(images)
        if not (first := list(itertools.islice(left, 1))):
            return np.zeros((0, self.width), np.float32)
        return self._embedder.encoded_images(self._params, itertools.chain(first, left))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the features float32 [N, D], of length 1, of texts."""
        if not texts:
            return np.zeros((0, self.width), np.float32)
        return self._embedder.texts(self._params, texts)

    def say_cut(
        self, texts: Sequence[str], stage: str, what: str = "captions", *, clauses: bool = False
    ) -> tokenizer.Cut:
        """Counts the texts, or their clauses, that the model cuts, and prints a line if any."""
        if clauses:
            what = f"clauses of {what}"
            texts = [part for text in texts for part in split_clauses(text)]
        cut = self.cut(texts, what)
        if cut.cut:
            say(f"{stage}: {cut}")
        return cut

    def cut(self, texts: Sequence[str], what: str = "captions") -> tokenizer.Cut:
        """Counts the texts that the model does not read to their end."""
        return self._embedder.cut(texts, what)

    def cosines(self, images: np.ndarray, texts: Sequence[str], *, clauses: bool) -> np.ndarray:
        """Returns the cosine float32 [N] of each image's features [N, D] and its text.

        clauses: the mean over the clauses of a text, each embedded by itself. A model of short
        texts reads to the end of them so, and a wrong word stands out more.
        """
        parts = [split_clauses(text) if clauses else [text] for text in texts]
        owner = np.repeat(np.arange(len(texts)), [len(some) for some in parts])
        every = self.texts([part for some in parts for part in some])
        each = np.sum(images[owner] * every, axis=1, dtype=np.float64)
        sums = np.bincount(owner, each, minlength=len(texts))
        return (sums / np.maximum(np.bincount(owner, minlength=len(texts)), 1)).astype(np.float32)


def open_scorer(options: Any) -> Scorer:
    """Opens the model of a section with `JUDGE_OPTIONS`."""
    return Scorer(open_saved(options.model, resize=options.resize), options.batch_size)


def fingerprint(model: epath.PathLike) -> str:
    """Returns the SHA-256 of the files of a model that `open_saved` takes."""
    if directory := trained_folder(model):
        # Of its checkpoints the commit file has the digests.
        names = (directory / name for name in (MODEL, "tokenizer.json", "commit.json"))
        return files.sha256_of(path for path in names if path.exists())
    checkpoint = weights.open_checkpoint(model)
    beside = [path for name in _BESIDE if (path := checkpoint.folder / name).exists()]
    return files.sha256_of([*sorted(set(checkpoint.arrays.files.values())), *beside])


def split_clauses(text: str) -> list[str]:
    """Returns the clauses of `text` of two words or more; the text itself where there is none."""
    clauses = [clause.strip() for clause in _CLAUSES.split(text)]
    return [clause for clause in clauses if len(clause.split()) > 1] or [text]


def image_features(
    scorer: Scorer, records: Sequence[Record], root: epath.PathLike
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (features float32 [N, D], why an image cannot be used or "": str [N]).

    records: of a manifest, with images below `root`. An image that cannot be used has features 0.
    """
    return usable_features(
        scorer, (attempt(functools.partial(_open, record["image"], root)) for record in records)
    )


def _open(image: dict[str, Any], root: epath.PathLike) -> Image:
    return open_image(rows.read_file(root, image["path"], image["sha256"]))


def usable_features(
    scorer: Scorer, images: Iterable[Image | ImageError]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same of images that were opened, or why that failed; one is held at a time."""
    problems: list[str] = []

    def usable() -> Iterator[Image]:
        for one in images:
            problems.append(one.sentence if isinstance(one, ImageError) else "")
            if not isinstance(one, ImageError):
                yield one

    found = scorer.images(usable())
    features = np.zeros((len(problems), scorer.width), np.float32)
    features[np.array(problems, str) == ""] = found
    return features, np.array(problems, str)


def worst(scores: np.ndarray, fraction: float) -> np.ndarray:
    """Returns which of `scores` [N] are the lowest `fraction` of them, bool [N]; ties by place."""
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(scores, kind="stable")[: int(fraction * len(scores))]] = True
    return chosen


# --- measures of sets ----------------------------------------------------------------------------


def clip_score(images: Array, texts: Array) -> jax.Array:
    """Returns the mean of 2.5 max(cos, 0) over the pairs of rows; images, texts: [N, D].

    Hessel et al., CLIPScore: A Reference-free Evaluation Metric for Image Captioning,
    arXiv:2104.08718. They say "A photo depicts" before each caption; whoever wants their numbers
    gives texts of such captions.
    """
    cosines = jnp.sum(jnp.asarray(images) * jnp.asarray(texts), axis=1)
    return CLIP_SCORE_WEIGHT * jnp.mean(jnp.maximum(cosines, 0.0))


def cmmd(images: np.ndarray, reference: np.ndarray) -> float:
    """Returns the distance of two sets of images, 0 for the same; features [N, D] and [M, D].

    1000 times the squared maximum mean discrepancy with a Gaussian kernel of sigma 10, each
    image's kernel with itself included: Jayasumana et al., Rethinking FID: Towards a Better
    Evaluation Metric for Image Generation, arXiv:2401.09603.
    """
    within = _mean_kernel(images, images) + _mean_kernel(reference, reference)
    return CMMD_SCALE * (within - 2 * _mean_kernel(images, reference))


def frechet_distance(images: np.ndarray, reference: np.ndarray) -> float:
    """Returns FID of two sets of images, 0 for the same; features [N, D] and [M, D] of Inception.

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) of their means and covariances: Heusel et al.,
    GANs Trained by a Two Time-Scale Update Rule, arXiv:1706.08500. The trace of the root is that
    of (R S2 R)^(1/2), where R is the root of S1, whose values are real.
    """
    one, other = (np.asarray(x, np.float64) for x in (images, reference))
    first, second = (np.cov(x, rowvar=False) for x in (one, other))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    apart = np.sum((one.mean(0) - other.mean(0)) ** 2)
    return float(apart + np.trace(first) + np.trace(second) - 2 * shared)


def feature_variance(images: np.ndarray) -> float:
    """Returns the mean squared distance of the features [N, D] from their mean: 0 if all agree.

    SynTBPR's measure of diversity takes one variance over all entries of features of any length,
    which also counts how far the channels' means lie apart and the scale of the model; this does
    not, and is at most 1.
    """
    features = np.asarray(images, np.float64)
    return float(np.sum(np.var(features, axis=0)))


def _mean_kernel(one: np.ndarray, other: np.ndarray) -> float:
    """The mean of k - 1 over all pairs of rows, by pieces of `one` padded to the same shape.

    The kernel is near 1 everywhere, and the ones cancel in the discrepancy: without them float32
    keeps its digits.
    """
    rest = jnp.asarray(other)
    total = 0.0
    for start in range(0, len(one), _KERNEL_ROWS):
        piece = np.asarray(one[start : start + _KERNEL_ROWS])
        padded = np.pad(piece, [(0, _KERNEL_ROWS - len(piece)), (0, 0)])
        means = np.asarray(_kernel_means(padded, rest), np.float64)
        total += float(means[: len(piece)].sum())
    return total / len(one)


@jax.jit
def _kernel_means(one: jax.Array, other: jax.Array) -> jax.Array:
    """The mean of k - 1 of each row of `one` [B, D] with all of `other` [M, D]: float32 [B]."""
    product = jnp.matmul(one, other.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(one**2, axis=1)[:, None] + jnp.sum(other**2, axis=1) - 2 * product
    return jnp.mean(jnp.expm1(-squares / (2 * CMMD_SIGMA**2)), axis=1)
