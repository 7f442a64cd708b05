"""Trains a Stable Diffusion on images and their prompts, from scratch or from another model.

First the tokenizer is learned from the prompts, then the autoencoder is trained on the images,
then text encoder and UNet together on the latents. Each part resumes where a killed run stopped.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import tokenizer
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import fit, objective, scheduler_config, weights
from jaxtbpr.diffusion.checkpoint import Checkpoint, open_checkpoint
from jaxtbpr.diffusion.generator import image_size, refuse_other_unets, unit_of
from jaxtbpr.diffusion.layers import from_pixels
from jaxtbpr.diffusion.networks import Networks, Sizes, make_sizes
from jaxtbpr.diffusion.prompt_tokenizer import PromptTokenizer, open_prompt_tokenizer

SCHEDULER = {
    "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "beta_end": 0.012, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "timestep_spacing": "leading",
}  # fmt: skip
_HEADS = 4  # of the text encoder
_GROUPS, _VAE_GROUPS = 16, 8  # of channels that are normalised together
# Layers whose output is added to what came in: of residual blocks, attention, transformers.
_LAST = {"conv2", "proj_attn", "proj_out"}
_DECODER = ("decoder", "post_quant_conv")


def train(
    images: np.ndarray,
    prompts: Sequence[str],
    options: ConfigDict,
    seed: int,
    directory: epath.Path,
    layers: objective.Layers | None = None,
) -> list[str]:
    """Trains the three networks and writes the Diffusers folder `directory/model`, in float16.

    images: uint8 [N, H, W, 3]; prompts: [N]; options: of stage finetune; layers: of a network for
    the perceptual loss of the autoencoder. Returns [N]: why an image was not used (its prompt
    cannot be encoded), or "". Raises InputError where no image can be used, for image sizes that
    the networks do not support, and for options that do not fit each other.
    """
    size = images.shape[1:3]
    if options.model:
        model = _open(options.model, size, options.prediction_type)
    else:
        model = _new(prompts, options, size, seed, directory / "tokenizer")
    networks, prompt_tokenizer = Networks(model.sizes), model.prompt_tokenizer
    image_size(networks, *size)  # raises for sizes that are not supported
    schedule = scheduler_config.from_config(
        model.scheduler, "ddim"
    )  # any: samplers have no part in it
    problems = [prompt_tokenizer.problem(prompt) for prompt in prompts]
    fitting = np.array([not problem for problem in problems])
    if not fitting.any():
        raise InputError(
            f"every prompt is longer than the {prompt_tokenizer.length} tokens of the text "
            "encoder, or cannot be encoded; shorten them, or, if the model is a new one, raise "
            f"text_length in a new workdir. The first prompt {problems[0]}."
        )
    ids = prompt_tokenizer.encode(prompts)[fitting]
    images = images if fitting.all() else images[fitting]
    loss_options = {
        "edge_weight": options.edge_weight,
        "perceptual": options.perceptual.weight,
        "layers": layers,
    }
    vae, rest = model.params["vae"], _without(model.params, "vae")
    whole = options.vae_parts == "all"
    if whole and options.vae.steps:
        vae = _fit_vae(networks, vae, images, options, loss_options, seed, directory / "vae")
    moments = _encode(networks, vae, images)
    if whole and options.vae.steps:
        networks = Networks(_scaled(networks.sizes, moments))
    elif options.vae.steps:  # the latents stay as the UNet knows them
        vae = _fit_decoder(
            networks, vae, moments, images, options, loss_options, seed, directory / "vae"
        )
    rest = _fit_rest(
        networks, rest, schedule, moments, ids, prompt_tokenizer, options, seed, directory / "unet"
    )
    weights.save(
        directory / "model",
        networks.sizes,
        jax.device_get({"vae": vae, **rest}),
        model.scheduler,
        model.tokenizer,
        dtype="float16",
    )
    return problems


# --- the model that training starts from ----------------------------------------------------------


def _open(source: str, size: Sequence[int], prediction: str) -> Checkpoint:
    """The model, with this image size."""
    model = open_checkpoint(source, "float32", prediction)
    refuse_other_unets(model.sizes)
    latents = tuple(side // Networks(model.sizes).factor for side in size)
    sizes = model.sizes.replaced("unet", sample_size=latents)
    return dataclasses.replace(model, sizes=sizes)


def _new(prompts, options, size, seed, folder) -> Checkpoint:
    if options.vae_parts != "all" or not options.vae.steps:
        raise InputError(
            "a new model has no autoencoder yet: set model, or train a whole one "
            "(vae_parts=all, vae.steps greater than 0)."
        )
    for key, divisor in (("channels", _GROUPS), ("vae_channels", _VAE_GROUPS)):
        if any(count % divisor for count in options[key]):
            raise InputError(f"{key} {options[key]} must be multiples of {divisor}.")
    if options.text_width % _HEADS:
        raise InputError(f"text_width must be a multiple of {_HEADS}, its heads.")
    prompt_tokenizer = _learn_prompt_tokenizer(prompts, options, folder)
    sizes = _sizes(options, size, prompt_tokenizer)
    params = _quiet(jax.jit(Networks(sizes).init)(jax.random.key(seed)))
    return Checkpoint(sizes, params, SCHEDULER, prompt_tokenizer, folder)


def _quiet(params: Any) -> Any:
    """The parameters with 0 in the last layer of every residual block: each starts as identity."""

    def of(path, leaf):
        return jnp.zeros_like(leaf) if _LAST & {entry.key for entry in path} else leaf

    return jax.tree_util.tree_map_with_path(of, params)


# --- the parts ------------------------------------------------------------------------------------


def _fit_vae(networks, params, images, options, loss_options, seed, directory) -> Any:
    def loss(params, rows, key):
        images = from_pixels(rows["image"])
        return objective.autoencoder_loss(networks, {"vae": params}, images, key, **loss_options)

    recipe = fit.Fit(**options.vae)
    return fit.fit(loss, params, {"image": images}, recipe, seed=seed, directory=directory)


def _fit_decoder(networks, params, moments, images, options, loss_options, seed, directory) -> Any:
    """The decoder alone, on latents that each step draws again."""
    parts = [{k: v for k, v in params.items() if k in _DECODER}, _without(params, *_DECODER)]

    def loss(part, rows, key):
        latents = objective.draw_latents(rows["mean"], rows["deviation"], key)
        return objective.reconstruction_loss(
            networks, {"vae": part}, latents, from_pixels(rows["image"]), **loss_options
        )

    recipe = fit.Fit(**options.vae)
    data = {**moments, "image": images}
    return parts[1] | fit.fit(loss, parts[0], data, recipe, seed=seed, directory=directory)


def _fit_rest(
    networks,
    params,
    schedule,
    moments,
    ids,
    prompt_tokenizer: PromptTokenizer,
    options,
    seed,
    directory,
) -> Any:
    """Text encoder and UNet, on latents that each step draws again."""
    empty = jnp.asarray(prompt_tokenizer.encode([""]))

    def loss(params, rows, key):
        keys = jax.random.split(key, 4)
        latents = objective.draw_latents(rows["mean"], rows["deviation"], keys[0])
        noise = jax.random.normal(keys[1], latents.shape)
        count = len(latents)
        timesteps = jax.random.randint(keys[2], (count,), 0, schedule.train_steps)
        dropped = jax.random.uniform(keys[3], (count, 1)) < options.prompt_dropout
        text = networks.encode_text(params, jnp.where(dropped, empty, rows["ids"]))
        errors = objective.noise_errors(
            networks, params, schedule, latents * networks.scaling_factor, noise, timesteps, text
        )
        weighted = errors * objective.snr_weights(schedule, timesteps, options.snr_gamma)
        return weighted.mean(), {"error": errors.mean()}

    recipe = fit.Fit(**options.unet)
    data = {**moments, "ids": ids}
    return fit.fit(loss, params, data, recipe, seed=seed + 1, directory=directory)


def _encode(networks: Networks, vae: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """{"mean", "deviation"} of all images' latents, float32 [N, h, w, C] each."""

    @jax.jit
    def encode(vae, some):
        mean, logvar = networks.encode_image({"vae": vae}, from_pixels(some))
        return mean, jnp.exp(logvar / 2)

    parts, unit = [], unit_of(images.shape[1:3], networks.factor)
    for first in range(0, len(images), unit):
        some = images[first : first + unit]
        padded = np.concatenate([some, np.zeros((unit - len(some), *some.shape[1:]), np.uint8)])
        parts.append([np.asarray(x)[: len(some)] for x in encode(vae, padded)])
    mean, deviation = map(np.concatenate, zip(*parts, strict=True))
    return {"mean": mean, "deviation": deviation}


