"""Editing: prompt_to_prompt*, ptp_nmg*.safetensors.

What is made of the prompts is exact.
"""

import functools
import json
import pathlib

import numpy as np
from safetensors.numpy import load_file

from jaxtbpr.diffusion.editing import prompts
from jaxtbpr.diffusion.prompt_tokenizer import open_prompt_tokenizer

PUBLISHED = {"match": "words", "tail": "published"}
METHODS = {True: "replace", False: "refine", None: "reweight"}


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance)."""
    path = pathlib.Path(path)
    arrays, described = load_file(path), json.loads(path.with_suffix(".json").read_text())
    tokenizer = open_tokenizer(path.parent)
    rows = []
    for name, scenario in scenarios(described).items():
        rows += _of_prompts(tokenizer, name, scenario, arrays)
    return rows


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
            dict(zip(weights["words"], weights["values"], strict=True)),
        )
        for prompt in targets
    ]
    edit = prompts.prompt_edit(
        tokenizer, source, targets, scenario["n"], scenario["selfr"], **PUBLISHED
    )
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
        found["num_self_replace"] = edit.self_steps
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
