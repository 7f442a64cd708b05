"""Each key of a published config is obeyed, has no effect on features, or is refused."""

import dataclasses
import functools

import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.weights import keys, sizes
from jaxtbpr.retrieval.clip.weights.open_clip import to_open_clip
from jaxtbpr.retrieval.clip.weights.sizes import to_huggingface
from tests.retrieval.test_weights import EVA, PLAIN, params_of

NEUTRAL, OBEYED, REFUSED = "neutral", "obeyed", "refused"
TIMM = "eva02_base_patch16_clip_224"
MODEL = {
    NEUTRAL: {"embed_dim": 7, "custom_text": True, "init_logit_scale": 9, "cast_dtype": "x",
              "nonscalar_logit_scale": True, "output_dict": True},
    OBEYED: {"quick_gelu": True, "vision_cfg": {"head_width": 32}, "text_cfg": {"heads": 2}},
    REFUSED: {"init_logit_bias": -10, "multimodal_cfg": {"width": 8}},
}  # fmt: skip
BLOCK = {
    NEUTRAL: {"width": 7, "mlp_ratio": 2, "output_tokens": True},
    OBEYED: {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}},
    REFUSED: {"layers": 11, "block_type": "custom", "ls_init_value": 0.1, "qk_norm": True,
              "scaled_cosine_attn": True, "scale_heads": True, "scale_attn_inner": True,
              "scale_attn": True, "scale_fc": True, "final_ln_after_pool": True,
              "a_key_of_tomorrow": 3},
}  # fmt: skip
VISION = {
    NEUTRAL: {"patch_size": 4, "patch_dropout": 0.5, "attn_pooler_queries": 9,
              "attn_pooler_heads": 9, "timm_model_pretrained": True, "timm_pool": "avg",
              "timm_proj": "linear", "timm_proj_bias": True, "timm_drop": 0.5,
              "timm_drop_path": 0.5},
    OBEYED: {"image_size": [64, 16], "head_width": 32},
    REFUSED: {"attentional_pool": True, "no_ln_pre": True, "pos_embed_type": "sin_cos_2d",
              "pool_type": "avg", "timm_model_name": TIMM, "rope": True, "subln": True},
}  # fmt: skip
TEXT = {
    NEUTRAL: {"context_length": 5, "vocab_size": 5, "hf_tokenizer_name": "x", "pad_id": 5,
              "tokenizer_kwargs": {"clean": "canonicalize"}, "eos_id": 5,
              "hf_model_pretrained": False, "hf_proj_type": "mlp", "hf_pooler_type": "cls_pooler",
              "xattn": True, "fusedLN": True, "proj": "linear", "pooler_type": "cls_pooler"},
    OBEYED: {"heads": 2},
    REFUSED: {"tokenizer_mode": "clips", "embed_cls": True, "no_causal_mask": True,
              "pool_type": "eos", "proj_bias": True, "proj_type": "none", "attn_mask": False,
              "hf_model_name": "roberta-base", "masked_language_modeling": True},
}  # fmt: skip
# Of EVA02-CLIP's vision tower, as its authors' code and as timm make it.
EVA_VISION = {
    NEUTRAL: {key: value for key, value in VISION[NEUTRAL].items()
              if key not in ("timm_pool", "timm_proj")} | {
        "width": 7, "layers": 11, "mlp_ratio": 2, "output_tokens": True, "eva_model_name": "x",
        "drop_path_rate": 0.5, "xattn": True, "fusedLN": True, "naiveswiglu": True, "subln": True,
        "qkv_bias": True, "intp_freq": True},
    OBEYED: VISION[OBEYED] | {"rope": False, "pt_hw_seq_len": 14},
    REFUSED: {key: value for key, value in BLOCK[REFUSED].items() if key != "layers"} | {
        "attentional_pool": True, "no_ln_pre": True, "pos_embed_type": "sin_cos_2d",
        "pool_type": "avg", "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3},
        "timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "", "timm_proj": "linear",
        "intp_freq": False, "postnorm": True, "global_average_pool": True},
}  # fmt: skip
HEADS = {"num_attention_heads": 2}
HF_TOWER = {
    NEUTRAL: {"hidden_size": 7, "intermediate_size": 7, "projection_dim": 7,
              "attention_dropout": 0.5, "initializer_range": 3, "initializer_factor": 3,
              "a_key_of_tomorrow": 3},
    OBEYED: HEADS | {"hidden_act": "gelu", "layer_norm_eps": 1e-3},
    REFUSED: {"num_hidden_layers": 11, "hidden_act": "relu", "pruned_heads": {"0": [0]}},
}  # fmt: skip
HF_MODEL = {
    NEUTRAL: {"projection_dim": 7, "logit_scale_init_value": 9, "initializer_factor": 3},
    OBEYED: {"vision_config": HEADS, "text_config": HEADS | {"eos_token_id": 2},
             "vision_config_dict": HEADS, "text_config_dict": HEADS | {"eos_token_id": 2}},
    REFUSED: {"model_type": "metaclip_2"},
}  # fmt: skip
HF_VISION = {
    NEUTRAL: {"patch_size": 4},
    OBEYED: {"image_size": [64, 16]},
    REFUSED: {"num_channels": 4},
}
HF_TEXT = {
    NEUTRAL: {"vocab_size": 5, "max_position_embeddings": 5, "bos_token_id": 5, "pad_token_id": 5},
    OBEYED: {},
    REFUSED: {"eos_token_id": 5},
}


def cases(kind, part, *lists):
    for verdict in (NEUTRAL, OBEYED, REFUSED):
        for key, value in {k: v for one in lists for k, v in one[verdict].items()}.items():
            yield pytest.param(kind, part, key, value, verdict, id=f"{kind}-{part}-{key}-{verdict}")


