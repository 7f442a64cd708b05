"""A workdir whose prompts are short enough for a tiny text encoder, and its config."""

import pathlib

from ml_collections import ConfigDict

from jaxtbpr import stages
from jaxtbpr.core import files, manifest
from jaxtbpr.core.workdir import COMMIT, Workdir

WORDS = ("red", "blue", "green", "black", "white", "grey", "brown", "pink", "yellow", "orange")


def prompt_records(count: int) -> list[dict]:
    """Records as stage prompts writes them, without attributes."""
    names = [f"{k:08d}" for k in range(count)]
    return [
        {"id": name, "identity": name, "split": "train", "prompt": f"a man in a {color} coat"}
        for name, color in zip(names, WORDS, strict=False)
    ]


def make_prompts(root: pathlib.Path, records: list[dict], size: int = 3) -> Workdir:
    """A workdir with stage prompts finished, in shards of `size`."""
    return finish(open_workdir(root), "prompts", records, size)


def finish(workdir: Workdir, stage: str, records: list[dict], size: int = 3) -> Workdir:
    """The workdir with a stage finished that has left `records`, in shards of `size`."""
    shards, folder = manifest.split_shards(records, size), workdir.dir(stage)
    manifest.map_records(
        shards, folder, lambda rs: ([r] for r in rs), label=stage, shard_count=len(shards)
    )
    files.write_json_atomic(folder / COMMIT, {"outputs": manifest.shard_digests(folder)})
    return workdir


def open_workdir(root: pathlib.Path) -> Workdir:
    return Workdir(root, order=stages.ORDER, chosen=("prompts", "generate", "augment"))


def generation_config(model, **changes) -> ConfigDict:
    """The parts of the config that generate and augment read: two steps of small images."""
    config = stages.default_config()
    config.generate.update(engine="diffusion", model=str(model), sampler="euler_a", steps=2)
    config.generate.update(guidance_scale=3.0, height=32, width=16, batch_size=4, **changes)
    config.augment.update(engine="diffusion", edits=2, strength=0.6)
    return ConfigDict({"seed": 0, "generate": config.generate, "augment": config.augment})
