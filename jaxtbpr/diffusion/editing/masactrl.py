"""Mutual self-attention: the targets look at the source (MasaCtrl, arXiv:2304.08465, section 3.2).

In the chosen layers and steps a target's queries attend to the keys and values of the source: with
text to those of the source with text, without text to those without. Its content then comes from
the source, its layout from the target's prompt. Letters: `n` steps.
"""

from collections.abc import Collection, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.core.attention import attention
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.control import Layer
from jaxtbpr.diffusion.editing.edit_control import EditControl


class MutualSelfAttention(EditControl):
    """steps: bool [n], those that it applies to; blocks: bool [transformer blocks], see `choose`.

    The paper's are all steps from 4 on and all blocks from 10 on.
    """

    steps: jax.Array
    blocks: jax.Array

    def meets(self, layer):
        """Whether it is self-attention; `blocks` is an array, so that others compile nothing."""
        return not layer.is_cross

    def __call__(self, step, layer, q, k, v, carry):
        """Attention to the source's keys and values in the chosen steps; see `Control`."""
        is_on = self.steps[step] & self.blocks[layer.block]
        k, v = (jnp.where(is_on, self._of_source(x), x) for x in (k, v))
        return attention(q, k, v), carry

    def _of_source(self, rows):
        source = self.by_image(rows)
        return jnp.broadcast_to(source[:, :1], source.shape).reshape(rows.shape)


def choose(layers: Sequence[Layer], chosen: Collection[int]) -> np.ndarray:
    """Returns the `blocks` of a UNet, of which `chosen` are those where the targets look.

    layers: of `Networks.attention_layers`. Blocks are counted in the order in which they run, from
    0; Stable Diffusion 1.x has 16: 0 to 5 down, 6 in the middle, 7 to 15 up. Numbers beyond the
    last are left out, as in the paper's code. Raises InputError where no block is left.
    """
    count = 1 + max(layer.block for layer in layers)
    blocks = np.isin(np.arange(count), list(chosen))
    if not blocks.any():
        raise InputError(
            f"mutual self-attention in blocks {min(chosen)} to {max(chosen)} would change nothing: "
            f"this UNet has blocks 0 to {count - 1}; choose some of these."
        )
    return blocks
