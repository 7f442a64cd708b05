"""Command: converts a PyTorch .pt, .pth or .bin file to .safetensors; needs torch.

  python jaxtbpr/retrieval/clip/weights/convert_pt.py IN.pt OUT.safetensors

Run it by its path with the Python of an environment that has torch and safetensors: it imports
nothing of jaxtbpr. Of a model in several files IN is their index (pytorch_model.bin.index.json). A
pickle is read with weights_only=True, which runs no code of the file; OpenAI's own files are
TorchScript archives, of which the tensors alone are taken.
"""

import collections
import json
import pathlib
import sys
import zipfile

# Settings that trainers save beside the weights: read as plain mappings, since they run no code.
SETTINGS = ("easydict.EasyDict", "argparse.Namespace", "yacs.config.CfgNode", "addict.addict.Dict")
# Under which trainers save the weights, the likeliest first.
WRAPPERS = ("state_dict", "model", "module", "model_state_dict", "net", "network")


def convert(source: pathlib.Path, target: pathlib.Path) -> str:
    """Writes the model's tensors under their names; returns a line that tells what was left out.

    Raises ValueError where there is none, or which are the model's is not clear.
    """
    import safetensors.torch

    arrays, left = _read(source)
    tensors = {
        name.removeprefix("module."): value.detach().contiguous().clone()
        for name, value in arrays.items()
    }
    if len(tensors) < len(arrays):
        raise ValueError("it holds arrays of one name with and without module. before it")
    part = target.with_name(f".{target.name}.tmp")
    safetensors.torch.save_file(tensors, part)
    part.replace(target)
    return f"{target}: {len(tensors)} arrays" + (f"; left out: {_counted(left)}" if left else "")


def _read(source: pathlib.Path) -> tuple[dict, dict[str, int]]:
    """The model's arrays, and how many are under other names of the file, of each name."""
    if not source.name.endswith(".index.json"):
        return _model_of(_load(source))
    arrays, left = {}, {}
    for name in sorted(set(json.loads(source.read_text())["weight_map"].values())):
        tensors, others = _model_of(_load(source.parent / name))
        arrays, left = arrays | tensors, left | others
    return arrays, left


def _model_of(tree) -> tuple[dict, dict[str, int]]:
    left = {}
    while True:
        groups = {key: _count(value) for key, value in _items(tree) if isinstance(value, dict)}
        groups = {key: count for key, count in groups.items() if count}
        tensors = {key: value for key, value in _items(tree) if _is_tensor(value)}
        wrapper = next((name for name in WRAPPERS if name in groups), None)
        if not tensors and len(groups) == 1 and "optim" not in str(*groups):
            (wrapper,) = groups
        if wrapper is None:
            break
        left |= {key: count for key, count in groups.items() if key != wrapper}
        left |= dict.fromkeys(map(str, tensors), 1)
        tree = tree[wrapper]
    if not tensors:
        inside = f", but groups of them ({_counted(groups)})" if groups else ""
        raise ValueError(
            f"it holds no arrays by their names{inside}; load it yourself and save the state dict "
            "of the model alone: torch.save(model.state_dict(), ...)"
        )
    return tensors, left | groups


def _items(value):
    return value.items() if isinstance(value, dict) else ()


def _is_tensor(value) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _count(value) -> int:
    """The number of arrays in `value`, at any depth."""
    if isinstance(value, dict | list | tuple):
        return sum(map(_count, value.values() if isinstance(value, dict) else value))
    return int(_is_tensor(value))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def _load(source: pathlib.Path):
    import torch

    if _is_torchscript(source):
        return dict(torch.jit.load(source, map_location="cpu").state_dict())
    others = set(torch.serialization.get_unsafe_globals_in_checkpoint(source)) - set(SETTINGS)
    if others:
        raise ValueError(
            f"it holds {len(others)} kinds of objects ({min(others)}, ...) beside its arrays; they "
            "are not read, since they may run any program; where you trust it, load it yourself "
            "and save its state dict alone: torch.save(model.state_dict(), ...)"
        )
    inert = [(collections.OrderedDict, name) for name in SETTINGS]
    with torch.serialization.safe_globals(inert):
        return torch.load(source, map_location="cpu", weights_only=True)


def _is_torchscript(source: pathlib.Path) -> bool:
    if not zipfile.is_zipfile(source):
        return False
    with zipfile.ZipFile(source) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def main(arguments: list[str]) -> int:
    """Returns the exit status; says in one sentence what is wrong."""
    if len(arguments) != 2:
        print("usage: convert_pt.py IN.pt OUT.safetensors", file=sys.stderr)
        return 2
    source, target = map(pathlib.Path, arguments)
    try:
        line = convert(source, target)
    except Exception as error:  # torch and zip raise many kinds for a file that is none
        print(f"{source} cannot be converted: {error}", file=sys.stderr)
        return 1
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
