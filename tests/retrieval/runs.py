"""Small training runs for tests: a built set of noise images and a model of a few thousand
parameters."""

import pathlib

from ml_collections import ConfigDict

from jaxtbpr.core import options
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import build
from jaxtbpr.retrieval import evaluate, train
from jaxtbpr.retrieval.training.options import DATA_OPTIONS, MODEL_OPTIONS
from tests.datasets.sets import make_config as build_config
from tests.datasets.sets import make_workdir, write_manifest


def build_set(root: pathlib.Path) -> Workdir:
    """Builds the set "synthetic": 20 train images of two captions, 10 each for val and test."""
    write_manifest(root, people=20)
    workdir = make_workdir(root)
    build.run(build_config(), workdir)
    return workdir


def make_config(**values) -> ConfigDict:
    """Returns what the pipeline hands to the stages; keys such as {"train.epochs": 2}."""
    config = ConfigDict({"seed": 0})
    sections = {
        "data": DATA_OPTIONS,
        "model": MODEL_OPTIONS,
        "train": train.OPTIONS,
        "evaluate": evaluate.OPTIONS,
    }
    for name, section in sections.items():
        config[name] = options.default_config(section)
    config.data.update(image_size=(32, 16), text_length=24, vocab_size=300)
    config.model.update(patch_size=8, vision_width=16, vision_layers=1, vision_heads=2)
    config.model.update(text_width=16, text_layers=1, text_heads=2, embed_dim=16)
    config.train.update(batch_size=8, epochs=3, log_every=1, checkpoint_every=2, eval_batch_size=8)
    config.evaluate.update(batch_size=8)
    config.update_from_flattened_dict(values)
    return config
