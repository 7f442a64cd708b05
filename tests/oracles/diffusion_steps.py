"""What the checks of editing share: one pair of prompts, every step by itself and the whole."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.checkpoint import Checkpoint, open_checkpoint
from jaxtbpr.diffusion.editing import loop, noise_map
from jaxtbpr.diffusion.networks import Networks
from jaxtbpr.diffusion.prompt_tokenizer import open_prompt_tokenizer
from jaxtbpr.diffusion.sampling import guide, rows_of

# Relative to the largest value beyond 1: a step from the published state; predictions in it; the
# first step of noise map guidance, where a difference near 0 changes its sign; a whole walk,
# relative to the deviation of its end; an image. The last but one grow where the published run says
# that it amplifies more: with the distances l2 and smooth_l1, and the current rule of inversion.
FORCED, PREDICTED, FIRST, WALK, IMAGE = 1e-5, 3e-5, 1e-4, 1e-3, 3e-4


@functools.cache
def open_model(folder, unet=None):
    """A model and its networks; unet: another folder, whose UNet is used instead."""
    if unet in (None, folder):
        checkpoint = open_checkpoint(folder, "float32")
    else:
        sizes, params, scheduler, tokenizer = weights.load(unet, "float32", base=folder)
        words = open_prompt_tokenizer(tokenizer, sizes.text["max_position_embeddings"])
        checkpoint = Checkpoint(sizes, params, scheduler, words, tokenizer)
    return checkpoint, Networks(checkpoint.sizes)


def ours(x):
    """[..., C, H, W] -> [..., H, W, C]."""
    return np.moveaxis(np.asarray(x), -3, -1)


def row(name, found, expected, tolerance, scale=None):
    """The largest error, relative to `scale`, or to the largest value beyond 1."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return name, float("nan"), tolerance
    scale = max(1, np.abs(expected).max()) if scale is None else scale
    return name, float(np.abs(found - expected).max() / scale), tolerance


class Step(NamedTuple):
    """led: the source's step of noise map guidance, or None; before: the latents before a blend."""

    led: noise_map.GuidedStep | None
    answer: jax.Array
    before: jax.Array
    after: jax.Array
    carry: object


