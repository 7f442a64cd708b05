"""The names of the original Stable Diffusion code (ldm), as single-file checkpoints have them.

A file tells its sizes by the shapes of its tensors, except for the number of attention heads and
of norm groups, the scaling factor and what the UNet predicts: those are taken as all published
models of the version have them, unless a Diffusers folder is given as `base`. 1.x has OpenAI's text
encoder with the names of transformers; 2.x has open_clip's, of which the last layer is not used.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.tensors import FUSED, FUSED_BIAS, Tensor
from jaxtbpr.diffusion.sizes import Sizes
from jaxtbpr.diffusion.weights import names

Shapes = names.Shapes

_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
_TEXT_1, _TEXT_2 = f"{_TEXT}transformer.", f"{_TEXT}model."
V1, V2 = "ldm 1.x", "ldm 2.x"
_HEAD_WIDTH = 64  # of both text encoders, and of the UNet of 2.x; that of 1.x has 8 heads
_GROUPS = 32

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
    r"cond_stage_model\.(model\.(text_projection|logit_scale|attn_mask)|logit_scale"
    r"|transformer\.text_model\.embeddings\.position_ids)"
)
_TRAINING = re.compile(r"first_stage_model\.(loss|model_ema)\..*")


def recognise(shapes: Shapes, source: str) -> str:
    """Returns V1 or V2. Raises UserError for other files."""
    if f"{_UNET}input_blocks.0.0.weight" in shapes:
        if f"{_TEXT_1}text_model.embeddings.token_embedding.weight" in shapes:
            return V1
        if f"{_TEXT_2}token_embedding.weight" in shapes:
            return V2
    some = ", ".join(sorted(shapes)[:3]) or "none"
    raise UserError(
        f"{source} has tensors ({some}, ...) of no whole Stable Diffusion 1.x or 2.x; give a "
        "checkpoint with UNet, VAE and text encoder, or a Diffusers folder."
    )


def network(name: str) -> str:
    """Returns which network a tensor belongs to, "" for none (copies, constants of schedules)."""
    if "." not in name or name.startswith("model_ema."):
        return ""
    for prefix, found in ((_UNET, "unet"), (_VAE, "vae"), (_TEXT, "text_encoder")):
        if name.startswith(prefix):
            return found
    return "unet"  # of whatever it is, the UNet's report says that it is unexpected


def unused(kind: str, sizes: Sizes, present: Iterable[str]) -> list[str]:
    """Returns the tensors of a network that take no part in its output."""
    layer = f"{_TEXT_2}transformer.resblocks.{sizes.text['num_hidden_layers']}."
    return [
        name
        for name in present
        if _TEXT_UNUSED.fullmatch(name)
        or _TRAINING.fullmatch(name)
        or (kind == V2 and name.startswith(layer))
    ]


# --- names ----------------------------------------------------------------------------------------


def tensors(kind: str, network: str, sizes: Sizes, shapes: Shapes) -> list[Tensor]:
    """Returns every tensor of a file of `kind` that holds parameters of `network`."""
    if network == "text_encoder" and kind == V2:
        return list(_open_clip(names.tensors(network, shapes), sizes.text["num_hidden_layers"]))
    rename = {
        "unet": _unet_rule(sizes.unet),
        "vae": _vae_rule(sizes.vae),
        "text_encoder": lambda name: f"{_TEXT_1}{name}",
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
                return f"{_UNET}{places[head]}.{rest}"
        raise KeyError(name)

    return rename


def _unet_blocks(unet: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(part in Diffusers, part in ldm, which numbers all blocks of a way in one row)."""
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
        return f"{_VAE}{name}"

    return rename


def _open_clip(ours: Iterable[Tensor], layers: int) -> Iterator[Tensor]:
    by_name = {one.theirs: one for one in ours}

    def pick(theirs: str, *mine: str, layout=None) -> Tensor:
        found = [by_name[f"text_model.{name}"] for name in mine]
        paths = tuple(one.ours[0] for one in found)
        return Tensor(f"{_TEXT_2}{theirs}", paths, layout or found[0].layout)

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


# --- sizes ----------------------------------------------------------------------------------------


def infer(kind: str, shapes: Shapes, source: str) -> dict[str, dict[str, Any]]:
    """Returns the configs of the three networks, as config.json files of a folder have them."""
    try:
        return {
            "unet": _infer_unet(kind, shapes),
            "vae": _infer_vae(shapes),
            "text_encoder": _infer_text(kind, shapes),
        }
    except KeyError as error:
        raise UserError(
            f"{source} lacks {error.args[0]!r}, without which the sizes of the model are not "
            "known; fetch it again."
        ) from error


