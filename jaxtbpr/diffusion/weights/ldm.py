"""The names of the original Stable Diffusion code (ldm), as single-file checkpoints have them.

1.x has OpenAI's text encoder with the names of transformers; 2.x has open_clip's, of which the last
layer is not used. What other tools write is first given these names (`current`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxtbpr.core.errors import InputError
from jaxtbpr.core.tensors import FUSED, FUSED_BIAS, Tensor, unwrapped
from jaxtbpr.diffusion.sizes import Sizes
from jaxtbpr.diffusion.weights import names

Shapes = names.Shapes

UNET, VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
TEXT_1, TEXT_2 = f"{_TEXT}transformer.", f"{_TEXT}model."
V1, V2 = "ldm 1.x", "ldm 2.x"
TEXT_LAYERS = {V1: f"{TEXT_1}text_model.encoder.layers", V2: f"{TEXT_2}transformer.resblocks"}

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_PARTS = (
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"group_norm", "norm"),
    (r"to_out\.0", "proj_out"),
    (r"to_([qkv])", r"\1"),
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
)
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_TEXT_UNUSED = re.compile(
    r"cond_stage_model\.((model\.|transformer\.)?(text_projection(\.weight)?|logit_scale)"
    r"|model\.attn_mask|transformer\.text_model\.embeddings\.position_ids)"
)
# What other tools call the same: sgm (2.x Turbo), text encoders without their
# `text_model.`, diffusers' own names of the VAE's attention that converters left as they were.
_OTHER_NAMES = (
    (re.compile(r"^conditioner\.embedders\.0\."), _TEXT),
    (
        re.compile(
            r"^(cond_stage_model\.transformer\.)(?=(embeddings|encoder|final_layer_norm)\.)"
        ),
        r"\1text_model.",
    ),
    (re.compile(r"(?<=\.mid\.attn_1\.)(to_q|query)(?=\.)"), "q"),
    (re.compile(r"(?<=\.mid\.attn_1\.)(to_k|key)(?=\.)"), "k"),
    (re.compile(r"(?<=\.mid\.attn_1\.)(to_v|value)(?=\.)"), "v"),
    (re.compile(r"(?<=\.mid\.attn_1\.)(to_out\.0|proj_attn)(?=\.)"), "proj_out"),
    (re.compile(r"(?<=\.mid\.attn_1\.)group_norm(?=\.)"), "norm"),
)
_TRAINING = re.compile(r"first_stage_model\.(loss|model_ema)\..*")


def current(name: str) -> str:
    """Returns the original name of a tensor that another tool has renamed."""
    name = unwrapped(name)
    for pattern, original in _OTHER_NAMES:
        name = pattern.sub(original, name)
    return name


def recognise(shapes: Shapes, source: str) -> str:
    """Returns V1 or V2. Raises InputError for other files."""
    if f"{UNET}input_blocks.0.0.weight" in shapes:
        if f"{TEXT_1}text_model.embeddings.token_embedding.weight" in shapes:
            return V1
        if f"{TEXT_2}token_embedding.weight" in shapes:
            return V2
    some = ", ".join(sorted(shapes)[:3]) or "none"
    raise InputError(
        f"{source} has tensors ({some}, ...), but not those of a whole Stable Diffusion 1.x or "
        "2.x; use a checkpoint with UNet, VAE and text encoder, or a Diffusers folder."
    )


def network(name: str) -> str:
    """Returns which network a tensor belongs to, "" for none (copies, constants of schedules)."""
    if "." not in name or name.startswith("model_ema."):
        return ""
    for prefix, kind in ((UNET, "unet"), (VAE, "vae"), (_TEXT, "text_encoder")):
        if name.startswith(prefix):
            return kind
    return "unet"  # whatever it is, it is reported as unexpected with the UNet


def unused(kind: str, sizes: Sizes, present: Iterable[str]) -> list[str]:
    """Returns the tensors of a network that take no part in its output."""
    layer = f"{TEXT_LAYERS[kind]}.{sizes.text['num_hidden_layers']}."
    return [
        name
        for name in present
        if _TEXT_UNUSED.fullmatch(name) or _TRAINING.fullmatch(name) or name.startswith(layer)
    ]


# --- names ----------------------------------------------------------------------------------------


def tensors(kind: str, network: str, sizes: Sizes, shapes: Shapes) -> list[Tensor]:
    """Returns every tensor of a file of `kind` that holds parameters of `network`."""
    if network == "text_encoder" and kind == V2:
        return list(_open_clip(names.tensors(network, shapes), sizes.text["num_hidden_layers"]))
    rename = {
        "unet": _unet_rule(sizes.unet),
        "vae": _vae_rule(sizes.vae),
        "text_encoder": lambda name: f"{TEXT_1}{name}",
    }[network]
    return [
        Tensor(rename(one.theirs), one.ours, one.layout) for one in names.tensors(network, shapes)
    ]


def _unet_rule(unet: Mapping[str, Any]):
    """Renames a Diffusers name of the UNet."""
    places = _UNET_ENDS | dict(_unet_blocks(unet))

    def rename(name: str) -> str:
        parts = name.split(".")
        for length in (5, 4, 3, 2, 1):
            head = ".".join(parts[:length])
            if head in places:
                rest = ".".join(parts[length:])
                if ".resnets." in f".{head}.":
                    layer, _, leaf = rest.rpartition(".")
                    rest = f"{_RESNET[layer]}.{leaf}"
                return f"{UNET}{places[head]}.{rest}"
        raise KeyError(name)

    return rename


def _unet_blocks(unet: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(part in Diffusers, part in ldm, which numbers down and up blocks consecutively)."""
    layers, last = unet["layers_per_block"], len(unet["block_out_channels"]) - 1
    n = 1
    for level in range(last + 1):
        for layer in range(layers):
            yield f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{n}.0"
            yield f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{n}.1"
            n += 1
        if level < last:
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{n}.0.op"
            n += 1
    n = 0
    for level, kind in enumerate(unet["up_block_types"]):
        for layer in range(layers + 1):
            yield f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{n}.0"
            yield f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{n}.1"
            n += 1
        after = 2 if kind == "CrossAttnUpBlock2D" else 1
        yield f"up_blocks.{level}.upsamplers.0", f"output_blocks.{n - 1}.{after}"


