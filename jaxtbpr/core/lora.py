"""LoRA: a low-rank change of chosen kernels, trained in place of them (Hu et al., ICLR 2022).

The change is a small separate tree, {"a": ..., "b": ...} where the parameters have the kernel,
and a network is used with W + scale * a b (arXiv:2106.09685, section 4.1; scale is alpha / rank).
It works for every network whose parameters are a tree of dicts. With `r`
the rank:

    dense layer                W [in, out]           a [in, r]           b [r, out]
    that of scanned blocks     W [layers, in, out]   a [layers, in, r]   b [layers, r, out]
    convolution                W [h, w, in, out]     a [h, w, in, r]     b [r, out]

The change of a convolution is one to r channels and a 1x1 convolution after it, as published files
have it.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxtbpr.core.errors import InputError


def kernels(params: Any, pattern: str) -> dict[str, tuple[int, ...]]:
    """Returns {path: shape} of the kernels whose whole path the regular expression matches.

    params: a tree of dicts, of arrays or shapes; a path is "image/stem/proj/kernel". Raises
    InputError where `pattern` is no expression or matches no kernel.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{pattern!r} is not a valid regular expression: {error}.") from error
    every = {
        "/".join(names): leaf.shape for names, leaf in _leaves(params) if names[-1] == "kernel"
    }
    matched = {path: shape for path, shape in every.items() if expression.fullmatch(path)}
    if not matched:
        such = f"such as {next(iter(every))!r}" if every else "but there is none"
        raise InputError(f"{pattern!r} matches no kernel; it must match whole paths, {such}.")
    return matched


def init(params: Any, pattern: str, rank: int, key: jax.Array) -> Any:
    """Returns the change of the kernels that `pattern` means (see `kernels`), 0 at first.

    float32: a is normal with deviation fan_in^-1/2, b is 0. Raises InputError as `kernels`
    does, and for a rank below 1.
    """
    if rank < 1:
        raise InputError(f"rank={rank} must be at least 1.")
    meant, change = kernels(params, pattern), {}
    for n, (names, leaf) in enumerate(_leaves(params)):
        if "/".join(names) not in meant:
            continue
        *before, inputs, outputs = leaf.shape
        is_convolution = len(before) == 2
        fan_in = math.prod(before) * inputs if is_convolution else inputs
        draw = jax.random.normal(jax.random.fold_in(key, n), (*before, inputs, rank))
        node = change
        for name in names[:-1]:
            node = node.setdefault(name, {})
        node["kernel"] = {
            "a": draw / math.sqrt(fan_in),
            "b": jnp.zeros((*([] if is_convolution else before), rank, outputs)),
        }
    return change


def merge(params: Any, change: Any, scale: jax.Array | float = 1.0) -> Any:
    """Returns `params` with `scale` times the change added to the kernels that it has one for.

    Kernels keep their dtype; shapes (jax.ShapeDtypeStruct) come back as they are. Raises InputError
    for a change of what `params` does not have, or has in another shape.
    """
    return _merge(params, change, scale, ())


def _merge(params, change, scale, names):
    if set(change) == {"a", "b"}:
        return _add(params, change, scale, "/".join(names))
    held = params.keys() if isinstance(params, Mapping) else set()
    for name in sorted(change.keys() - held):
        path = "/".join((*names, name))
        raise InputError(
            f"the LoRA has {path!r}, which the parameters do not have: it is for another model."
        )
    return {
        name: _merge(tree, change[name], scale, (*names, name)) if name in change else tree
        for name, tree in params.items()
    }


def _add(kernel, change, scale, path):
    a, b = change["a"], change["b"]
    if (*a.shape[:-1], b.shape[-1]) != kernel.shape:
        raise InputError(
            f"the LoRA of {path!r} is for a kernel of {(*a.shape[:-1], b.shape[-1])}, the "
            f"parameters have one of {kernel.shape}: it is for another model."
        )
    if isinstance(kernel, jax.ShapeDtypeStruct):
        return kernel
    wide = jnp.promote_types(kernel.dtype, a.dtype)
    return (kernel.astype(wide) + scale * (a @ b).astype(wide)).astype(kernel.dtype)


def _leaves(params: Any) -> list[tuple[list[str], Any]]:
    """[(names on the way, leaf)] of a tree of dicts, in JAX's order."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [([entry.key for entry in path], leaf) for path, leaf in leaves]
