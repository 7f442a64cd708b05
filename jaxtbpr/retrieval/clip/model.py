"""CLIP in flax.linen: a vision and a text transformer that meet in one embedding space.

One family holds OpenAI's CLIP (Radford et al., ICML 2021, arXiv:2103.00020), EVA02-CLIP (Sun et
al., arXiv:2303.15389) and small models of our own, for images of any aspect; `published` has the
sizes of the known ones. Letters: `B` batch, `L` tokens, `W` tower width, `D` embedding.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtbpr.core.dtypes import widen
from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.clip.transformer import (
    REMAT,
    Dtype,
    TowerConfig,
    Transformer,
    dense,
    layer_norm,
    rope_table,
)

# Mean and deviation of the colours that a model expects, of 1. ImageNet's are what SynTBPR and
# TBPS-CLIP train with, whatever the checkpoint had (released code of arXiv:2503.22171).
PIXELS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": None,  # for images that are normalised already
}
Moments = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each colour
Pixels = str | Moments  # a row of PIXELS, or its moments

# What the vision tower's learned positions start as, given grid and width; CLIP's are "normal".
# From sines a small model learns sooner where to look.
POSITIONS = {
    "normal": lambda grid, width: nn.initializers.normal(width**-0.5),
    "sines": lambda grid, width: lambda key, shape: sine_positions(grid, width),
}

# How parameters (and the optimizer's moments of them) are split; see core/mesh.py. Parameters of
# scanned blocks have the layer as their first axis.
_WIDE = r"(attn_[qkv]|mlp_in|mlp_gate|words)/kernel"  # [W, W], [W, 4W]
_NARROW = r"(attn_out|mlp_out)/kernel"  # [W, W], [4W, W]
SHARDING = (
    (r".*/token_embedding/embedding", P("fsdp", None)),  # [vocabulary, W]
    (r".*/positional_embedding", P(None, "fsdp")),  # [L, W]
    (rf".*/blocks/{_WIDE}", P(None, None, "fsdp")),
    (rf".*/blocks/{_NARROW}", P(None, "fsdp", None)),
    (rf".*/{_WIDE}", P(None, "fsdp")),
    (rf".*/{_NARROW}", P("fsdp", None)),
    (r".*/(proj|proj_\d|projection)/kernel", P("fsdp", None)),
    (r".*", P()),  # biases, norms, scales: every device has a copy
)


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Everything that decides the shapes of a model; written to model.json.

    image_size: (height, width) in pixels; patch_size: side of a square patch. What is left at the
      right and lower edge, too little for a patch, is not seen.
    stem: "patch" is CLIP's one linear map per patch; "hierarchical" is the hMLP stem of Touvron
      et al., ECCV 2022, arXiv:2203.09795: 4x4 pixels, then 2x2 joins up to the patch.
    text_length, vocab_size: of the token ids [B, L]; embed_dim: D.
    pre_norm: LayerNorm before the first block of the vision tower (EVA02 has none).
    stem_bias, head_bias: biases of the patch stem and of the image projection (EVA02's).
    pixels: how colours are normalised, one of PIXELS or ((mean, 3 colours), (deviation, 3)).
    positions: what those of the patches start as, one of POSITIONS; they are learned either way.
    dtype: of the computation; parameters are always float32. scan, remat: see `Transformer`.
    """

    image_size: tuple[int, int]
    patch_size: int
    stem: str
    vision: TowerConfig
    text: TowerConfig
    text_length: int
    vocab_size: int
    embed_dim: int
    pre_norm: bool = True
    stem_bias: bool = False
    head_bias: bool = False
    pixels: Pixels = "imagenet"
    positions: str = "normal"
    dtype: str = "float32"
    scan: bool = False
    remat: str = "none"

    def __post_init__(self):
        height, width = self.image_size
        if min(self.image_size) < self.patch_size:
            raise InputError(
                f"images of {height}x{width} pixels have no patch of {self.patch_size}; change "
                "image_size or patch_size."
            )
        if self.stem == "hierarchical" and (
            self.patch_size < 4 or self.patch_size & (self.patch_size - 1)
        ):
            raise InputError(
                f"stem='hierarchical' needs a patch of 4, 8, 16 or 32, not {self.patch_size}."
            )
        for name, known in (("pixels", PIXELS), ("positions", POSITIONS), ("remat", REMAT)):
            if isinstance(self.pixels, tuple) and name == "pixels":
                _check_moments(self.pixels)
            elif getattr(self, name) not in known:
                raise InputError(
                    f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}."
                )

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClipConfig":
        """Returns the config that `to_dict` gave."""
        towers = {name: TowerConfig(**values[name]) for name in ("vision", "text")}
        values = values | towers | {"image_size": tuple(values["image_size"])}
        if isinstance(values.get("pixels"), list):
            values["pixels"] = tuple(map(tuple, values["pixels"]))
        return cls(**values)


