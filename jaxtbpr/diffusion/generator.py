"""Text to images on all devices of this process, with any Stable Diffusion checkpoint.

Letters: `B` images, `h`, `w` sides of the latents, `L` tokens of a text. All that is random in an
image comes from the key of its record. Images are always computed in units of a fixed number,
since the last bits of a product depend on its number of rows and, on some processors, on the
position of a row. So an image at its place in a unit has the same bytes whatever the batch size,
the number of devices and the other images.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtbpr.core import compilation, seeds
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import samplers, scheduler_config
from jaxtbpr.diffusion.checkpoint import Checkpoint
from jaxtbpr.diffusion.layers import from_pixels
from jaxtbpr.diffusion.networks import Networks
from jaxtbpr.diffusion.sampling import guide, sample
from jaxtbpr.diffusion.sizes import Sizes

# What a UNet is for, by divmod of its input channels and those of latents.
_PURPOSES = {
    (1, 0): "text to image",
    (2, 1): "inpainting",
    (2, 0): "editing by instructions, which engine 'instruct' of stage augment takes",
    (1, 1): "depth to image",
}
# Folded into an image's key: for its initial noise, the VAE's noise, and the noise of its steps.
_START, LATENTS, _STEPS = 0, 1, 2
_FEW, _MANY = 4, 16  # images of a unit, for large and for small ones
_ASPECT = 2.0  # height over width of person images


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

    sampler: of samplers.SAMPLERS, "" for the checkpoint's; guidance_scale: of classifier-free
    guidance, 1 or less = no guidance; image_guidance_scale: of InstructPix2Pix alone, see
    `editing.instruct`; guidance_rescale: see `sampling.guide`; negative_prompt: what guidance leads
    away from; eta: of DDIM; strength: of image-to-image (0 to 1); height, width: pixels, 0 = the
    checkpoint's; dtype: of the products.
    """

    sampler: str = ""
    steps: int = 50
    guidance_scale: float = 8.5
    image_guidance_scale: float = 1.5
    guidance_rescale: float = 0.0
    negative_prompt: str = ""
    eta: float = 0.0
    strength: float = 1.0
    height: int = 0
    width: int = 0
    dtype: str = "float32"


