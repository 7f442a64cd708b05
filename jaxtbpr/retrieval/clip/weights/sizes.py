"""Infers the sizes of a published model from the shapes of its tensors and the JSON beside them.

Hints are Hugging Face's config.json for that format, and for the others open_clip's model config:
`vision_cfg` {head_width, rope, pt_hw_seq_len, image_size}, `text_cfg` {heads}, `quick_gelu`.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, TypedDict

from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.clip.model import ClipConfig
from jaxtbpr.retrieval.clip.published import EVA02, EVA02_VISION
from jaxtbpr.retrieval.clip.transformer import TowerConfig
from jaxtbpr.retrieval.clip.weights import keys, open_clip

Shapes = Mapping[str, tuple[int, ...]]
Hints = Mapping[str, Any]

_HEAD_WIDTH = 64  # of every model that OpenAI and EVA's authors published
_HF_HEADS = {"vision": 12, "text": 8}  # where the config does not tell
_HF_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}


def infer(kind: str, shapes: Shapes, text_prefix: str, hints: Hints, source: str) -> ClipConfig:
    """Returns the config of a checkpoint. Raises InputError that names what it cannot tell."""
    if not isinstance(hints, Mapping):
        raise InputError(f"the config beside {source} is not a JSON object; download it again.")
    try:
        if kind == "huggingface":
            return _huggingface(shapes, hints, source)
        open_clip.refuse_other_networks(kind, hints, source)
        if kind == "openai":
            return _openai(shapes, text_prefix, hints, source)
        return _eva(kind, shapes, text_prefix, hints, source)
    except KeyError as error:
        raise InputError(
            f"{source} lacks {error.args[0]!r}, which is needed for the sizes of the model; "
            "download the checkpoint again."
        ) from error
    except InputError:
        raise
    except (IndexError, ValueError) as error:
        raise InputError(
            f"{source} has a tensor of another number of axes than a CLIP's ({error}); fetch the "
            "checkpoint again."
        ) from error


def _openai(shapes: Shapes, prefix: str, hints: Hints, source: str) -> ClipConfig:
    quick = hints.get("quick_gelu", "input_resolution" in shapes or None)
    if quick is None and not hints:
        raise InputError(
            f"{source} does not tell its activation (OpenAI's is QuickGELU, open_clip's own GELU); "
            "put the open_clip_config.json of the model beside it."
        )
    settings = hints.get("vision_cfg", {})
    width, _, _, patch = shapes["visual.conv1.weight"]
    hidden = shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0]
    vision = TowerConfig(
        width,
        _count(shapes, r"visual\.transformer\.resblocks\.(\d+)\..*"),
        _heads(width, settings),
        _ratio(width, hidden),
        open_clip.activation(quick, settings),
        eps=open_clip.eps(settings, TowerConfig.eps),
    )
    open_clip.refuse_layers(settings, vision.layers, "vision_cfg", source)
    return ClipConfig(
        image_size=_image_size(shapes["visual.positional_embedding"][0], patch, settings, source),
        patch_size=patch,
        stem="patch",
        vision=vision,
        text=_openai_text(shapes, prefix, hints, quick, source),
        **_openai_words(shapes, prefix),
    )


def _openai_text(
    shapes: Shapes, prefix: str, hints: Hints, quick: bool | None, source: str
) -> TowerConfig:
    settings = hints.get("text_cfg", {})
    width = shapes[f"{prefix}token_embedding.weight"][1]
    layers = _count(shapes, rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\..*")
    open_clip.refuse_layers(settings, layers, "text_cfg", source)
    return TowerConfig(
        width,
        layers,
        settings.get("heads") or _heads(width, {}),
        _ratio(width, shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0]),
        open_clip.activation(quick, settings),
        eps=open_clip.eps(settings, TowerConfig.eps),
    )


class _Words(TypedDict):
    text_length: int
    vocab_size: int
    embed_dim: int


def _openai_words(shapes: Shapes, prefix: str) -> _Words:
    return {
        "text_length": shapes[f"{prefix}positional_embedding"][0],
        "vocab_size": shapes[f"{prefix}token_embedding.weight"][0],
        "embed_dim": shapes[f"{prefix}text_projection"][1],
    }


def _eva(kind: str, shapes: Shapes, prefix: str, hints: Hints, source: str) -> ClipConfig:
    trunk = "visual.trunk." if kind == "timm" else "visual."
    settings = hints.get("vision_cfg", {})
    width, _, _, patch = shapes[f"{trunk}patch_embed.proj.weight"]
    mlp = f"{trunk}blocks.0.mlp."
    gated = f"{mlp}fc1_g.weight" in shapes or f"{mlp}w1.weight" in shapes
    hidden = next(
        shapes[f"{mlp}{x}.weight"][0]
        for x in ("fc1_g", "w1", "fc1")
        if f"{mlp}{x}.weight" in shapes
    )
    norms = ("attn.inner_attn_ln.weight", "attn.norm.weight")
    options = EVA02_VISION | {
        "gated": gated,
        "activation": "silu" if gated else "gelu",
        "sub_norm": any(f"{trunk}blocks.0.{name}" in shapes for name in norms),
    }
    vision = TowerConfig(
        width,
        _count(shapes, rf"{re.escape(trunk)}blocks\.(\d+)\..*"),
        _heads(width, settings),
        _ratio(width, hidden),
        # timm's EVA02-CLIPs all have it, and its files no tables.
        rope_grid=settings.get("pt_hw_seq_len", 16),
        rope=settings.get("rope", kind == "timm" or f"{trunk}rope.freqs_cos" in shapes),
        **options,
    )
    plain = ClipConfig(
        image_size=_image_size(shapes[f"{trunk}pos_embed"][1], patch, settings, source),
        patch_size=patch,
        stem="patch",
        vision=vision,
        text=_openai_text(shapes, prefix, hints, hints.get("quick_gelu", False), source),
        **_openai_words(shapes, prefix),
    )
    config = dataclasses.replace(plain, **EVA02)
    if vision.rope and not settings.get("intp_freq", True) and {*config.grid} != {vision.rope_grid}:
        # EVA02-CLIP then has the angles of pt_hw_seq_len places, not stretched to the grid.
        raise keys.other_network("vision_cfg.intp_freq", settings["intp_freq"], source)
    return config


def _huggingface(shapes: Shapes, config: Hints, source: str) -> ClipConfig:
    keys.refuse(config, keys.HUGGINGFACE[""], "", source, keys.NEUTRAL)
    width, _, _, patch = shapes["vision_model.embeddings.patch_embedding.weight"]
    vocabulary, text_width = shapes["text_model.embeddings.token_embedding.weight"]
    positions = shapes["vision_model.embeddings.position_embedding.weight"][0]
    configs = {name: _huggingface_part(config, f"{name}_config", source) for name in _HF_HEADS}
    end = configs["text"].get("eos_token_id", 49407)
    # Text is pooled at the first end token. Of old configs, which say 2, at the greatest id, and so
    # it is here: the same where the end token is the last of the vocabulary.
    if end not in (2, vocabulary - 1):
        raise keys.other_network("text_config.eos_token_id", end, source)

    def tower(name: str, size: int) -> TowerConfig:
        return _huggingface_tower(shapes, name, size, configs[name], source)

    return ClipConfig(
        image_size=_image_size(positions, patch, configs["vision"], source),
        patch_size=patch,
        stem="patch",
        vision=tower("vision", width),
        text=tower("text", text_width),
        text_length=shapes["text_model.embeddings.position_embedding.weight"][0],
        vocab_size=vocabulary,
        embed_dim=shapes["visual_projection.weight"][0],
    )


def _huggingface_part(config: Hints, name: str, source: str) -> Hints:
    """A tower's config; of an old file, which has it twice, that which transformers obeys."""
    part = config.get(f"{name}_dict")
    part = config[name] if part is None else part
    if not isinstance(part, Mapping):
        raise InputError(f"{name} of {source} is not a JSON object; download its config again.")
    keys.refuse(part, keys.HUGGINGFACE[name], name, source, keys.NEUTRAL)
    return part