def _vae_rule(vae: Mapping[str, Any]):
    last = len(vae["block_out_channels"]) - 1

    def rename(name: str) -> str:
        for theirs, ours in _VAE_PARTS:
            name = re.sub(rf"(?<![^.]){theirs}(?![^.])", ours, name)
        # ldm numbers the levels of the decoder from the outermost on.
        name = re.sub(
            r"up_blocks\.(\d+)\.resnets\.(\d+)",
            lambda match: f"up.{last - int(match[1])}.block.{match[2]}",
            name,
        )
        name = re.sub(
            r"up_blocks\.(\d+)\.upsamplers\.0",
            lambda match: f"up.{last - int(match[1])}.upsample",
            name,
        )
        return f"{VAE}{name}"

    return rename


def _open_clip(ours: Iterable[Tensor], layers: int) -> Iterator[Tensor]:
    by_name = {one.theirs: one for one in ours}

    def pick(theirs: str, *mine: str, layout=None) -> Tensor:
        tensors = [by_name[f"text_model.{name}"] for name in mine]
        paths = tuple(one.ours[0] for one in tensors)
        return Tensor(f"{TEXT_2}{theirs}", paths, layout or tensors[0].layout)

    yield pick("token_embedding.weight", "embeddings.token_embedding.weight")
    yield pick("positional_embedding", "embeddings.position_embedding.weight")
    for leaf, layout in (("weight", FUSED), ("bias", FUSED_BIAS)):
        yield pick(f"ln_final.{leaf}", f"final_layer_norm.{leaf}")
        for n in range(layers):
            mine, theirs = f"encoder.layers.{n}", f"transformer.resblocks.{n}"
            qkv = [f"{mine}.self_attn.{letter}_proj.{leaf}" for letter in "qkv"]
            yield pick(f"{theirs}.attn.in_proj_{leaf}", *qkv, layout=layout)
            for name, other in _OPEN_CLIP.items():
                yield pick(f"{theirs}.{other}.{leaf}", f"{mine}.{name}.{leaf}")
