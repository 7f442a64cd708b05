"""Prompt-to-prompt: the targets take attention maps from the source (arXiv:2208.01626, section 3).

The map to the text decides where what a word says is drawn, the map of the image to itself its
layout. `prompts` makes the arrays from the prompts. Only the rows with text are changed. Letters:
`I` images, `K` targets of each, `L` tokens, `N` heads, `T` queries, `h`, `w` sides of the latents,
`a`, `b` of the maps that the blend reads.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxtbpr.core.attention import apply_map, attention, attention_map
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.control import Layer
from jaxtbpr.diffusion.editing.edit_control import EditControl
from jaxtbpr.diffusion.editing.prompts import PromptEdit


class Blend(flax.struct.PyTreeNode):
    """A local blend: the target replaces the source only where its words are drawn.

    words, subtract: float32 [I, 1 + K, L], the tokens of the words whose place is edited, and of
    those whose place is not; is_on: bool [I, K]; thresholds: float32 [2], of both, relative to the
    largest value; start: int32 [], the first step that blends.
    """

    words: jax.Array
    subtract: jax.Array
    is_on: jax.Array
    thresholds: jax.Array
    start: jax.Array

    def masks(self, sums: jax.Array, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
        """Where to edit and where not to, bool [I, 1 + K, h, w] each.

        sums: [2, I, 1 + K, a, b], the maps of `words` and of `subtract`. Section 3.2 of the paper,
        "local editing"; only the first are widened by a max-pooling of 3 x 3, as in its code.
        """
        pooled = jax.lax.reduce_window(
            sums[0], -jnp.inf, jax.lax.max, (1, 1, 3, 3), (1, 1, 1, 1), "SAME"
        )
        edited, kept = (
            _above(maps, threshold, size)
            for maps, threshold in zip((pooled, sums[1]), self.thresholds, strict=True)
        )
        return edited, kept

    def __call__(self, i: jax.Array, x: jax.Array, sums: jax.Array) -> jax.Array:
        """Blends latents [I, 1 + K, h, w, C] after step i."""
        edited, kept = self.masks(sums, (x.shape[2], x.shape[3]))
        off = jnp.concatenate([jnp.ones_like(self.is_on[:, :1]), ~self.is_on], axis=1)
        mask = (edited & ~kept) | off[..., None, None] | (i < self.start)
        source = x[:, :1]
        return jnp.where(mask[..., None], x, source)


def _above(maps, threshold, size):
    """Of the target or of the source: where maps, enlarged to size, exceed their threshold."""
    for axis, side in zip((2, 3), size, strict=True):
        places = jnp.arange(side) * maps.shape[axis] // side  # nearest, as in PyTorch
        maps = jnp.take(maps, places, axis=axis)
    largest = maps.max((2, 3), keepdims=True)
    is_above = maps / jnp.where(largest > 0, largest, 1) > threshold
    return is_above | is_above[:, :1]


def blend_size(layers: Sequence[Layer], size: tuple[int, int]) -> tuple[int, int]:
    """Returns the sides of the maps that a blend reads: those nearest to a quarter of the latents'.

    layers: of `Networks.attention_layers`; size: sides of the latents. In Stable Diffusion at 512 x
    512 these are 16 x 16, which the paper's code has for every size. Raises InputError for a UNet
    whose attention to the text is in its middle alone.
    """
    sizes = {layer.size for layer in layers if is_read(layer, layer.size)}
    if not sizes:
        raise InputError(
            "a local blend reads attention to the text outside the UNet's middle block, of which "
            "this UNet has none; edit without blend words."
        )
    quarter = size[0] * size[1] / 16
    return min(sizes, key=lambda sides: abs(math.log(sides[0] * sides[1] / quarter)))


def is_read(layer: Layer, size: tuple[int, int]) -> bool:
    """Whether a blend that reads maps of `size` reads those of this layer."""
    return layer.is_cross and layer.size == size and not layer.path[0].startswith("mid")


class PromptToPrompt(EditControl):
    """Replaces, refines and reweights maps; all fields but the static ones are arrays.

    edit: arrays of `PromptEdit` with a leading axis I; blend: None for none, static structure;
    max_self_keys: self-attention is replaced where it has at most so many keys; blend_size: (a, b).
    """

    edit: PromptEdit
    blend: Blend | None = None
    max_self_keys: int = flax.struct.field(pytree_node=False, default=32**2)
    blend_size: tuple[int, int] = flax.struct.field(pytree_node=False, default=(16, 16))

    def meets(self, layer):
        """Whether it is attention to the text, or to an image that is not too large."""
        return layer.is_cross or layer.size[0] * layer.size[1] <= self.max_self_keys

    def begin(self, size, images):
        """Sums of the maps that the blend reads."""
        del size
        if self.blend is None:
            return ()
        return jnp.zeros((2, images, 1 + self.targets, *self.blend_size))

    def __call__(self, step, layer, q, k, v, carry):
        """Attention with the edited maps; see `Control`."""
        (q_plain, q), (k_plain, k), (v_plain, v) = (jnp.split(x, 2) for x in (q, k, v))
        attend = self._cross if layer.is_cross else self._self
        out, carry = attend(step, layer, q, k, v, carry)
        return jnp.concatenate([attention(q_plain, k_plain, v_plain), out]), carry

    def _self(self, step, layer, q, k, v, carry):
        """In the chosen steps the source's map: that of its queries and keys."""
        del layer
        first, end = jnp.moveaxis(self.edit.self_steps, -1, 0)  # [I, K]
        is_on = (first <= step) & (step < end)
        is_on = jnp.pad(is_on, ((0, 0), (1, 0)))[..., None, None, None]

        def of_source(rows):
            by_image = self.by_image(rows)
            return jnp.where(is_on, by_image[:, :1], by_image).reshape(rows.shape)

        return attention(of_source(q), of_source(k), v), carry

    def _cross(self, step, layer, q, k, v, carry):
        maps = self.by_image(attention_map(q, k))  # [I, 1 + K, N, T, L]
        maps = self._edited(step, maps[:, 0], maps[:, 1:])
        return apply_map(maps.reshape(-1, *maps.shape[2:]), v), self.keep_maps(layer, maps, carry)

    def keep_maps(self, layer: Layer, maps: jax.Array, carry: Any) -> Any:
        """Returns the carry after a layer's edited maps to the text, [I, 1 + K, N, T, L]."""
        if self.blend is None or not is_read(layer, self.blend_size):
            return carry
        return carry + self._read(self.blend, maps)

    def _edited(self, step, source, target):
        """The maps of source and targets, [I, N, T, L] and [I, K, N, T, L], in one array."""
        edit = self.edit
        cross, equalizer, keep = (
            x[:, :, None, None] for x in (edit.cross[:, step], edit.equalizer, edit.keep)
        )
        moved = jnp.einsum("ints,iksl->ikntl", source, edit.mapper, precision="highest")
        new = equalizer * (moved + keep * target)
        return jnp.concatenate([source[:, None], cross * new + (1 - cross) * target], axis=1)

    def _read(self, blend, maps):
        """The mean over heads of the maps of both sets of words, [2, I, 1 + K, a, b]."""
        words = jnp.stack([blend.words, blend.subtract])
        read = jnp.einsum("ijntl,sijl->sijt", maps, words, precision="highest") / maps.shape[2]
        return read.reshape(*read.shape[:-1], *self.blend_size)

    def after_step(self, step, x, carry):
        """Blends, if it does."""
        return x if self.blend is None else self.blend(step, x, carry)
