"""Reads a Stable Diffusion: a Diffusers folder, or a single file as its authors published it."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import numpy as np
from etils import epath

from jaxtbpr.core import files, progress, tensors
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.networks import Networks
from jaxtbpr.diffusion.sizes import Sizes, make_sizes
from jaxtbpr.diffusion.weights import infer, ldm, names

NETWORKS = ("unet", "vae", "text_encoder")
SCHEDULER = "scheduler/scheduler_config.json"
FETCHED = (
    "model_index.json",
    "tokenizer/*",
    "scheduler/*.json",
    *(f"{network}/*.{ending}" for network in NETWORKS for ending in ("json", "safetensors")),
)
TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "added_tokens.json",
)
# Of other kinds of models, which have parts that none of ours has.
_FOREIGN_PARTS = ("transformer", "text_encoder_2", "tokenizer_2", "prior")

_UNMARKED = (
    "{} does not say what its UNet predicts; assuming v_prediction, as in the 768 pixel models of "
    "2.x. For a 2.x base model (512 pixels) set the key prediction_type to epsilon, or put its "
    "scheduler_config.json beside the file."
)

Loaded = tuple[Sizes, dict[str, Any], dict[str, Any], epath.Path]


def load(
    source: epath.PathLike,
    dtype: str | None = None,
    *,
    base: epath.PathLike | None = None,
    prediction: str = "",
) -> Loaded:
    """Returns (sizes, parameters, scheduler config, folder of the tokenizer) of a model.

    source: a Diffusers folder of Stable Diffusion 1.x or 2.x, the hub id of one, or a single
    .safetensors file with the names of the original code (ldm). Parameters are NumPy arrays of
    `dtype`, {"unet": ..., "vae": ..., "text_encoder": ...}; None: as they are stored.
    base: a Diffusers folder for what `source` lacks: whole networks, tokenizer and scheduler of a
    folder; what a single file does not contain (see `infer`). prediction: of the UNet, epsilon or
    v_prediction, in place of the scheduler config or of the marks of a single file; "": as they
    say, and v_prediction, with a printed line, for an unmarked file of 2.x. Raises InputError that
    lists what is missing, unexpected or of another shape.
    """
    path = tensors.find(source, FETCHED)
    base = None if base is None else tensors.find(base, FETCHED)
    if path.is_file():
        return _load_file(path, dtype, base, prediction)
    parts, sizes = _open_folder(path, base)
    shapes = Networks(sizes).shapes()
    opened = {name: _open(parts[name]) for name in NETWORKS}
    params = {
        name: _read(parts[name], opened[name], name, shapes[name], dtype) for name in NETWORKS
    }
    scheduler = _predicting(files.read_json_object(parts[SCHEDULER]), prediction)
    return sizes, params, scheduler, parts["tokenizer"]


def read_sizes(source: epath.PathLike) -> Sizes:
    """Returns the sizes of a model that `load` would load, without its parameters."""
    path = tensors.find(source, FETCHED)
    return _open_file(path, None)[2] if path.is_file() else _open_folder(path, None)[1]


def _sizes(configs: Mapping[str, Any], source: epath.Path) -> Sizes:
    try:
        return make_sizes(*(configs[name] for name in NETWORKS))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


# --- Diffusers folders ----------------------------------------------------------------------------


def _refuse_foreign(folder: epath.Path) -> None:
    if not (folder / "model_index.json").exists():
        return
    index = files.read_json_object(folder / "model_index.json")
    foreign = [name for name in _FOREIGN_PARTS if index.get(name) not in (None, [None, None])]
    if foreign:
        raise InputError(
            f"{folder} is a {index.get('_class_name', 'model')} with {', '.join(foreign)}, not a "
            "Stable Diffusion 1.x or 2.x, the only models supported here; use one of those."
        )


def _open_folder(path: epath.Path, base: epath.Path | None) -> tuple[dict[str, epath.Path], Sizes]:
    """(the folder or file of every part, sizes)."""
    _refuse_foreign(path)
    parts = _find_parts([path] if base is None else [path, base])
    configs = {name: files.read_json_object(parts[name] / "config.json") for name in NETWORKS}
    return parts, _sizes(configs, path)


def _find_parts(folders: Sequence[epath.Path]) -> dict[str, epath.Path]:
    """The folder or file of every part, from the first of `folders` that has it."""
    marks = {name: f"{name}/config.json" for name in NETWORKS}
    marks |= {"tokenizer": "tokenizer", SCHEDULER: SCHEDULER}
    parts = {}
    for part in marks:
        having = [folder / part for folder in folders if (folder / marks[part]).exists()]
        parts |= {part: having[0]} if having else {}
    missing = [mark for part, mark in marks.items() if part not in parts]
    if missing:
        raise InputError(
            f"{' and '.join(map(os.fspath, folders))} lacks {', '.join(missing)}; use the whole "
            "Diffusers folder of a Stable Diffusion 1.x or 2.x, or a single .safetensors file."
        )
    return parts


def _open(folder: epath.Path) -> tensors.Opened:
    stem = "model" if folder.name == "text_encoder" else "diffusion_pytorch_model"
    candidates = (
        f"{stem}.safetensors",
        f"{stem}.safetensors.index.json",
        f"{stem}.fp16.safetensors",
        f"{stem}.safetensors.index.fp16.json",
    )
    lacking = f"{folder} has no .safetensors file; use the whole folder of a model."
    return tensors.open_files(tensors.weight_files(folder, candidates, lacking))


def _read(
    folder: epath.Path,
    opened: tensors.Opened,
    network: str,
    shapes: names.Shapes,
    dtype: str | None,
) -> dict[str, Any]:
    opened = opened.renamed(functools.partial(names.current, network))
    wanted = names.tensors(network, shapes)
    ignored = [name for name in opened.shapes if names.CONSTANTS.fullmatch(name)]
    return read_tensors(os.fspath(folder), network, opened, wanted, shapes, dtype, ignored)


def read_tensors(
    source: str,
    kind: str,
    opened: tensors.Opened,
    wanted: Sequence[tensors.Tensor],
    shapes: names.Shapes,
    dtype: str | None,
    ignored: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns a network's parameters, of `shapes`; raises InputError that lists what does not fit.

    All shapes are checked before the first array is read. Arrays are read one by one, so that
    memory never holds a second copy of all.
    """
    missing = [one.theirs for one in wanted if one.theirs not in opened.shapes]
    unexpected = sorted(set(opened.shapes) - {one.theirs for one in wanted} - set(ignored))
    misshaped = []
    for one in wanted:
        theirs = opened.shapes.get(one.theirs)
        needed = stored_shape(one, shapes)
        if theirs is not None and _squeezed(theirs) != _squeezed(needed):
            misshaped.append(f"{one.theirs} {list(theirs)} (for {list(needed)} here)")
    if missing or unexpected or misshaped:
        raise InputError(tensors.misfit(source, kind, missing, unexpected, misshaped))
    arrays = {}
    for one in wanted:
        stored = opened.read(one.theirs).reshape(stored_shape(one, shapes))
        for path, array in zip(one.ours, one.layout.read(stored), strict=True):
            arrays[path] = np.array(array, dtype or array.dtype, order="C")
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def stored_shape(one: tensors.Tensor, shapes: names.Shapes) -> tuple[int, ...]:
    """Returns the shape that a tensor has in a file, for parameters of `shapes`."""
    ours = [np.broadcast_to(np.float32(0), shapes[path]) for path in one.ours]  # take no memory
    return one.layout.write(ours).shape if len(ours) == 1 else _fused_shape(ours)


