"""InstructPix2Pix: instruct_pix2pix*.safetensors, with the UNet of a folder ip2p_* beside it."""

import functools
import json
import pathlib

import jax
import numpy as np
from safetensors.numpy import load_file

from jaxtbpr.diffusion import samplers, scheduler_config
from jaxtbpr.diffusion.editing.instruct import guide_by_image, is_guided
from jaxtbpr.diffusion.networks import Networks
from jaxtbpr.diffusion.sampling import begin, rows_of, step
from tests.oracles.diffusion_pipelines import SAMPLERS, SETTINGS, encode_by, predict_by
from tests.oracles.diffusion_steps import open_model, ours, row

# Relative to the largest value: of one call of a network, of one step, of a walk.
TEXT, IMAGE, STEP, WALK = 2e-5, 3e-5, 1e-5, 1e-3
GUIDANCE = 7.5  # beyond it the last bits of the network are amplified further


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance)."""
    path = pathlib.Path(path)
    published, described = load_file(path), json.loads(path.with_suffix(".json").read_text())
    base, unet = (min(path.parent.glob(pattern)) for pattern in ("sd1_*", "ip2p_*"))
    model, _ = open_model(base, unet)
    words = [*_listed(described["prompt"]), described["negative"]]
    text = _encode_text(model, words)
    image = _encode_image(model, ours(published["image"]))
    rows = [
        row("text_states_full", text, published["text_states_full"], TEXT),
        row("image_latents", image, ours(published["image_latents"]), IMAGE),
    ]
    for name, run in described["runs"].items():
        rows += _compare(model, published, name, run, np.asarray(text), np.asarray(image))
    return rows


def _listed(prompt) -> list[str]:
    return [prompt] if isinstance(prompt, str) else prompt


def _encode_text(model, prompts):
    ids = model.prompt_tokenizer.encode(prompts)
    return encode_by(Networks(model.sizes))(model.params, ids)


def _encode_image(model, image):
    return jax.jit(Networks(model.sizes).encode_image)(model.params, image)[0]


def _compare(model, published, name, run, text, image):
    """Rows of one run: timesteps, answers, every step by itself, the walk."""
    schedule = scheduler_config.from_config(
        model.scheduler | SETTINGS, SAMPLERS.get(run["scheduler"], run["scheduler"])
    )
    table = samplers.make_table(schedule, run["steps"])
    times = published[f"{name}.timesteps"]
    yield row(f"{name}.timesteps", table.timesteps, times, 0)
    if f"{name}.sigmas" in published and "euler" in run["scheduler"]:  # the others scale nothing
        scale = (published[f"{name}.sigmas"][:-1] ** 2 + 1) ** -0.5
        yield row(f"{name}.sigmas", table.scale, scale, 1e-6)
    start = ours(published[f"{name}.latents_init"]) * table.sigma
    expected = np.stack([ours(x) for x in published[f"{name}.latents"]])
    yield row(f"{name}.latents[0]", start, expected[0], 1e-6)
    guided = _guide(model, run, text, image)
    amplified = STEP * max(1, run["guidance_scale"] / GUIDANCE)
    for i, answer in enumerate(published.get(f"{name}.guided_prediction", [])):
        found = guided(table.scale[i] * expected[i], table.timesteps[i])
        yield row(f"{name}.guided_prediction[{i}]", found, ours(answer), amplified)
    noises = [ours(x) for x in published.get(f"{name}.step_noise", [])]
    forced = _walk(guided, table, start, noises, expected)
    for i in range(len(times)):
        yield row(f"{name}.latents[{i + 1}] of {i}", forced[i], expected[i + 1], STEP)
    walked = _walk(guided, table, start, noises)
    error = np.abs(walked - expected[1:]).max() / expected[1:].std()
    yield f"{name}.latents", float(error), WALK


def _guide(model, run, text, image):
    scales = run["guidance_scale"], run["image_guidance_scale"]
    *prompts, empty = text
    prompts = np.stack(prompts)
    negative = np.broadcast_to(empty, prompts.shape) if is_guided(*scales) else None
    predict = functools.partial(predict_by(Networks(model.sizes)), model.params)
    return guide_by_image(predict, prompts, negative, image, *scales)


def _walk(guided, table, start, noises, forced=None):
    """The samples after each step, from the one before or, if given, from those `forced`."""
    walk, rows, samples = begin(table, start), rows_of(table), []
    for i in range(len(table.timesteps)):
        if forced is not None:
            walk = walk._replace(x=forced[i], before=forced[max(i - 1, 0)])
        one = jax.tree.map(lambda x, i=i: x[i], rows)
        walk = step(guided, one, walk, (lambda _, i=i: noises[i]) if noises else None)
        samples.append(walk.x)
    return np.stack(samples)
