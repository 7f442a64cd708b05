"""Writes our models in the formats of other libraries."""

import json
from typing import Any

import flax.traverse_util
import numpy as np
from etils import epath
from tokenizers import Regex, Tokenizer, normalizers, processors

from jaxtbpr.core import files, tensors
from jaxtbpr.core import tokenizer as tokenizers
from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets.resizing import SQUASH, Resize
from jaxtbpr.retrieval.clip.model import ClipConfig
from jaxtbpr.retrieval.clip.transformer import with_scan
from jaxtbpr.retrieval.clip.weights import images, names, open_clip, sizes

_HUGGINGFACE = ("model.safetensors", "config.json")
_OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_config.json")
# What a folder is read by; model.json is that of a training here.
_READ = (
    "*.safetensors", "*.safetensors.index*.json", "config.json", "open_clip_config.json",
    "model_config.json", "processor_config.json", "vocab.json", "merges.txt", "model.json",
)  # fmt: skip


def refuse_another_model(folder: epath.PathLike, kind: str) -> None:
    """Raises InputError where `folder` holds what `save_folder` would not replace of a model.

    Whoever opens the folder afterwards could be given those, or a mixture of both.
    """
    names_written = _HUGGINGFACE if kind == "huggingface" else _OPEN_CLIP
    others = [path.name for path in files.matches(folder, *_READ) if path.name not in names_written]
    if others:
        raise InputError(
            f"{folder} holds another model ({', '.join(others)}), which would be mixed with this "
            "one; choose a new folder, or remove that model first."
        )


def choose_format(config: ClipConfig, resize: Resize = SQUASH) -> tuple[str, str]:
    """Returns the format that most tools open a model in, of names.FORMATS, and why it is that.

    Raises InputError where no format holds it.
    """
    other = sizes.other_format(config)
    if what := sizes.not_in_huggingface(config):
        kind = "timm" if open_clip.timm_name(config) else other
        return kind, f"transformers' CLIPModel does not support {what}"
    if not images.fits_huggingface(config, resize):
        return other, f"transformers' CLIPImageProcessor does not resize by {resize.mode!r}"
    return "huggingface", "transformers' CLIPModel can hold it"


def save_tensors(
    path: epath.PathLike, params: Any, config: ClipConfig, kind: str, dtype: str = "float32"
) -> None:
    """Writes all parameters to a .safetensors file with the names of `kind` (names.FORMATS).

    Raises InputError where that format has no place for a parameter of the model, or `dtype` none
    for one of its numbers.
    """
    tensors.write(path, _arrays(params, config, kind, dtype))


def _as(array: np.ndarray, dtype: str, path: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = np.asarray(array).astype(dtype)
    if not np.isfinite(converted).all():
        raise InputError(f"{path} has numbers that {dtype} cannot hold; write it in float32.")
    return converted


def save_folder(
    folder: epath.PathLike,
    params: Any,
    config: ClipConfig,
    tokenizer: Tokenizer,
    *,
    kind: str = "huggingface",
    resample: str = "bicubic",
    resize: Resize = SQUASH,
    dtype: str = "float32",
) -> None:
    """Writes a folder with weights, sizes, tokenizer and image processor, which `load` reads again.

    kind: "huggingface", for `transformers.CLIPModel` and `CLIPProcessor`, which then give the
    features that the model has here; another of names.FORMATS has open_clip's file names and may
    hold EVA02's towers and tall images. Raises InputError for a model that the format cannot be,
    and for a folder with another model's files.
    """
    folder = epath.Path(folder)
    refuse_another_model(folder, kind)
    prepared = {}
    if kind == "huggingface" or images.fits_huggingface(config, resize):
        prepared["preprocessor_config.json"] = images.to_huggingface(config, resample, resize)
    if kind == "huggingface":
        weights_file, sizes_file = _HUGGINGFACE
        described = sizes.to_huggingface(config) | {"dtype": dtype}
    else:
        weights_file, sizes_file = _OPEN_CLIP
        described = {
            "model_cfg": open_clip.to_open_clip(config, kind),
            "preprocess_cfg": images.to_open_clip(config, resample, resize),
        }
    arrays = _arrays(params, config, kind, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    tensors.write(folder / weights_file, arrays)
    for name, value in ({sizes_file: described} | prepared).items():
        files.write_json_atomic(folder / name, value)
    _save_tokenizer(folder, tokenizer, config.text_length)


def _arrays(params: Any, config: ClipConfig, kind: str, dtype: str) -> dict[str, np.ndarray]:
    """Returns all parameters by the names of `kind`. Raises InputError where it has no place."""
    ours: dict[str, Any] = flax.traverse_util.flatten_dict(with_scan(params, scan=False), sep="/")
    wanted = names.tensors(kind, config)
    left = set(ours) ^ {path for one in wanted for path in one.ours}
    if left:
        other = sizes.other_format(config)
        if other == "openai" != kind:
            raise InputError(
                f"{kind} holds EVA02-CLIP alone, which this model is not; use --format=openai."
            )
        if other != "openai" == kind:
            raise InputError("openai does not hold an EVA02-CLIP; use --format=eva or timm.")
        raise InputError(f"the format {kind!r} has no {', '.join(sorted(left)[:4])} of this model.")
    return {
        one.theirs: one.layout.write([_as(ours[path], dtype, path) for path in one.ours])
        for one in wanted
    }


def _steps(normalizer: normalizers.Normalizer | None) -> list[normalizers.Normalizer]:
    if isinstance(normalizer, normalizers.Sequence):
        count = len(normalizer)  # pyright: ignore[reportArgumentType] # not in its stub
        return [normalizer[k] for k in range(count)]
    return [normalizer] if normalizer else []


def _save_tokenizer(folder: epath.Path, tokenizer: Tokenizer, length: int) -> None:
    """tokenizer.json that cleans captions and adds start and end by itself, as the loaders do."""
    start, end = tokenizers.special_ids(tokenizer)
    ending = Tokenizer.from_str(tokenizer.to_str())
    cleaning = [
        normalizers.Lowercase(),
        normalizers.Replace(Regex(tokenizers.PUNCTUATION), " "),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
    steps = _steps(ending.normalizer)
    if list(map(repr, steps[: len(cleaning)])) != list(map(repr, cleaning)):  # not saved before
        ending.normalizer = normalizers.Sequence([*cleaning, *steps])
    ending.post_processor = processors.TemplateProcessing(
        single=f"{tokenizers.START} $A {tokenizers.END}",
        special_tokens=[(tokenizers.START, start), (tokenizers.END, end)],
    )
    described = json.loads(ending.to_str())
    text = json.dumps(described, ensure_ascii=False)
    files.write_text_atomic(folder / "tokenizer.json", text + "\n")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokenizers.START,
        "eos_token": tokenizers.END,
        "pad_token": tokenizer.id_to_token(0),
        "model_max_length": length,
        "model_input_names": ["input_ids", "attention_mask"],  # the model takes no other
        # Else transformers takes it out of tokenizer.json.
        "add_prefix_space": bool(described["pre_tokenizer"].get("add_prefix_space")),
    }
    files.write_json_atomic(folder / "tokenizer_config.json", settings)