def _huggingface_tower(
    shapes: Shapes, name: str, width: int, settings: Hints, source: str
) -> TowerConfig:
    prefix = f"{name}_model.encoder.layers"
    activation = settings.get("hidden_act", "quick_gelu")
    if not isinstance(activation, str) or activation not in _HF_ACTIVATIONS:
        raise keys.other_network(f"{name}_config.hidden_act", activation, source)
    layers = _count(shapes, rf"{re.escape(prefix)}\.(\d+)\..*")
    if settings.get("num_hidden_layers", layers) != layers:
        raise InputError(
            f"{source} has {layers} blocks in a tower of which config.json says "
            f"{name}_config.num_hidden_layers={settings['num_hidden_layers']!r}; fetch both again."
        )
    return TowerConfig(
        width,
        layers,
        settings.get("num_attention_heads", _HF_HEADS[name]),
        _ratio(width, shapes[f"{prefix}.0.mlp.fc1.weight"][0]),
        _HF_ACTIVATIONS[activation],
        eps=settings.get("layer_norm_eps", 1e-5),
    )


def _image_size(positions: int, patch: int, vision: Hints, source: str) -> tuple[int, int]:
    """(H, W): what the tower's config says, if it fits, or the square, 3:1 or 2:1 of positions."""
    sides, side = _both_sides(vision), math.isqrt(positions - 1)
    if sides and sides[0] // patch * (sides[1] // patch) == positions - 1:
        return sides
    if side * side == positions - 1:
        return side * patch, side * patch
    # The field's tall images: 384x128 and 256x128.
    for aspect in (3, 2):
        columns = math.isqrt((positions - 1) // aspect)
        if aspect * columns * columns == positions - 1:
            return aspect * columns * patch, columns * patch
    raise InputError(
        f"{source} has positions of {positions - 1} patches, which are no square, and does not "
        "tell its image size; put [height, width] into the config beside it as image_size of its "
        "vision tower."
    )


def image_size_of(hints: Hints) -> tuple[int, int] | None:
    """Returns (H, W) if the hints have both; one number says no more than the positions do."""
    names = ("vision_cfg", "vision_config_dict", "vision_config")
    return _both_sides(next((hints[name] for name in names if hints.get(name)), {}))


def _both_sides(vision: Hints) -> tuple[int, int] | None:
    sides = vision.get("image_size")
    return tuple(sides) if isinstance(sides, (list, tuple)) and len(sides) == 2 else None


def _heads(width: int, settings: Hints) -> int:
    return max(width // (settings.get("head_width") or _HEAD_WIDTH), 1)


def _count(shapes: Shapes, pattern: str) -> int:
    """Number of blocks: one more than the greatest of their numbers."""
    matches = (re.fullmatch(pattern, name) for name in shapes)
    return max((int(match[1]) for match in matches if match), default=-1) + 1


def _ratio(width: int, hidden: int) -> float:
    """The MLP ratio of which `TowerConfig.hidden` is `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _has_eva_blocks(config: ClipConfig) -> bool:
    towers = (config.vision, config.text)
    return any(tower.gated or tower.sub_norm or tower.rope for tower in towers)


def _has_eva_biases(config: ClipConfig) -> bool:
    return config.stem_bias or config.head_bias or not config.pre_norm


def other_format(config: ClipConfig) -> str:
    """Returns the format of names.FORMATS, not huggingface, that holds a model of this config.

    Raises InputError where none does.
    """
    if config.stem != "patch":
        raise InputError(
            "no published model has a hierarchical stem; train with stem='patch' to export the "
            "model, or use the training's own folder, which every command here reads."
        )
    return "eva" if _has_eva_blocks(config) or _has_eva_biases(config) else "openai"


def not_in_huggingface(config: ClipConfig) -> str:
    """Returns what of `config` transformers' CLIPModel cannot be, or ""."""
    special = {
        "images that are not square": config.image_size[0] != config.image_size[1],
        "gates, sub-norms or rotary positions": _has_eva_blocks(config),
        "EVA02's biases": _has_eva_biases(config),
    }
    return " and ".join(name for name, is_there in special.items() if is_there)


def to_huggingface(config: ClipConfig) -> dict[str, Any]:
    """Returns config.json of a transformers CLIPModel.

    Raises InputError where that model cannot be `config`.
    """
    other = other_format(config)
    if what := not_in_huggingface(config):
        raise InputError(f"Hugging Face's CLIPModel does not support {what}; use --format={other}.")
    ours = {value: key for key, value in _HF_ACTIVATIONS.items()}

    def tower(t: TowerConfig) -> dict[str, Any]:
        return {
            "hidden_size": t.width,
            "intermediate_size": t.hidden,
            "num_hidden_layers": t.layers,
            "num_attention_heads": t.heads,
            "hidden_act": ours[t.activation],
            "layer_norm_eps": t.eps,
            "projection_dim": config.embed_dim,
        }

    start, end = config.vocab_size - 2, config.vocab_size - 1
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": 2.6592,
        "vision_config": tower(config.vision)
        | {"image_size": config.image_size[0], "patch_size": config.patch_size},
        "text_config": tower(config.text)
        | {
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.text_length,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": 0,
        },
    }
