"""MasaCtrl, with and without noise map guidance: masactrl*.safetensors.

Every step starts from the published state before it; then the whole walk is compared, relative to
how far it goes.
"""

import json
import pathlib

import numpy as np
from safetensors.numpy import load_file

from jaxtbpr.diffusion import samplers, scheduler_config
from jaxtbpr.diffusion.editing.masactrl import MutualSelfAttention, choose
from tests.oracles.diffusion_steps import FORCED, IMAGE, Editing, open_model, ours, row

SETTINGS = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance)."""
    path = pathlib.Path(path)
    published, facts = load_file(path), json.loads(path.with_suffix(".json").read_text())
    checkpoint, networks = open_model(min(path.parent.glob("sd1_*")))
    rows = []
    for name, run in facts["runs"].items():
        schedule = scheduler_config.from_config(checkpoint.scheduler | SETTINGS, "ddim")
        inversion = published["inversion_latents"]
        goals = ours(inversion[::-1][: run["steps"]])[:, None]
        table = samplers.make_table(schedule, run["steps"])
        editing = Editing(checkpoint, networks, schedule, table, run["prompts"], goals, run)
        if name == next(iter(facts["runs"])):
            rows += _inversion(published, editing)
        rows += _run(published, name, run, editing)
    return rows


def _inversion(published, editing):
    checkpoint = editing.checkpoint
    ids = checkpoint.prompt_tokenizer.encode(editing.prompts)
    yield row("input_ids", ids, published["input_ids"], 0)
    mean, _ = editing.networks.encode_image(checkpoint.params, ours(published["image"]))
    expected = ours(published["inversion_latents"])[:, None]
    yield row("inversion_latents[0]", 0.18215 * mean, expected[0], IMAGE)
    table = samplers.inversion_table(editing.schedule, len(expected) - 1)
    found = editing.invert(table, expected[0])
    yield row("inversion_latents", found, expected, FORCED * len(expected))


def _run(published, name, run, editing):
    expected = ours(published[f"{name}.latents"])
    control = _control(run, editing.networks, expected.shape[2:4])
    start = ours(published["inversion_latents"][-1])[None]
    follow = "upstream_ref" in name
    rows, _ = editing.compare(name, published, control, start, expected, follow)
    yield from rows
    if f"{name}.image" in published:
        found = editing.decode(expected[-1] / 0.18215)
        yield row(f"{name}.image", found, ours(published[f"{name}.image"]), IMAGE)


def _control(run, networks, size):
    """Without control no step is chosen: the same program."""
    layers = networks.attention_layers(size)
    steps = np.isin(np.arange(run["steps"]), run["step_idx"] or [])
    return MutualSelfAttention(1, steps, choose(layers, run["layer_idx"] or [0]))