class Editing:
    """A source prompt and its targets, of one image, with a run's guidance scales."""

    def __init__(self, checkpoint, networks, schedule, table, prompts, goals, run):
        self.checkpoint, self.networks, self.schedule = checkpoint, networks, schedule
        self.table, self.prompts, self.goals, self.run = table, prompts, goals, run
        ids = checkpoint.prompt_tokenizer.encode([*prompts, ""])
        states = _programs(networks)["text"](checkpoint.params, ids)
        self.text, self.empty = states[:-1], states[-1:]
        self.levels = noise_map.levels(schedule, table)

    @property
    def guidance(self):
        """Noise map guidance of the run, None without."""
        if not self.run.get("grad_scale"):
            return None
        scales = self.run["guidance_noise_map"], self.run["grad_scale"]
        return noise_map.NoiseMapGuidance(
            *map(jnp.float32, scales), distance=self.run.get("loss", "l1")
        )

    def invert(self, table, latents):
        return _programs(self.networks)["invert"](
            self.checkpoint.params, table, latents, self.text[:1]
        )

    def decode(self, latents):
        pixels = _programs(self.networks)["decode"](self.checkpoint.params, latents)
        return np.clip(pixels / 2 + 0.5, 0, 1)

    def steps(self, control, start, states, follow=False):
        """Yields of each step: a `Step`.

        states: [1 + K, ...] after each step, where the next one begins; None: where ours ended.
        """
        x = np.repeat(start[:, None], 1 + control.targets, axis=1)
        carry, rows = control.begin(start.shape[1:3], 1), rows_of(self.table)
        for i in range(len(self.table.timesteps)):
            if i and states[i - 1] is not None:
                x = states[i - 1][None]
            at, led = jax.tree.map(lambda leaf, i=i: leaf[i], rows), None
            if self.guidance is not None:
                led = _programs(self.networks)["lead"](
                    self.checkpoint.params, at, self.levels[i], x[:, 0], self.goals[i],
                    self.guidance, self.empty,
                )  # fmt: skip
                x = jnp.asarray(x).at[:, 0].set(led.after)
            elif follow:
                x = jnp.asarray(x).at[:, 0].set(self.goals[i])
            answer, x, blended, carry = _programs(self.networks)["edit"](
                self.checkpoint.params, control, at, i, x, carry, self.text,
                jnp.repeat(self.empty, len(self.text), axis=0),
                jnp.float32(self.run["guidance_text"]),
            )  # fmt: skip
            yield Step(led, answer, x, blended, carry)
            x = blended

    def compare(self, name, published, control, start, expected, follow=False):
        """Rows of one run whose latents after each step are `expected`, [n, rows, ...].

        The rows are those of the source and of the targets, or of the source alone. Returns the
        steps of the whole walk, too.
        """
        rows, end = expected.shape[1], expected[-1]
        states = np.repeat(expected, (1 + control.targets) // rows, axis=1)
        found = []
        for i, step in enumerate(self.steps(control, start, states, follow)):
            limit, between = FORCED, PREDICTED
            if step.led is not None and i == 0:
                limit = between = max(FIRST, self._spread(0) / 20)
            if step.led is not None:
                found += self._lead(name, published, i, step.led, between)
            for key in ("guided_prediction", "eps_cfg"):
                if i < len(published.get(f"{name}.{key}", ())):
                    answer = ours(published[f"{name}.{key}"][i])
                    found.append(row(f"{name}.{key}[{i}]", step.answer[:rows], answer, between))
            after = step.after[0][:rows]
            found.append(row(f"{name}.latents[{i}] from the one before", after, expected[i], limit))
        steps = list(self.steps(control, start, [None] * len(expected), follow))
        limit = max(WALK, self._spread(-1) / 3)
        after = steps[-1].after[0][:rows]
        found.append(row(f"{name}.latents, whole", after, end, limit, scale=end.std()))
        return found, steps

    def _spread(self, i):
        """How much a disturbance of 1e-6 at the start grows until step i, of the deviation."""
        if "latent_std" not in self.run:
            return 0
        return self.run["sensitivity_per_step"][i] / self.run["latent_std"][i]

    @staticmethod
    def _lead(name, published, i, led, limit):
        found = {
            "loss": led.distances[0],
            "grad": led.gradient,
            "x_prev_uncond": led.unguided,
            "eps_uncond_nm": led.answer,
            "eps_nm": led.guided,
            "latents_after_nm": led.after,
        }
        for key, value in found.items():
            values = published.get(f"{name}.{key}", ())
            if i < len(values):
                value_expected = values[i] if key == "loss" else ours(values[i])
                yield row(f"{name}.{key}[{i}]", value, value_expected, limit)


@functools.cache
def _programs(networks):
    """Compiled once for all prompts and runs of the same shapes."""

    def edit_step(params, control, at, i, x, carry, text, empty, scale):
        predict = functools.partial(networks.predict_controlled, params, control)
        predict = guide(predict, text, empty, scale)
        answers = []

        def noted(*arguments):
            answer, carry = predict(*arguments)
            answers.append(answer)
            return answer, carry

        stepped, carry = loop.sampler_step(noted, at, i, x, carry)
        return answers[0], stepped, control.after_step(i, stepped, carry), carry

    def plain(params, text):
        return lambda x, t: networks.predict(params, x, t, jnp.repeat(text, len(x), axis=0))

    return {
        "text": jax.jit(networks.encode_text),
        "decode": jax.jit(networks.decode),
        "invert": jax.jit(
            lambda params, table, x, text: loop.invert(plain(params, text), table, x)
        ),
        "lead": jax.jit(
            lambda params, at, level, x, goal, guidance, empty: noise_map.guided_step(
                plain(params, empty), at, level, x, goal, guidance
            )
        ),
        "edit": jax.jit(edit_step),
    }
