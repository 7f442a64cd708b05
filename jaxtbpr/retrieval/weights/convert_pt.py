"""Command: turns a PyTorch .pt, .pth or .bin file into .safetensors; the one that needs torch.

  python jaxtbpr/retrieval/weights/convert_pt.py IN.pt OUT.safetensors

Run it by its path with the Python of an environment that has torch and safetensors: it imports
nothing of jaxtbpr. A pickle is read with weights_only=True, which runs no code of the file;
OpenAI's own files are TorchScript archives, of which the tensors alone are taken.
"""

import collections
import pathlib
import sys
import zipfile

# Settings that trainers save beside the weights: read as plain mappings, since they run no code.
SETTINGS = ("easydict.EasyDict", "argparse.Namespace", "yacs.config.CfgNode", "addict.addict.Dict")
WRAPPERS = ("state_dict", "model", "module", "model_state_dict")


def convert(source: pathlib.Path, target: pathlib.Path) -> None:
    """Writes every tensor of `source` under its name; raises ValueError where there is none."""
    import safetensors.torch

    tensors = {
        name.removeprefix("module."): value.detach().contiguous().clone()
        for name, value in _tensors(source).items()
    }
    if not tensors:
        raise ValueError(f"{source} holds no tensors")
    part = target.with_name(f".{target.name}.tmp")
    safetensors.torch.save_file(tensors, part)
    part.replace(target)


def _tensors(source: pathlib.Path) -> dict:
    import torch

    if _is_torchscript(source):
        return dict(torch.jit.load(source, map_location="cpu").state_dict())
    others = set(torch.serialization.get_unsafe_globals_in_checkpoint(source)) - set(SETTINGS)
    if others:
        raise ValueError(
            f"it holds objects ({', '.join(sorted(others))}) beside its arrays, which are not read "
            "since they may run any program; where you trust it, load it yourself and save its "
            "state dict alone: torch.save(model.state_dict(), ...)"
        )
    inert = [(collections.OrderedDict, name) for name in SETTINGS]
    with torch.serialization.safe_globals(inert):
        found = torch.load(source, map_location="cpu", weights_only=True)
    while any(isinstance(found.get(name), dict) for name in WRAPPERS):
        found = next(found[name] for name in WRAPPERS if isinstance(found.get(name), dict))
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


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
        convert(source, target)
    except Exception as error:  # torch and zip raise many kinds for a file that is none
        print(f"{source} cannot be converted: {error}", file=sys.stderr)
        return 1
    print(f"{target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
