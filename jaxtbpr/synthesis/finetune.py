"""Stage finetune: a Stable Diffusion trained on the images and prompts of the manifest before it.

It starts from scratch, or from all weights of another model (`finetune.model`). The result is a
Diffusers folder, WORKDIR/finetune/model, for `generate.model` of another run. The stage is off by
default; `--with=finetune` adds it.
"""

import json
from types import ModuleType
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError, of_key
from jaxtbpr.core.images import ImageError
from jaxtbpr.core.manifest import Record, reject
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.record import require
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.synthesis.images import read_image, unreadable


def _phase(steps: int, batch_size: int, learning_rate: float) -> Options:
    """The options of one training: see `diffusion.fit.Fit`."""
    return {
        "steps": Option(
            steps, "training steps, rounded up to a multiple of 20; 0 = not trained", low=0
        ),
        "batch_size": Option(batch_size, "images of a step", low=1),
        "learning_rate": Option(
            learning_rate, "peak learning rate of Muon, after the warm-up", low=0.0
        ),
        "warmup_steps": Option(200, "steps of warm-up", low=0),
        "ema_decay": Option(0.999, "decay of the moving average", low=0.0, high=0.99999),
        "checkpoint_every": Option(1000, "steps between checkpoints", low=1, runtime=True),
    }


OPTIONS: Options = {
    "model": Option("", "Stable Diffusion to fine-tune, with its sizes and vocabulary; '' = from "
                        "scratch"),
    "prediction_type": Option("", "what the UNet of that model predicts; '' = as its files say",
                         choices=("", "epsilon", "v_prediction")),
    "bpe_merges": Option(512, "BPE merges that the tokenizer learns", low=0),
    "text_length": Option(77, "most tokens of a prompt, start and end included", low=8, high=4096),
    "text_width": Option(96, "width of the text encoder", low=8),
    "text_layers": Option(2, "layers of the text encoder", low=1),
    "channels": Option((64, 128), "channels of the UNet's two levels", low=16),
    "heads": Option(2, "attention heads of the UNet", low=1),
    "layers": Option(1, "blocks of a level of the UNet", low=1),
    "vae_channels": Option((16, 32, 48, 64), "channels of the autoencoder's levels", low=8),
    "latent_channels": Option(4, "channels of the latents; Stable Diffusion has 4", low=1),
    "vae_parts": Option("all", "trained parts of the autoencoder; decoder keeps the latents",
                        choices=("all", "decoder")),
    "vae": _phase(10_000, 8, 1e-2),
    "unet": _phase(20_000, 64, 4e-3),
    "edge_weight": Option(1.0, "weight of the edge term in the autoencoder's loss",
                          low=0.0),
    "snr_gamma": Option(5.0, "gamma of the min-SNR weighting; 0 = off", low=0.0),
    "prompt_dropout": Option(0.1, "fraction of empty prompts, for classifier-free guidance",
                             low=0.0, high=1.0),
}  # fmt: skip


def stage(perception: ModuleType) -> Stage:
    """Returns the stage with the network of the autoencoder's perceptual loss.

    perception: a module with `OPTIONS`, `fingerprint(config)` and `layers(model)`.
    """
    return Stage(
        "finetune",
        "trains a Stable Diffusion",
        OPTIONS | {"perceptual": perception.OPTIONS},
        lambda config, workdir: run(config, workdir, perception),
        is_usual=False,
        fingerprint=lambda config: fingerprint(config) | perception.fingerprint(config),
    )


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the digest of the model that is fine-tuned."""
    if not config.finetune.model:
        return {}
    from jaxtbpr.diffusion import checkpoint

    with of_key("finetune.model"):
        return {"model": checkpoint.fingerprint(config.finetune.model)}


def run(config: ConfigDict, workdir: Workdir, perception: ModuleType) -> dict[str, Any]:
    """Trains on the train split.

    perception: gives the network of the perceptual loss where `finetune.perceptual.weight` is not
    0. An image that cannot be read and a prompt that is too long for the text encoder are rejected,
    with the reason, in rejected.jsonl.
    """
    from jaxtbpr.diffusion import training  # slow to import, and rarely used

    directory = workdir.dir("finetune")
    records = [record for record in workdir.before("finetune") if record["split"] == "train"]
    if not records:
        raise UserError(
            "stage 'finetune' has no records of the train split to train on; the report shows "
            "what the stages before it have rejected."
        )
    images, reasons = _read_images(workdir.root, records)
    left = [record for record in records if record["id"] not in reasons]
    prompts = [record["prompt"] for record in left]
    perceptual = config.finetune.perceptual
    layers = perception.layers(perceptual.model) if perceptual.weight else None
    with of_key("finetune"):
        problems = training.train(images, prompts, config.finetune, config.seed, directory, layers)
    reasons |= {
        record["id"]: f"the prompt {problem}"
        for record, problem in zip(left, problems, strict=True)
        if problem
    }
    rejected = [
        reject(record, "finetune", reasons[record["id"]])
        for record in records
        if record["id"] in reasons
    ]
    lines = "".join(json.dumps(record) + "\n" for record in rejected)
    files.write_text_atomic(directory / "rejected.jsonl", lines)
    return {
        "outputs": _digests(directory / "model"),
        "records_in": len(records),
        "records_out": len(records) - len(rejected),
        "rejected": len(rejected),
    }


def _read_images(root: epath.Path, records: list[Record]) -> tuple[np.ndarray, dict[str, str]]:
    """(images uint8 [N, H, W, 3], {id: why it cannot be read}).

    Raises UserError where sizes differ, or none can be read.
    """
    for record in records:
        require(record, "image", "stage 'finetune'")
    sizes = {(r["image"]["height"], r["image"]["width"]) for r in records}
    if len(sizes) > 1:
        raise UserError(f"stage 'finetune' needs images of one size, but has {sorted(sizes)[:3]}.")
    images, reasons = [], {}
    for record in records:
        try:
            images.append(read_image(root, record))
        except ImageError as error:
            reasons[record["id"]] = f"{record['image']['path']} {unreadable(error)}"
    if not images:
        raise UserError(
            f"stage 'finetune' can read none of its images: {next(iter(reasons.values()))}"
        )
    return np.stack(images), reasons


def _digests(folder: epath.Path) -> dict[str, str]:
    paths = [path for path in files.matches(folder, "*", "*/*") if not path.is_dir()]
    return {str(path.relative_to(folder)): files.sha256(path.read_bytes()) for path in paths}
