"""Samplers against schedulers*.safetensors: timesteps, trajectories, noised latents."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from jaxtbpr.diffusion import samplers, scheduler_config
from jaxtbpr.diffusion.sampling import sample
from jaxtbpr.diffusion.schedule import add_noise, velocity

TOLERANCE = 1e-4


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance)."""
    path = pathlib.Path(path)
    published, runs = load_file(path), json.loads(path.with_suffix(".json").read_text())["runs"]
    rows = []
    for name, run in runs.items():
        found = _walk(published, name, run)
        rows += [
            _row(f"{name}.{key}", value, published[f"{name}.{key}"])
            for key, value in found.items()
            if f"{name}.{key}" in published
        ]
    return [*rows, *_levels(published, runs)]


def _walk(published, name, run):
    """Our arrays of a run under the names of the published ones."""
    steps = int(name.split(".")[-1])
    config = run["config"] | {"_class_name": run["scheduler"]}
    if "Inverse" in run["scheduler"]:
        schedule = scheduler_config.from_config(config | {"_class_name": "DDIMScheduler"})
        rule = "0.18" if "018" in name else "current"
        table = samplers.inversion_table(schedule, steps, rule)
        start = 0.5 * published["noise0"]
    else:
        schedule = scheduler_config.from_config(config, eta=run.get("eta", 0.0))
        table = samplers.make_table(schedule, steps)
        start = table.sigma * published["noise0"]
    noise = jnp.asarray(published["step_noise"])
    found = _sample(table, start, noise, samplers.adds_noise(table))
    return {
        "timesteps": table.timesteps,
        "init_noise_sigma": table.sigma,
        "samples": found,
        "model_inputs": table.scale.reshape(-1, *[1] * start.ndim) * found[:-1],
    }


def stand_in(x, t):
    """The network of the reference: a function of its input and the timestep."""
    return 0.7 * jnp.sin(1.5 * x) + 0.3 * jnp.cos(0.01 * t)


@jax.jit
def _deterministic(table, start):
    return sample(stand_in, table, start, trajectory=True)


@jax.jit
def _noisy(table, start, noise):
    return sample(stand_in, table, start, lambda i: noise[i], trajectory=True)


def _sample(table, start, noise, stochastic):
    found = _noisy(table, start, noise) if stochastic else _deterministic(table, start)
    return np.asarray(found)


def _levels(published, runs):
    schedule = scheduler_config.from_config(next(iter(runs.values()))["config"], "ddim")
    alphas = schedule.alphas_cumprod()
    inputs = [published[f"add_noise.{key}"] for key in ("x", "noise", "t")]
    yield _row("betas", schedule.betas(), published["betas"])
    yield _row("alphas_cumprod", alphas, published["alphas_cumprod"])
    yield _row("add_noise", add_noise(alphas, *inputs), published["add_noise.out"])
    yield _row("velocity", velocity(alphas, *inputs), published["add_noise.velocity"])


def _row(name, found, expected):
    """The largest error, of values beyond 1 the relative one."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return name, float("nan"), TOLERANCE
    error = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    return name, float(error.max()), TOLERANCE
