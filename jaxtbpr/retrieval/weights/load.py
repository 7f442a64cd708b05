"""Reads a published CLIP into our towers: which format it is, its sizes, its parameters."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.retrieval.model import Clip, ClipConfig, init_params
from jaxtbpr.retrieval.transformer import with_scan
from jaxtbpr.retrieval.weights import names, sizes
from jaxtbpr.retrieval.weights.positions import resample_grid, resample_line

# Constants that published files carry beside their parameters.
_NO_PARAMETERS = re.compile(
    r"(visual\.)?(input_resolution|context_length|vocab_size)|(.*\.)?(attn_mask|position_ids)"
    r"|.*\.?rope\.freqs_(cos|sin)"
)
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
EMBEDDED = epath.Path(__file__).parents[2] / "assets" / "tiny-clip"
_CONVERTER = epath.Path(__file__).parent / "convert_pt.py"
_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint, opened but not read.

    tensors: name -> the file that has it; shapes: name -> shape; kind: one of names.FORMATS;
    hints: what a JSON file beside it says of its sizes, see `sizes`; folder: where tokenizer
    files may be.
    """

    source: str
    tensors: Mapping[str, epath.Path]
    shapes: Mapping[str, tuple[int, ...]]
    kind: str
    text_prefix: str
    hints: Mapping[str, Any]
    folder: epath.Path

    def config(self) -> ClipConfig:
        """Returns the model's own sizes. Raises UserError where they cannot be told."""
        return sizes.infer(self.kind, self.shapes, self.text_prefix, self.hints, self.source)

    def read(self, name: str) -> np.ndarray:
        """Returns one array, in the dtype of the file."""
        with safe_open(os.fspath(self.tensors[name]), "numpy") as file:
            return file.get_tensor(name)


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
    UserError that lists what is missing, unexpected or of another shape.
    """
    checkpoint = open_checkpoint(source, hints)
    own = checkpoint.config()
    changes["image_size"] = tuple(image_size or own.image_size)
    config = dataclasses.replace(own, text_length=text_length or own.text_length, **changes)
    return config, read_params(checkpoint, config)


def read_params(checkpoint: Checkpoint, config: ClipConfig) -> Any:
    """Returns the parameters of a checkpoint for `config`, which may have another image size."""
    expected = expected_shapes(config)
    wanted = names.tensors(checkpoint.kind, config, checkpoint.text_prefix)
    present = {one.theirs for one in wanted} & set(checkpoint.tensors)
    missing = [one.theirs for one in wanted if one.theirs not in present]
    unexpected = [
        name
        for name in checkpoint.tensors
        if name not in present and not _NO_PARAMETERS.fullmatch(name)
    ]
    found, misshaped = {}, []
    for one in wanted:
        if one.theirs not in present:
            continue
        shapes = [expected[path] for path in one.ours]
        arrays = _read(checkpoint, one, config, shapes)
        if arrays is None:
            theirs = checkpoint.shapes[one.theirs]
            misshaped.append(f"{one.theirs} {list(theirs)} (for {list(shapes[0])} here)")
        else:
            found |= dict(zip(one.ours, arrays, strict=True))
    if missing or unexpected or misshaped:
        raise UserError(_misfit(checkpoint, missing, unexpected, misshaped))
    return with_scan(flax.traverse_util.unflatten_dict(found, sep="/"), config.scan)


def expected_shapes(config: ClipConfig) -> dict[str, tuple[int, ...]]:
    """Returns {path: shape} of all parameters, without scanned blocks."""
    model = Clip(dataclasses.replace(config, scan=False))
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    return {
        path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(params, sep="/").items()
    }


def open_checkpoint(source: epath.PathLike, hints: Mapping[str, Any] | None = None) -> Checkpoint:
    """Opens a checkpoint without reading its arrays; arguments and errors as of `load`."""
    path = find(source)
    tensors, shapes = {}, {}
    for file in _weight_files(path):
        try:
            with safe_open(os.fspath(file), "numpy") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    tensors[name] = file
                    shapes[name] = tuple(opened.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file} is not a whole .safetensors file ({error}); fetch it again."
            ) from error
    kind, text_prefix = _recognise(shapes, path)
    folder = path if path.is_dir() else path.parent
    found = _read_hints(folder, kind) if hints is None else hints
    return Checkpoint(os.fspath(path), tensors, shapes, kind, text_prefix, found, folder)


def find(source: epath.PathLike) -> epath.Path:
    """Returns the local path of `source`: a path, a hub id, or "tiny-clip", the embedded model."""
    path = epath.Path(source)
    if path.exists():
        return path
    if os.fspath(source) == EMBEDDED.name:
        return EMBEDDED
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", os.fspath(source)):
        raise UserError(f"{path} does not exist; give a folder, a .safetensors file or a hub id.")
    import huggingface_hub

    try:
        wanted = ["*.safetensors", "*.json", "merges.txt"]
        return epath.Path(huggingface_hub.snapshot_download(str(source), allow_patterns=wanted))
    except Exception as error:  # offline, no such repository, no permission: many classes
        raise UserError(
            f"{source} is no folder here and could not be had from the hub "
            f"({type(error).__name__}); give a local folder."
        ) from error


# --- files ---------------------------------------------------------------------------------------


def _weight_files(path: epath.Path) -> list[epath.Path]:
    if path.is_file() and path.suffix == ".safetensors":
        return [path]
    if path.is_file() and path.suffix in _PICKLES:
        raise UserError(_pickle_refused(path))
    if path.is_file():
        raise UserError(f"{path} is no .safetensors file; give one or the folder that has it.")
    index = path / "model.safetensors.index.json"
    if index.exists():
        shards = sorted(set(files.read_json(index)["weight_map"].values()))
        missing = [name for name in shards if not (path / name).exists()]
        if missing:
            raise UserError(f"{path} lacks {', '.join(missing)}, which {index.name} names.")
        return [path / name for name in shards]
    for name in ("open_clip_model.safetensors", "model.safetensors"):
        if (path / name).exists():
            return [path / name]
    found = sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return found
    pickles = sorted(file for file in path.iterdir() if file.suffix in _PICKLES)
    if pickles and not found:
        raise UserError(_pickle_refused(pickles[0]))
    if not found:
        raise UserError(
            f"{path} holds neither a model trained here (model.json) nor a .safetensors file; "
            "give the folder of one."
        )
    raise UserError(
        f"{path} holds {len(found)} .safetensors files and no index; name the one to read."
    )


def _pickle_refused(path: epath.Path) -> str:
    return (
        f"{path} is a pickle, which may run any program when it is read; convert it in an "
        f"environment that has torch: python {_CONVERTER} {path} "
        f"{path.with_suffix('.safetensors')}"
    )


def _recognise(shapes: Mapping[str, Any], path: epath.Path) -> tuple[str, str]:
    """(format, prefix of the text tower's names), from names that only one format has."""
    marks = {
        "vision_model.embeddings.patch_embedding.weight": "huggingface",
        "visual.conv1.weight": "openai",
        "visual.trunk.patch_embed.proj.weight": "timm",
        "visual.patch_embed.proj.weight": "eva",
    }
    kind = next((marks[name] for name in marks if name in shapes), None)
    if kind is None:
        some = ", ".join(sorted(shapes)[:3]) or "none"
        raise UserError(
            f"{path} has tensors ({some}, ...) of no CLIP that is known: Hugging Face's CLIPModel, "
            "OpenAI's, open_clip's or EVA02-CLIP's ViT; give another checkpoint."
        )
    prefixes = ("", "text.", "encode_text.")
    held = [prefix for prefix in prefixes if f"{prefix}token_embedding.weight" in shapes]
    return kind, held[0] if held else ""


def _read_hints(folder: epath.Path, kind: str) -> dict[str, Any]:
    """What a JSON file beside the weights says of the sizes, as open_clip writes it."""
    if kind == "huggingface":
        path = folder / "config.json"
        if not path.exists():
            raise UserError(f"{path} does not exist; a Hugging Face checkpoint needs it.")
        return files.read_json(path)
    for name in ("open_clip_config.json", "model_config.json"):
        if (folder / name).exists():
            found = files.read_json(folder / name)
            return found.get("model_cfg", found)
    return {}


# --- arrays --------------------------------------------------------------------------------------


def _read(checkpoint: Checkpoint, one: names.Tensor, config: ClipConfig, shapes) -> list | None:
    """Our arrays of a tensor, float32; None where its shape fits neither as it is nor resampled."""
    stored = checkpoint.read(one.theirs)
    if one.layout.axes is not None and stored.ndim != one.layout.axes:
        return None
    arrays = one.layout.read(stored)
    if one.ours[0].endswith("/positional_embedding") and arrays[0].shape != shapes[0]:
        if arrays[0].shape[1:] != shapes[0][1:]:
            return None
        image = one.ours[0].startswith("image/")
        new = (
            resample_grid(arrays[0], config.grid) if image else resample_line(*arrays, shapes[0][0])
        )
        arrays = [new]
    if [array.shape for array in arrays] != shapes:
        return None
    return [np.array(array, np.float32, order="C") for array in arrays]


def _misfit(checkpoint: Checkpoint, missing, unexpected, misshaped) -> str:
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    said = []
    for what, some in parts.items():
        more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
        said += [f"{what}: {', '.join(some[:_SHOWN])}{more}"] if some else []
    return f"{checkpoint.source} does not fit the model ({checkpoint.kind}); {'; '.join(said)}."
