"""Published weights as .safetensors files: where they are, what they hold, how they are written.

Each room says how its networks name and lay out their parameters; finding, opening, checking and
writing are the same for all.
"""

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError

Arrays = Sequence[np.ndarray]
EMBEDDED = ("tiny-clip", "tiny-sd")  # the models that come with the package

_ASSETS = epath.Path(__file__).parents[1] / "assets"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_CONVERTER = epath.Path(__file__).parents[1] / "retrieval" / "clip" / "weights" / "convert_pt.py"
_SHOWN = 6
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|module)\.")
_LORA = re.compile(r"(^|[._])lora([._]|$)", re.IGNORECASE)
# Dtypes that are read. Quantised arrays are useless without scales, which are stored elsewhere.
_READ = ("F64", "F32", "F16", "BF16", "I64", "I32")
_CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}


# --- how a stored array maps to parameters --------------------------------------------------------


def unwrapped(name: str) -> str:
    """Returns a tensor's name without what torch.compile and DDP put anywhere into it."""
    return _WRAPPERS.sub("", name)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an array is stored: `read` gives our arrays for it, `write` (arrays) undoes that.

    axes: that the stored array must have; None = any number.
    """

    read: Callable[[np.ndarray], Arrays]
    write: Callable[[Arrays], np.ndarray]
    axes: int | None = None


def _thirds(x):
    third = len(x) // 3
    return [x[:third], x[third : 2 * third], x[2 * third :]]


SAME = Layout(lambda x: [x], lambda arrays: arrays[0])
LINEAR = Layout(lambda x: [x.T], lambda arrays: arrays[0].T, axes=2)  # PyTorch's [out, in]
# PyTorch's [out, in, height, width].
CONVOLUTION = Layout(
    lambda x: [x.transpose(2, 3, 1, 0)], lambda arrays: arrays[0].transpose(3, 2, 0, 1), axes=4
)
# Queries, keys and values below each other: [3W, W] and [3W].
FUSED = Layout(
    lambda x: [part.T for part in _thirds(x)],
    lambda arrays: np.concatenate([x.T for x in arrays]),
    axes=2,
)
FUSED_BIAS = Layout(_thirds, np.concatenate, axes=1)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """The array `theirs` of a checkpoint, which holds the parameters `ours`."""

    theirs: str
    ours: tuple[str, ...]
    layout: Layout = SAME


# --- finding and opening --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Opened:
    """Arrays of .safetensors files, not yet read: {name: its file} and {name: shape}.

    stored: {name: the name in the file} of those that are stored under another.
    """

    files: Mapping[str, epath.Path]
    shapes: Mapping[str, tuple[int, ...]]
    stored: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def read(self, name: str) -> np.ndarray:
        """Returns one array, in the dtype of the file."""
        with safe_open(os.fspath(self.files[name]), "numpy") as file:
            return file.get_tensor(self.stored.get(name, name))

    def metadata(self) -> dict[str, str]:
        """Returns the metadata of the files."""
        texts: dict[str, str] = {}
        for path in sorted(set(self.files.values())):
            with safe_open(os.fspath(path), "numpy") as file:
                texts |= file.metadata() or {}
        return texts

    def renamed(self, rule: Callable[[str], str]) -> "Opened":
        """Returns the same arrays under the names that `rule` gives them.

        Raises InputError where two would have one name.
        """
        stored: dict[str, str] = {}
        for old in self.files:
            if (new := rule(old)) in stored:
                raise InputError(
                    f"{self.files[old]} holds one array twice, as {stored[new]} and as {old}; "
                    "keep one of them."
                )
            stored[new] = old
        return Opened(
            {new: self.files[old] for new, old in stored.items()},
            {new: self.shapes[old] for new, old in stored.items()},
            {new: self.stored.get(old, old) for new, old in stored.items()},
        )


def find(source: epath.PathLike, wanted: Sequence[str]) -> epath.Path:
    """Returns the local path of `source`: a path, an embedded model, or a hub id.

    wanted: files that are fetched from the hub. Raises InputError where there is none of these.
    """
    path = epath.Path(source).expanduser()
    if path.exists():
        return path
    if os.fspath(source) in EMBEDDED:
        return _ASSETS / os.fspath(source)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", os.fspath(source)):
        near = difflib.get_close_matches(os.fspath(source), EMBEDDED, 1, 0.7)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise InputError(
            f"{path} does not exist; give a folder, a .safetensors file or a hub id{hint}"
        )
    import huggingface_hub

    try:
        return epath.Path(
            huggingface_hub.snapshot_download(str(source), allow_patterns=list(wanted))
        )
    except Exception as error:  # offline, no such repository, no permission: many classes
        raise InputError(
            f"{source} is not a folder here and could not be downloaded from the hub "
            f"({type(error).__name__}); give a local folder."
        ) from error


def weight_files(path: epath.Path, names: Sequence[str], lacking: str) -> list[epath.Path]:
    """Returns the .safetensors files that hold a model: `path` itself, or those of the folder.

    names: of such files, the preferred first, and of indices of shards (.json); where none is
    there, any single .safetensors file is taken. lacking: what to say of a folder without one.
    Raises InputError, also for pickles.
    """
    if path.is_file() and path.suffix == ".safetensors":
        return [path]
    if path.is_file() and path.suffix in _PICKLES:
        raise InputError(_pickle_refused(path))
    if path.is_file():
        raise InputError(f"{path} is not a .safetensors file; give one, or the folder that has it.")
    for name in names:
        if (path / name).exists():
            return _shards(path / name) if name.endswith(".json") else [path / name]
    paths = files.matches(path, "*.safetensors")
    if len(paths) == 1:
        return paths
    pickles = sorted(file for file in path.iterdir() if file.suffix in _PICKLES)
    if pickles and not paths:
        indices = files.matches(path, "*.bin.index.json")  # of a model in several of them
        raise InputError(_pickle_refused((indices or pickles)[0]))
    if not paths:
        raise InputError(lacking)
    raise InputError(
        f"{path} holds {len(paths)} .safetensors files and none of the indices "
        f"{', '.join(name for name in names if name.endswith('.json'))}; name the file to read."
    )


def open_files(paths: Sequence[epath.Path]) -> Opened:
    """Opens .safetensors files without reading their arrays.

    Raises InputError where one is no whole file, for quantised arrays and for those of LoRA.
    """
    handles, shapes, types = {}, {}, {}
    for path in paths:
        try:
            with safe_open(os.fspath(path), "numpy") as opened:
                for name in opened.keys():  # noqa: SIM118 (not a mapping)
                    part = opened.get_slice(name)
                    handles[name], shapes[name] = path, tuple(part.get_shape())
                    types[name] = part.get_dtype()
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path} is not a complete .safetensors file ({error}); download it again."
            ) from error
    changes = [name for name in types if _LORA.search(name)]
    if changes:
        raise InputError(
            f"{handles[changes[0]]} holds {len(changes)} arrays of LoRA (the first: {changes[0]}), "
            "which change another model: merge them into it (merge_and_unload() of PEFT, "
            "fuse_lora() and unload_lora_weights() of diffusers), save and give the merged model."
        )
    quantised = [name for name, code in types.items() if code not in _READ]
    if quantised:
        name = quantised[0]
        raise InputError(
            f"{handles[name]} holds {len(quantised)} arrays of a dtype that is not supported (the "
            f"first: {name}, {types[name]}); give the weights in float32, float16 or bfloat16."
        )
    return Opened(handles, shapes)


def misfit(
    source: str,
    format: str,
    missing: Sequence[str],
    unexpected: Sequence[str],
    misshaped: Sequence[str],
) -> str:
    """Returns the sentence on a checkpoint of `format` that is not what the model needs."""
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    sentences = []
    for what, some in parts.items():
        more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
        sentences += [f"{what}: {', '.join(some[:_SHOWN])}{more}"] if some else []
    return f"{source} does not fit the model ({format}); {'; '.join(sentences)}."


def _shards(index: epath.Path) -> list[epath.Path]:
    try:
        names = sorted({os.fspath(x) for x in files.read_json(index)["weight_map"].values()})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is not an index of shards; download it again.") from error
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise InputError(f"{index.parent} lacks {', '.join(missing)}, which {index.name} names.")
    return [index.parent / name for name in names]


def _pickle_refused(path: epath.Path) -> str:
    converted = path.with_name(path.name.removesuffix(".index.json")).with_suffix(".safetensors")
    return (
        f"{path} is a pickle, which may run any program when it is read; convert it in an "
        f"environment that has torch: python {_CONVERTER} {path} {converted}"
    )


# --- writing --------------------------------------------------------------------------------------


def write(path: epath.PathLike, arrays: Mapping[str, np.ndarray], dtype: str | None = None) -> None:
    """Writes a .safetensors file, array by array, so that no second copy of all is in memory.

    dtype: that floating-point arrays are converted to; None = as they are.
    """
    order = sorted(arrays)
    types = {name: _stored_dtype(arrays[name], dtype) for name in order}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in order:
        end = start + arrays[name].size * types[name].itemsize
        described = {"dtype": _CODES[types[name].name], "shape": list(arrays[name].shape)}
        header[name] = described | {"data_offsets": [start, end]}
        start = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # the data begins at a multiple of 8

    def chunks() -> Iterator[bytes]:
        yield len(head).to_bytes(8, "little")
        yield head
        for name in order:
            yield np.asarray(arrays[name]).astype(types[name], copy=False).tobytes()

    files.write_chunks_atomic(path, chunks())


def _stored_dtype(array: np.ndarray, dtype: str | None) -> np.dtype:
    floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return np.dtype(dtype) if dtype and floating else array.dtype