def _sizes(options: ConfigDict, size: Sequence[int], prompt_tokenizer: PromptTokenizer) -> Sizes:
    levels, vae_levels = len(options.channels), len(options.vae_channels)
    factor = 2 ** (vae_levels - 1)
    plain, cross = ["DownBlock2D", "UpBlock2D"], ["CrossAttnDownBlock2D", "CrossAttnUpBlock2D"]
    unet = {
        "sample_size": [side // factor for side in size],
        "in_channels": options.latent_channels,
        "out_channels": options.latent_channels,
        "block_out_channels": list(options.channels),
        "layers_per_block": options.layers,
        "attention_head_dim": options.heads,
        "cross_attention_dim": options.text_width,
        "norm_num_groups": _GROUPS,
        # Attention at the lowest level only, where positions are few and see much of the image.
        "down_block_types": [plain[0]] * (levels - 1) + [cross[0]],
        "up_block_types": [cross[1]] + [plain[1]] * (levels - 1),
    }
    vae = {
        "block_out_channels": list(options.vae_channels),
        "latent_channels": options.latent_channels,
        "norm_num_groups": _VAE_GROUPS,
        "down_block_types": ["DownEncoderBlock2D"] * vae_levels,
        "up_block_types": ["UpDecoderBlock2D"] * vae_levels,
        "sample_size": max(size),
    }
    start, end = tokenizer.special_ids(prompt_tokenizer.tokenizer)
    text = {
        "vocab_size": prompt_tokenizer.tokenizer.get_vocab_size(),
        "hidden_size": options.text_width,
        "intermediate_size": 4 * options.text_width,
        "projection_dim": options.text_width,
        "num_hidden_layers": options.text_layers,
        "num_attention_heads": _HEADS,
        "max_position_embeddings": options.text_length,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": prompt_tokenizer.pad,
    }
    return make_sizes(unet, vae, text)


def _scaled(sizes: Sizes, moments: dict[str, np.ndarray]) -> Sizes:
    """The sizes with the factor that gives latents a std of 1 (arXiv:2112.10752, app. G)."""
    variance = moments["mean"].var() + np.square(moments["deviation"]).mean()
    return sizes.replaced("vae", scaling_factor=float(round(variance**-0.5, 5)))


def _learn_prompt_tokenizer(
    prompts: Sequence[str], options: ConfigDict, folder: epath.Path
) -> PromptTokenizer:
    if not (folder / "merges.txt").exists():
        merges = tokenizer.learn_merges(prompts, options.bpe_merges)
        tokenizer.save_clip(merges, folder, options.text_length)
    return open_prompt_tokenizer(folder, options.text_length)


def _without(tree: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: part for name, part in tree.items() if name not in names}
