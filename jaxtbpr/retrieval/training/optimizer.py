"""AdamW as CLIP is trained with it: schedules, weight decay, layer decay, frozen parameters.

Schedules are functions of the step (from 0). They may be traced: a jax.Array gives float32 inside
jax.jit, while a Python or NumPy number gives float64 on the host, for logs and plans.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtbpr.core.errors import InputError

NO_DECAY = {"bias", "scale", "ln", "bn"}


def warmup_cosine(
    *, learning_rate: float, start: float, end: float, warmup_steps: int, steps: int
) -> optax.Schedule:
    """Linear warm-up from `start` to `learning_rate`, then a cosine to `end`.

    The warm-up includes both ends, and the cosine starts at its top again: step w - 1 and step
    w = `warmup_steps` both have the full rate, and the last step is one short of `end`. (optax's
    own warm-up cosine differs by a step.) From `steps` on the rate stays at `end`. Raises
    ValueError for a warm-up that is longer than the training. SynTBPR and TBPS-CLIP.
    """
    if not 0 <= warmup_steps <= steps or steps < 1:
        raise ValueError(
            f"a schedule of steps={steps} cannot have warmup_steps={warmup_steps}; "
            "the warm-up must end within the training."
        )
    decay_steps = max(steps - warmup_steps, 1)

    def schedule(step):
        xp = _namespace(step)
        rise = start + (learning_rate - start) * (step / max(warmup_steps - 1, 1))
        left = xp.clip((steps - step) / decay_steps, 0.0, 1.0)
        # sin^2(pi x / 2) = (1 - cos(pi x)) / 2 without its cancellation near the end.
        fall = end + (learning_rate - end) * xp.sin(0.5 * np.pi * left) ** 2
        return xp.where(step < warmup_steps, rise, fall)[()]  # [()]: NumPy makes an array of it

    return schedule


def soft_label_ratio(ratio: float, steps_per_epoch: int) -> optax.Schedule:
    """Fraction of soft labels in the targets: 0 to `ratio` over the first epoch, then constant.

    SynTBPR and TBPS-CLIP (`alpha` of the losses).
    """

    def schedule(step):
        return ratio * _namespace(step).minimum(step / steps_per_epoch, 1.0)

    return schedule


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: float = 0.02,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-8,
    clip_norm: float | None = None,
    frozen: str = "",
    layer_decay: float = 1.0,
    head_lr_factor: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW with decoupled weight decay on the parameters of `decay_mask`.

    clip_norm: largest global norm of the gradients; None (the published choice): no clipping.
    frozen: regular expression of the parameters that never change and need no moments, "" = none
    of them, see `frozen_mask`. layer_decay, head_lr_factor: see `lr_factors`. Defaults are
    SynTBPR's. Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101.
    """
    optimizer = optax.adamw(
        learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask
    )
    if layer_decay != 1 or head_lr_factor != 1:
        optimizer = optax.chain(optimizer, _scale_by_factors(layer_decay, head_lr_factor))
    if clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    if not frozen:
        return optimizer
    return optax.partition(
        {True: optax.set_to_zero(), False: optimizer}, lambda params: frozen_mask(params, frozen)
    )


def lr_factors(params: Any, layer_decay: float, head_lr_factor: float) -> Any:
    """For a tree of parameters: the factor of the learning rate of each.

    layer_decay ** d for a parameter d layers below the top of its tower: 0 for what follows the
    last block, 1 for the last block, one more than the blocks for embeddings (BEiT's rule, Bao et
    al., arXiv:2106.08254). Scanned blocks have an array of factors, [layers, 1, ...].
    head_lr_factor: of the identity and word heads (5 in SynTBPR and TBPS-CLIP).
    """
    depths = {
        tower: 1 + max(_block_numbers(params[tower]["transformer"]))
        for tower in ("image", "text")
        if tower in params
    }

    def factor(path, leaf):
        names = _name(path).split("/")
        names = names[1:] if names[0] == "lora" else names
        if names[0] == "heads":
            return head_lr_factor if names[1] in ("identity", "words") else 1.0
        if names[0] not in depths:
            return 1.0
        depth = depths[names[0]]
        if names[1] in ("ln_post", "ln_final", "projection"):
            return 1.0
        if names[1] != "transformer":
            return layer_decay ** (depth + 1)
        if names[2] == "blocks":
            below = depth - jnp.arange(leaf.shape[0])
            return (layer_decay**below).reshape(-1, *[1] * (leaf.ndim - 1))
        return layer_decay ** (depth - int(names[2].removeprefix("block_")))

    return jax.tree_util.tree_map_with_path(factor, params)


def _block_numbers(blocks: Any) -> list[int]:
    return [int(name.removeprefix("block_")) for name in blocks if name.startswith("block_")]


def _scale_by_factors(layer_decay: float, head_lr_factor: float) -> optax.GradientTransformation:
    def update(updates, params):
        factors = lr_factors(params, layer_decay, head_lr_factor)
        return jax.tree.map(lambda u, factor: u * factor, updates, factors)

    return optax.stateless(update)


def frozen_mask(params: Any, pattern: str) -> Any:
    """For a tree of parameters: a tree of bools, whether `pattern` matches the whole path of each.

    pattern: regular expression on paths such as "image/stem/proj/kernel"; "" matches none.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool(re.fullmatch(pattern, _name(path))), params
    )


def check_frozen(params: Any, pattern: str) -> None:
    """Raises InputError for a `pattern` that is invalid, or freezes nothing or everything."""
    try:
        matched = jax.tree.leaves(frozen_mask(params, pattern))
    except re.error as error:
        raise InputError(f"{pattern!r} is not a valid regular expression: {error}.") from error
    if pattern and (all(matched) or not any(matched)):
        names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        which = "every parameter" if all(matched) else "no parameter"
        raise InputError(
            f"{pattern!r} matches {which}; it must match the whole paths of some parameters, "
            f"such as {names[0]!r} or {names[-1]!r}."
        )


def decay_mask(params: Any) -> Any:
    """For a tree of parameters: a tree of bools, whether weight decay acts on each."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: decays(_name(path), leaf.ndim), params
    )


def decays(name: str, axes: int) -> bool:
    """Whether weight decay acts on the parameter `name`, which has `axes` axes.

    Not on parameters of fewer than two axes (biases, norms, logit_scale, OpenAI's
    class_embedding) nor on those named bias, scale (linen's norms), ln or bn, whatever their
    shape, since a stack of layers gives a bias a second axis. Everything else decays: kernels,
    projections, token and position embeddings, EVA's cls_token [1, 1, W]. Names count as whole
    words ("ln_1", "q_bias"); the originals look for these letters anywhere in a name.
    """
    return axes >= 2 and NO_DECAY.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _namespace(step):
    return jnp if isinstance(step, jax.Array) else np
