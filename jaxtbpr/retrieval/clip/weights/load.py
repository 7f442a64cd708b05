"""Reads a published CLIP: recognises its format, infers its sizes, loads its parameters."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from etils import epath

from jaxtbpr.core import files, tensors
from jaxtbpr.core.errors import InputError
from jaxtbpr.core.progress import say
from jaxtbpr.retrieval.clip.model import Clip, ClipConfig, init_params
from jaxtbpr.retrieval.clip.transformer import with_scan
from jaxtbpr.retrieval.clip.weights import keys, names, sizes
from jaxtbpr.retrieval.clip.weights.positions import resample_grid, resample_line

# Constants that published files carry beside their parameters.
_NO_PARAMETERS = re.compile(
    r"(visual\.)?(input_resolution|context_length|vocab_size)|(.*\.)?(attn_mask|position_ids)"
    r"|.*\.?rope\.freqs_(cos|sin)"
)
# A name that only one format has.
_MARKS = {
    "vision_model.embeddings.patch_embedding.weight": "huggingface",
    "visual.conv1.weight": "openai",
    "visual.trunk.patch_embed.proj.weight": "timm",
    "visual.patch_embed.proj.weight": "eva",
}
# First parts of the names of the towers: what is left over of these is of another network.
_TOWERS = {
    "visual", "transformer", "text", "encode_text", "vision_model", "text_model", "logit_bias",
    "token_embedding", "positional_embedding", "ln_final", "text_projection", "visual_projection",
}  # fmt: skip
_NO_SCALE = float(np.log(1 / 0.02))  # IRRA's and RDE's temperature, no parameter there
_FILES = (
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.fp16.json",  # of save_pretrained(variant="fp16")
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint, opened but not read.

    arrays: of all its files; kind: one of names.FORMATS; hints: what a JSON file beside it says of
    its sizes, see `sizes`; folder: where tokenizer files may be.
    """

    source: str
    arrays: tensors.Opened
    kind: str
    text_prefix: str
    hints: Mapping[str, Any]
    folder: epath.Path

    def config(self) -> ClipConfig:
        """Returns the model's own sizes. Raises InputError where they cannot be told."""
        return sizes.infer(self.kind, self.arrays.shapes, self.text_prefix, self.hints, self.source)


def load(
    source: epath.PathLike,
    *,
    image_size: tuple[int, int] | None = None,
    text_length: int | None = None,
    hints: Mapping[str, Any] | None = None,
    **changes: Any,
) -> tuple[ClipConfig, Any]:
    """Returns (config, parameters as float32 NumPy arrays) of a published CLIP.

    source: a folder, a .safetensors file or the id of a hub repository, with names of Hugging
    Face's CLIPModel, OpenAI's CLIP, open_clip, EVA02-CLIP or timm. image_size: (H, W), and
    text_length: other than the checkpoint's, positions are then resampled. hints: sizes that the
    files do not tell, see `sizes`. changes: other fields of `ClipConfig`, such as dtype. Raises
    InputError that lists what is missing, unexpected or of another shape.
    """
    checkpoint = open_checkpoint(source, hints)
    own_config = checkpoint.config()
    changes["image_size"] = tuple(image_size or own_config.image_size)
    config = dataclasses.replace(
        own_config, text_length=text_length or own_config.text_length, **changes
    )
    return config, read_params(checkpoint, config)


def read_params(checkpoint: Checkpoint, config: ClipConfig) -> Any:
    """Returns the parameters of a checkpoint for `config`, which may have another image size."""
    expected = expected_shapes(config)
    wanted = names.tensors(checkpoint.kind, config, checkpoint.text_prefix)
    present = {one.theirs for one in wanted} & set(checkpoint.arrays.shapes)
    missing = [one.theirs for one in wanted if one.theirs not in present]
    unexpected = [
        name
        for name in checkpoint.arrays.shapes
        if name not in present and not _NO_PARAMETERS.fullmatch(name)
    ]
    saved_grid = checkpoint.config().grid
    if saved_grid[0] == saved_grid[1] and not sizes.image_size_of(checkpoint.hints):
        saved_grid = None
    params, misshaped = {}, []
    if missing == ["logit_scale"]:
        say(f"{checkpoint.source} has no logit_scale; using the one of temperature 0.02.")
        missing, params["logit_scale"] = [], np.array(_NO_SCALE, np.float32)
    for one in wanted:
        if one.theirs not in present:
            continue
        shapes = [expected[path] for path in one.ours]
        arrays = _read(checkpoint, one, config, shapes, saved_grid)
        if arrays is None:
            theirs = checkpoint.arrays.shapes[one.theirs]
            misshaped.append(f"{one.theirs} {list(theirs)} (for {list(shapes[0])} here)")
        else:
            params |= dict(zip(one.ours, arrays, strict=True))
    is_head = [name.split(".")[0] not in _TOWERS for name in unexpected]
    if unexpected and all(is_head) and not (missing or misshaped):
        heads = ", ".join(sorted({name.split(".")[0] for name in unexpected}))
        say(
            f"{checkpoint.source}: both towers are read; {len(unexpected)} arrays of no CLIP are "
            f"left out: {heads}."
        )
        unexpected = []
    if missing or unexpected or misshaped:
        raise InputError(
            tensors.misfit(checkpoint.source, checkpoint.kind, missing, unexpected, misshaped)
        )
    return with_scan(flax.traverse_util.unflatten_dict(params, sep="/"), config.scan)


def expected_shapes(config: ClipConfig) -> dict[str, tuple[int, ...]]:
    """Returns {path: shape} of all parameters, without scanned blocks."""
    model = Clip(dataclasses.replace(config, scan=False))
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    leaves: dict[str, Any] = flax.traverse_util.flatten_dict(params, sep="/")
    return {path: leaf.shape for path, leaf in leaves.items()}


