"""Editing: prompt_to_prompt*, ptp_nmg*.safetensors.

What is made of the prompts is exact.
"""

import functools
import json
import pathlib

import flax.struct
import jax
import numpy as np
from safetensors.numpy import load_file

from jaxtbpr.diffusion import samplers, scheduler_config
from jaxtbpr.diffusion.editing import prompts
from jaxtbpr.diffusion.editing.prompt_to_prompt import Blend, PromptToPrompt
from jaxtbpr.diffusion.prompt_tokenizer import open_prompt_tokenizer
from tests.oracles.diffusion_steps import FORCED, IMAGE, WALK, Editing, open_model, ours, row

PUBLISHED = {"match": "words", "tail": "published"}
# The published pipelines build their scheduler with these settings.
SETTINGS = {"timestep_spacing": "leading", "steps_offset": 0, "set_alpha_to_one": False}
ROWS = 16  # of a schedule, beyond the most steps, so that one program serves all
METHODS = {True: "replace", False: "refine", None: "reweight"}


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance)."""
    path = pathlib.Path(path)
    arrays, described = load_file(path), json.loads(path.with_suffix(".json").read_text())
    checks = {"prompt_to_prompt": _prompt_to_prompt, "ptp_nmg": _large, "nmg": _noise_map}
    checked = next(checks[name] for name in checks if path.name.startswith(name))
    return list(checked(path, arrays, described))


def _prompt_to_prompt(path, arrays, described):
    tokenizer = open_tokenizer(path.parent)
    for name, scenario in scenarios(described).items():
        yield from _of_prompts(tokenizer, name, scenario, arrays)
        settings = {"guidance_text": described["guidance_scale"]}
        editing = _editing(path, scenario, settings)
        start = ours(arrays[f"{name}latents_init"])
        yield from _walk(arrays, name, scenario, editing, start)


def _noise_map(path, arrays, described):
    """The scenarios and inversions are in the files beside it."""
    beside = {
        stem: path.with_name(path.name.replace("nmg", stem)) if path.stem != "nmg" else
        path.with_name(f"{stem}.safetensors") for stem in ("prompt_to_prompt", "ddim_inversion")
    }  # fmt: skip
    of_name = json.loads(beside["prompt_to_prompt"].with_suffix(".json").read_text())["scenarios"]
    inversions = load_file(beside["ddim_inversion"])
    for name, run in described["runs"].items():
        scenario = of_name[run["scenario"]]
        inverted = ours(inversions[f"{run['scenario']}.{run['inversion']}.latents"])[:, None]
        editing = _editing(path, scenario, run, goals=inverted[::-1][1:])
        control = control_of(editing, scenario, inactive=run["recon"])
        if f"{name}.latents_after_blend" in arrays:
            expected = ours(arrays[f"{name}.latents_after_blend"])
        else:
            expected = ours(arrays[f"{name}.latents_after_text_step"])
        rows, steps = editing.compare(name, arrays, control, inverted[-1], expected)
        yield from rows
        yield from _masks_of(arrays, f"{name}.", scenario, control, steps)
        if f"{name}.image" in arrays:
            factor = editing.networks.scaling_factor
            image = editing.decode(expected[-1] / factor)
            yield row(f"{name}.image", image, arrays[f"{name}.image"], IMAGE)


def _large(path, arrays, described):
    """64 x 64 latents, of which every fourth is published."""
    yield from _of_prompts(open_tokenizer(path.parent), "", described, arrays)
    editing = _editing(path, described, {"guidance_text": described["p2p_guidance"]}, "sd64_*")
    control = control_of(editing, described)
    start = ours(arrays["latents_init"])
    steps = list(editing.steps(control, start, [None] * described["n"]))
    yield from _sparse(
        arrays, "p2p.latents_sub4", [start.repeat(2, 0), *(s.after[0] for s in steps)]
    )
    end = ours(arrays["p2p.latents_final"])
    yield row("p2p.latents_final", steps[-1].after[0], end, WALK, end.std())
    yield from _masks_of(arrays, "p2p.", described, control, steps)

    editing = _editing(path, described, described["nmg_constants"], "sd64_*")
    table = samplers.inversion_table(editing.schedule, described["n"], "0.18")
    inverted = np.asarray(editing.invert(table, ours(arrays["nmg.z0"])))
    yield from _sparse(arrays, "nmg.inversion_sub4", inverted[:, 0], 5 * FORCED)
    editing.goals = inverted[::-1][1:]
    steps = list(editing.steps(control, inverted[-1], [None] * described["n"]))
    # A residual near 0 changes the sign of its part of the gradient, and these networks amplify:
    # what the published run does to a disturbance of 1e-6 bounds the root mean square of ours.
    limits = [
        10 * spread / std
        for spread, std in zip(
            described["nmg_sensitivity_per_step"], described["nmg_std"], strict=True
        )
    ]
    yield from _sparse(arrays, "nmg.loss", [s.led.distances[0] for s in steps])
    for key, values in {
        "grad_sub4": [s.led.gradient for s in steps],
        "latents_after_nm_sub4": [s.led.after for s in steps],
        "latents_after_text_step_sub4": [s.before[0] for s in steps],
        "latents_after_blend_sub4": [s.after[0] for s in steps],
    }.items():
        for i, (value, limit) in enumerate(zip(values, limits, strict=True)):
            expected = ours(arrays[f"nmg.{key}"][i])
            found = np.asarray(value)[..., ::4, ::4, :]
            yield f"nmg.{key}[{i}], root mean square", _spread(found, expected), limit
    end = ours(arrays["nmg.latents_final"])
    found = np.asarray(steps[-1].after[0])
    yield "nmg.latents_final, root mean square", _spread(found, end), limits[-1]
    yield from _masks_of(arrays, "nmg.", described, control, steps)


def _spread(found, expected):
    """The root mean square of the errors, relative to the deviation."""
    return float(np.sqrt(np.mean((found.reshape(expected.shape) - expected) ** 2)) / expected.std())


def _sparse(arrays, key, found, tolerance=WALK):
    """Rows of each step: every fourth of its latents, relative to how far they spread."""
    for i, (value, expected) in enumerate(zip(found, arrays[key], strict=True)):
        expected = np.asarray(expected)
        if key.endswith("sub4"):
            value, expected = np.asarray(value)[..., ::4, ::4, :], ours(expected)
        scale = expected.std() if expected.size > 1 else np.abs(expected)
        yield row(f"{key}[{i}]", value, expected, tolerance, scale)


def _editing(path, scenario, settings, unet="sd1_*", goals=None):
    checkpoint, networks = open_model(min(path.parent.glob("sd1_*")), min(path.parent.glob(unet)))
    schedule = scheduler_config.from_config(checkpoint.scheduler | SETTINGS, "ddim")
    table = samplers.make_table(schedule, scenario["n"])
    return Editing(
        checkpoint, networks, schedule, table, scenario["prompts"], goals,
        {"guidance_noise_map": 10, **settings},
    )  # fmt: skip


def _walk(arrays, name, scenario, editing, start):
    """Rows of prompt-to-prompt alone."""
    control = control_of(editing, scenario)
    expected = ours(arrays[f"{name}latents"])
    if len(expected) == scenario["n"] + 1:
        rows, steps = editing.compare(name[:-1], arrays, control, start, expected[1:])
        yield from rows
    else:  # the first two and the last are published
        steps = list(editing.steps(control, start, [None] * scenario["n"]))
        for i, latents in zip((0, 1, -1), expected, strict=True):
            found = steps[i].after[0]
            limit = FORCED if i == 0 else WALK
            yield row(f"{name}latents after step {i}", found, latents, limit, latents.std())
        for i, latents in enumerate(
            ours(arrays.get(f"{name}latents_before_blend", np.zeros((0, 1, 1, 1))))
        ):
            found = steps[i].before[0]
            yield row(f"{name}latents_before_blend[{i}]", found, latents, WALK, latents.std())
    yield from _masks_of(arrays, name, scenario, control, steps)
    for key in arrays:
        if key.startswith(f"{name}store_after_step1"):
            place, index = key.split(".")[-3:-1]
            found = steps[1].carry[1][f"{place.split('_')[0]}.{index}"][0]
            yield row(key, found, arrays[key], FORCED)


def _masks_of(arrays, name, scenario, control, steps):
    """Rows of the masks of each blend, exact; the n-th key that has none is the next one's."""
    if not scenario.get("blend"):
        return
    size, evaluated = steps[0].after.shape[2:4], 0
    for i in range(int(control.blend.start), scenario["n"]):
        edited, kept = control.blend.masks(steps[i].carry[0], size)
        for mask, end in ((edited, ""), (kept, ".substruct"))[: 1 + bool(scenario.get("sub"))]:
            key = f"{name}mask.{evaluated}{end}"
            yield row(key, mask[0], arrays[key][:, 0], 0)
            evaluated += 1