class Clip(nn.Module):
    """Both towers and the logit scale.

    Call with uint8 or float images [B, H, W, 3] in 0..255 and token ids int32 [B, L]; returns
    float32 (image features [B, D], text features [B, D], logit scale parameter []). The features
    are not normalised; the scale of the logits is exp of the parameter.
    """

    config: ClipConfig

    def setup(self):
        self.image = VisionTower(self.config)
        self.text = TextTower(self.config)
        init = nn.initializers.constant(math.log(1 / 0.07))
        self.logit_scale = self.param("logit_scale", init, ())

    def __call__(self, images, tokens):
        return self.encode_image(images), self.encode_text(tokens), self.logit_scale

    def encode_image(self, images, *, every_token=False):
        """Returns the image features float32 [B, D] of images [B, H, W, 3] in 0..255.

        every_token: those of the class token and all patches, [B, 1 + patches, D].
        """
        return self.image(images, every_token)

    def encode_text(self, tokens, *, every_token=False):
        """Returns the text features float32 [B, D] of token ids int32 [B, L].

        every_token: those of all tokens, [B, L, D].
        """
        return self.text(tokens, every_token)


def init_params(model: Clip, key: jax.Array) -> Any:
    """Returns new parameters, a tree of float32 arrays; run it under jax.jit or eval_shape."""
    images = jnp.zeros((1, *model.config.image_size, 3), jnp.uint8)
    tokens = jnp.zeros((1, model.config.text_length), jnp.int32)
    return model.init(key, images, tokens)["params"]


class VisionTower(nn.Module):
    """Patches, a class token, position embedding, transformer, projection of the class token."""

    config: ClipConfig

    @nn.compact
    def __call__(self, images, every_token=False):
        config, dtype = self.config, self.config.dtype
        x, rope = self._embed(images), None
        if config.vision.rope:
            channels = config.vision.width // config.vision.heads
            rope = rope_table(config.grid, channels, config.vision.rope_grid)
        pooled = None if every_token else jnp.zeros(len(x), jnp.int32)
        x = _transformer(config, config.vision, causal=False)(x, pooled, rope)
        x = layer_norm(config.vision.eps, dtype, "ln_post")(x)
        return _project(config, config.vision.width, x, every_token, config.head_bias)

    def _embed(self, images):
        """The tokens [B, 1 + patches, W] that the first block is given."""
        config, width, dtype = self.config, self.config.vision.width, self.config.dtype
        rows, columns = (side * config.patch_size for side in config.grid)
        pixels = normalise_pixels(images[:, :rows, :columns], config.pixels).astype(dtype)
        if config.stem == "hierarchical":
            x = HierarchicalStem(width, config.patch_size, dtype, name="stem")(pixels)
        else:
            x = PatchStem(width, config.patch_size, config.stem_bias, dtype, name="stem")(pixels)
        x = x.reshape(x.shape[0], -1, width)
        # EVA's class token has its published shape, by which it has weight decay and OpenAI's not.
        shape = (width,) if config.pre_norm else (1, 1, width)
        token = self.param("class_embedding", nn.initializers.normal(width**-0.5), shape)
        x = jnp.concatenate([jnp.broadcast_to(token.astype(dtype), (len(x), 1, width)), x], axis=1)
        positions = POSITIONS[config.positions](config.grid, width)
        x = x + self.param("positional_embedding", positions, x.shape[1:]).astype(dtype)
        x = layer_norm(config.vision.eps, dtype, "ln_pre")(x) if config.pre_norm else x
        self.sow("intermediates", "embedded", x)
        return x


