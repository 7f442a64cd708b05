"""Stage train: trains a CLIP on the built sets, from scratch or pretrained, on all devices.

The recipe is SynTBPR's (arXiv:2503.22171): N-ITC over identities, AdamW, one warmup epoch, then a
cosine schedule; but the model is selected on validation identities, not on the test split.
"""

import dataclasses
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import files, tokenizer
from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import UserError, of_key
from jaxtbpr.core.progress import say
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets.resizing import SQUASH, Resize
from jaxtbpr.retrieval.clip.model import ClipConfig
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.retrieval.saved import MODEL, TOKENIZER
from jaxtbpr.retrieval.training.checkpoint import WHICH, Checkpoints, digest
from jaxtbpr.retrieval.training.log import EVALS
from jaxtbpr.retrieval.training.loop import Trainer, train
from jaxtbpr.retrieval.training.options import OPTIONS
from jaxtbpr.retrieval.training.setup import (
    build_trainer,
    open_sets,
    open_start,
    open_tokenizer,
    resize_of,
)


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the fingerprint of the weights that training starts from."""
    if not config.model.weights:
        return {}
    with of_key("model.weights"):
        return {"weights": scoring.fingerprint(config.model.weights)}


def run(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
    """Trains until the last step, from the last checkpoint if there is one.

    Writes tokenizer.json, model.json, metrics.jsonl, evals.jsonl and checkpoints/. Raises
    UserError for sets that are not there, sizes that do not fit, and a loss that is not a number.
    """
    directory = workdir.dir("train")
    directory.mkdir(parents=True, exist_ok=True)
    sets, start = open_sets(config.data, workdir.dir("build")), open_start(config)
    text_tokenizer = open_tokenizer(config.data, sets.train, start)
    trainer = build_trainer(config, sets, text_tokenizer, directory, start)
    captions = (text for one in sets.train for some in one.captions for text in some)
    cut = tokenizer.count_cut(text_tokenizer, captions, config.data.text_length)
    if cut.cut:
        say(f"train: {cut}; raise config.data.text_length to read more of them")
    if meshes.is_primary_process():
        tokenizer.save(text_tokenizer, directory / TOKENIZER)
        trainer.batches.save_noise(directory)
        model = trainer.step_config.model.config
        write_model(model, config.data.resample, directory, resize_of(config.data, start))
    with Checkpoints(directory / "checkpoints") as checkpoints:
        train(trainer, checkpoints, directory, seed=config.seed, log_every=config.train.log_every)
        checkpoints.wait()
        outputs = describe_outputs(trainer, checkpoints, directory)
    counts = {"records_in": cut.all, "records_out": cut.all, "rejected": 0}
    return {"outputs": outputs, **counts, "captions_cut": cut.cut, "text_length": cut.length}


def check(config: ConfigDict) -> None:
    """Raises UserError for `data.resize=model` without `model.weights`."""
    if config.data.resize == "model" and not config.model.weights:
        raise UserError(
            "config.data.resize='model' follows the checkpoint of config.model.weights, which is "
            "empty; choose squash, shortest or longest."
        )


def write_model(
    config: ClipConfig, resample: str, directory: epath.Path, resize: Resize = SQUASH
) -> None:
    """Writes model.json: the model's sizes and how its images are resized."""
    images = {"resample": resample, "resize": dataclasses.asdict(resize)}
    files.write_json_atomic(directory / MODEL, {"model": config.to_dict()} | images)


def describe_outputs(
    trainer: Trainer, checkpoints: Checkpoints, directory: epath.Path
) -> dict[str, str]:
    """Returns {output: SHA-256}; of a checkpoint, that of its parameters."""
    names = (TOKENIZER, MODEL, EVALS)
    outputs = {name: files.sha256((directory / name).read_bytes()) for name in names}
    for which in WHICH:
        step = checkpoints.step_of(which)
        params = checkpoints.restore_params(step, trainer.shapes.weights)
        outputs[f"checkpoints/{step} ({which})"] = digest(meshes.on_host(params))
    return outputs


STAGE = Stage(
    "train", "trains the retrieval model", OPTIONS, run,
    reads=("build",), sections=("data", "model"), fingerprint=fingerprint, check=check,
)  # fmt: skip
