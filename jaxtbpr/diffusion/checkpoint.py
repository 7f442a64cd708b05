"""A Stable Diffusion as it is given to generate with: networks, scheduler, words, fingerprint."""

import dataclasses
import hashlib
from typing import Any

from etils import epath

from jaxtbpr.core import tensors
from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.sizes import Sizes
from jaxtbpr.diffusion.weights.load import FETCHED
from jaxtbpr.diffusion.words import Words, open_words

_BLOCK = 2**22


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
    files = [path] if path.is_file() else sorted({f for p in FETCHED for f in path.glob(p)})
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name if path.is_file() else file.relative_to(path)}\n".encode())
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                total.update(block)
    return total.hexdigest()
