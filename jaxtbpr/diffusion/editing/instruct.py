"""InstructPix2Pix: editing an image by an instruction (arXiv:2211.09800).

The UNet sees the image's latents as more channels beside the noised ones, and the text is what to
change, not what the result shows. Letters: `B` images, `h`, `w` sides of the latents, `C` channels
of latents, `L` tokens of a text.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.diffusion import samplers
from jaxtbpr.diffusion.generator import Generator, Images, from_images
from jaxtbpr.diffusion.layers import from_pixels
from jaxtbpr.diffusion.sampling import Predict, guide


def is_guided(scale: float, image_scale: float) -> bool:
    """Whether these scales guide at all; else diffusers calls the network once, with both.

    >>> is_guided(7.5, 1.0), is_guided(1.0, 1.5), is_guided(7.5, 0.5)
    (True, False, False)
    """
    return scale > 1 and image_scale >= 1


def guide_by_image(
    predict: Callable[..., Any],
    text: jax.Array,
    negative: jax.Array | None,
    image: jax.Array,
    scale: jax.Array | float,
    image_scale: jax.Array | float,
) -> Predict:
    """Returns the `predict` of `sample` under guidance by a text and an image (eq. 3).

    predict: (input [B, h, w, 2 C], timestep, text states [B, L, D]) -> output [B, h, w, C], or with
    step and carry as in `Predict`; it is called with 3 B rows: those of text and image, of the
    negative text and the image, of the negative text and no image (zeros). text, negative:
    states [B, L, D]; negative None: no guidance, and a third of the work. image: the mean of
    the image's latents [B, h, w, C], not multiplied by the VAE's scaling factor, which a sampler
    does not scale either. scale, image_scale: how far to go from the image alone to the text, and
    from nothing to the image; at an image_scale of 1, given as a number, two rows do the same.

    >>> network = lambda x, t, text: x[..., :1] + 10 * x[..., 1:] + text
    >>> row = jnp.ones((1, 1))
    >>> print(guide_by_image(network, 5 * row, 0 * row, row, 7.5, 1.5)(row, 0))  # 1 + 37.5 + 15
    [[53.5]]
    """

    def beside(images):
        def predict_beside(x, t, states, *carried):
            return predict(jnp.concatenate([x, images], -1), t, states, *carried)

        return predict_beside

    if negative is None:
        return guide(beside(image), text, None, scale)
    if isinstance(image_scale, int | float) and image_scale == 1:
        return guide(beside(jnp.concatenate([image, image])), text, negative, scale)
    states = jnp.concatenate([text, negative, negative])
    three = beside(jnp.concatenate([image, image, jnp.zeros_like(image)]))

    def combine(answers):
        both, with_image, with_none = jnp.split(answers, 3)
        towards_text = scale * (both - with_image)
        return with_none + towards_text + image_scale * (with_image - with_none)

    def guided(x, t, *carried):
        answers = three(jnp.concatenate([x, x, x]), t, states, *carried)
        if not carried:
            return combine(answers)
        answers, carry = answers
        return combine(answers), carry

    return guided


class InstructGenerator(Generator):
    """Edits images by instructions, with the checkpoint of an InstructPix2Pix.

    Arguments and errors are those of `Generator`; a UNet of another kind is an InputError.
    """

    images_beside = 1

    def __call__(self, prompts: Sequence[str], records: Sequence[str]) -> Images:
        """Raises TypeError: it has no images."""
        raise TypeError("an InstructPix2Pix makes images of images only; call `edit`.")

    def edit(self, prompts: Sequence[str], records: Sequence[str], images: np.ndarray) -> Images:
        """Starts to edit `images` (uint8 [N, H, W, 3], of `size`) by the instructions `prompts`.

        Other arguments are those of a call of `Generator`. It begins with noise alone, so that
        `sampling.strength` has no meaning.
        """
        return self._start(self._from_instruction, prompts, records, images)

    @functools.cached_property
    def _from_instruction(self):
        table = samplers.make_table(self.schedule, self.sampling.steps)
        return self._compiled(table, self._noise_beside_image)

    def _noise_beside_image(self, params, table, keys, images):
        mean, _ = from_images(self.networks, params, from_pixels(images))
        return *self._noise_only(params, table, keys), mean

    @property
    def _is_guided(self) -> bool:
        return is_guided(self.sampling.guidance_scale, self.sampling.image_guidance_scale)

    def _guide(self, predict, text, negative, image):
        options = self.sampling
        scales = options.guidance_scale, options.image_guidance_scale
        return guide_by_image(predict, text, negative, image, *scales)
