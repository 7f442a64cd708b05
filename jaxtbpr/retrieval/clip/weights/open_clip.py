"""open_clip's model config: what of it is obeyed, what is refused, and how it is written.

`keys` has the verdict on each key.
"""

from collections.abc import Mapping
from typing import Any

from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.clip.model import ClipConfig
from jaxtbpr.retrieval.clip.transformer import TowerConfig
from jaxtbpr.retrieval.clip.weights import keys

# timm's EVA02-CLIPs, which take one size of image each: (width, layers, patch, side).
_TIMM = {
    (768, 12, 16, 224): "eva02_base_patch16_clip_224",
    (1024, 24, 14, 224): "eva02_large_patch14_clip_224",
    (1024, 24, 14, 336): "eva02_large_patch14_clip_336",
}


def refuse_other_networks(kind: str, hints: Mapping[str, Any], source: str) -> None:
    """Raises InputError for a key that makes another network than those that are here."""
    for part, verdicts in keys.OPEN_CLIP[kind].items():
        settings = hints.get(part, {}) if part else hints
        if not isinstance(settings, Mapping):
            raise InputError(f"{part} of {source} is not a JSON object; download its config again.")
        if settings.get("timm_model_name"):
            _check_timm(settings["timm_model_name"], source)
            settings = {"timm_pool": "avg", "timm_proj": "linear"} | dict(
                settings
            )  # open_clip's own
        keys.refuse(settings, verdicts, part, source, keys.OFF)
    # Captions are cleaned here the field's way, whatever the tokenizer's own is.
    words = hints.get("text_cfg", {}).get("tokenizer_kwargs") or {}
    if set(words) - {"clean"}:
        raise keys.other_network("text_cfg.tokenizer_kwargs", words, source)


def _check_timm(name: str, source: str) -> None:
    """name: with or without where it is from and which weights: hf-hub:timm/NAME.WEIGHTS."""
    if str(name).rpartition("/")[2].partition(".")[0] not in _TIMM.values():
        raise keys.other_network("vision_cfg.timm_model_name", name, source)


def refuse_layers(settings: Mapping[str, Any], layers: int, part: str, source: str) -> None:
    """Raises InputError where a tower's config has another number of blocks than its tensors."""
    if settings.get("layers", layers) != layers:
        raise InputError(
            f"{source} has {layers} blocks in a tower of which its config says "
            f"{part}.layers={settings['layers']!r}; fetch the checkpoint and its config again."
        )


def eps(settings: Mapping[str, Any], default: float) -> float:
    """Returns the epsilon that `norm_kwargs` of a tower's config gives. Raises InputError."""
    values = dict(settings.get("norm_kwargs") or {})
    value = values.pop("eps", default)
    if values:
        raise InputError(
            f"norm_kwargs of open_clip_config.json has {', '.join(values)}, which is not supported."
        )
    return value


def activation(quick: bool | None, settings: Mapping[str, Any]) -> str:
    """Returns the activation of a tower, from quick_gelu and `act_kwargs`. Raises InputError."""
    values = settings.get("act_kwargs") or {}
    known = {"none": "gelu", "tanh": "gelu_tanh"}
    if not values:
        return "quick_gelu" if quick else "gelu"
    if quick or set(values) != {"approximate"} or values["approximate"] not in known:
        raise InputError(f"act_kwargs={values!r} of open_clip_config.json is not a supported GELU.")
    return known[values["approximate"]]


def timm_name(config: ClipConfig) -> str | None:
    """Returns timm's name of the vision tower; None where timm has no such network."""
    tower, side = config.vision, config.image_size[0]
    name = _TIMM.get((tower.width, tower.layers, config.patch_size, side))
    fits = (
        config.image_size == (side, side)
        and tower.rope and tower.rope_grid == 16 and tower.gated and tower.sub_norm
        and tower.width == 64 * tower.heads and tower.hidden == int(tower.width * 4 * 2 / 3)
    )  # fmt: skip
    return name if fits else None


def to_open_clip(config: ClipConfig, kind: str) -> dict[str, Any]:
    """Returns the model config of a checkpoint in format `kind`.

    open_clip makes the model of it, but for "eva" and towers that timm does not have: those keep
    the keys of EVA02-CLIP's own configs. Raises InputError for activations that cannot be said.
    """
    vision, text = config.vision, config.text
    quick = text.activation == "quick_gelu"
    if kind == "openai" and (vision.activation == "quick_gelu") != quick:
        raise InputError(
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
            "patch_size": config.patch_size,
            "width": vision.width,
            "layers": vision.layers,
            "head_width": vision.width // vision.heads,
            "mlp_ratio": vision.mlp_ratio,
        }
        sizes |= _extras(vision) if kind == "openai" else _eva_keys(vision)
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


def _eva_keys(vision: TowerConfig) -> dict[str, Any]:
    rope = {"rope": vision.rope, "pt_hw_seq_len": vision.rope_grid, "intp_freq": True}
    return rope | {"naiveswiglu": vision.gated, "subln": vision.sub_norm}


def _extras(tower: TowerConfig) -> dict[str, Any]:
    extras = {}
    if tower.activation == "gelu_tanh":
        extras["act_kwargs"] = {"approximate": "tanh"}
    if tower.eps != TowerConfig.eps:
        extras["norm_kwargs"] = {"eps": tower.eps}
    return extras
