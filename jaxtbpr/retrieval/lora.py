"""LoRA: a low-rank change of chosen weights, trained in place of them (Hu et al., ICLR 2022).

The change is a tree of its own, {"a": [in, rank], "b": [rank, out]} for each kernel, and the model
is used with W + a b (arXiv:2106.09685 with alpha = rank). No module knows of it; kernels of
scanned blocks [layers, in, out] have their layers' changes stacked alike.
"""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp

from jaxtbpr.core.errors import UserError


def init(params: Any, pattern: str, rank: int, key: jax.Array) -> Any:
    """Returns the change of every kernel whose whole path `pattern` matches, 0 at first.

    Raises UserError where it matches none or is no expression.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"config.train.lora={pattern!r} is no regular expression: {error}."
        ) from error
    found: dict[str, Any] = {}
    for n, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        names = [entry.key for entry in path]
        if names[-1] != "kernel" or not re.fullmatch(pattern, "/".join(names)):
            continue
        *layers, inputs, outputs = leaf.shape
        draw = jax.random.normal(jax.random.fold_in(key, n), (*layers, inputs, rank))
        node = found
        for name in names[:-1]:
            node = node.setdefault(name, {})
        node["kernel"] = {
            "a": draw / math.sqrt(inputs),
            "b": jnp.zeros((*layers, rank, outputs)),
        }
    if not found:
        raise UserError(
            f"config.train.lora={pattern!r} matches no kernel; it must match whole paths such as "
            "'image/transformer/block_0/attn_q/kernel'."
        )
    return found


def merge(params: Any, change: Any) -> Any:
    """Returns `params` with the change added to the kernels that it has one for.

    Shapes (jax.ShapeDtypeStruct) come back as they are.
    """
    if set(change) == {"a", "b"}:
        is_shape = isinstance(params, jax.ShapeDtypeStruct)
        return params if is_shape else params + change["a"] @ change["b"]
    return {
        name: merge(tree, change[name]) if name in change else tree for name, tree in params.items()
    }