CASES = [
    *cases("openai", "", MODEL),
    *cases("openai", "vision_cfg", BLOCK, VISION),
    *cases("openai", "text_cfg", BLOCK, TEXT),
    *cases("eva", "vision_cfg", EVA_VISION),
    *cases("timm", "vision_cfg", EVA_VISION),
    *cases("huggingface", "", HF_MODEL),
    *cases("huggingface", "vision_config", HF_TOWER, HF_VISION),
    *cases("huggingface", "text_config", HF_TOWER, HF_TEXT),
]


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """Returns what gives the model's config from a file of a format and the JSON beside it."""
    folder = tmp_path_factory.mktemp("formats")

    @functools.cache
    def path(kind):
        config = EVA if kind in ("eva", "timm") else PLAIN
        weights.save_tensors(folder / f"{kind}.safetensors", params_of(config), config, kind)
        return folder / f"{kind}.safetensors"

    return lambda kind, hints: weights.open_checkpoint(path(kind), hints).config()


def hints_of(kind, part="", key="", value=None):
    """A config of that format, with one key changed."""
    one = {"num_attention_heads": 1}
    plain = {"text_config": one | {"eos_token_id": 2}, "vision_config": one}
    given = {"huggingface": plain, "openai": {"quick_gelu": False}}.get(kind, {})
    given = {name: dict(x) if isinstance(x, dict) else x for name, x in given.items()}
    if kind == "timm" and key in ("timm_pool", "timm_proj"):  # else they mean nothing
        given["vision_cfg"] = {"timm_model_name": TIMM, "timm_pool": "token", "timm_proj": None}
    if kind in ("eva", "timm"):
        given.setdefault("vision_cfg", {})["rope"] = True
    place = given.setdefault(part, {}) if part else given
    if key:
        place[key] = value
    return given


@pytest.mark.parametrize(("kind", "part", "key", "value", "verdict"), CASES)
def test_a_key_is_obeyed_neutral_or_refused(configured, kind, part, key, value, verdict):
    hints = hints_of(kind, part, key, value)
    if verdict == REFUSED:
        with pytest.raises(InputError, match=key):
            configured(kind, hints)
        return
    assert (configured(kind, hints) == configured(kind, hints_of(kind))) is (verdict == NEUTRAL)


@pytest.mark.parametrize(
    ("kind", "verdicts"), [("huggingface", keys.HUGGINGFACE), *keys.OPEN_CLIP.items()]
)
def test_every_known_key_is_a_case(kind, verdicts):
    seen = {(case.values[0], case.values[1], case.values[2]) for case in CASES}
    for part, known in verdicts.items():
        # What is said of the text and the whole of an open_clip config does not depend on kind.
        of = "openai" if part in ("", "text_cfg") and kind != "huggingface" else kind
        assert {(of, part, key) for key in known} <= seen


def test_rotary_angles_that_are_not_stretched_are_those_of_the_grid_alone(configured):
    fits = {"vision_cfg": {"rope": True, "intp_freq": False, "pt_hw_seq_len": 4}}
    assert configured("eva", fits).vision.rope_grid == 4  # a grid of 4 x 4
    with pytest.raises(InputError, match="vision_cfg.intp_freq=False"):
        configured("eva", {"vision_cfg": fits["vision_cfg"] | {"pt_hw_seq_len": 16}})


def test_a_tower_of_timm_is_one_of_those_that_are_here(configured):
    given = {"timm_pool": "token", "timm_proj": None}
    for name in (TIMM, f"hf-hub:timm/{TIMM}.merged2b"):
        configured("timm", {"vision_cfg": given | {"timm_model_name": name}})
    with pytest.raises(InputError, match="timm_pool='avg'"):  # what open_clip takes where untold
        configured("timm", {"vision_cfg": {"timm_model_name": TIMM, "timm_proj": None}})


def test_a_tokenizer_that_shortens_texts_its_own_way_is_refused(configured):
    given = {"tokenizer_kwargs": {"clean": "lower", "reduction_mask": "random"}}
    with pytest.raises(InputError, match="reduction_mask"):
        configured("openai", {"quick_gelu": True, "text_cfg": given})


@pytest.mark.parametrize("kind", ["openai", "timm", "eva", "huggingface"])
def test_the_configs_that_are_written_are_read(configured, kind):
    config = EVA if kind in ("eva", "timm") else PLAIN
    hints = to_huggingface(config) if kind == "huggingface" else to_open_clip(config, kind)
    found = configured(kind, hints)
    ratio = found.vision.mlp_ratio  # of the hidden width, which is a whole number
    same = dataclasses.replace(config.vision, mlp_ratio=ratio)
    assert found == dataclasses.replace(config, vision=same, pixels=found.pixels)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", "12"),
        ("num_attention_heads", 0),
        ("layer_norm_eps", "1e-5"),
        ("layer_norm_eps", None),
        ("num_hidden_layers", [2]),
        ("hidden_act", ["gelu"]),
    ],
)
def test_a_value_of_another_kind_is_a_sentence(key, value):
    given = {"model_type": "clip", "text_config": {}, "vision_config": {key: value}}
    shapes = {
        "vision_model.embeddings.patch_embedding.weight": (64, 3, 8, 8),
        "vision_model.embeddings.position_embedding.weight": (17, 64),
        "vision_model.encoder.layers.0.mlp.fc1.weight": (256, 64),
        "text_model.embeddings.token_embedding.weight": (49408, 64),
    }
    with pytest.raises(InputError, match=rf"its config says vision_config\.{key}="):
        sizes.infer("huggingface", shapes, "", given, "model")
