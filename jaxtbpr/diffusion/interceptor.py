"""What the Flax classes compute otherwise than the PyTorch classes of the published weights.

`nn.intercept_methods(Interceptor(...))` replaces the call of each layer in `_REPLACEMENTS` by one
of `layers`, `convolution` or `core.attention`: group count, epsilon and GELU of the UNet, odd
sides, half precision, attention. Letters: `B` batch, `H`, `W` sides, `C` channels.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from jaxtbpr.core.attention import attention
from jaxtbpr.diffusion import convolution, layers
from jaxtbpr.diffusion.control import Controlled, Layer
from jaxtbpr.diffusion.flax_classes import (
    attention_flax,
    embeddings_flax,
    modeling_flax_clip,
    resnet_flax,
    vae_flax,
)


@dataclasses.dataclass(frozen=True)
class Interceptor:
    """An interceptor for `nn.intercept_methods`, with the settings of the replaced layers.

    groups, eps: of the UNet's GroupNorms; None: as the module has them. size: the sides of the
    UNet's input; levels: its number of resolutions, 0 in the other networks. controlled: computes
    the UNet's attention; None: plain attention.
    """

    groups: int | None = None
    eps: float | None = None
    size: tuple[int, int] = (0, 0)
    levels: int = 0
    controlled: Controlled | None = None

    def larger(self, path: tuple[str, ...], size: tuple[int, int]) -> tuple[int, int]:
        """The sides that the upsampling layer at `path` enlarges `size` to.

        In the UNet those of the next level's skip tensors, which may be odd.
        """
        if not self.levels:
            return 2 * size[0], 2 * size[1]
        return self._size_at(self.levels - 2 - _number(path[0]))

    def layer(self, path: tuple[str, ...], heads: int, before: int) -> Layer:
        """The attention layer at `path`. before: number of attention layers that ran before it."""
        level = self.levels - 1
        if not path[0].startswith("mid"):
            number = _number(path[0])
            level = number if path[0].startswith("down") else level - number
        block = before // 2  # each has one to itself and one to the text
        return Layer(path, block, path[-1] == "attn2", self._size_at(level), heads)

    def _size_at(self, level: int) -> tuple[int, int]:
        return tuple(-(-side // 2**level) for side in self.size)  # each halves, rounding up

    def __call__(self, call_next, args, kwargs, context):
        replacement = _REPLACEMENTS.get(type(context.module))
        if replacement is None or context.method_name != "__call__":
            return call_next(*args, **kwargs)
        return replacement(self, context.module, *args, **kwargs)


def _number(name: str) -> int:
    """Of "up_blocks_2": 2."""
    return int(name.rpartition("_")[2])


def _group_norm(interceptor, module, x):
    """GroupNorm with the config's number of groups; Flax's UNet always has 32."""
    scale, bias = _scale_and_bias(module, x)
    eps = module.epsilon if interceptor.eps is None else interceptor.eps
    if isinstance(module.parent, attention_flax.FlaxTransformer2DModel):
        eps = 1e-6  # of PyTorch's spatial transformer, whatever the config says
    return layers.group_norm(
        x, scale, bias, groups=interceptor.groups or module.num_groups, eps=eps
    )


def _layer_norm(interceptor, module, x):
    """LayerNorm by the two-pass formula; Flax's one-pass formula cancels digits."""
    del interceptor
    scale, bias = _scale_and_bias(module, x)
    return layers.layer_norm(x, scale, bias, eps=module.epsilon).astype(module.dtype)


def _scale_and_bias(module, x):
    shape = x.shape[-1:]
    return (
        module.param("scale", module.scale_init, shape, module.param_dtype),
        module.param("bias", module.bias_init, shape, module.param_dtype),
    )


def _conv(interceptor, module, x):
    """A convolution, of the enlarged image where it is part of an upsampling layer."""
    shape = (*module.kernel_size, x.shape[-1], module.features)
    kernel = module.param("kernel", module.kernel_init, shape, module.param_dtype)
    bias = module.param("bias", module.bias_init, shape[-1:], module.param_dtype)
    x, kernel, bias = (one.astype(module.dtype) for one in (x, kernel, bias))
    if type(module.parent) in _UPSAMPLING:
        size = interceptor.larger(module.path, x.shape[1:3])
        return convolution.upsample_and_convolve(x, kernel, size) + bias
    return convolution.convolve(x, kernel, module.strides, module.padding) + bias


def _upsample(interceptor, module, x):
    del interceptor
    return module.conv(x)  # see `_conv`


def _geglu(interceptor, module, x, deterministic=True):
    """h * gelu(g) with the exact GELU; Flax's is the tanh approximation."""
    del interceptor, deterministic
    h, g = jnp.split(module.proj(x), 2, axis=-1)
    return h * nn.gelu(g, approximate=False)


def _unet_attention(interceptor, module, x, context=None, deterministic=True):
    del deterministic
    context = x if context is None else context
    q, k, v = (
        states.reshape(*states.shape[:2], module.heads, -1)
        for states in (module.query(x), module.key(context), module.value(context))
    )
    if (controlled := interceptor.controlled) is None:
        h = attention(q, k, v)
    else:
        layer = interceptor.layer(module.path, module.heads, len(controlled.layers))
        h = controlled.attend(layer, q, k, v)
    return module.proj_attn(h.reshape(*h.shape[:2], -1))


def _vae_attention(interceptor, module, x):
    """Attention over all positions of [B, H, W, C], in one head, and the residual."""
    del interceptor
    states = module.group_norm(x).reshape(len(x), -1, x.shape[-1])
    q, k, v = (part(states)[:, :, None] for part in (module.query, module.key, module.value))
    return x + module.proj_attn(attention(q, k, v)[:, :, 0]).reshape(x.shape)


def _text_attention(interceptor, module, hidden_states, **_):
    """Causal attention; no other mask, since padding is read like any token."""
    del interceptor
    q, k, v = (
        module._split_heads(part(hidden_states))
        for part in (module.q_proj, module.k_proj, module.v_proj)
    )
    h = attention(q, k, v, causal=True)
    return (module.out_proj(h.reshape(*h.shape[:2], -1)),)


def _timesteps(interceptor, module, timesteps):
    del interceptor
    return layers.timestep_features(
        timesteps, module.dim, cosine_first=module.flip_sin_to_cos, shift=module.freq_shift
    )


_UPSAMPLING = (resnet_flax.FlaxUpsample2D, vae_flax.FlaxUpsample2D)
_REPLACEMENTS = {
    nn.Conv: _conv,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    attention_flax.FlaxGEGLU: _geglu,
    attention_flax.FlaxAttention: _unet_attention,
    embeddings_flax.FlaxTimesteps: _timesteps,
    modeling_flax_clip.FlaxCLIPAttention: _text_attention,
    vae_flax.FlaxAttentionBlock: _vae_attention,
    **dict.fromkeys(_UPSAMPLING, _upsample),
}