class Storing(PromptToPrompt):
    """Keeps sums of maps as well, [1 + K, T, 16]: means over heads of the first tokens."""

    stored: tuple[tuple[str, tuple[str, ...]], ...] = flax.struct.field(
        pytree_node=False, default=()
    )
    sizes: tuple[tuple[int, int], ...] = flax.struct.field(pytree_node=False, default=())

    def begin(self, size, images):
        rows = images, 1 + self.targets
        sums = {
            name: np.zeros((*rows, h * w, 16), np.float32)
            for (name, _), (h, w) in zip(self.stored, self.sizes, strict=True)
        }
        return super().begin(size, images), sums

    def keep_maps(self, layer, maps, carry):
        blended, sums = carry
        name = next((name for name, path in self.stored if path == layer.path), None)
        if name is not None:
            sums = sums | {name: sums[name] + maps.mean(2)[..., :16]}
        return super().keep_maps(layer, maps, blended), sums

    def after_step(self, step, x, carry):
        return super().after_step(step, x, carry[0])


def control_of(editing, scenario, inactive=False):
    """The control of a scenario for one image; schedules are padded to one number of rows."""
    tokenizer = editing.checkpoint.prompt_tokenizer
    edit = edit_of(tokenizer, scenario)
    edit = edit._replace(cross=np.pad(edit.cross, ((0, ROWS - len(edit.cross)), (0, 0), (0, 0))))
    if inactive:
        edit = edit._replace(cross=0 * edit.cross, self_steps=0 * edit.self_steps)
    blend = None
    if scenario.get("blend"):
        words, subtract = (masks_of(tokenizer, scenario, what) for what in ("blend", "sub"))
        subtract = np.zeros_like(words) if subtract is None else subtract
        blend = Blend(
            words[None], subtract[None], np.ones((1, len(words) - 1), bool),
            np.float32(scenario.get("th", (0.3, 0.3))), np.int32(0.2 * scenario["n"]),
        )  # fmt: skip
    layers = [
        layer for layer in editing.networks.attention_layers(tuple(scenario["hw"]))
        if layer.is_cross and layer.size[0] * layer.size[1] <= 1024
    ]  # fmt: skip
    by_place = {
        place: [x for x in layers if x.path[0].startswith(place)] for place in ("down", "up")
    }
    stored = {"down.2": by_place["down"][2], "up.0": by_place["up"][0]}
    return Storing(
        edit.mapper.shape[0], jax.tree.map(lambda x: x[None], edit), blend,
        stored=tuple((name, layer.path) for name, layer in stored.items()),
        sizes=tuple(layer.size for layer in stored.values()),
    )  # fmt: skip


