"""open_clip's model config: what of it is obeyed, what is refused, and how it is written.

Keys and defaults are those of CLIPVisionCfg and CLIPTextCfg in open_clip 3.3.0 and of EVA02-CLIP's
released configs.
"""

from collections.abc import Mapping
from typing import Any

from jaxtbpr.core.errors import UserError
from jaxtbpr.retrieval.model import ClipConfig
from jaxtbpr.retrieval.transformer import TowerConfig

# Sizes, which the tensors tell; what only a training or another key gives a meaning; and how the
# same network is computed or its tensors are named.
_NEUTRAL = {
    "": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text", "init_logit_scale"},
    "vision_cfg": {
        "image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio", "patch_dropout",
        "attn_pooler_queries", "attn_pooler_heads", "act_kwargs", "norm_kwargs", "output_tokens",
        "timm_model_name", "timm_model_pretrained", "timm_drop", "timm_drop_path",
        "timm_proj_bias", "eva_model_name", "drop_path_rate", "xattn", "fusedLN", "rope",
        "pt_hw_seq_len", "intp_freq", "naiveswiglu", "subln", "qkv_bias",
    },
    "text_cfg": {
        "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "act_kwargs",
        "norm_kwargs", "output_tokens", "hf_tokenizer_name", "tokenizer_kwargs", "pad_id",
        "eos_id", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "xattn", "fusedLN",
    },
}  # fmt: skip
# Values that mean the networks that are here; any other key must be false or empty.
_MEANT = {
    "vision_cfg": {
        "pool_type": ("tok",),
        "pos_embed_type": ("learnable",),
        "block_type": ("default",),
        "timm_pool": ("token",),
        "timm_proj": ("none",),
    },
    "text_cfg": {
        "pool_type": ("argmax",), "proj_type": ("linear",), "block_type": ("default",),
    },
}  # fmt: skip
# timm's EVA02-CLIPs, which take one size of image each: (width, layers, patch, side).
_TIMM = {
    (768, 12, 16, 224): "eva02_base_patch16_clip_224",
    (1024, 24, 14, 224): "eva02_large_patch14_clip_224",
    (1024, 24, 14, 336): "eva02_large_patch14_clip_336",
}


def refuse_other_networks(hints: Mapping[str, Any], source: str) -> None:
    """Raises UserError for a key that makes another network than those that are here."""
    for part, neutral in _NEUTRAL.items():
        given = hints.get(part, {}) if part else hints
        if not isinstance(given, Mapping):
            raise UserError(f"{part} of {source} is no JSON object; fetch its config again.")
        for key, value in given.items():
            meant = _MEANT.get(part, {}).get(key, ())
            if key not in neutral and value not in (None, False, "", *meant):
                where = f"{part}.{key}" if part else key
                raise UserError(
                    f"{source} is of a network that is not here: its config says "
                    f"{where}={value!r}; give another checkpoint."
                )


def eps(given: Mapping[str, Any], default: float) -> float:
    """Returns the epsilon that `norm_kwargs` of a tower's config gives. Raises UserError."""
    values = dict(given.get("norm_kwargs") or {})
    found = values.pop("eps", default)
    if values:
        raise UserError(f"norm_kwargs of open_clip_config.json has {', '.join(values)}, not known.")
    return found


def activation(quick: bool, given: Mapping[str, Any]) -> str:
    """Returns the activation of a tower, from quick_gelu and `act_kwargs`. Raises UserError."""
    values = given.get("act_kwargs") or {}
    known = {"none": "gelu", "tanh": "gelu_tanh"}
    if not values:
        return "quick_gelu" if quick else "gelu"
    if quick or set(values) != {"approximate"} or values["approximate"] not in known:
        raise UserError(f"act_kwargs={values!r} of open_clip_config.json is no GELU that is known.")
    return known[values["approximate"]]


def timm_name(config: ClipConfig) -> str | None:
    """Returns timm's name of the vision tower; None where timm has no such network."""
    tower, side = config.vision, config.image_size[0]
    name = _TIMM.get((tower.width, tower.layers, config.patch, side))
    fits = (
        config.image_size == (side, side)
        and tower.rope and tower.rope_grid == 16 and tower.gated and tower.sub_norm
        and tower.width == 64 * tower.heads and tower.hidden == int(tower.width * 4 * 2 / 3)
    )  # fmt: skip
    return name if fits else None


def to_open_clip(config: ClipConfig, kind: str) -> dict[str, Any]:
    """Returns the model config of a checkpoint in format `kind`.

    open_clip makes the model of it, but for "eva" and towers that timm does not have: those keep
    the keys of EVA02-CLIP's own configs. Raises UserError for activations that cannot be said.
    """
    vision, text = config.vision, config.text
    quick = text.activation == "quick_gelu"
    if kind == "openai" and (vision.activation == "quick_gelu") != quick:
        raise UserError(
            f"open_clip knows no vision tower of {vision.activation} beside a text tower of "
            f"{text.activation}; write it with --format=huggingface."
        )
    sizes = {"image_size": list(config.image_size)}
    name = timm_name(config) if kind == "timm" else None
    if name:
        sizes |= {"image_size": config.image_size[0], "timm_model_name": name}
        sizes |= {"timm_model_pretrained": False, "timm_pool": "token", "timm_proj": None}
    else:
        sizes |= {
            "patch_size": config.patch,
            "width": vision.width,
            "layers": vision.layers,
            "head_width": vision.width // vision.heads,
            "mlp_ratio": vision.mlp_ratio,
        }
        own = {"rope": vision.rope, "pt_hw_seq_len": vision.rope_grid}
        sizes |= _extras(vision) if kind == "openai" else own
    return {
        "embed_dim": config.embed_dim,
        "quick_gelu": quick,
        "vision_cfg": sizes,
        "text_cfg": {
            "context_length": config.text_length,
            "vocab_size": config.vocab_size,
            "hf_tokenizer_name": "tokenizer.json",  # "local-dir:" takes the folder's own
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
            "mlp_ratio": text.mlp_ratio,
        }
        | _extras(text),
    }


def _extras(tower: TowerConfig) -> dict[str, Any]:
    found = {}
    if tower.activation == "gelu_tanh":
        found["act_kwargs"] = {"approximate": "tanh"}
    if tower.eps != TowerConfig.eps:
        found["norm_kwargs"] = {"eps": tower.eps}
    return found
