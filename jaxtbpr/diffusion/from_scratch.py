"""A Stable Diffusion from nothing but images and their prompts.

Words are learned from the prompts, then the autoencoder from the images, then text encoder and
UNet together from the latents. Each part goes on where an earlier run stopped.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import tokenizer
from jaxtbpr.core.errors import UserError
from jaxtbpr.diffusion import fit, objective, schedules, weights
from jaxtbpr.diffusion.layers import from_pixels
from jaxtbpr.diffusion.networks import Networks, Sizes, make_sizes
from jaxtbpr.diffusion.words import Words, open_words

SCHEDULER = {
    "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "beta_end": 0.012, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "timestep_spacing": "leading",
}  # fmt: skip
_ENCODED = 64  # images encoded at a time
_HEADS = 4  # of the text encoder
# Layers whose output is added to what came in: of residual blocks, attention, transformers.
_LAST = {"conv2", "proj_attn", "proj_out"}


def train(
    images: np.ndarray,
    prompts: Sequence[str],
    options: ConfigDict,
    seed: int,
    directory: epath.Path,
) -> int:
    """Trains the three networks and writes the Diffusers folder `directory/model`, in float16.

    images: uint8 [N, H, W, 3]; prompts: [N]; options: of stage finetune. Returns how many images
    were used: those whose prompt the text encoder can read whole.
    """
    words = _learn_words(prompts, options, directory / "tokenizer")
    fitting = np.array([words.count(prompt) <= words.length for prompt in prompts])
    if not fitting.any():
        raise UserError(
            f"no prompt has at most finetune.text_length={words.length} tokens; raise it."
        )
    images, ids = images[fitting], words.encode(prompts)[fitting]
    networks = Networks(_sizes(options, images.shape[1:3], words))
    params = _quiet(jax.jit(networks.init)(jax.random.key(seed)))
    vae = _fit_vae(networks, params["vae"], images, options, seed, directory / "vae")
    moments = _encode(networks, {"vae": vae}, images)
    networks = Networks(_scaled(networks.sizes, moments))
    rest = {name: params[name] for name in ("unet", "text_encoder")}
    rest = _fit_rest(networks, rest, moments, ids, words, options, seed, directory / "unet")
    weights.save(
        directory / "model",
        networks.sizes,
        jax.device_get({"vae": vae, **rest}),
        SCHEDULER,
        directory / "tokenizer",
        dtype="float16",
    )
    return len(images)


def _quiet(params: Any) -> Any:
    """The parameters with 0 in the last layer of every residual block, so that each adds nothing
    at first and what comes in reaches what goes out."""

    def of(path, leaf):
        return jnp.zeros_like(leaf) if _LAST & {entry.key for entry in path} else leaf

    return jax.tree_util.tree_map_with_path(of, params)


def _fit_vae(networks, params, images, options, seed, directory) -> Any:
    def loss(params, rows, key):
        images = from_pixels(rows["image"])
        return objective.autoencoder_loss(
            networks, {"vae": params}, images, key, edges=options.edges
        )

    recipe = fit.Fit(**options.vae)
    return fit.fit(loss, params, {"image": images}, recipe, seed=seed, directory=directory)


def _fit_rest(networks, params, moments, ids, words: Words, options, seed, directory) -> Any:
    """Text encoder and UNet, on latents that are drawn anew in each step."""
    schedule = schedules.from_config(SCHEDULER)
    empty = jnp.asarray(words.encode([""]))

    def loss(params, rows, key):
        keys = jax.random.split(key, 4)
        mean, deviation = rows["mean"], rows["deviation"]
        latents = mean + deviation * jax.random.normal(keys[0], mean.shape)
        noise = jax.random.normal(keys[1], mean.shape)
        count = len(mean)
        timesteps = jax.random.randint(keys[2], (count,), 0, schedule.train_steps)
        dropped = jax.random.uniform(keys[3], (count, 1)) < options.drop_text
        text = networks.encode_text(params, jnp.where(dropped, empty, rows["ids"]))
        errors = objective.noise_errors(
            networks, params, schedule, latents * networks.scaling_factor, noise, timesteps, text
        )
        weighted = errors * objective.snr_weights(schedule, timesteps, options.min_snr)
        return weighted.mean(), {"error": errors.mean()}

    recipe = fit.Fit(**options.unet)
    data = {**moments, "ids": ids}
    return fit.fit(loss, params, data, recipe, seed=seed + 1, directory=directory)


def _encode(networks: Networks, params: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """{"mean", "deviation"} of all images' latents, float32 [N, h, w, C] each."""

    @jax.jit
    def encode(some):
        mean, logvar = networks.encode_image(params, from_pixels(some))
        return mean, jnp.exp(logvar / 2)

    parts = []
    for first in range(0, len(images), _ENCODED):
        some = images[first : first + _ENCODED]
        padded = np.concatenate([some, np.zeros((_ENCODED - len(some), *some.shape[1:]), np.uint8)])
        parts.append([np.asarray(x)[: len(some)] for x in encode(padded)])
    mean, deviation = map(np.concatenate, zip(*parts, strict=True))
    return {"mean": mean, "deviation": deviation}


def _sizes(options: ConfigDict, image_size: Sequence[int], words: Words) -> Sizes:
    levels, vae_levels = len(options.channels), len(options.vae_channels)
    factor = 2 ** (vae_levels - 1)
    plain, cross = ["DownBlock2D", "UpBlock2D"], ["CrossAttnDownBlock2D", "CrossAttnUpBlock2D"]
    unet = {
        "sample_size": [side // factor for side in image_size],
        "in_channels": options.latent_channels,
        "out_channels": options.latent_channels,
        "block_out_channels": list(options.channels),
        "layers_per_block": options.layers,
        "attention_head_dim": options.heads,
        "cross_attention_dim": options.text_width,
        "norm_num_groups": 16,
        # Attention at the lowest level only: there are few places, and each sees much.
        "down_block_types": [plain[0]] * (levels - 1) + [cross[0]],
        "up_block_types": [cross[1]] + [plain[1]] * (levels - 1),
    }
    vae = {
        "block_out_channels": list(options.vae_channels),
        "latent_channels": options.latent_channels,
        "norm_num_groups": 8,
        "down_block_types": ["DownEncoderBlock2D"] * vae_levels,
        "up_block_types": ["UpDecoderBlock2D"] * vae_levels,
        "sample_size": max(image_size),
    }
    start, end = tokenizer.special_ids(words.tokenizer)
    text = {
        "vocab_size": words.tokenizer.get_vocab_size(),
        "hidden_size": options.text_width,
        "intermediate_size": 4 * options.text_width,
        "projection_dim": options.text_width,
        "num_hidden_layers": options.text_layers,
        "num_attention_heads": _HEADS,
        "max_position_embeddings": options.text_length,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": words.pad,
    }
    return make_sizes(unet, vae, text)


def _scaled(sizes: Sizes, moments: dict[str, np.ndarray]) -> Sizes:
    """The sizes with the factor that gives latents a deviation of 1 (arXiv:2112.10752, app. G)."""
    variance = moments["mean"].var() + np.square(moments["deviation"]).mean()
    vae = sizes.vae.copy({"scaling_factor": float(round(variance**-0.5, 5))})
    return Sizes(sizes.unet, vae, sizes.text)


def _learn_words(prompts: Sequence[str], options: ConfigDict, folder: epath.Path) -> Words:
    if not (folder / "merges.txt").exists():
        merges = tokenizer.learn_merges(prompts, options.merges)
        tokenizer.save_clip(merges, folder, options.text_length)
    return open_words(folder, options.text_length)