def _fused_shape(ours: Sequence[np.ndarray]) -> tuple[int, ...]:
    return (sum(x.shape[-1] for x in ours), *ours[0].shape[:-1])


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the sides of 1x1 convolutions, which are linear layers in other versions."""
    return shape[:2] if shape[2:] == (1, 1) else shape


# --- single files ---------------------------------------------------------------------------------


def _load_file(
    path: epath.Path, dtype: str | None, base: epath.Path | None, prediction: str
) -> Loaded:
    source = os.fspath(path)
    opened, kind, sizes = _open_file(path, base)
    shapes = Networks(sizes).shapes()
    params = {}
    for name in NETWORKS:
        wanted = ldm.tensors(kind, name, sizes, shapes[name])
        mine = {key: shape for key, shape in opened.shapes.items() if ldm.network(key) == name}
        ignored = ldm.unused(kind, sizes, mine)
        part = dataclasses.replace(opened, shapes=mine)
        params[name] = read_tensors(
            source, f"{kind}, {name}", part, wanted, shapes[name], dtype, ignored
        )
    scheduler, tokenizer = beside(path.parent if base is None else base)
    if scheduler is not None:
        described = _predicting(files.read_json_object(scheduler), prediction)
    else:
        second = infer.is_second(kind, opened.shapes)
        if second and not prediction and not infer.marked_prediction(opened):
            progress.say(_UNMARKED.format(source))
        described = infer.scheduler(second, opened, prediction)
    return sizes, params, described, tokenizer


def _open_file(path: epath.Path, base: epath.Path | None) -> tuple[tensors.Opened, str, Sizes]:
    """(the tensors under today's names, kind, sizes)."""
    source = os.fspath(path)
    opened = tensors.open_files(tensors.weight_files(path, (), lacking="")).renamed(ldm.current)
    kind = ldm.recognise(opened.shapes, source)
    if base is None:
        configs = infer.infer(kind, opened.shapes, source)
    else:
        parts = _find_parts([base])
        configs = {name: files.read_json_object(parts[name] / "config.json") for name in NETWORKS}
    return opened, kind, _sizes(configs, path)


def _predicting(scheduler: dict[str, Any], prediction: str) -> dict[str, Any]:
    return scheduler | ({"prediction_type": prediction} if prediction else {})


def beside(folder: epath.Path) -> tuple[epath.Path | None, epath.Path]:
    """Returns (scheduler config or None, folder of the tokenizer) for a single file in `folder`."""
    named = [folder / name for name in (SCHEDULER, "scheduler_config.json")]
    scheduler = next((path for path in named if path.exists()), None)
    return scheduler, folder / "tokenizer" if (folder / "tokenizer").exists() else folder
