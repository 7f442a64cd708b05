"""Control of the UNet's attention, for editing such as prompt-to-prompt and shared attention.

A control replaces the attention of the layers that it chooses, knows the step, and may carry
something from layer to layer and from step to step, such as maps that a later step reads. It is a
pytree: its arrays go into a compiled program as arguments, so one program serves every control of
the same class and shapes. `Networks.predict_controlled` runs it through the UNet, and
`sampling.sample` through the steps.

Letters: `B` batch, `T` queries, `S` keys, `N` heads, `D` channels of a head.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxtbpr.core.attention import attention
from jaxtbpr.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Layer:
    """An attention layer of the UNet; static.

    path: from the UNet, ("down_blocks_0", "attentions_0", "transformer_blocks_0", "attn1");
    block: number of transformer blocks before its own; is_cross: cross-attention to the text, else
    self-attention; size: the sides (h, w) of the queries, T = h w; heads: N.
    """

    path: tuple[str, ...]
    block: int
    is_cross: bool
    size: tuple[int, int]
    heads: int


class Control(flax.struct.PyTreeNode):
    """Replaces attention; to be subclassed, see the module.

    Fields are arrays (or pytrees of them); static ones are `flax.struct.field(pytree_node=False)`.
    The base class computes plain attention.
    """

    def meets(self, layer: Layer) -> bool:
        """Whether it replaces the attention of this layer; may depend on static fields."""
        del layer
        return True

    def __call__(
        self, step: jax.Array, layer: Layer, q: jax.Array, k: jax.Array, v: jax.Array, carry: Any
    ) -> tuple[jax.Array, Any]:
        """Returns (output [B, T, N, D] of q [B, T, N, D], k and v [B, S, N, D]; the carry).

        step: int32 [], number of steps before; carry: from the layer before, in the first layer
        from the step before; it must keep its structure, shapes and dtypes. To change the attention
        map, use `attention_map` and `apply_map` of `core.attention`.
        """
        del step, layer
        return attention(q, k, v), carry


class Controlled:
    """One run of a control through the UNet's layers: the layers it saw, the carry."""

    def __init__(self, control: Control, step: jax.Array | int, carry: Any):
        self.carry = carry
        self.layers: list[Layer] = []
        self._control, self._step, self._met = control, jnp.asarray(step, jnp.int32), 0

    def attend(self, layer: Layer, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        """Attention of one layer, by the control where it applies."""
        self.layers.append(layer)
        if not self._control.meets(layer):
            return attention(q, k, v)
        self._met += 1
        out, self.carry = self._control(self._step, layer, q, k, v, self.carry)
        return out.astype(v.dtype)

    def finish(self) -> Any:
        """Returns the carry after the last layer. Raises InputError if it applied to no layer."""
        if self._met:
            return self.carry
        kinds = {(layer.is_cross, layer.size): None for layer in self.layers}
        present = (f"{'cross' if cross else 'self'} {h}x{w}" for cross, (h, w) in kinds)
        raise InputError(
            f"the control {type(self._control).__name__} applies to none of the UNet's "
            f"{len(self.layers)} attention layers ({', '.join(present)}), so it would change "
            "nothing; choose layers that exist at this image size."
        )
