"""How published checkpoints name and lay out the parameters of the towers.

A format is a list of `Tensor`s, each one array of the checkpoint and the parameters of ours that
it holds; it serves both directions. Ours are paths such as "image/transformer/block_0/ln_1/bias",
without scanned blocks.
"""

import dataclasses
from collections.abc import Iterator

from jaxtbpr.core.tensors import FUSED, FUSED_BIAS, LINEAR, Layout, Tensor
from jaxtbpr.retrieval.clip.model import ClipConfig


def _read_patches(kernel):
    """Convolution [W, 3, p, p] -> linear map of a patch's pixels, row by row, [p * p * 3, W]."""
    return [kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))]


def _write_patches(arrays):
    (kernel,) = arrays
    side = round((len(kernel) / 3) ** 0.5)
    return kernel.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


PATCHES = Layout(_read_patches, _write_patches, axes=4)
ROWS = Layout(lambda x: [x[0]], lambda arrays: arrays[0][None], axes=3)  # [1, N, W]
SCALAR = Layout(lambda x: [x.reshape(()) if x.size == 1 else x], lambda arrays: arrays[0])


def tensors(kind: str, config: ClipConfig, text_prefix: str = "") -> list[Tensor]:
    """Returns every tensor of a checkpoint in format `kind`, one of FORMATS.

    text_prefix: of the text tower's names in OpenAI's format ("" in their own files).
    """
    return [Tensor("logit_scale", ("logit_scale",), SCALAR), *FORMATS[kind](config, text_prefix)]


# --- parts that formats share --------------------------------------------------------------------


def _linear(theirs: str, ours: str, bias: bool = True) -> Iterator[Tensor]:
    yield Tensor(f"{theirs}.weight", (f"{ours}/kernel",), LINEAR)
    if bias:
        yield Tensor(f"{theirs}.bias", (f"{ours}/bias",))


def _norm(theirs: str, ours: str) -> Iterator[Tensor]:
    yield Tensor(f"{theirs}.weight", (f"{ours}/scale",))
    yield Tensor(f"{theirs}.bias", (f"{ours}/bias",))


def _blocks(tower: str, layers: int) -> Iterator[tuple[int, str]]:
    for n in range(layers):
        yield n, f"{tower}/transformer/block_{n}"


# --- OpenAI, and open_clip's own towers -----------------------------------------------------------


def _openai(config: ClipConfig, text_prefix: str) -> Iterator[Tensor]:
    yield Tensor("visual.conv1.weight", ("image/stem/proj/kernel",), PATCHES)
    yield Tensor("visual.class_embedding", ("image/class_embedding",))
    yield Tensor("visual.positional_embedding", ("image/positional_embedding",))
    yield from _norm("visual.ln_pre", "image/ln_pre")
    yield from residual_blocks("visual.", "image", config.vision.layers)
    yield from _norm("visual.ln_post", "image/ln_post")
    yield Tensor("visual.proj", ("image/projection/kernel",))
    yield from _openai_text(config, text_prefix)


def _openai_text(config: ClipConfig, prefix: str) -> Iterator[Tensor]:
    yield Tensor(f"{prefix}token_embedding.weight", ("text/token_embedding/embedding",))
    yield Tensor(f"{prefix}positional_embedding", ("text/positional_embedding",))
    yield from residual_blocks(prefix, "text", config.text.layers)
    yield from _norm(f"{prefix}ln_final", "text/ln_final")
    yield Tensor(f"{prefix}text_projection", ("text/projection/kernel",))


def residual_blocks(prefix: str, tower: str, layers: int) -> Iterator[Tensor]:
    """The tensors of `layers` blocks that OpenAI's code has made."""
    for n, ours in _blocks(tower, layers):
        theirs = f"{prefix}transformer.resblocks.{n}"
        qkv = [f"{ours}/attn_{letter}" for letter in "qkv"]
        yield from _norm(f"{theirs}.ln_1", f"{ours}/ln_1")
        yield Tensor(f"{theirs}.attn.in_proj_weight", tuple(f"{x}/kernel" for x in qkv), FUSED)
        yield Tensor(f"{theirs}.attn.in_proj_bias", tuple(f"{x}/bias" for x in qkv), FUSED_BIAS)
        yield from _linear(f"{theirs}.attn.out_proj", f"{ours}/attn_out")
        yield from _norm(f"{theirs}.ln_2", f"{ours}/ln_2")
        yield from _linear(f"{theirs}.mlp.c_fc", f"{ours}/mlp_in")
        yield from _linear(f"{theirs}.mlp.c_proj", f"{ours}/mlp_out")


# --- EVA02-CLIP, as its authors and as timm name it -----------------------------------------------


@dataclasses.dataclass(frozen=True)
class _EvaNames:
    trunk: str
    query_bias: str
    value_bias: str
    attn_norm: str
    gate: str
    value: str
    mlp_norm: str
    out: str