class TextTower(nn.Module):
    """Token and position embedding, causal transformer, projection of the end token."""

    config: ClipConfig

    @nn.compact
    def __call__(self, tokens, every_token=False):
        config, width, dtype = self.config, self.config.text.width, self.config.dtype
        table = nn.Embed(
            config.vocab_size,
            width,
            embedding_init=nn.initializers.normal(0.02),
            dtype=dtype,
            name="token_embedding",
        )
        shape, init = (config.text_length, width), nn.initializers.normal(0.01)
        x = table(tokens) + self.param("positional_embedding", init, shape).astype(dtype)
        # The end token has the greatest id, so argmax finds it, the first one if there are more.
        pooled = None if every_token else jnp.argmax(tokens, axis=1).astype(jnp.int32)
        x = _transformer(config, config.text, causal=True)(x, pooled)
        x = layer_norm(config.text.eps, dtype, "ln_final")(x)
        return _project(config, width, x, every_token)


def _transformer(config: ClipConfig, tower: TowerConfig, causal: bool) -> Transformer:
    return Transformer(
        tower, causal, config.dtype, scan=config.scan, remat=config.remat, name="transformer"
    )


def _project(config: ClipConfig, width: int, x, every_token: bool, use_bias: bool = False):
    """Projects tokens [B, L, W] to the embedding, float32 at least; L = 1 becomes [B, D]."""
    x = dense(config.embed_dim, width**-0.5, config.dtype, "projection", use_bias)(x)
    x = widen(x)
    return x if every_token else x[:, 0]


class PatchStem(nn.Module):
    """One linear map per patch: [B, H, W, 3] -> [B, H/p, W/p, width]."""

    width: int
    patch_size: int
    use_bias: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        x = space_to_depth(x, self.patch_size)
        return dense(self.width, x.shape[-1] ** -0.5, self.dtype, "proj", self.use_bias)(x)


class HierarchicalStem(nn.Module):
    """Maps 4x4 pixels, then joins 2x2 neighbours until a patch is one token (hMLP).

    [B, H, W, 3] -> [B, H/p, W/p, width]; each join doubles the channels, and there are
    no norms between them, which would cost more than the products. Patches never see each other,
    as in a plain stem, and CPUs run products faster than small convolutions.
    """

    width: int
    patch_size: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        joins = int(math.log2(self.patch_size)) - 2
        for n in range(joins + 1):
            x = space_to_depth(x, 2 if n else 4)
            x = nn.gelu(x) if n else x
            std = x.shape[-1] ** -0.5
            x = dense(self.width >> (joins - n), std, self.dtype, f"proj_{n}")(x)
        return x


def space_to_depth(x: jax.Array, side: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/side, W/side, side * side * C], each square row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(
        batch, height // side, width // side, side * side * channels
    )


def sine_positions(grid: tuple[int, int], width: int) -> jax.Array:
    """Positions float32 [1 + rows * columns, width] by sines of row and column; token 0 has none.

    A quarter of the channels each: sin and cos of the row, sin and cos of the column, with
    frequencies from 1 down to 1/10000; what is left over is 0. Chen et al. (MoCo v3), ICCV 2021,
    arXiv:2104.02057.
    """
    frequencies = 10000.0 ** -np.linspace(0, 1, width // 4)
    rows, columns = (np.outer(np.arange(side), frequencies) for side in grid)
    rows, columns = np.broadcast_arrays(rows[:, None], columns[None, :])
    parts = [f(angles) for angles in (rows, columns) for f in (np.sin, np.cos)]
    table = np.concatenate(parts, axis=2).reshape(-1, 4 * (width // 4))
    return jnp.asarray(np.pad(table, ((1, 0), (0, width % 4))), jnp.float32)


def normalise_pixels(images: jax.Array, pixels: Pixels) -> jax.Array:
    """Maps 0..255 to about mean 0 and deviation 1, as `pixels` says; float32 at least."""
    images = widen(images)
    if pixels == "none":
        return images
    mean, std = pixel_moments(pixels)
    return (images - 255 * jnp.array(mean)) / (255 * jnp.array(std))


def pixel_moments(pixels: Pixels) -> Moments:
    """(mean, deviation) of colours of 0..1 that `pixels` stands for."""
    if isinstance(pixels, tuple):
        return pixels
    return PIXELS[pixels] or ((0.0,) * 3, (1 / 255,) * 3)


def _check_moments(moments: tuple) -> None:
    values = [value for part in moments for value in part]
    if len(moments) != 2 or len(values) != 6 or min(moments[1]) <= 0:
        raise InputError(
            f"pixels={moments!r} must be a mean and a deviation above 0 of each of three colours."
        )
