"""A Stable Diffusion as it is given to generate with: networks, scheduler, words, fingerprint."""

import dataclasses
from typing import Any

from etils import epath

from jaxtbpr.core import files, tensors
from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.sizes import Sizes
from jaxtbpr.diffusion.weights.load import FETCHED
from jaxtbpr.diffusion.words import Words, open_words


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded model. params: {"unet", "vae", "text_encoder"} of NumPy arrays; see `weights.load`.

    scheduler: the parsed scheduler_config.json.
    """

    sizes: Sizes
    params: dict[str, Any]
    scheduler: dict[str, Any]
    words: Words


def open_checkpoint(source: epath.PathLike, dtype: str | None = None) -> Checkpoint:
    """Loads a Diffusers folder, hub id or single file; see `weights.load` for its errors."""
    sizes, params, scheduler, tokenizer = weights.load(source, dtype)
    words = open_words(tokenizer, sizes.text["max_position_embeddings"])
    return Checkpoint(sizes, params, scheduler, words)


def fingerprint(source: epath.PathLike) -> str:
    """Returns the SHA-256 of all that decides what a model makes: its weights, configs, words."""
    path = tensors.find(source, FETCHED)
    found = {file for pattern in FETCHED for file in path.glob(pattern)}
    return files.sha256_of([path] if path.is_file() else sorted(found))