def scenarios(described):
    """{what the keys of its arrays begin with: scenario}; a file of one has no names."""
    named = described.get("scenarios")
    if named is None:
        return {"": described}
    return {f"{name}.": scenario for name, scenario in named.items()}


@functools.cache
def open_tokenizer(folder):
    """That of Stable Diffusion 1.x, which serves all of them."""
    return open_prompt_tokenizer(min(folder.glob("sd1_*")) / "tokenizer", 77)


def edit_of(tokenizer, scenario) -> prompts.PromptEdit:
    """The edit of a scenario by the published rules."""
    source, *targets = scenario["prompts"]
    weights = scenario.get("eq") or {"words": [], "values": []}
    targets = [
        prompts.Target(
            prompt,
            METHODS[scenario["replace"]],
            scenario["cross"],
            scenario["selfr"],
            dict(zip(weights["words"], weights["values"], strict=True)),
        )
        for prompt in targets
    ]
    edit = prompts.prompt_edit(tokenizer, source, targets, scenario["n"], **PUBLISHED)
    # The published equalizer is that of the first target, for all of them.
    return edit._replace(equalizer=np.repeat(edit.equalizer[:1], len(targets), 0))


def masks_of(tokenizer, scenario, what):
    """Word masks [K + 1, L] of "blend" or "sub", None where the scenario has none."""
    if not scenario.get(what):
        return None
    return prompts.word_masks(tokenizer, scenario["prompts"], scenario[what], match="words")


def _of_prompts(tokenizer, name, scenario, arrays):
    """Rows of what is published of a scenario; all of it is exact."""
    edit = edit_of(tokenizer, scenario)
    found = {
        "input_ids": tokenizer.encode(scenario["prompts"]),
        "cross_replace_alpha": edit.cross,
        "equalizer": edit.equalizer[:1],
        "blend_alpha_layers": masks_of(tokenizer, scenario, "blend"),
        "blend_substruct_layers": masks_of(tokenizer, scenario, "sub"),
    }
    expected = {key: arrays[name + key] for key in found if name + key in arrays}
    found |= {"mapper": edit.mapper, "refine_alphas": 1 - edit.keep}
    expected |= _mapper(arrays, name)
    if "num_self_replace" in scenario:
        found["num_self_replace"] = edit.self_steps[0]
        expected["num_self_replace"] = scenario["num_self_replace"]
    return [_exact(name + key, found[key], value) for key, value in expected.items()]


def _mapper(arrays, name):
    """A published mapper as a matrix: of refine it is the source's token of each of the target."""
    mapper, alphas = (arrays.get(name + key) for key in ("mapper", "refine_alphas"))
    if alphas is None:
        return {} if mapper is None else {"mapper": mapper}
    one_hot = np.arange(mapper.shape[1])[:, None] == mapper[:, None]  # -1 is no row
    return {"mapper": one_hot * alphas[:, None], "refine_alphas": alphas}


def _exact(name, found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return name, float("nan"), 0.0
    return name, float(np.abs(found - expected).max(initial=0)), 0.0
