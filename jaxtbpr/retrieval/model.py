"""CLIP in flax.linen: a vision and a text transformer that meet in one embedding space.

The architecture is that of Radford et al., ICML 2021, arXiv:2103.00020 (pre-norm blocks, class
token, causal text pooled at the end token, two projections without bias, a learned logit scale),
for images of any aspect. Letters: `B` batch, `L` tokens, `W` tower width, `D` embedding.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtbpr.core.errors import UserError

# ImageNet's, as the original trains with (released code of arXiv:2503.22171).
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
Dtype = Any

# How parameters (and the optimizer's moments of them) are split; see core/mesh.py.
SHARDING = (
    (r".*/token_embedding/embedding", P("fsdp", None)),  # [vocabulary, W]
    (r".*/positional_embedding", P(None, "fsdp")),  # [L, W]
    (r".*/(attn_[qkv]|mlp_in)/kernel", P(None, "fsdp")),  # [W, W], [W, 4W]
    (r".*/(attn_out|mlp_out)/kernel", P("fsdp", None)),  # [W, W], [4W, W]
    (r".*/(proj|proj_\d|projection)/kernel", P("fsdp", None)),
    (r".*", P()),  # biases, norms, scales: every device has a copy
)


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """A transformer: `width` channels in `layers` blocks of `heads` attention heads.

    mlp_ratio: hidden width of a block's MLP over `width`.
    """

    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self):
        if self.width % self.heads:
            raise UserError(
                f"a tower of width {self.width} cannot have {self.heads} heads; "
                "choose a number of heads that divides the width."
            )


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Everything that decides the shapes of a model; written to model.json.

    image_size: (height, width) in pixels; patch: side of a square patch, which divides both.
    stem: "patch" is CLIP's one linear map per patch; "hierarchical" is the hMLP stem of Touvron
      et al., ECCV 2022, arXiv:2203.09795: 4x4 pixels, then 2x2 joins up to the patch.
    text_length, vocab_size: of the token ids [B, L]; embed_dim: D.
    dtype: of the computation; parameters are always float32.
    """

    image_size: tuple[int, int]
    patch: int
    stem: str
    vision: TowerConfig
    text: TowerConfig
    text_length: int
    vocab_size: int
    embed_dim: int
    dtype: str = "float32"

    def __post_init__(self):
        if any(side % self.patch for side in self.image_size):
            raise UserError(
                f"images of {self.image_size[0]}x{self.image_size[1]} pixels do not divide into "
                f"patches of {self.patch}; change data.image_size or model.patch."
            )
        if self.stem == "hierarchical" and (self.patch < 4 or self.patch & (self.patch - 1)):
            raise UserError(
                f"model.stem='hierarchical' needs a patch of 4, 8, 16 or 32, not {self.patch}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClipConfig":
        """Returns the config that `to_dict` gave."""
        towers = {name: TowerConfig(**values[name]) for name in ("vision", "text")}
        return cls(**values | towers | {"image_size": tuple(values["image_size"])})


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

    def encode_image(self, images):
        """Returns the image features float32 [B, D] of images [B, H, W, 3] in 0..255."""
        return self.image(images)

    def encode_text(self, tokens):
        """Returns the text features float32 [B, D] of token ids int32 [B, L]."""
        return self.text(tokens)


def init_params(model: Clip, key: jax.Array) -> Any:
    """Returns new parameters, a tree of float32 arrays; run it under jax.jit or eval_shape."""
    images = jnp.zeros((1, *model.config.image_size, 3), jnp.uint8)
    tokens = jnp.zeros((1, model.config.text_length), jnp.int32)
    return model.init(key, images, tokens)["params"]


class VisionTower(nn.Module):
    """Patches, a class token, position embedding, transformer, projection of the class token."""

    config: ClipConfig

    @nn.compact
    def __call__(self, images):
        config, width, dtype = self.config, self.config.vision.width, self.config.dtype
        stem = {"patch": PatchStem, "hierarchical": HierarchicalStem}[config.stem]
        x = stem(width, config.patch, dtype, name="stem")(normalise_pixels(images, dtype))
        x = x.reshape(x.shape[0], -1, width)
        token = self.param("class_embedding", nn.initializers.normal(width**-0.5), (width,))
        x = jnp.concatenate([jnp.broadcast_to(token.astype(dtype), (len(x), 1, width)), x], axis=1)
        x = x + position_embedding(self, x.shape[1], width, width**-0.5).astype(dtype)
        x = layer_norm(dtype, "ln_pre")(x)
        first = jnp.zeros(len(x), jnp.int32)
        x = Transformer(config.vision, causal=False, dtype=dtype, name="transformer")(x, first)
        x = layer_norm(dtype, "ln_post")(x)
        return projection(config.embed_dim, width, dtype)(x).astype(jnp.float32)


class TextTower(nn.Module):
    """Token and position embedding, causal transformer, projection of the end token."""

    config: ClipConfig

    @nn.compact
    def __call__(self, tokens):
        config, width, dtype = self.config, self.config.text.width, self.config.dtype
        table = nn.Embed(
            config.vocab_size,
            width,
            embedding_init=nn.initializers.normal(0.02),
            dtype=dtype,
            name="token_embedding",
        )
        x = table(tokens) + position_embedding(self, config.text_length, width, 0.01).astype(dtype)
        # The end token has the greatest id, so argmax finds it, the first one if there are more.
        end = jnp.argmax(tokens, axis=1)
        x = Transformer(config.text, causal=True, dtype=dtype, name="transformer")(x, end)
        x = layer_norm(dtype, "ln_final")(x)
        return projection(config.embed_dim, width, dtype)(x).astype(jnp.float32)


class Transformer(nn.Module):
    """`layers` pre-norm blocks on tokens [B, L, W], read out at one token of each row.

    The last block computes keys and values of all tokens but everything else for the token
    `pooled` (int [B]) alone, since nothing reads the others: the same result [B, W] for less work.
    """

    config: TowerConfig
    causal: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x, pooled):
        last = self.config.layers - 1
        for n in range(self.config.layers):
            block = Block(self.config, self.causal, self.dtype, name=f"block_{n}")
            x = block(x, pooled if n == last else None)
        return x[:, 0]


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); initialised as CLIP is.

    [B, L, W] -> [B, L, W]; with `pooled` (int [B]) only that token of each row, [B, 1, W].
    """

    config: TowerConfig
    causal: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x, pooled=None):
        width, hidden = self.config.width, int(self.config.width * self.config.mlp_ratio)
        residual_std = width**-0.5 * (2 * self.config.layers) ** -0.5
        h = layer_norm(self.dtype, "ln_1")(x)
        k, v = (self._heads(name, h) for name in ("attn_k", "attn_v"))
        if pooled is not None:
            x, h = take_token(x, pooled), take_token(h, pooled)
        h = attention(self._heads("attn_q", h), k, v, causal=self.causal, pooled=pooled)
        x = x + dense(width, residual_std, self.dtype, "attn_out")(h)
        h = layer_norm(self.dtype, "ln_2")(x)
        h = nn.gelu(dense(hidden, (2 * width) ** -0.5, self.dtype, "mlp_in")(h))
        return x + dense(width, residual_std, self.dtype, "mlp_out")(h)

    def _heads(self, name, h):
        width, heads = self.config.width, self.config.heads
        h = dense(width, width**-0.5, self.dtype, name)(h)
        return h.reshape(*h.shape[:2], heads, width // heads)


class PatchStem(nn.Module):
    """One linear map per patch: [B, H, W, 3] -> [B, H/patch, W/patch, width]."""

    width: int
    patch: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        x = space_to_depth(x, self.patch)
        return dense(self.width, x.shape[-1] ** -0.5, self.dtype, "proj", use_bias=False)(x)


class HierarchicalStem(nn.Module):
    """Maps 4x4 pixels, then joins 2x2 neighbours until a patch is one token (hMLP).

    [B, H, W, 3] -> [B, H/patch, W/patch, width]; each join doubles the channels, and there are
    no norms between them, which would cost more than the products. Patches never see each other,
    as in a plain stem, and CPUs run products faster than small convolutions.
    """

    width: int
    patch: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x):
        joins = int(math.log2(self.patch)) - 2
        for n in range(joins + 1):
            x = space_to_depth(x, 2 if n else 4)
            x = nn.gelu(x) if n else x
            std = x.shape[-1] ** -0.5
            x = dense(self.width >> (joins - n), std, self.dtype, f"proj_{n}")(x)
        return x


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool, pooled: jax.Array | None
) -> jax.Array:
    """Multi-head attention: q [B, Q, N, W/N], k and v [B, L, N, W/N] -> [B, Q, W].

    causal: a token sees itself and those before it. pooled: the positions int [B] of the queries
    where each row has but one (Q = 1).
    """
    seen = pooled + 1 if causal and pooled is not None else None
    causal = causal and pooled is None
    h = jax.nn.dot_product_attention(q, k, v, is_causal=causal, key_value_seq_lengths=seen)
    return h.reshape(*h.shape[:2], -1)


def take_token(x: jax.Array, index: jax.Array) -> jax.Array:
    """Returns token index[b] of each row b: [B, L, W] -> [B, 1, W]."""
    return jnp.take_along_axis(x, index[:, None, None], axis=1)


def space_to_depth(x: jax.Array, side: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/side, W/side, side * side * C], each square row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(
        batch, height // side, width // side, side * side * channels
    )


def normalise_pixels(images: jax.Array, dtype: Dtype) -> jax.Array:
    """Maps 0..255 to the mean 0 and deviation 1 of ImageNet's colours."""
    mean, std = 255 * jnp.array(PIXEL_MEAN), 255 * jnp.array(PIXEL_STD)
    return ((images.astype(jnp.float32) - mean) / std).astype(dtype)


def position_embedding(module: nn.Module, length: int, width: int, std: float) -> jax.Array:
    """Declares the learned positions [length, width] of a tower."""
    return module.param("positional_embedding", nn.initializers.normal(std), (length, width))


def layer_norm(dtype: Dtype, name: str) -> nn.LayerNorm:
    """LayerNorm with CLIP's epsilon; its statistics are taken in float32."""
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name=name)


def dense(features: int, std: float, dtype: Dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """A linear layer whose weights start at deviation `std`."""
    init = nn.initializers.normal(std)
    return nn.Dense(features, use_bias=use_bias, kernel_init=init, dtype=dtype, name=name)


def projection(features: int, width: int, dtype: Dtype) -> nn.Dense:
    """The map from a tower into the common space; no bias, as in CLIP."""
    return dense(features, width**-0.5, dtype, "projection", use_bias=False)