def open_checkpoint(source: epath.PathLike, hints: Mapping[str, Any] | None = None) -> Checkpoint:
    """Opens a checkpoint without reading its arrays; arguments and errors as of `load`."""
    path = find(source)
    lacking = (
        f"{path} holds neither a model trained here (model.json) nor a .safetensors file; "
        "give the folder of one."
    )
    arrays, wrapper = _unwrap(tensors.open_files(tensors.weight_files(path, _FILES, lacking)))
    kind, text_prefix = _recognise(arrays.shapes, path)
    folder = path if path.is_dir() else path.parent
    hints_found = _read_hints(folder, kind) if hints is None else hints
    if kind == "openai" and (wrapper == "base_model." or text_prefix == "encode_text."):
        # IRRA, RDE and TBPS-CLIP start from OpenAI's CLIPs and keep their activation.
        hints_found = {"quick_gelu": True} | dict(hints_found)
    return Checkpoint(os.fspath(path), arrays, kind, text_prefix, hints_found, folder)


def find(source: epath.PathLike) -> epath.Path:
    """Returns the local path of `source`; see `tensors.find`."""
    return tensors.find(source, ["*.safetensors", "*.json", "merges.txt"])


# --- files ---------------------------------------------------------------------------------------


def _unwrap(arrays: tensors.Opened) -> tuple[tensors.Opened, str]:
    """The arrays by the names that they have in a CLIP, and the wrapper's name before them.

    PyTorch's compile and parallel wrappers put _orig_mod. and module. anywhere into a name, other
    models hold a whole CLIP under a name of theirs (base_model. in IRRA and RDE).
    """
    plain = {tensors.unwrapped(name): name for name in arrays.shapes}
    if len(plain) < len(arrays.shapes):  # an average of the weights beside them
        plain = {name: name for name in arrays.shapes}
    prefixes = [name.removesuffix(mark) for name in plain for mark in _MARKS if name.endswith(mark)]
    prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
    wrapper = min(prefixes, key=len, default="")
    stored = {name.removeprefix(wrapper): old for name, old in plain.items()}
    if len(stored) < len(plain):  # the same name with and without the wrapper's
        wrapper, stored = "", plain
    new_names = {old: name for name, old in stored.items()}
    return arrays.renamed(new_names.__getitem__), wrapper


def _recognise(shapes: Mapping[str, Any], path: epath.Path) -> tuple[str, str]:
    """(format, prefix of the text tower's names), from names that only one format has."""
    kind = next((_MARKS[name] for name in _MARKS if name in shapes), None)
    if "visual.layer1.0.conv1.weight" in shapes:
        raise InputError(
            f"{path} is a CLIP with a ResNet vision tower, which is not supported; use a ViT."
        )
    if kind is None:
        _refuse_other_model(path)
        some = ", ".join(sorted(shapes)[:3]) or "none"
        raise InputError(
            f"{path} has tensors ({some}, ...) of no CLIP that is known: Hugging Face's CLIPModel, "
            "OpenAI's, open_clip's or EVA02-CLIP's ViT; give another checkpoint."
        )
    prefixes = ("", "text.", "encode_text.")
    held = [prefix for prefix in prefixes if f"{prefix}token_embedding.weight" in shapes]
    return kind, held[0] if held else ""


def _refuse_other_model(path: epath.Path) -> None:
    """Raises InputError where the config beside the weights tells what else they are of."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    settings = files.read_json(config) if config.exists() else None
    if isinstance(settings, dict) and (model_type := settings.get("model_type")) not in (
        None,
        "clip",
    ):
        raise keys.other_network("model_type", model_type, os.fspath(path))


def _read_hints(folder: epath.Path, kind: str) -> dict[str, Any]:
    """What a JSON file beside the weights says of the sizes, as open_clip writes it."""
    if kind == "huggingface":
        path = folder / "config.json"
        if not path.exists():
            raise InputError(f"{path} does not exist; a Hugging Face checkpoint needs it.")
        return files.read_json(path)
    for name in ("open_clip_config.json", "model_config.json"):
        if (folder / name).exists():
            config = files.read_json(folder / name)
            return config.get("model_cfg", config) if isinstance(config, dict) else config
    return {}


# --- arrays --------------------------------------------------------------------------------------


def _read(
    checkpoint: Checkpoint,
    one: tensors.Tensor,
    config: ClipConfig,
    shapes: list[tuple[int, ...]],
    saved_grid: tuple[int, int] | None,
) -> list | None:
    """Our arrays of a tensor, float32; None where its shape fits neither as it is nor resampled.

    saved_grid: the checkpoint's grid of patches, if it tells it. Raises InputError where a number
      is none.
    """
    stored = checkpoint.arrays.read(one.theirs)
    if one.layout.axes is not None and stored.ndim != one.layout.axes:
        return None
    arrays = one.layout.read(stored)
    if one.ours[0].endswith("/positional_embedding") and arrays[0].shape != shapes[0]:
        if arrays[0].shape[1:] != shapes[0][1:]:
            return None
        image = one.ours[0].startswith("image/")
        if image:
            arrays = [resample_grid(arrays[0], config.grid, saved_grid)]
        else:
            arrays = [resample_line(arrays[0], shapes[0][0])]
    if [array.shape for array in arrays] != shapes:
        return None
    arrays = [np.array(array, np.float32, order="C") for array in arrays]
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError(
            f"{one.theirs} of {checkpoint.source} holds numbers that are not finite; fetch the "
            "checkpoint again."
        )
    return arrays
