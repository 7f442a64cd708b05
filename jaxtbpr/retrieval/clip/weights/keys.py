"""What each key of a published model's config does here: obeyed, neutral or refused.

The names are the fields of CLIPVisionCfg, CLIPTextCfg and the arguments of CLIP and CustomTextCLIP
in open_clip 3.3.0, those of EVA02-CLIP's released configs, and the fields of CLIPConfig,
CLIPTextConfig and CLIPVisionConfig in transformers 5.23.
"""

from collections.abc import Mapping
from typing import Any

from jaxtbpr.core.errors import InputError

# NEUTRAL: the same features whatever it says: a size that the tensors tell, what only a training
# gives a meaning, or another way to compute or name the same. OFF: refused if it is on. A tuple:
# the values that mean the networks that are here; any other is refused.
OBEYED, NEUTRAL, OFF = "obeyed", "neutral", "off"
Verdict = str | tuple

_BLOCK = dict.fromkeys(
    ("ls_init_value", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner",
     "scale_attn", "scale_fc", "final_ln_after_pool"), OFF,
) | {
    "width": NEUTRAL, "layers": OBEYED, "mlp_ratio": NEUTRAL, "output_tokens": NEUTRAL,
    "act_kwargs": OBEYED, "norm_kwargs": OBEYED, "block_type": (None, "default"),
}  # fmt: skip
_VISION = _BLOCK | {
    "image_size": OBEYED, "patch_size": NEUTRAL, "head_width": OBEYED, "patch_dropout": NEUTRAL,
    "attentional_pool": OFF, "attn_pooler_queries": NEUTRAL, "attn_pooler_heads": NEUTRAL,
    "no_ln_pre": OFF, "pos_embed_type": ("learnable",), "pool_type": ("tok",),
    "timm_model_name": OFF, "timm_model_pretrained": NEUTRAL, "timm_pool": NEUTRAL,
    "timm_proj": NEUTRAL, "timm_proj_bias": NEUTRAL, "timm_drop": NEUTRAL,
    "timm_drop_path": NEUTRAL,
}  # fmt: skip
_EVA_VISION = _VISION | {
    "act_kwargs": OFF, "norm_kwargs": OFF,  # neither timm's tower nor EVA's own has them
    "layers": NEUTRAL, "timm_model_name": OBEYED, "timm_pool": ("token",), "timm_proj": (None, ""),
    "eva_model_name": NEUTRAL, "drop_path_rate": NEUTRAL, "xattn": NEUTRAL, "fusedLN": NEUTRAL,
    "rope": OBEYED, "pt_hw_seq_len": OBEYED, "intp_freq": OBEYED, "naiveswiglu": NEUTRAL,
    "subln": NEUTRAL, "qkv_bias": NEUTRAL, "postnorm": OFF, "global_average_pool": OFF,
}  # fmt: skip
_TEXT = _BLOCK | {
    "context_length": NEUTRAL, "vocab_size": NEUTRAL, "heads": OBEYED, "pad_id": NEUTRAL,
    "eos_id": NEUTRAL, "embed_cls": OFF, "no_causal_mask": OFF, "pool_type": ("argmax",),
    "proj_bias": OFF, "proj_type": (None, "linear"), "hf_tokenizer_name": NEUTRAL,
    "tokenizer_mode": OFF, "tokenizer_kwargs": OBEYED, "hf_model_name": OFF,
    "hf_model_pretrained": NEUTRAL, "hf_proj_type": NEUTRAL, "hf_pooler_type": NEUTRAL,
    # EVA02-CLIP's own
    "xattn": NEUTRAL, "fusedLN": NEUTRAL, "attn_mask": (True,), "proj": NEUTRAL,
    "pooler_type": NEUTRAL, "masked_language_modeling": OFF,
}  # fmt: skip
_MODEL = {
    "embed_dim": NEUTRAL, "vision_cfg": OBEYED, "text_cfg": OBEYED, "quick_gelu": OBEYED,
    "custom_text": NEUTRAL, "init_logit_scale": NEUTRAL, "init_logit_bias": OFF,
    "nonscalar_logit_scale": NEUTRAL, "cast_dtype": NEUTRAL, "output_dict": NEUTRAL,
}  # fmt: skip
# {format: {part of the config, "" for the whole: {key: verdict}}}
OPEN_CLIP = {
    kind: {"": _MODEL, "vision_cfg": vision, "text_cfg": _TEXT}
    for kind, vision in (("openai", _VISION), ("timm", _EVA_VISION), ("eva", _EVA_VISION))
}
_HF_TOWER = {
    "hidden_size": NEUTRAL, "intermediate_size": NEUTRAL, "projection_dim": NEUTRAL,
    "num_hidden_layers": OBEYED, "num_attention_heads": OBEYED, "hidden_act": OBEYED,
    "layer_norm_eps": OBEYED, "attention_dropout": NEUTRAL, "initializer_range": NEUTRAL,
    "initializer_factor": NEUTRAL, "pruned_heads": OFF,
}  # fmt: skip
HUGGINGFACE = {
    "": {
        "model_type": ("clip",), "text_config": OBEYED, "vision_config": OBEYED,
        "text_config_dict": OBEYED, "vision_config_dict": OBEYED, "projection_dim": NEUTRAL,
        "logit_scale_init_value": NEUTRAL, "initializer_factor": NEUTRAL,
    },
    "vision_config": _HF_TOWER
    | {"num_channels": (3,), "image_size": OBEYED, "patch_size": NEUTRAL},
    "text_config": _HF_TOWER
    | {
        "vocab_size": NEUTRAL, "max_position_embeddings": NEUTRAL, "eos_token_id": OBEYED,
        "bos_token_id": NEUTRAL, "pad_token_id": NEUTRAL,
    },
}  # fmt: skip
# Keys whose value is a number above 0; those after them may be left open by null.
_NUMBERS = (
    "num_attention_heads", "num_hidden_layers", "layer_norm_eps", "eos_token_id", "pt_hw_seq_len",
)  # fmt: skip
_NUMBERS_OR_NULL = ("head_width", "heads")


def refuse(
    config: Mapping[str, Any], verdicts: Mapping[str, Verdict], part: str, source: str, other: str
) -> None:
    """Raises InputError for a key of `config` that makes another network than those that are here.

    part: of the config that `config` is, "" for the whole. other: the verdict on a key without one.
    """
    for key, value in config.items():
        if not _is_of_its_kind(key, value):
            raise InputError(
                f"{source} cannot be read: its config says {f'{part}.{key}'.strip('.')}={value!r}, "
                "which is not a number greater than 0; download its config again."
            )
        verdict = verdicts.get(key, other)
        is_meant = value in verdict if isinstance(verdict, tuple) else verdict != OFF or not value
        if not is_meant:
            raise other_network(f"{part}.{key}" if part else key, value, source)


def _is_of_its_kind(key: str, value: Any) -> bool:
    if key not in _NUMBERS + _NUMBERS_OR_NULL or (value is None and key in _NUMBERS_OR_NULL):
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def other_network(key: str, value: Any, source: str) -> InputError:
    """The error of a config with `value` of `key`, which no network here supports."""
    return InputError(
        f"{source} has a network that is not supported: its config says {key}={value!r}; use "
        "another checkpoint."
    )
