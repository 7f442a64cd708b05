"""A Stable Diffusion checkpoint: networks, scheduler, tokenizer, fingerprint."""

import dataclasses
from typing import Any

from etils import epath

from jaxtbpr.core import files, tensors
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.prompt_tokenizer import PromptTokenizer, open_prompt_tokenizer
from jaxtbpr.diffusion.sizes import Sizes
from jaxtbpr.diffusion.weights.load import FETCHED, TOKENIZER_FILES, beside


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded model. params: {"unet", "vae", "text_encoder"} of NumPy arrays; see `weights.load`.

    scheduler: the parsed scheduler_config.json; tokenizer: the folder of the files of
      `prompt_tokenizer`.
    """

    sizes: Sizes
    params: dict[str, Any]
    scheduler: dict[str, Any]
    prompt_tokenizer: PromptTokenizer
    tokenizer: epath.Path


def open_checkpoint(
    source: epath.PathLike, dtype: str | None = None, prediction: str = ""
) -> Checkpoint:
    """Loads a Diffusers folder, hub id or single file; see `weights.load` for the arguments.

    Raises InputError also for a tokenizer that does not fit the text encoder.
    """
    sizes, params, scheduler, tokenizer = weights.load(source, dtype, prediction=prediction)
    prompt_tokenizer = open_prompt_tokenizer(tokenizer, sizes.text["max_position_embeddings"])
    count, needed = prompt_tokenizer.size, sizes.text["vocab_size"]
    if count != needed:
        raise InputError(
            f"{tokenizer} has {count} tokens, but the text encoder has {needed} (text_encoder: "
            "vocab_size); take both from one model."
        )
    return Checkpoint(sizes, params, scheduler, prompt_tokenizer, tokenizer)


def fingerprint(source: epath.PathLike) -> str:
    """Returns the SHA-256 of a model's weights, configs and tokenizer.

    Raises InputError where there is no model.
    """
    path = tensors.find(source, FETCHED)
    if path.is_file():
        scheduler, tokenizer = beside(path.parent)
        candidates = [tokenizer / name for name in TOKENIZER_FILES]
        paths = [path, *filter(None, [scheduler]), *(file for file in candidates if file.exists())]
    else:
        paths = [file for file in files.matches(path, *FETCHED) if not file.is_dir()]
    if not paths:
        raise InputError(f"{path} has no files of a Stable Diffusion; use the folder of one.")
    return files.sha256_of(paths)
