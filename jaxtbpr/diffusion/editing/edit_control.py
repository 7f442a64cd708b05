"""Control of attention in a batch of images beside their targets: base of the editing methods.

Letters: `I` images, `K` targets of each. An image's 1 + K rows are its source, which is
reconstructed, and its targets; the batch is those of all images without text, then those with it.
"""

from typing import Any

import flax.struct
import jax

from jaxtbpr.diffusion.control import Control


class EditControl(Control):
    """Control of 2 x I x (1 + K) rows. targets: K, static.

    The base class changes no layer: the targets differ from the source by their prompts alone.
    """

    targets: int = flax.struct.field(pytree_node=False)

    def begin(self, size: tuple[int, int], images: int) -> Any:
        """Returns the carry before the first step. size: sides (h, w) of the latents; images: I."""
        del size, images
        return ()

    def after_step(self, step: jax.Array, x: jax.Array, carry: Any) -> jax.Array:
        """Returns the latents [I, 1 + K, h, w, C] after a step, given the sampler's."""
        del step, carry
        return x

    def by_image(self, rows: jax.Array) -> jax.Array:
        """[I x (1 + K), ...] -> [I, 1 + K, ...], also of both halves: [2 I, 1 + K, ...]."""
        return rows.reshape(-1, 1 + self.targets, *rows.shape[1:])
