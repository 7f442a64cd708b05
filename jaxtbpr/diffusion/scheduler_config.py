"""Reads scheduler_config.json of PyTorch diffusers as a schedule and its sampler."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.samplers import KINDS, SAMPLERS
from jaxtbpr.diffusion.schedule import Schedule

_NUMBERS = ("num_train_timesteps", "beta_start", "beta_end", "steps_offset", "clip_sample_range")
_EVERYWHERE = {
    "prediction_type": ("epsilon", "v_prediction"),
    "beta_schedule": ("linear", "scaled_linear"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
}


def from_config(config: Mapping[str, Any], sampler: str = "", eta: float = 0.0) -> Schedule:
    """Returns the schedule of a checkpoint's scheduler_config.json.

    sampler: one of SAMPLERS, or "" for the checkpoint's; missing settings have the defaults of that
    class of diffusers. Raises InputError for settings that are not supported.
    """
    named = config.get("_class_name")
    own = next((kind for kind, row in KINDS.items() if row.class_name == named), None)
    kind, extra = SAMPLERS.get(sampler, (None, {})) if sampler else (own, {})
    if kind is None:
        raise InputError(
            f"the scheduler {sampler or named!r} is unknown; choose one of {', '.join(SAMPLERS)}."
        )
    row, is_own_class = KINDS[kind], kind == own
    config = {key: value for key, value in config.items() if value is not None} | extra
    unsupported = list(_unsupported(config, kind, is_own_class))
    if unsupported:
        raise InputError(
            f"the scheduler config has {', '.join(unsupported)}, which is not supported; change "
            f"it, or choose another sampler of {', '.join(SAMPLERS)}."
        )
    reads_alpha = row.alpha_to_one is not None
    clips = row.clips and config.get("clip_sample", is_own_class)
    return Schedule(
        kind=kind,
        prediction=config.get("prediction_type", "epsilon"),
        spacing=config.get("timestep_spacing", row.spacing),
        offset=config.get("steps_offset", 0),
        alpha_to_one=reads_alpha and config.get("set_alpha_to_one", row.alpha_to_one),
        clip=config.get("clip_sample_range", 1.0) if clips else np.inf,
        karras=row.has_karras and config.get("use_karras_sigmas", False),
        eta=eta if row.has_eta else 0.0,
        beta_start=config.get("beta_start", 0.0001),
        beta_end=config.get("beta_end", 0.02),
        beta_schedule=config.get("beta_schedule", "linear"),
        trained_betas=tuple(config["trained_betas"]) if "trained_betas" in config else None,
        zero_snr=config.get("rescale_betas_zero_snr", False),
        train_steps=config.get("num_train_timesteps", 1000),
    )


def _unsupported(config: Mapping[str, Any], kind: str, is_own_class: bool) -> Iterator[str]:
    """Yields each setting that is not supported, or makes no sense."""
    supported = {**_EVERYWHERE, **KINDS[kind].supported}
    values = {key: config[key] for key in supported if key in config}
    if kind == "pndm" and is_own_class:
        values.setdefault("skip_prk_steps", False)  # the default of its class
    for key, value in values.items():
        if value not in supported[key]:
            yield f"{key}={value!r}"
    for key in _NUMBERS:
        value = config.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{key}={value!r}"
    betas = config.get("trained_betas")
    if betas is not None and len(betas) != config.get("num_train_timesteps", 1000):
        yield "trained_betas of another length than num_train_timesteps"
    is_epsilon = config.get("prediction_type", "epsilon") == "epsilon"
    if kind == "ddim" and is_epsilon and config.get("rescale_betas_zero_snr"):
        yield "rescale_betas_zero_snr=True without v_prediction"  # divides by 0
