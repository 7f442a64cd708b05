"""The sizes of the three networks of a Stable Diffusion, from their config.json files."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from flax.core import FrozenDict

from jaxtbpr.core.errors import InputError

# The keys that a model may set, with the default of each.
_UNET = {
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,  # the NUMBER of heads, in spite of its name
    "use_linear_projection": False,
    "upcast_attention": False,  # the softmax is in float32 here anyway
    "dropout": 0.0,
}
_VAE = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}
_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 1,
}
# Keys of which the networks here have one value only: others mean another network.
_UNET_FIXED = {
    "_class_name": ("UNet2DConditionModel", "FlaxUNet2DConditionModel"),
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None,),
    "addition_time_embed_dim": (None,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "projection_class_embeddings_input_dim": (None,),
    "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
_VAE_FIXED = {
    "_class_name": ("AutoencoderKL", "FlaxAutoencoderKL"),
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
    "mid_block_add_attention": (True,),
    "shift_factor": (None, 0),
    "use_post_quant_conv": (True,),
    "use_quant_conv": (True,),
}
_TEXT_FIXED = {"model_type": ("clip_text_model",)}
_BLOCKS = {
    "unet": (("CrossAttnDownBlock2D", "DownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")),
    "vae": (("DownEncoderBlock2D",), ("UpDecoderBlock2D",)),
}
# Keys whose type varies, or that are not read here.
_FREE = {
    "sample_size", "mid_block_type", "layers_per_block", "cross_attention_dim",
    "attention_head_dim", "transformer_layers_per_block",
    "bos_token_id", "eos_token_id", "pad_token_id",
}  # fmt: skip
_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The configs of the networks, hashable: every entry of the tables above, lists as tuples."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]

    def replaced(self, network: str, **entries: Any) -> "Sizes":
        """Returns a copy with other entries of a network: "unet", "vae" or "text"."""
        config = FrozenDict({**getattr(self, network), **entries})
        return dataclasses.replace(self, **{network: config})


def make_sizes(unet: Mapping, vae: Mapping, text: Mapping) -> Sizes:
    """Returns the sizes from the parsed config.json files of Diffusers folders.

    Raises InputError that names every entry that the networks here do not support.
    """
    sizes = Sizes(_freeze(unet, _UNET), _freeze(vae, _VAE), _freeze(text, _TEXT))
    kinds = [
        *_wrong_kinds("unet", sizes.unet, _UNET),
        *_wrong_kinds("vae", sizes.vae, _VAE),
        *_wrong_kinds("text_encoder", sizes.text, _TEXT),
    ]
    wrong = kinds or [
        *_wrong_entries("unet", unet, _UNET_FIXED),
        *_wrong_entries("vae", vae, _VAE_FIXED),
        *_wrong_entries("text_encoder", text, _TEXT_FIXED),
        *_wrong_unet(sizes.unet),
        *_wrong_vae(sizes.vae),
        *_wrong_text(sizes.text),
    ]
    if wrong:
        raise InputError(
            f"this is not a Stable Diffusion 1.x or 2.x, the only models supported here: "
            f"{'; '.join(wrong)}."
        )
    width, expected = sizes.text["hidden_size"], sizes.unet["cross_attention_dim"]
    if width != expected:
        raise InputError(
            f"the UNet attends to text of {expected} channels (unet: cross_attention_dim), but the "
            f"text encoder has {width} (text_encoder: hidden_size); take both from one model."
        )
    return sizes


def heads_of(unet: Mapping) -> tuple[int, ...]:
    """The number of attention heads of each level of a UNet, from the outermost on."""
    return _per_level(unet["attention_head_dim"], len(unet["block_out_channels"]))


def depths_of(unet: Mapping) -> tuple[int, ...]:
    """The number of transformer blocks in an attention of each level, from the outermost on."""
    return _per_level(unet["transformer_layers_per_block"], len(unet["block_out_channels"]))


def _per_level(value: Any, levels: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * levels


def _freeze(config: Mapping, table: Mapping) -> FrozenDict:
    return FrozenDict({key: _tuple(config.get(key, default)) for key, default in table.items()})


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list | tuple) else value


def _wrong_kinds(network: str, config: Mapping, table: Mapping) -> Iterator[str]:
    for key, default in table.items():
        if key not in _FREE and not _is_like(config[key], default):
            yield f"{network}: {key} {config[key]!r} is not of the type of {default!r}"


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value is of the type of a default, and positive where that is."""
    if isinstance(default, tuple):
        are = isinstance(value, tuple) and len(value) > 0
        return are and all(_is_like(one, default[0]) for one in value)
    if isinstance(default, bool | str):
        return isinstance(value, type(default))
    number = int if isinstance(default, int) else int | float
    is_number = isinstance(value, number) and not isinstance(value, bool)
    return is_number and (value > 0 if default > 0 else value >= 0)


def _wrong_entries(network: str, config: Mapping, fixed: Mapping) -> Iterator[str]:
    for key, allowed in fixed.items():
        if key in config and config[key] not in allowed:
            yield f"{network}: {key} {config[key]!r} is not {' or '.join(map(repr, allowed))}"


def _wrong_unet(unet: Mapping) -> Iterator[str]:
    yield from _wrong_blocks("unet", unet)
    if unet["mid_block_type"] not in ("UNetMidBlock2DCrossAttn", None):
        yield f"unet: mid_block_type {unet['mid_block_type']!r} is unknown"
    for key in ("layers_per_block", "cross_attention_dim"):
        if not isinstance(unet[key], int):
            yield f"unet: {key} {unet[key]!r} is not a single number"
    channels = unet["block_out_channels"]
    for key, actual in (
        ("attention_head_dim", heads_of(unet)),
        ("transformer_layers_per_block", depths_of(unet)),
    ):
        if len(actual) != len(channels) or not all(_is_like(value, 1) for value in actual):
            yield f"unet: {key} {unet[key]!r} is not a number for each of {len(channels)} levels"
        elif key == "attention_head_dim" and any(map(int.__mod__, channels, actual)):
            yield f"unet: {key} {unet[key]!r} does not divide block_out_channels {list(channels)}"


def _wrong_vae(vae: Mapping) -> Iterator[str]:
    yield from _wrong_blocks("vae", vae)


def _wrong_blocks(network: str, config: Mapping) -> Iterator[str]:
    channels, groups = config["block_out_channels"], config["norm_num_groups"]
    for key, known in zip(("down_block_types", "up_block_types"), _BLOCKS[network], strict=True):
        unknown = sorted(set(config[key]) - set(known))
        if unknown:
            yield f"{network}: {key} {', '.join(unknown)} unknown"
        if len(config[key]) != len(channels):
            yield f"{network}: {key} must have {len(channels)} entries, as block_out_channels has"
    if not isinstance(groups, int) or any(width % groups for width in channels):
        yield f"{network}: norm_num_groups {groups!r} does not divide {list(channels)}"


def _wrong_text(text: Mapping) -> Iterator[str]:
    if text["hidden_act"] not in _ACTIVATIONS:
        yield f"text_encoder: hidden_act {text['hidden_act']!r} is unknown"
    if text["hidden_size"] % text["num_attention_heads"]:
        yield (
            f"text_encoder: num_attention_heads {text['num_attention_heads']} does not divide "
            f"hidden_size {text['hidden_size']}"
        )
