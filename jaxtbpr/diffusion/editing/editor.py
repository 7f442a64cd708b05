"""Edits of images on all devices of this process, by the methods that invert an image first.

Letters: `I` images of a unit, `K` targets of each, `L` tokens of a text, `n` steps. An image is
encoded and inverted once; its reconstruction and all its targets then take each step as one batch.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.core.attention import apply_map, attention_map
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import samplers
from jaxtbpr.diffusion.checkpoint import Checkpoint
from jaxtbpr.diffusion.control import Control
from jaxtbpr.diffusion.editing import loop, masactrl, noise_map, prompts
from jaxtbpr.diffusion.editing.edit_control import EditControl
from jaxtbpr.diffusion.editing.prompt_to_prompt import Blend, PromptToPrompt, blend_size
from jaxtbpr.diffusion.generator import (
    LATENTS,
    Generator,
    Images,
    Sampling,
    draw,
    from_images,
    image_keys,
    to_pixels,
)
from jaxtbpr.diffusion.layers import from_pixels
from jaxtbpr.diffusion.sampling import guide

METHODS = ("prompt_to_prompt", "masactrl", "inversion")
_PAPER = 64 * 64 * 4  # numbers of the latents that the paper's gradient_scale belongs to


@dataclasses.dataclass(frozen=True)
class Edits:
    """K edits of one image. source: the prompt that it is inverted with.

    source_words, words: of the source and of each target those whose place a blend edits; a target
    without is not blended. Both are read by method prompt_to_prompt alone, and so is all of a
    target but its prompt.
    """

    source: str
    targets: Sequence[prompts.Target]
    source_words: Sequence[str] = ()
    words: Sequence[Sequence[str]] = ()


@dataclasses.dataclass(frozen=True)
class Editing:
    """Settings of a method; defaults are the paper's (SynTBPR, supplement; see each module).

    method: of METHODS; "inversion" changes the prompt alone. noise_map_scale: of noise map
    guidance, 0 = without it; gradient_scale: its other scale, for latents of 64 x 64 x 4, at other
    sizes in proportion; distance: of `noise_map.DISTANCES`; inversion_rule: of
    `samplers.inversion_table`. blend: whether edits may have the words of a local blend, whose maps
    are then summed; thresholds, blend_from: of it, the latter the part of the steps before it
    begins; match, tail: see `prompts`. first_step, blocks: where mutual self-attention
    applies. sample_latents: whether the VAE's latents are drawn, as in the paper's code, or the
    mean.
    """

    method: str = "prompt_to_prompt"
    noise_map_scale: float = 10.0
    gradient_scale: float = 5000.0
    distance: str = "l1"
    inversion_rule: str = "0.18"
    blend: bool = True
    thresholds: tuple[float, float] = (0.3, 0.3)
    blend_from: float = 0.2
    match: str = "tokens"
    tail: str = "aligned"
    first_step: int = 4
    blocks: tuple[int, ...] = tuple(range(10, 16))
    sample_latents: bool = False


class Editor(Generator):
    """Edits images with `checkpoint`, to `targets` of each at once.

    sampling: steps, guidance_scale, negative_prompt, sizes and dtype are read; the sampler is DDIM
    without noise. The other arguments and errors are those of `Generator`; InputError, too, for a
    method that would change nothing in this UNet.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        sampling: Sampling,
        editing: Editing,
        *,
        targets: int,
        seed: int,
        batch_size: int,
        label: str = "images",
    ):
        self.editing, self.targets, self.rows_of_image = editing, targets, 1 + targets
        sampling = dataclasses.replace(sampling, sampler="ddim", eta=0.0)
        super().__init__(checkpoint, sampling, seed=seed, batch_size=batch_size, label=label)
        height, width = self.size
        self._latents = height // self.networks.factor, width // self.networks.factor
        layers = self.networks.attention_layers(self._latents)
        if editing.method == "masactrl":
            self._blocks = masactrl.choose(layers, editing.blocks)
        elif editing.method == "prompt_to_prompt" and editing.blend:
            self._blend_size = blend_size(layers, self._latents)

    def problem(self, edits: Edits) -> str:
        """Returns why edits cannot be made as they are meant, "" where they can."""
        try:
            self._arrays(edits)
        except InputError as error:
            return str(error).rstrip(".")
        return ""

    def apply(self, edits: Sequence[Edits], records: Sequence[str], images: np.ndarray) -> Images:
        """Starts to edit at most `batch` images, uint8 [N, H, W, 3] of `size`; returns at once.

        edits: of each image, `targets` edits; records: their ids. Waiting for the result gives
        uint8 [N, K, H, W, 3] and bool [N, K]. Raises InputError where `problem` gives one.
        """
        texts = [text for one in edits for text in (one.source, *(t.prompt for t in one.targets))]
        ids = self.prompt_tokenizer.encode(texts).reshape(len(edits), 1 + self.targets, -1)
        arrays = jax.tree.map(lambda *leaves: np.stack(leaves), *map(self._arrays, edits))
        return self._launch(self._program, ids, records, images, arrays)

    def _arrays(self, edits: Edits) -> dict[str, Any]:
        """What the program needs of the prompts of one image, besides their ids."""
        tokenizer, editing = self.prompt_tokenizer, self.editing
        if editing.method != "prompt_to_prompt":
            for prompt in (edits.source, *(target.prompt for target in edits.targets)):
                if problem := tokenizer.problem(prompt):
                    raise InputError(f"the prompt {prompt!r} {problem}.")
            return {}
        edit = prompts.prompt_edit(
            tokenizer, edits.source, edits.targets, self.sampling.steps,
            match=editing.match, tail=editing.tail,
        )  # fmt: skip
        words = list(edits.words) or [()] * len(edits.targets)
        texts = [edits.source, *(target.prompt for target in edits.targets)]
        blended = [edits.source_words, *words]
        if any(blended) and not editing.blend:
            raise InputError("words of a blend need an editor with blend=True.")
        masks = prompts.word_masks(tokenizer, texts, blended, match=editing.match)
        return {"edit": edit, "words": masks, "is_on": np.array([bool(some) for some in words])}

    @functools.cached_property
    def _program(self):
        """(the program of all devices, what they share)."""
        steps, editing = self.sampling.steps, self.editing
        table = samplers.make_table(self.schedule, steps)
        size = math.prod(self._latents) * self.networks.sizes.vae["latent_channels"]
        shared = {
            "table": table,
            "inversion": samplers.inversion_table(self.schedule, steps, editing.inversion_rule),
            "levels": noise_map.levels(self.schedule, table),
            "guidance": noise_map.NoiseMapGuidance(
                np.float32(editing.noise_map_scale),
                np.float32(editing.gradient_scale * size / _PAPER),
                editing.distance,
            ),
            "negative": self.prompt_tokenizer.encode([self.sampling.negative_prompt]),
            "scale": np.float32(self.sampling.guidance_scale),
            "seed": self._seed,
        } | self._shared_control()
        shared = jax.device_put(shared, self._everywhere)
        return self._over_devices(self._edit_unit), shared

    def _shared_control(self) -> dict[str, Any]:
        editing, steps = self.editing, self.sampling.steps
        if editing.method == "masactrl":
            return {"steps": np.arange(steps) >= editing.first_step, "blocks": self._blocks}
        thresholds = np.array(editing.thresholds, np.float32)
        return {"thresholds": thresholds, "start": np.int32(editing.blend_from * steps)}

    def _control(self, shared, arrays) -> EditControl:
        if self.editing.method == "masactrl":
            return masactrl.MutualSelfAttention(self.targets, shared["steps"], shared["blocks"])
        if self.editing.method == "inversion":
            return EditControl(self.targets)
        if not self.editing.blend:
            return PromptToPrompt(self.targets, arrays["edit"])
        words = arrays["words"]
        blend = Blend(
            words, jnp.zeros_like(words), arrays["is_on"], shared["thresholds"], shared["start"]
        )
        return PromptToPrompt(self.targets, arrays["edit"], blend, blend_size=self._blend_size)

    def _edit_unit(self, params, shared, rows):
        ids, numbers, images, arrays = rows
        latents = self._encode(params, image_keys(shared["seed"], numbers), images)
        text = self.networks.encode_text(params, ids.reshape(-1, ids.shape[-1]))
        empty = self.networks.encode_text(params, shared["negative"])
        source = text.reshape(*ids.shape[:2], *text.shape[1:])[:, 0]
        predict = functools.partial(self.networks.predict, params)
        inverted = loop.invert(lambda x, t: predict(x, t, source), shared["inversion"], latents)
        # The goals are at the level of each step's beginning, by either rule.
        goals = inverted[::-1][1:] if self.editing.inversion_rule == "0.18" else inverted[:0:-1]

        def without_text(x, t):
            states = jnp.broadcast_to(empty, source.shape)
            return self.networks.predict_controlled(params, _Recomputed(), x, t, states, 0, ())[0]

        path = None
        if self.editing.noise_map_scale > 0:
            lead = loop.by_noise_map(without_text, shared["guidance"])
            path = loop.Path(lead, goals, shared["levels"])
        control = self._control(shared, arrays)
        controlled = functools.partial(self.networks.predict_controlled, params, control)
        guided = guide(controlled, text, jnp.broadcast_to(empty, text.shape), shared["scale"])
        edited = loop.edit(guided, control, shared["table"], inverted[-1], path)[:, 1:]
        made = to_pixels(self.networks, params, edited.reshape(-1, *edited.shape[2:]))
        return tuple(part.reshape(*edited.shape[:2], *part.shape[1:]) for part in made)

    def _encode(self, params, keys, images):
        mean, logvar = from_images(self.networks, params, from_pixels(images))
        if self.editing.sample_latents:
            mean += jnp.exp(logvar / 2) * draw(keys, LATENTS, mean.shape[1:])
        return mean * self.networks.scaling_factor


class _Recomputed(Control):
    """Plain attention whose maps are computed again for the gradient, not kept for it."""

    def __call__(self, step, layer, q, k, v, carry):
        attend = jax.checkpoint(lambda q, k, v: apply_map(attention_map(q, k), v))
        return attend(q, k, v), carry
