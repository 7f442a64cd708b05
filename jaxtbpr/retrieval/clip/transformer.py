"""The transformer of all towers: CLIP's pre-norm blocks, and EVA02's variations of them.

OpenAI CLIP (Radford et al., ICML 2021, arXiv:2103.00020) and EVA02-CLIP (Fang et al.,
arXiv:2303.11331; Sun et al., arXiv:2303.15389) differ in what `TowerConfig` says and in nothing
else. Letters: `B` batch, `L` tokens, `W` width of the tower, `N` heads.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.core.attention import attention as attend
from jaxtbpr.core.dtypes import widen
from jaxtbpr.core.errors import InputError

Dtype = Any

ACTIVATIONS = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": nn.gelu,
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "silu": nn.silu,
}
# What a block keeps for the backward pass: everything, the results of its products, or its input.
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """A transformer: `width` channels in `layers` blocks of `heads` attention heads.

    mlp_ratio: hidden width of a block's MLP over `width`, the product rounded down.
    activation: one of ACTIVATIONS. gated: the MLP is a(W1 x) * (W2 x) (SwiGLU with "silu").
    sub_norm: LayerNorm also before the last product of attention and MLP (EVA02's sub-LN).
    key_bias: whether keys have a bias (EVA02's have none). rope: rotary positions of the patches,
    stretched to `rope_grid`, the patches on a side of the pre-training's images.
    eps: of every LayerNorm.
    """

    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0
    activation: str = "gelu_tanh"
    gated: bool = False
    sub_norm: bool = False
    key_bias: bool = True
    rope: bool = False
    rope_grid: int = 16
    eps: float = 1e-5

    def __post_init__(self):
        if self.width % self.heads:
            raise InputError(
                f"a tower of width {self.width} cannot have {self.heads} heads; "
                "choose a number of heads that divides the width."
            )
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"activation {self.activation!r} is unknown; use one of {', '.join(ACTIVATIONS)}."
            )
        if self.rope and self.width // self.heads % 4:
            raise InputError(
                f"rotary positions need heads of a multiple of 4 channels, not "
                f"{self.width // self.heads}; change the width or the number of heads."
            )

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP."""
        return int(self.width * self.mlp_ratio)


class Transformer(nn.Module):
    """`layers` blocks on tokens: [B, L, W] -> [B, 1, W], or [B, L, W] without `pooled`.

    pooled: int [B]. The last block then computes keys and values of all tokens but everything
    else for the token `pooled` alone, since nothing reads the others: the same result for less
    work. rope: see `rope_table`. scan: one program for all blocks but the last, whose parameters
    are stacked under the name "blocks" (see `stack_blocks`), so that compile time does not depend
    on the depth.
    """

    config: TowerConfig
    causal: bool
    dtype: Dtype
    scan: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(self, x, pooled=None, rope=None):
        last = self.config.layers - 1
        block_class = Block
        if self.remat != "none":
            block_class = nn.remat(Block, policy=REMAT[self.remat], prevent_cse=not self.scan)
        make = functools.partial(block_class, self.config, self.causal, self.dtype)
        if self.scan and last > 0:
            stack = nn.scan(
                lambda block, x, _: (block(x, None, rope), None),
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True},
                length=last,
            )
            x, _ = stack(make(name="blocks"), x, None)
        else:
            for n in range(last):
                x = make(name=f"block_{n}")(x, None, rope)
        return make(name=f"block_{last}")(x, pooled, rope)


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); initialised as CLIP is.

    [B, L, W] -> [B, L, W]; with `pooled` (int [B]) only that token of each row, [B, 1, W].
    """

    config: TowerConfig
    causal: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x, pooled=None, rope=None):
        config, norm = self.config, functools.partial(layer_norm, self.config.eps, self.dtype)
        residual_std = config.width**-0.5 * (2 * config.layers) ** -0.5
        h = norm("ln_1")(x)
        k, v = self._heads("attn_k", h, config.key_bias), self._heads("attn_v", h)
        if pooled is not None:
            x, h = take_token(x, pooled), take_token(h, pooled)
        q = self._heads("attn_q", h)
        if rope is not None:
            q, k = rotate(q, rope, pooled), rotate(k, rope)
        h = attention(q, k, v, causal=self.causal, pooled=pooled)
        h = norm("attn_ln")(h) if config.sub_norm else h
        x = x + dense(config.width, residual_std, self.dtype, "attn_out")(h)
        h = self._hidden(norm("ln_2")(x))
        h = norm("mlp_ln")(h) if config.sub_norm else h
        x = x + dense(config.width, residual_std, self.dtype, "mlp_out")(h)
        self.sow("intermediates", "out", x)
        return x

    def _heads(self, name, h, use_bias=True):
        width, heads = self.config.width, self.config.heads
        h = dense(width, width**-0.5, self.dtype, name, use_bias)(h)
        return h.reshape(*h.shape[:2], heads, width // heads)

    def _hidden(self, h):
        config = self.config
        wide = functools.partial(dense, config.hidden, (2 * config.width) ** -0.5, self.dtype)
        activation, value = ACTIVATIONS[config.activation], wide("mlp_in")(h)
        return activation(wide("mlp_gate")(h)) * value if config.gated else activation(value)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    causal: bool = False,
    pooled: jax.Array | None = None,
) -> jax.Array:
    """Multi-head attention: q [B, Q, N, W/N], k and v [B, L, N, W/N] -> [B, Q, W].

    causal: a token sees itself and those before it. pooled: the positions int32 [B] of the
    queries where each row has but one (Q = 1). The softmax is taken in float32 at least.
    """
    kv_lengths = pooled + 1 if causal and pooled is not None else None
    h = attend(q, k, v, causal=causal and pooled is None, kv_lengths=kv_lengths)
    return h.reshape(*h.shape[:2], -1)


def rope_table(
    grid: tuple[int, int], channels: int, stretched: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """EVA02's rotary positions: (cos, sin), each float32 [1 + rows * columns, channels].

    grid: (rows, columns) of patches; channels: of a head. The first half of the channels turns
    with the row, the second with the column, by frequencies 10000^(-4j / channels), each on two
    neighbours; rows and columns are stretched to 0..`stretched`. Token 0 is the class token, which
    is not turned. (The published code knows square grids only.)
    """
    frequencies = 10000.0 ** (-4 * np.arange(channels // 4) / channels)
    rows, columns = (
        np.repeat(np.outer(np.arange(side) / side * stretched, frequencies), 2, axis=1)
        for side in grid
    )
    rows, columns = np.broadcast_arrays(rows[:, None], columns[None, :])
    angles = np.concatenate([rows, columns], axis=2).reshape(-1, channels)
    angles = np.concatenate([np.zeros((1, channels)), angles])
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x: jax.Array, table, positions: jax.Array | None = None) -> jax.Array:
    """Turns neighbouring channels of [B, L, N, C] by `table`: (a, b) -> a cos - b sin, ...

    positions: int [B], the place of the one token that each row has; None: all in order.
    """
    cos, sin = (jnp.asarray(part)[None, :, None] for part in table)
    if positions is not None:
        cos, sin = (part[0, positions][:, None] for part in (cos, sin))
    wide = widen(x)
    pairs = wide.reshape(*x.shape[:-1], -1, 2)
    turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)
    return (wide * cos + turned * sin).astype(x.dtype)


def take_token(x: jax.Array, index: jax.Array) -> jax.Array:
    """Returns token index[b] of each row b: [B, L, W] -> [B, 1, W]."""
    return jnp.take_along_axis(x, index[:, None, None], axis=1)


def layer_norm(eps: float, dtype: Dtype, name: str) -> nn.LayerNorm:
    """LayerNorm whose statistics are taken in float32 at least, by the two-pass formula."""
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def dense(features: int, std: float, dtype: Dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """A linear layer whose weights start at deviation `std`."""
    init = nn.initializers.normal(std)
    return nn.Dense(features, use_bias=use_bias, kernel_init=init, dtype=dtype, name=name)


# --- scanned and unscanned names -----------------------------------------------------------------


def with_scan(params: Any, scan: bool) -> Any:
    """The parameters of both towers with scanned blocks or without, whichever they had."""
    change = stack_blocks if scan else unstack_blocks
    towers = {
        name: dict(params[name]) | {"transformer": change(dict(params[name]["transformer"]))}
        for name in ("image", "text")
    }
    return dict(params) | towers


def stack_blocks(tower: dict[str, Any]) -> dict[str, Any]:
    """{"block_0": ..., "block_n": ...} -> {"blocks": all but the last, stacked; "block_n": ...}."""
    last = len(tower) - 1
    if last < 1 or "blocks" in tower:
        return tower
    blocks = [tower[f"block_{n}"] for n in range(last)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
    return {"blocks": stacked, f"block_{last}": tower[f"block_{last}"]}


def unstack_blocks(tower: dict[str, Any]) -> dict[str, Any]:
    """Undoes `stack_blocks`."""
    if "blocks" not in tower:
        return tower
    tower = dict(tower)
    stacked = tower.pop("blocks")
    length = len(jax.tree.leaves(stacked)[0])
    return {
        f"block_{n}": jax.tree.map(lambda leaf, n=n: leaf[n], stacked) for n in range(length)
    } | tower