def scheduler(kind: str) -> dict[str, Any]:
    """Returns the scheduler config of the published models of `kind`.

    Of 2.x the models for 768 pixels predict velocity, which is what is said here; for the others
    put a scheduler_config.json beside the file.
    """
    velocity = kind == V2
    return {
        "_class_name": "DDIMScheduler" if velocity else "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction" if velocity else "epsilon",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    }


def _infer_unet(kind: str, shapes: Shapes) -> dict[str, Any]:
    channels, attends, layers = [], [], 0
    for n in range(1, _count(shapes, rf"{re.escape(_UNET)}input_blocks\.(\d+)\..*")):
        block = f"{_UNET}input_blocks.{n}"
        if f"{block}.0.op.weight" in shapes:
            layers = 0
            continue
        if layers == 0:
            channels.append(shapes[f"{block}.0.in_layers.2.weight"][0])
            attends.append(f"{block}.1.norm.weight" in shapes)
        layers += 1
    # The first level with attention tells for all.
    before = attends.index(True) * (layers + 1) if any(attends) else 0
    attention = f"{_UNET}input_blocks.{before + 1}.1"
    down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attends]
    middle = f"{_UNET}middle_block.1.norm.weight" in shapes
    return {
        "in_channels": shapes[f"{_UNET}input_blocks.0.0.weight"][1],
        "out_channels": shapes[f"{_UNET}out.2.weight"][0],
        "block_out_channels": channels,
        "down_block_types": down,
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle else None,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        "layers_per_block": layers,
        "norm_num_groups": math.gcd(_GROUPS, *channels),
        "cross_attention_dim": shapes[f"{attention}.transformer_blocks.0.attn2.to_k.weight"][1],
        "transformer_layers_per_block": _count(
            shapes, rf"{re.escape(attention)}\.transformer_blocks\.(\d+)\..*"
        ),
        "attention_head_dim": [max(width // _HEAD_WIDTH, 1) for width in channels]
        if kind == V2
        else 8,
        "use_linear_projection": len(shapes[f"{attention}.proj_in.weight"]) == 2,
        "sample_size": 96 if kind == V2 else 64,
    }


def _infer_vae(shapes: Shapes) -> dict[str, Any]:
    levels = _count(shapes, r"first_stage_model\.encoder\.down\.(\d+)\..*")
    channels = [shapes[f"{_VAE}encoder.down.{n}.block.0.conv1.weight"][0] for n in range(levels)]
    return {
        "in_channels": shapes[f"{_VAE}encoder.conv_in.weight"][1],
        "out_channels": shapes[f"{_VAE}decoder.conv_out.weight"][0],
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(
            shapes, r"first_stage_model\.encoder\.down\.0\.block\.(\d+)\..*"
        ),
        "latent_channels": shapes[f"{_VAE}post_quant_conv.weight"][0],
        "norm_num_groups": math.gcd(_GROUPS, *channels),
        "sample_size": 512,
    }


def _infer_text(kind: str, shapes: Shapes) -> dict[str, Any]:
    if kind == V1:
        head, layer = f"{_TEXT_1}text_model.embeddings.", f"{_TEXT_1}text_model.encoder.layers"
        positions, hidden = "position_embedding.weight", "mlp.fc1.weight"
    else:
        head, layer = _TEXT_2, f"{_TEXT_2}transformer.resblocks"
        positions, hidden = "positional_embedding", "mlp.c_fc.weight"
    words, width = shapes[f"{head}token_embedding.weight"]
    layers = _count(shapes, rf"{re.escape(layer)}\.(\d+)\..*")
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": shapes[f"{layer}.0.{hidden}"][0],
        "projection_dim": shapes.get(f"{_TEXT_2}text_projection", (0, width))[1],
        "num_hidden_layers": layers if kind == V1 else layers - 1,
        "num_attention_heads": max(width // _HEAD_WIDTH, 1),
        "max_position_embeddings": shapes[f"{head}{positions}"][0],
        "hidden_act": "quick_gelu" if kind == V1 else "gelu",
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1 if kind == V1 else 0,
    }


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers the group of `pattern` takes in the names."""
    return len({match[1] for match in (re.fullmatch(pattern, name) for name in shapes) if match})
