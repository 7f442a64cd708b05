"""Compares our code with every reference number in a folder: python tests/parity.py FOLDER.

Prints a row for each quantity. The exit status is 1 if any is beyond its tolerance, or if there
is a file that no check knows.
"""

import importlib
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

# How names begin: the module that checks them, and the suffix of the file that it is given; the
# other files of that name belong to it. Longer beginnings come first.
KINDS = {
    "eva_clip_tiny": ("towers", ".npz"),
    "openai_clip_tiny": ("towers", ".npz"),
    "losses_syntbpr": ("losses", ".npz"),
    "losses_tbps": ("losses", ".npz"),
    "train_trajectory": ("trajectory", ".npz"),
    "eval_metrics": ("metrics", ".npz"),
    "image_preprocess": ("preprocess", ".npz"),
    "lr_schedule": ("schedule", ".npz"),
    "param_groups_": ("param_groups", ".json"),
    "text_errors": ("text_errors", ".json"),
    "text": ("text", ".npz"),
    "models_": ("diffusion_models", ".safetensors"),
    "schedulers": ("diffusion_schedulers", ".safetensors"),
    "pipeline_text2img": ("diffusion_pipelines", ".safetensors"),
    "pipeline_img2img": ("diffusion_pipelines", ".safetensors"),
    "ddim_inversion": ("diffusion_pipelines", ".safetensors"),
    "nmg": ("diffusion_editing", ".safetensors"),
    "masactrl": ("diffusion_masactrl", ".safetensors"),
    "prompt_to_prompt": ("diffusion_editing", ".safetensors"),
    "ptp_nmg": ("diffusion_editing", ".safetensors"),
    "instruct_pix2pix": ("diffusion_instruct", ".safetensors"),
}
# Of Stable Diffusion, what is not built yet: editing, fine-tuning.
NOT_YET = (
    "training",
    "lora",
)


def find(folder):
    """The [(path, module)] to check in `folder`, and the names of the files that none knows.

    Its folder `diffusion` is of the same kind. A folder that has a `unet` is a model, which the
    files beside it are of.
    """
    checks, unknown = [], []
    for path in sorted(folder.iterdir()):
        kind = next((KINDS[k] for k in KINDS if path.name.startswith(k)), None)
        if path.name == "diffusion" and path.is_dir():
            below = find(path)
            checks += below[0]
            unknown += below[1]
        elif path.name == "README.md" or (path / "unet").is_dir() or _is_not_yet(path):
            continue
        elif kind and path.suffix == kind[1]:
            checks.append((path, kind[0]))
        elif not _belongs(path, kind):
            unknown.append(path.name)
    return checks, unknown


def not_yet(folder):
    """The names of what is known and not covered yet."""
    folders = [folder, folder / "diffusion"]
    found = [path.name for one in folders if one.is_dir() for path in one.iterdir()
             if _is_not_yet(path) and path.suffix != ".json"]  # fmt: skip
    return sorted(found)


def _is_not_yet(path):
    return any(path.name.startswith(name) for name in NOT_YET)


def _belongs(path, kind):
    """Whether `path` is read with another file: a photo, or of the name of a file to check."""
    if path.suffix == ".png":
        return path.name.startswith("preproc_")
    return kind is not None and path.with_name(path.name.split(".")[0] + kind[1]).exists()


def run(path, module):
    """Rows of (quantity, largest error, tolerance); a check that cannot be run is a failure."""
    try:
        return importlib.import_module(f"tests.oracles.{module}").check(path)
    except Exception as error:  # whatever it is, the other files are checked
        return [(f"not checked: {type(error).__name__}: {error}", float("nan"), 0.0)]


def main(folder) -> int:
    """Prints the table; returns the exit status."""
    folder = pathlib.Path(folder)
    checks, unknown = find(folder)
    failed = bool(unknown) or not checks
    print("quantity | largest error | tolerance | pass/FAIL")
    for path, module in checks:
        for quantity, error, tolerance in run(path, module):
            passed = error <= tolerance  # NaN is no pass
            failed |= not passed
            verdict = "pass" if passed else "FAIL"
            print(f"{path.name}: {quantity} | {error:.3g} | {tolerance:.3g} | {verdict}")
    for name in unknown:
        print(f"{name}: no check knows this file | - | - | FAIL")
    for name in not_yet(folder):
        print(f"{name}: not yet covered")
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/parity.py FOLDER")
    sys.exit(main(sys.argv[1]))
