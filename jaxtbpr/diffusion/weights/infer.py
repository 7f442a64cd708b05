"""Infers the configs of a single-file Stable Diffusion: sizes, and what its UNet predicts.

Sizes follow from the shapes of the tensors, except the numbers of attention heads and norm groups
and the scaling factor: those are the ones of all published models of the version, unless a
Diffusers folder is passed as `base`.
"""

import math
import re
from typing import Any

from jaxtbpr.core import tensors
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.weights import names
from jaxtbpr.diffusion.weights.ldm import TEXT_1, TEXT_2, TEXT_LAYERS, UNET, V1, V2, VAE

Shapes = names.Shapes

EPSILON, VELOCITY = "epsilon", "v_prediction"
_MODELSPEC = {"epsilon": EPSILON, "v": VELOCITY, "512": EPSILON, "768-v": VELOCITY}
_HEAD_WIDTH = 64  # of both text encoders, and of the UNet of 2.x; that of 1.x has 8 heads
_GROUPS = 32
_SECOND_WIDTH, _SECOND_LAYERS = 1024, 23  # of the text encoder of 2.x, and its layers in use
_CLIP_END = 49_407
_HEADS = {V1: f"{TEXT_1}text_model.embeddings.", V2: TEXT_2}
_POSITIONS = {V1: "position_embedding.weight", V2: "positional_embedding"}


def infer(kind: str, shapes: Shapes, source: str) -> dict[str, dict[str, Any]]:
    """Returns the configs of the three networks, as config.json files of a folder have them."""
    try:
        return {
            "unet": _infer_unet(is_second(kind, shapes), shapes),
            "vae": _infer_vae(shapes),
            "text_encoder": _infer_text(kind, shapes),
        }
    except KeyError as error:
        raise InputError(
            f"{source} lacks {error.args[0]!r}, which is needed for the sizes of the model; "
            "download it again."
        ) from error


def is_second(kind: str, shapes: Shapes) -> bool:
    """Whether a model is one of 2.x, whose text encoder may have the names of that of 1.x."""
    return kind == V2 or shapes[f"{_HEADS[kind]}token_embedding.weight"][1] == _SECOND_WIDTH


def marked_prediction(opened: tensors.Opened) -> str:
    """Returns what the UNet of a file predicts by its marks: epsilon, v_prediction, or "".

    Marks are the empty tensor `v_pred`, and `modelspec.prediction_type` (epsilon, v) or the sizes
    in `modelspec.architecture` of Stability AI's Model Metadata Standard.
    """
    if "v_pred" in opened.shapes:
        return VELOCITY
    metadata = opened.metadata()
    if prediction := _MODELSPEC.get(metadata.get("modelspec.prediction_type", "")):
        return prediction
    architecture = metadata.get("modelspec.architecture", "")
    return next((_MODELSPEC[end] for end in ("512", "768-v") if architecture.endswith(end)), "")


def scheduler(second: bool, opened: tensors.Opened, prediction: str = "") -> dict[str, Any]:
    """Returns the scheduler config of the published models of 1.x, or of 2.x (`second`).

    That of InstructPix2Pix, whose UNet takes twice the channels that it puts out, has ancestral
    Euler steps. prediction: of the UNet; "": as the file is marked, else epsilon for 1.x and
    velocity for 2.x, as the models for 768 pixels have it. The empty tensor `ztsnr` marks a last
    level of pure noise.
    """
    ztsnr = "ztsnr" in opened.shapes
    prediction = prediction or marked_prediction(opened) or (VELOCITY if second else EPSILON)
    last, first = (opened.shapes[f"{UNET}{end}.weight"] for end in ("out.2", "input_blocks.0.0"))
    name = "DDIMScheduler" if second or ztsnr else "PNDMScheduler"
    if first[1] == 2 * last[0] and not ztsnr:
        name = "EulerAncestralDiscreteScheduler"
    return {
        "_class_name": name,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    } | ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if ztsnr else {})


def _infer_unet(second: bool, shapes: Shapes) -> dict[str, Any]:
    channels, attends, layers = [], [], 0
    for n in range(1, _count(shapes, rf"{re.escape(UNET)}input_blocks\.(\d+)\..*")):
        block = f"{UNET}input_blocks.{n}"
        if f"{block}.0.op.weight" in shapes:
            layers = 0
            continue
        if layers == 0:
            channels.append(shapes[f"{block}.0.in_layers.2.weight"][0])
            attends.append(f"{block}.1.norm.weight" in shapes)
        layers += 1
    # The first level with attention stands for all.
    before = attends.index(True) * (layers + 1) if any(attends) else 0
    attention = f"{UNET}input_blocks.{before + 1}.1"
    down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attends]
    middle = f"{UNET}middle_block.1.norm.weight" in shapes
    return {
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
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
        "attention_head_dim": [max(width // _HEAD_WIDTH, 1) for width in channels] if second else 8,
        "use_linear_projection": len(shapes[f"{attention}.proj_in.weight"]) == 2,
        "sample_size": 96 if second else 64,
    }


def _infer_vae(shapes: Shapes) -> dict[str, Any]:
    levels = _count(shapes, r"first_stage_model\.encoder\.down\.(\d+)\..*")
    channels = [shapes[f"{VAE}encoder.down.{n}.block.0.conv1.weight"][0] for n in range(levels)]
    return {
        "in_channels": shapes[f"{VAE}encoder.conv_in.weight"][1],
        "out_channels": shapes[f"{VAE}decoder.conv_out.weight"][0],
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(
            shapes, r"first_stage_model\.encoder\.down\.0\.block\.(\d+)\..*"
        ),
        "latent_channels": shapes[f"{VAE}post_quant_conv.weight"][0],
        "norm_num_groups": math.gcd(_GROUPS, *channels),
        "sample_size": 512,
    }


def _infer_text(kind: str, shapes: Shapes) -> dict[str, Any]:
    head, layer, second = _HEADS[kind], TEXT_LAYERS[kind], is_second(kind, shapes)
    positions, hidden = _POSITIONS[kind], "mlp.fc1" if kind == V1 else "mlp.c_fc"
    words, width = shapes[f"{head}token_embedding.weight"]
    end = _CLIP_END if words > _CLIP_END else words - 1  # what comes after it was learned later
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": shapes[f"{layer}.0.{hidden}.weight"][0],
        "projection_dim": shapes.get(f"{TEXT_2}text_projection", (0, width))[1],
        "num_hidden_layers": _layers_in_use(kind, shapes, width, second),
        "num_attention_heads": max(width // _HEAD_WIDTH, 1),
        "max_position_embeddings": shapes[f"{head}{positions}"][0],
        "hidden_act": "gelu" if second else "quick_gelu",
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": 0 if second else end,
    }


def _layers_in_use(kind: str, shapes: Shapes, width: int, second: bool) -> int:
    """The number of text encoder layers whose output is used: in 2.x all but the last of 24.

    Files that were converted from Diffusers folders lack that one. It is recognised by the
    projection after it, and in the published size by the number of layers.
    """
    layers = _count(shapes, rf"{re.escape(TEXT_LAYERS[kind])}\.(\d+)\..*")
    if second and width == _SECOND_WIDTH and layers in (_SECOND_LAYERS, _SECOND_LAYERS + 1):
        return _SECOND_LAYERS
    return layers - (kind == V2 and f"{TEXT_2}text_projection" in shapes)


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers the group of `pattern` takes in the names."""
    return len({match[1] for match in (re.fullmatch(pattern, name) for name in shapes) if match})
