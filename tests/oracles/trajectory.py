"""Three optimizer steps against train_trajectory*: losses, gradients, parameters."""

import functools
import json
import pathlib

import flax.traverse_util
import jax
import numpy as np
from safetensors.numpy import load_file

from jaxtbpr.core import mesh as meshes
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.model import Clip
from jaxtbpr.retrieval.clip.weights import names
from jaxtbpr.retrieval.training import optimizer as optimizers
from jaxtbpr.retrieval.training.objective import Objective
from jaxtbpr.retrieval.training.step import StepConfig, direct_gradients, state_of, train_step
from tests.oracles.schedule import learning_rate

HIGHEST = {"losses": 1e-4, "gradient_norm": 1e-4, "gradients": 1e-4, "parameters": 5e-5}


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance)."""
    path = pathlib.Path(path)
    described, published = json.loads(path.with_suffix(".json").read_text()), np.load(path)
    config, params = weights.load(
        path.parent / described["initial_weights"],
        hints=described["model_config"],
        pixels="none",
    )
    step_config = make_step_config(described, config)
    state = state_of(params, jax.random.key(0), step_config)
    step = jax.jit(functools.partial(train_step, step_config=step_config))
    rows = _gradient_rows(config, step_config, state, batch_of(published, 0), path)
    recorded = _recorded(described["config"]["experiment"], published)
    for n in range(described["steps"]):
        state, scalars = step(state, batch_of(published, n))
        for ours, (theirs, factor) in recorded.items():
            error = abs(factor * float(scalars[ours]) - published[theirs][n])
            rows.append((f"{theirs}, step {n + 1}", error, HIGHEST["losses"]))
        norm = published["grad_norm"][n]
        error = abs(float(scalars["gradient_norm"]) - norm) / (norm or 1)
        rows.append((f"grad_norm, step {n + 1}", error, HIGHEST["gradient_norm"]))
        rows += _parameter_rows(config, state.params, published, n + 1)
    return rows + _final_rows(config, state.params, path)


def _recorded(experiment, published):
    """{our loss: (its published name, the factor that it is recorded with)}.

    Each part may be recorded before or after its ratio: which, says the sum of both. A part whose
    ratio is 0 is computed by neither.
    """
    ratios = {part: _ratio(experiment, part) for part in ("nitc", "ritc")}
    sums = {
        weighted: sum((1 if weighted else r) * published[f"{p}_loss"] for p, r in ratios.items())
        for weighted in (False, True)
    }
    errors = {kind: np.abs(total - published["loss"]).max() for kind, total in sums.items()}
    weighted = errors[True] < errors[False]
    found = {p: (f"{p}_loss", r if weighted else 1.0) for p, r in ratios.items() if r}
    return found | {"loss": ("loss", 1.0)}


def _ratio(experiment, part):
    """The weight of a loss, which may be switched off beside it."""
    return experiment[f"{part}_ratio"] if experiment.get(part, True) else 0.0


def make_step_config(described, config) -> StepConfig:
    """The step of the published run: schedules, optimizer and losses by its own settings."""
    settings = described["config"]
    schedule, experiment = settings["schedule"], settings["experiment"]
    per_epoch = described["iters_per_epoch"]
    rate = learning_rate(schedule, per_epoch)
    b1, b2 = schedule["betas"]
    optimizer = optimizers.adamw(rate, weight_decay=schedule["weight_decay"], b1=b1, b2=b2)
    model = settings["model"]
    ratio = optimizers.soft_label_ratio(model["softlabel_ratio"], per_epoch)
    objective = Objective(
        nitc=_ratio(experiment, "nitc"),
        ritc=_ratio(experiment, "ritc"),
        soft_label_ratio=ratio,
        soft_labels=model["softlabel_type"],
        ritc_eps=experiment["ritc_eps"],
    )
    return StepConfig(
        Clip(config), optimizer, meshes.make_mesh(devices=jax.devices()[:1]), objective
    )


def batch_of(published, n):
    """The batch of step n, as a loader would give it."""
    rows = published["batch_indices"][n]
    return {
        "image": published["image_pool"][rows].transpose(0, 2, 3, 1),
        "tokens": published["token_id_pool"][rows],
        "identity": published["person_id_pool"][rows],
        "weight": np.ones(len(rows), np.float32),
    }


def _theirs(config, params):
    """Our parameters under the published names, without the keys' bias of the text tower.

    A shift of all keys changes no softmax: its gradient is rounding, which Adam makes a full step.
    """
    ours = flax.traverse_util.flatten_dict(jax.device_get(params), sep="/")
    found = {}
    for one in names.tensors("eva", config, "text."):
        value = one.layout.write([np.asarray(ours[path]) for path in one.ours])
        found[one.theirs] = _without_key_bias(one.theirs, value)
    return found


def _without_key_bias(name, value):
    if not name.endswith("attn.in_proj_bias"):
        return value
    third = len(value) // 3
    return np.concatenate([value[:third], value[2 * third :]])


def _gradient_rows(config, step_config, state, batch, path):
    """The row of the first gradients, where they are given; relative to each one's largest."""
    file = path.with_suffix(".grads_step1.safetensors")
    if not file.exists():
        return []
    _, gradients = jax.jit(functools.partial(direct_gradients, step_config=step_config))(
        state, batch
    )
    found, errors = _theirs(config, gradients), []
    for name, value in load_file(file).items():
        value = _without_key_bias(name, value)
        errors.append(np.abs(found[name] - value).max() / (np.abs(value).max() or 1))
    return [("gradients of step 1", float(max(errors)), HIGHEST["gradients"])]


def _parameter_rows(config, params, published, step):
    found, head = _theirs(config, params), f"step{step}/"
    for key in published.files:
        if key.startswith(head):
            name = key.removeprefix(head)
            error = np.abs(found[name] - _without_key_bias(name, published[key])).max()
            yield f"{name}, step {step}", float(error), HIGHEST["parameters"]


def _final_rows(config, params, path):
    file = path.with_suffix(".final.safetensors")
    if not file.exists():
        return []
    expected, found = load_file(file), _theirs(config, params)
    if differ := set(found) ^ set(expected):
        return [(f"parameters that only one has: {sorted(differ)}", float("nan"), 0.0)]
    errors = [
        np.abs(found[name] - _without_key_bias(name, value)).max()
        for name, value in expected.items()
    ]
    return [("all parameters after the last step", float(max(errors)), HIGHEST["parameters"])]