_EVA = _EvaNames("visual.", "q_bias", "v_bias", "inner_attn_ln", "w1", "w2", "ffn_ln", "w3")
_TIMM = _EvaNames(
    "visual.trunk.", "q_proj.bias", "v_proj.bias", "norm", "fc1_g", "fc1_x", "norm", "fc2"
)


def _eva(config: ClipConfig, text_prefix: str, names: _EvaNames = _EVA) -> Iterator[Tensor]:
    trunk = names.trunk
    yield Tensor(f"{trunk}patch_embed.proj.weight", ("image/stem/proj/kernel",), PATCHES)
    yield Tensor(f"{trunk}patch_embed.proj.bias", ("image/stem/proj/bias",))
    yield Tensor(f"{trunk}cls_token", ("image/class_embedding",))
    yield Tensor(f"{trunk}pos_embed", ("image/positional_embedding",), ROWS)
    for n, ours in _blocks("image", config.vision.layers):
        yield from _eva_block(config, f"{trunk}blocks.{n}", ours, names)
    yield from _norm(f"{trunk}norm", "image/ln_post")
    yield from _linear(f"{trunk}head", "image/projection")
    yield from _openai_text(config, text_prefix)


def _eva_block(config: ClipConfig, theirs: str, ours: str, names: _EvaNames) -> Iterator[Tensor]:
    tower, attn, mlp = config.vision, f"{theirs}.attn", f"{theirs}.mlp"
    yield from _norm(f"{theirs}.norm1", f"{ours}/ln_1")
    for letter in "qkv":
        yield from _linear(f"{attn}.{letter}_proj", f"{ours}/attn_{letter}", bias=False)
    yield Tensor(f"{attn}.{names.query_bias}", (f"{ours}/attn_q/bias",))
    yield Tensor(f"{attn}.{names.value_bias}", (f"{ours}/attn_v/bias",))
    yield from _linear(f"{attn}.proj", f"{ours}/attn_out")
    yield from _norm(f"{theirs}.norm2", f"{ours}/ln_2")
    if tower.gated:
        yield from _linear(f"{mlp}.{names.gate}", f"{ours}/mlp_gate")
        yield from _linear(f"{mlp}.{names.value}", f"{ours}/mlp_in")
        yield from _linear(f"{mlp}.{names.out}", f"{ours}/mlp_out")
    else:
        yield from _linear(f"{mlp}.fc1", f"{ours}/mlp_in")
        yield from _linear(f"{mlp}.fc2", f"{ours}/mlp_out")
    if tower.sub_norm:
        yield from _norm(f"{attn}.{names.attn_norm}", f"{ours}/attn_ln")
        yield from _norm(f"{mlp}.{names.mlp_norm}", f"{ours}/mlp_ln")


def _timm(config: ClipConfig, text_prefix: str) -> Iterator[Tensor]:
    return _eva(config, text_prefix, _TIMM)


# --- Hugging Face's CLIPModel ---------------------------------------------------------------------


def _huggingface(config: ClipConfig, text_prefix: str) -> Iterator[Tensor]:
    del text_prefix
    vision, text = "vision_model", "text_model"
    embeddings = f"{vision}.embeddings"
    yield Tensor(f"{embeddings}.patch_embedding.weight", ("image/stem/proj/kernel",), PATCHES)
    yield Tensor(f"{embeddings}.class_embedding", ("image/class_embedding",))
    yield Tensor(f"{embeddings}.position_embedding.weight", ("image/positional_embedding",))
    yield from _norm(f"{vision}.pre_layrnorm", "image/ln_pre")  # their spelling
    yield from _encoder_layers(vision, "image", config.vision.layers)
    yield from _norm(f"{vision}.post_layernorm", "image/ln_post")
    yield from _linear("visual_projection", "image/projection", bias=False)
    embeddings = f"{text}.embeddings"
    yield Tensor(f"{embeddings}.token_embedding.weight", ("text/token_embedding/embedding",))
    yield Tensor(f"{embeddings}.position_embedding.weight", ("text/positional_embedding",))
    yield from _encoder_layers(text, "text", config.text.layers)
    yield from _norm(f"{text}.final_layer_norm", "text/ln_final")
    yield from _linear("text_projection", "text/projection", bias=False)


def _encoder_layers(prefix: str, tower: str, layers: int) -> Iterator[Tensor]:
    for n, ours in _blocks(tower, layers):
        theirs = f"{prefix}.encoder.layers.{n}"
        yield from _norm(f"{theirs}.layer_norm1", f"{ours}/ln_1")
        for letter in "qkv":
            yield from _linear(f"{theirs}.self_attn.{letter}_proj", f"{ours}/attn_{letter}")
        yield from _linear(f"{theirs}.self_attn.out_proj", f"{ours}/attn_out")
        yield from _norm(f"{theirs}.layer_norm2", f"{ours}/ln_2")
        yield from _linear(f"{theirs}.mlp.fc1", f"{ours}/mlp_in")
        yield from _linear(f"{theirs}.mlp.fc2", f"{ours}/mlp_out")


FORMATS = {"huggingface": _huggingface, "openai": _openai, "eva": _eva, "timm": _timm}
