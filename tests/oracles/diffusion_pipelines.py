"""Whole pipelines: pipeline_text2img*, pipeline_img2img*, ddim_inversion*.safetensors.

Each answer is that to the published state before it; then the whole walk is compared, which
amplifies what each step has lost.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from jaxtbpr.diffusion import generator, samplers, scheduler_config
from jaxtbpr.diffusion.sampling import begin, guide, rows_of, step
from tests.oracles.diffusion_steps import open_model, ours, row

# Of values of 1 to 50, relative to the largest; a walk of n steps has n times as much.
STEP, WALK, IMAGE = 3e-5, 3e-5, 3e-4
# The published pipelines build every scheduler with these settings.
SETTINGS = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
SAMPLERS = {"dpmpp": "dpmpp_2m"}


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance)."""
    path = pathlib.Path(path)
    published, runs = load_file(path), json.loads(path.with_suffix(".json").read_text())["runs"]
    kinds = {"pipeline_text2img": _text_to_image, "pipeline_img2img": _image_to_image}
    checked = next((kinds[k] for k in kinds if path.name.startswith(k)), _inversion)
    return [row for name, run in runs.items() for row in checked(path.parent, published, name, run)]


def _model(folder, run):
    """The folder of a run's model: Stable Diffusion 1.x where the run does not say."""
    return folder / run["model"] if "model" in run else min(folder.glob("sd1_*"))


def _text_to_image(folder, published, name, run):
    checkpoint, networks = open_model(_model(folder, run))
    schedule = _schedule(checkpoint, run)
    table = samplers.make_table(schedule, run["steps"])
    start = ours(published[f"{name}.latents_init"]) * table.sigma
    walk = _Walk(checkpoint, networks, table, run, run["prompts"])
    yield from walk.compare(name, published, start)
    if f"{name}.image_raw" in published:
        found = _decode(networks)(checkpoint.params, ours(published[f"{name}.latents"][-1]))
        yield row(f"{name}.image_raw", found, ours(published[f"{name}.image_raw"]), IMAGE)
    if f"{name}.image" in published:
        pixels, _ = generator.to_pixels(
            networks, checkpoint.params, ours(published[f"{name}.latents"][-1])
        )
        error = np.abs(np.asarray(pixels) / 255 - published[f"{name}.image"]).max()
        yield f"{name}.image", float(error), 0.5 / 255 + IMAGE


def _image_to_image(folder, published, name, run):
    checkpoint, networks = open_model(_model(folder, run))
    mean, logvar = networks.encode_image(checkpoint.params, ours(published["image"]))
    latents = (mean + jnp.exp(logvar / 2) * ours(published["vae_eps"])) * networks.scaling_factor
    yield row(f"{name}.init_latents", latents, ours(published["init_latents"]), IMAGE)
    schedule = _schedule(checkpoint, run)
    table = samplers.image_to_image_table(schedule, run["steps"], run["strength"])
    start = table.start_x * latents + table.start_noise * ours(published["noise"])
    walk = _Walk(checkpoint, networks, table, run, [run["prompt"]])
    yield from walk.compare(name, published, start)


def _inversion(folder, published, name, run):
    checkpoint, networks = open_model(_model(folder, run))
    schedule = scheduler_config.from_config(
        checkpoint.scheduler | SETTINGS | {"steps_offset": 0}, "ddim"
    )
    rule = "0.18" if "0.18" in run["scheduler"] else "current"
    table = samplers.inversion_table(schedule, run["steps"], rule)
    walk = _Walk(checkpoint, networks, table, run | {"guidance_scale": 1.0}, [run["prompt"]])
    latents = published[f"{name}.latents"][:, None]
    start = ours(latents[0])
    yield from walk.compare(name, {f"{name}.latents": latents}, start)


def _schedule(checkpoint, run):
    sampler = SAMPLERS.get(run["scheduler"], run["scheduler"])
    return scheduler_config.from_config(checkpoint.scheduler | SETTINGS, sampler)


class _Walk:
    """One run of a pipeline, whole or step by step."""

    def __init__(self, checkpoint, networks, table, run, prompts):
        self.table = table
        encode = encode_by(networks)
        text = encode(checkpoint.params, checkpoint.prompt_tokenizer.encode(prompts))
        negative = None
        if run["guidance_scale"] > 1:
            words = checkpoint.prompt_tokenizer.encode([run["negative"]] * len(prompts))
            negative = encode(checkpoint.params, words)
        predict = predict_by(networks)
        self.guided = guide(
            functools.partial(predict, checkpoint.params),
            text,
            negative,
            run["guidance_scale"],
            run.get("guidance_rescale", 0.0),
        )

    def compare(self, name, published, start):
        """Rows of one run: timesteps, answers, every step by itself, the walk."""
        expected = np.stack([ours(x) for x in published[f"{name}.latents"]])
        times = published.get(f"{name}.timesteps", self.table.timesteps)
        yield row(f"{name}.timesteps", self.table.timesteps, times, 0)
        answers = published.get(f"{name}.guided_prediction", [])
        for i, answer in enumerate(answers):
            found = self.guided(self.table.scale[i] * expected[i], self.table.timesteps[i])
            yield row(f"{name}.guided_prediction[{i}]", found, ours(answer), STEP)
        yield row(f"{name}.latents", self._walk(start), expected, WALK * len(times))

    def _walk(self, start):
        """All samples, step by step: so one compiled network serves every sampler and length."""
        walk, rows = begin(self.table, start), rows_of(self.table)
        samples = [start]
        for i in range(len(self.table.timesteps)):
            walk = step(self.guided, jax.tree.map(lambda x, i=i: x[i], rows), walk)
            samples.append(walk.x)
        return np.stack(samples)


@functools.cache
def encode_by(networks):
    return jax.jit(networks.encode_text)


@functools.cache
def predict_by(networks):
    return jax.jit(networks.predict)


@functools.cache
def _decode(networks):
    return jax.jit(lambda params, x: networks.decode(params, x / networks.scaling_factor))