class Generator:
    """Generates images with `checkpoint`, `batch_size` at a time on each device of this process.

    On a CPU large images are generated on the first device alone.

    seed: of the run; batch_size: rounded up to whole units; label: prefix of messages. Raises
    InputError for image sizes and samplers that the checkpoint does not support, for a negative
    prompt that is too long, and for a UNet that needs more than noised latents and a text.
    """

    images_beside = 0  # whose latents the UNet takes, beside the noised ones
    rows_of_image = 1  # in the UNet's batch, without those of guidance

    def __init__(
        self,
        checkpoint: Checkpoint,
        sampling: Sampling,
        *,
        seed: int,
        batch_size: int,
        label: str = "images",
    ):
        refuse_other_unets(checkpoint.sizes, images=self.images_beside)
        if problem := checkpoint.prompt_tokenizer.problem(sampling.negative_prompt):
            raise InputError(f"the negative prompt {problem}.")
        self.sampling, self._label = sampling, label
        self.networks = Networks(checkpoint.sizes, dtype=sampling.dtype)
        self.size = image_size(self.networks, sampling.height, sampling.width)
        self.schedule = scheduler_config.from_config(
            checkpoint.scheduler, sampling.sampler, eta=sampling.eta
        )
        self.prompt_tokenizer = checkpoint.prompt_tokenizer
        rows = unit_of(self.size, self.networks.factor)
        # A power of 2, so that units of several generators begin at the same images.
        self.unit = 1 << (max(1, rows // self.rows_of_image).bit_length() - 1)
        self._devices = jax.local_devices()
        if self._devices[0].platform == "cpu" and rows < _MANY:
            # One large image keeps all cores busy, and each device would hold the weights again.
            self._devices = self._devices[:1]
        self.batch = -(-batch_size // self.unit) * self.unit * len(self._devices)
        self._everywhere = NamedSharding(Mesh(np.array(self._devices), "d"), P())
        self._params = jax.device_put(checkpoint.params, self._everywhere)
        self._seed = jax.random.key_data(jax.random.key(seed))

    def __call__(self, prompts: Sequence[str], records: Sequence[str]) -> "Images":
        """Starts to generate at most `batch` images and returns at once.

        prompts: what they show, at most `prompt_tokenizer.length` tokens each; records: their ids,
        which decide all that is random. Raises ValueError for more than `batch`.
        """
        return self._start(self._from_text, prompts, records)

    def edit(self, prompts: Sequence[str], records: Sequence[str], images: np.ndarray) -> "Images":
        """Starts image-to-image of `images` (uint8 [N, H, W, 3], of `size`) with the prompts.

        They are noised to `sampling.strength` and denoised from there (SDEdit, arXiv:2108.01073;
        diffusers' image-to-image). The other arguments are those of a call.
        """
        return self._start(self._from_image, prompts, records, images)

    def _start(self, program, prompts, records, *images) -> "Images":
        ids = self.prompt_tokenizer.encode(prompts)
        return self._launch(program, ids, records, *images)

    def _launch(self, program, ids, records, *arrays) -> "Images":
        """Starts a program; ids [N, ...] of texts, records: N ids, arrays: trees of [N, ...]."""
        missing = self.batch - len(ids)
        if missing < 0:
            raise ValueError(f"{len(ids)} images are more than the {self.batch} of a batch.")
        numbers = np.stack([seeds.words(name) for name in records])
        run, shared = program

        def split(x):
            x = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
            return x.reshape(len(self._devices), -1, self.unit, *x.shape[1:])

        rows = jax.tree.map(split, [ids, numbers, *arrays])
        return Images(run(self._params, shared, rows), len(ids))

    @functools.cached_property
    def _from_text(self):
        table = samplers.make_table(self.schedule, self.sampling.steps)
        return self._compiled(table, self._noise_only)

    @functools.cached_property
    def _from_image(self):
        options = self.sampling
        table = samplers.image_to_image_table(self.schedule, options.steps, options.strength)
        return self._compiled(table, self._noised_image)

    def _compiled(self, table, start):
        """(the program of all devices, what they share).

        start: (params, table, keys, images) -> the first sample, and what `_guide` needs besides.
        """
        negative = self.prompt_tokenizer.encode([self.sampling.negative_prompt])
        shared = jax.device_put((table, negative, self._seed), self._everywhere)

        is_noisy = samplers.adds_noise(table)
        return self._over_devices(functools.partial(self._make_unit, start, is_noisy)), shared

    def _over_devices(self, make_unit):
        """The program that calls make_unit(params, shared, rows) for each unit of all devices."""

        def make(params, shared, rows):
            return jax.lax.map(functools.partial(make_unit, params, shared), rows)

        program = jax.pmap(make, in_axes=(None, None, 0), devices=self._devices)
        return compilation.announced(program, self._label)

    def _make_unit(self, start, is_noisy, params, shared, rows):
        ids, numbers, *images = rows
        table, negative, seed = shared
        keys = image_keys(seed, numbers)
        text = self.networks.encode_text(params, ids)
        if self._is_guided:
            states = self.networks.encode_text(params, negative)
            negative = jnp.broadcast_to(states, text.shape)
        else:
            negative = None
        predict = functools.partial(self.networks.predict, params)
        first, *beside = start(params, table, keys, *images)
        guided = self._guide(predict, text, negative, *beside)
        noise = self._step_noise(keys, first.shape[1:]) if is_noisy else None
        return to_pixels(self.networks, params, sample(guided, table, first, noise))

    @property
    def _is_guided(self) -> bool:
        return self.sampling.guidance_scale > 1

    def _guide(self, predict, text, negative):
        options = self.sampling
        return guide(predict, text, negative, options.guidance_scale, options.guidance_rescale)

    def _noise_only(self, params, table, keys):
        del params
        factor, channels = self.networks.factor, self.networks.sizes.vae["latent_channels"]
        return (table.sigma * draw(keys, _START, (*(n // factor for n in self.size), channels)),)

    def _noised_image(self, params, table, keys, images):
        mean, logvar = from_images(self.networks, params, from_pixels(images))
        latents = mean + jnp.exp(logvar / 2) * draw(keys, LATENTS, mean.shape[1:])
        noise = draw(keys, _START, mean.shape[1:])
        return (table.start_x * latents * self.networks.scaling_factor + table.start_noise * noise,)

    def _step_noise(self, keys, shape):
        return lambda i: draw(keys, _STEPS + i, shape)


def refuse_other_unets(sizes: Sizes, images: int = 0) -> None:
    """Raises InputError for a UNet that does not take noised latents and a text.

    images: how many images' latents it takes besides, 1 for InstructPix2Pix.
    """
    taken, put_out = (sizes.unet[f"{end}_channels"] for end in ("in", "out"))
    latents = sizes.vae["latent_channels"]
    needed = (1 + images) * latents
    if taken == needed and put_out == latents:
        return
    purpose = _PURPOSES.get(divmod(taken, latents)) if put_out == latents else None
    use = f"an InstructPix2Pix, whose UNet takes {needed}" if images else "a text-to-image model"
    raise InputError(
        f"the UNet has {taken} input and {put_out} output channels, the VAE's latents {latents}: "
        f"this seems to be a model for {purpose or 'another purpose'}; use {use}."
    )


@dataclasses.dataclass(frozen=True)
class Images:
    """Images in the making. pixels: (uint8, bool), [devices, units, unit, ...] each.

    Of several images for each, such as edits, both have their number as the next axis.
    """

    pixels: tuple[jax.Array, jax.Array]
    count: int

    def wait(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (uint8 [N, H, W, 3], bool [N]: whether all that was computed is finite)."""
        pixels, finite = jax.device_get(self.pixels)
        flat = (part.reshape(-1, *part.shape[3:])[: self.count] for part in (pixels, finite))
        return tuple(flat)


def unit_of(size: tuple[int, int], factor: int) -> int:
    """Returns the number of images of (H, W) in a unit; guidance doubles the rows.

    Enough to keep a device busy, few enough for its memory; it depends on the size alone.
    """
    return _FEW if math.prod(size) > 512 * factor**2 else _MANY


def from_images(
    networks: Networks, params: Mapping[str, Any], images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Encodes images [B, H, W, 3] in [-1, 1]: (mean, log variance) of latents, [B, h, w, C] each.

    One image at a time: a unit of them has so many rows that, on some processors, the last bits of
    an image depend on its place among the others.
    """

    def encode(one):
        return tuple(part[0] for part in networks.encode_image(params, one[None]))

    return jax.lax.map(encode, images)


def to_pixels(
    networks: Networks, params: Mapping[str, Any], latents: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Decodes latents [B, h, w, C]: (uint8 [B, H, W, 3], whether each image is finite [B]).

    One image at a time, since the decoder needs more memory than all else.
    """

    def decode(one):
        image = networks.decode(params, one[None] / networks.scaling_factor)[0]
        pixels = jnp.round(jnp.clip(image * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)
        return pixels, jnp.isfinite(image).all()

    return jax.lax.map(decode, latents)


def image_keys(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """Returns the key of each image. key: uint32 [2]; numbers: uint32 [B, 2] of its record."""
    base = jax.random.wrap_key_data(key)

    def of_image(pair):
        return jax.random.fold_in(jax.random.fold_in(base, pair[0]), pair[1])

    return jax.vmap(of_image)(numbers)


def draw(keys: jax.Array, purpose: jax.Array | int, shape: tuple[int, ...]) -> jax.Array:
    """Returns normal noise float32 [B, *shape], each row of its own key and of `purpose`."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, purpose), shape))(keys)


def image_size(networks: Networks, height: int, width: int) -> tuple[int, int]:
    """Returns (H, W), where 0 stands for a tall image with the checkpoint's number of pixels.

    Raises InputError where the sides are not multiples of the VAE's factor.
    """
    factor, trained_side = networks.factor, networks.sizes.unet["sample_size"] or 64
    if isinstance(trained_side, int):
        # Multiples of 8 latents, so that every level of a UNet halves its sides evenly.
        step = 8 * factor if trained_side >= 32 else factor
        sides = trained_side * factor * _ASPECT**0.5, trained_side * factor / _ASPECT**0.5
        trained_side = [max(1, round(side / step)) * step // factor for side in sides]
    size = (height or trained_side[0] * factor, width or trained_side[1] * factor)
    if any(side % factor for side in size):
        raise InputError(
            f"images of {size[0]} x {size[1]} pixels are not supported: both must be multiples of "
            f"{factor}."
        )
    return size
