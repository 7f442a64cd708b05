"""Writes a model as a Diffusers folder, for PyTorch's diffusers and for `load`."""

import os
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np
from etils import epath

from jaxtbpr.core import files, tensors
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.networks import Networks
from jaxtbpr.diffusion.sizes import Sizes
from jaxtbpr.diffusion.weights import names
from jaxtbpr.diffusion.weights.load import NETWORKS, SCHEDULER, TOKENIZER_FILES

# The diffusers version of the configs; its pipelines decide by it which old configs to fix.
_DIFFUSERS_VERSION = "0.35.2"
# The classes that read the parts, as model_index.json names them.
_CLASSES = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "safety_checker": (None, None),
    "feature_extractor": (None, None),
    "image_encoder": (None, None),
}
_SCHEDULER = "PNDMScheduler"  # where the config names none


def save(
    folder: epath.PathLike,
    sizes: Sizes,
    params: Mapping[str, Any],
    scheduler_config: Mapping[str, Any],
    tokenizer_files_from: epath.PathLike,
    dtype: str | None = None,
) -> None:
    """Writes model_index.json and the folders unet, vae, text_encoder, tokenizer and scheduler.

    params: of all three networks; dtype: of the files; None: as the parameters are.
    tokenizer_files_from: the folder whose tokenizer files are copied. Raises ValueError
    where parameters are not those of `sizes`, InputError where that folder has no tokenizer.
    """
    folder, shapes = epath.Path(folder), Networks(sizes).shapes()
    arrays = {name: _named(name, params, shapes[name]) for name in NETWORKS}
    configs = dict(zip(NETWORKS, (sizes.unet, sizes.vae, sizes.text), strict=True))
    _copy_tokenizer(epath.Path(tokenizer_files_from), folder / "tokenizer")
    for name in NETWORKS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        tensors.write(folder / name / f"{stem}.safetensors", arrays[name], dtype)
        described = _described(name, configs[name], dtype or _dtype_of(arrays[name]))
        files.write_json_atomic(folder / name / "config.json", described)
    (folder / "scheduler").mkdir(exist_ok=True)
    scheduler = {"_class_name": _SCHEDULER, "_diffusers_version": _DIFFUSERS_VERSION}
    scheduler |= scheduler_config
    files.write_json_atomic(folder / SCHEDULER, scheduler)
    index = _index(sizes, scheduler["_class_name"])
    files.write_json_atomic(folder / "model_index.json", index)


def _named(network: str, params: Mapping[str, Any], shapes: names.Shapes) -> dict[str, np.ndarray]:
    """{name in the file: array, a view in the file's layout}."""
    ours: dict[str, Any] = flax.traverse_util.flatten_dict(params[network], sep="/")
    actual = {path: np.shape(array) for path, array in ours.items()}
    if actual != shapes:
        wrong = sorted(
            path for path in actual.keys() | shapes if actual.get(path) != shapes.get(path)
        )
        raise ValueError(
            f"the parameters of {network} do not match its sizes; missing, unexpected or of "
            f"another shape: {', '.join(wrong[:6])}."
        )
    return {
        one.theirs: one.layout.write([np.asarray(ours[path]) for path in one.ours])
        for one in names.tensors(network, shapes)
    }


def _dtype_of(arrays: Mapping[str, np.ndarray]) -> str:
    return next(iter(arrays.values())).dtype.name


def _described(network: str, config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """config.json; what it does not say has PyTorch's default, which is what the networks do."""
    library, name = _CLASSES[network]
    if library == "diffusers":
        return {"_class_name": name, "_diffusers_version": _DIFFUSERS_VERSION, **config}
    return {"architectures": [name], "model_type": "clip_text_model", **config, "dtype": dtype}


def _index(sizes: Sizes, scheduler: str) -> dict[str, Any]:
    # Eight channels are latents beside those of the picture to edit: InstructPix2Pix.
    edits = sizes.unet["in_channels"] == 2 * sizes.vae["latent_channels"]
    pipeline = "StableDiffusionInstructPix2PixPipeline" if edits else "StableDiffusionPipeline"
    parts = {name: list(classes) for name, classes in _CLASSES.items()}
    parts["scheduler"] = ["diffusers", scheduler]
    return {
        "_class_name": pipeline,
        "_diffusers_version": _DIFFUSERS_VERSION,
        "requires_safety_checker": False,
        **dict(sorted(parts.items())),
    }


def _copy_tokenizer(source: epath.Path, target: epath.Path) -> None:
    present = [name for name in TOKENIZER_FILES if (source / name).exists()]
    if not {"vocab.json", "merges.txt"} <= set(present) and "tokenizer.json" not in present:
        raise InputError(
            f"{os.fspath(source)} has no tokenizer (vocab.json and merges.txt, or "
            "tokenizer.json); use the folder of one."
        )
    data = {name: (source / name).read_bytes() for name in present}  # it may be the same folder
    target.mkdir(parents=True, exist_ok=True)
    for name in present:
        files.write_bytes_atomic(target / name, data[name])
