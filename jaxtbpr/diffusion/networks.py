"""The three networks of Stable Diffusion as pure functions of parameters, exact to PyTorch's.

The modules are those of diffusers and transformers, the last that have Flax classes; no other
module of this project imports them. Where they compute something else than the PyTorch classes
that the published weights were trained with, the call is intercepted and computed by `layers`
(see `_REPLACEMENTS`): group count, epsilon and GELU of the UNet, odd sides, half precision,
attention.
Letters: `B` batch, `H`, `W` sides of an image, `h`, `w` of its latents, `L` tokens.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.core.attention import attention
from jaxtbpr.core.dtypes import widen
from jaxtbpr.diffusion import convolution, layers
from jaxtbpr.diffusion.control import Control, Controlled, Layer
from jaxtbpr.diffusion.sizes import Sizes, make_sizes

# Every layer says that Flax classes are deprecated, some when they are imported.
for _name in (
    "attention_flax",
    "embeddings_flax",
    "modeling_flax_utils",
    "resnet_flax",
    "unets.unet_2d_blocks_flax",
    "unets.unet_2d_condition_flax",
    "vae_flax",
):
    logging.getLogger(f"diffusers.models.{_name}").setLevel(logging.ERROR)

from diffusers.models import attention_flax, embeddings_flax, resnet_flax, vae_flax  # noqa: E402
from diffusers.models.unets.unet_2d_condition_flax import FlaxUNet2DConditionModel  # noqa: E402
from transformers import CLIPTextConfig  # noqa: E402
from transformers.models.clip import modeling_flax_clip  # noqa: E402

__all__ = ["Networks", "Sizes", "make_sizes"]

Params = Mapping[str, Any]
_NETWORKS = ("unet", "vae", "text_encoder")


@dataclasses.dataclass(frozen=True)
class Networks:
    """Text encoder, UNet and VAE of a Stable Diffusion; hashable, has no parameters of its own.

    dtype: of the products ("float32", "bfloat16"); norms, softmax and results stay float32.
    params of every method: {"unet": ..., "vae": ..., "text_encoder": ...}, only what is used must
    be there.
    """

    sizes: Sizes
    dtype: str = "float32"

    @property
    def scaling_factor(self) -> float:
        """What the VAE's latents are multiplied by before they are diffused."""
        return self.sizes.vae["scaling_factor"]

    @property
    def factor(self) -> int:
        """How many pixels of an image a latent is wide and high."""
        return 2 ** (len(self.sizes.vae["block_out_channels"]) - 1)

    def encode_text(self, params: Params, ids: jax.Array) -> jax.Array:
        """Token ids [B, L] -> the condition [B, L, D]: the last states after the final norm."""
        return self.text_outputs(params, ids)["last_hidden_state"]

    def text_outputs(self, params: Params, ids: jax.Array) -> dict[str, Any]:
        """All that the text encoder gives for ids [B, L].

        last_hidden_state [B, L, D]; hidden_states, one [B, L, D] before each layer and one after
        the last; pooler_output [B, D], the state at the end token.
        """
        longest = self.sizes.text["max_position_embeddings"]
        if ids.shape[1] > longest:
            raise ValueError(
                f"a text of {ids.shape[1]} tokens is longer than the {longest} of the text "
                "encoder; cut it."
            )
        module = _text_encoder(self.sizes.text, self.dtype)
        places = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        arguments = {"params": params["text_encoder"]}, ids, None, places
        with nn.intercept_methods(_Interceptor()):
            outputs = module.apply(*arguments, output_hidden_states=True)
        return {
            "last_hidden_state": widen(outputs.last_hidden_state),
            "hidden_states": tuple(map(widen, outputs.hidden_states)),
            "pooler_output": widen(outputs.pooler_output),
        }

    def predict(
        self, params: Params, latents: jax.Array, timesteps: jax.Array, text: jax.Array
    ) -> jax.Array:
        """What the UNet predicts (noise or velocity) for latents [B, h, w, C]: [B, h, w, C_out].

        timesteps: one number or [B], also fractional; text: [B, L, D] as of `encode_text`.
        """
        return self._predict(params, latents, timesteps, text, None)

    def predict_controlled(
        self,
        params: Params,
        control: Control,
        latents: jax.Array,
        timesteps: jax.Array,
        text: jax.Array,
        step: jax.Array | int,
        carry: Any,
    ) -> tuple[jax.Array, Any]:
        """Returns (what `predict` does, with attention by `control`; the carry after it).

        step: how many steps came before; carry: what the step before left, see `Control`. Raises
        InputError for a control that meets no layer of the UNet.
        """
        controlled = Controlled(control, step, carry)
        predicted = self._predict(params, latents, timesteps, text, controlled)
        return predicted, controlled.finish()

    def attention_layers(self, size: tuple[int, int]) -> tuple[Layer, ...]:
        """The UNet's layers of attention, in the order in which they run.

        size: sides (h, w) of the latents.
        """
        return _attention_layers(self.sizes, tuple(size))

    def encode_image(self, params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images [B, H, W, 3] in [-1, 1] -> (mean, log variance) of latents, [B, h, w, 4] each.

        The log variance is clipped to [-30, 20]; neither is multiplied by `scaling_factor`.
        """
        module = _vae(self.sizes.vae, self.dtype)
        arguments = {"params": params["vae"]}, images.transpose(0, 3, 1, 2)
        with nn.intercept_methods(_Interceptor()):
            latents = module.apply(*arguments, method=module.encode).latent_dist
        return widen(latents.mean), widen(latents.logvar)

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents [B, h, w, 4], divided by `scaling_factor` -> images [B, H, W, 3], not clipped."""
        module = _vae(self.sizes.vae, self.dtype)
        with nn.intercept_methods(_Interceptor()):
            images = module.apply({"params": params["vae"]}, latents, method=module.decode)
        return widen(images.sample.transpose(0, 2, 3, 1))

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Returns new random parameters, float32.

        Scales are 1, biases 0, embeddings have deviation 0.02, all others fan_in^-1/2.
        """
        flat = flax.traverse_util.flatten_dict(self.shapes())
        return flax.traverse_util.unflatten_dict(
            {(name, *path.split("/")): leaf for (name, path), leaf in _initial(key, flat).items()}
        )

    def shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Returns {network: {path: shape}} of all parameters, paths with slashes."""
        trees = _abstract(self.sizes)
        return {name: dict(trees[name]) for name in _NETWORKS}

    def _predict(self, params, latents, timesteps, text, controlled) -> jax.Array:
        timesteps = jnp.atleast_1d(jnp.asarray(timesteps, jnp.float32))
        module = _unet(self.sizes.unet, self.dtype)
        arguments = {"params": params["unet"]}, latents.transpose(0, 3, 1, 2), timesteps, text
        with nn.intercept_methods(self._unet_interceptor(latents.shape[1:3], controlled)):
            return widen(module.apply(*arguments).sample.transpose(0, 2, 3, 1))

    def _unet_interceptor(
        self, size: tuple[int, int], controlled: Controlled | None = None
    ) -> "_Interceptor":
        unet = self.sizes.unet
        return _Interceptor(
            groups=unet["norm_num_groups"],
            eps=unet["norm_eps"],
            size=size,
            levels=len(unet["block_out_channels"]),
            controlled=controlled,
        )


# --- modules -------------------------------------------------------------------------------------


@functools.cache
def _attention_layers(sizes: Sizes, size: tuple[int, int]) -> tuple[Layer, ...]:
    """By tracing a control that meets all."""
    controlled = Controlled(Control(), 0, ())
    jax.eval_shape(lambda: _init_unet(sizes, size, controlled))
    return tuple(controlled.layers)


@functools.cache
def _abstract(sizes: Sizes) -> dict[str, dict[str, tuple[int, ...]]]:
    """{network: {path: shape}}, by tracing the modules' own initialisation."""

    def init():
        vae, factor = sizes.vae, Networks(sizes).factor
        image = jnp.zeros((1, vae["in_channels"], factor, factor))
        ids, key = jnp.zeros((1, 1), jnp.int32), jax.random.key(0)
        variables = {"unet": _init_unet(sizes)}
        with nn.intercept_methods(_Interceptor()):
            variables["vae"] = _vae(vae, "float32").init(key, image)
            variables["text_encoder"] = _text_encoder(sizes.text, "float32").init(
                key, ids, None, ids
            )
        return variables

    variables = jax.eval_shape(init)
    flat = {
        name: flax.traverse_util.flatten_dict(variables[name]["params"], sep="/")
        for name in _NETWORKS
    }
    return {
        name: {path: leaf.shape for path, leaf in leaves.items()} for name, leaves in flat.items()
    }


def _init_unet(sizes: Sizes, size: tuple[int, int] = (8, 8), controlled: Controlled | None = None):
    unet = sizes.unet
    latents = jnp.zeros((1, unet["in_channels"], *size))
    states = jnp.zeros((1, 1, unet["cross_attention_dim"]))
    with nn.intercept_methods(Networks(sizes)._unet_interceptor(size, controlled)):
        return _unet(unet, "float32").init(jax.random.key(0), latents, jnp.zeros(1), states)


def _initial(key: jax.Array, shapes: Mapping[Any, tuple[int, ...]]) -> dict[Any, jax.Array]:
    """One draw for all leaves, since a draw for each, as the modules have it, compiles minutes."""
    kinds = {path: path[-1].rpartition("/")[2] for path in shapes}
    drawn = [path for path in shapes if kinds[path] in ("kernel", "embedding")]
    ends = np.cumsum([math.prod(shapes[path]) for path in drawn])
    # The barrier, or XLA draws anew for every leaf.
    draws = jax.lax.optimization_barrier(jax.random.normal(key, (ends[-1],)))
    params = {path: jnp.full(shapes[path], float(kinds[path] == "scale")) for path in shapes}
    for path, end in zip(drawn, ends, strict=True):
        shape = shapes[path]
        std = 0.02 if kinds[path] == "embedding" else math.prod(shape[:-1]) ** -0.5
        params[path] = std * draws[end - math.prod(shape) : end].reshape(shape)
    return params


@functools.cache
def _unet(config: Mapping, dtype: str) -> FlaxUNet2DConditionModel:
    ours = ("sample_size", "norm_num_groups", "norm_eps", "upcast_attention")
    return FlaxUNet2DConditionModel(**_without(config, ours), dtype=jnp.dtype(dtype))


@functools.cache
def _vae(config: Mapping, dtype: str) -> vae_flax.FlaxAutoencoderKL:
    ours = ("sample_size", "force_upcast")
    return vae_flax.FlaxAutoencoderKL(**_without(config, ours), dtype=jnp.dtype(dtype))


@functools.cache
def _text_encoder(config: Mapping, dtype: str) -> nn.Module:
    return modeling_flax_clip.FlaxCLIPTextModule(CLIPTextConfig(**config), jnp.dtype(dtype))


def _without(config: Mapping, keys: tuple[str, ...]) -> dict[str, Any]:
    """The entries that the Flax class has, too."""
    return {key: value for key, value in config.items() if key not in keys}


# --- what is computed otherwise ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Interceptor:
    """An interceptor of `nn.intercept_methods`, with what the replaced layers must know.

    groups, eps: of the UNet's GroupNorms; None: the module's own. size: the sides of the UNet's
    input; levels: how many sizes it works in, 0 in the other networks. controlled: what computes
    the UNet's attention; None: attention as it is.
    """

    groups: int | None = None
    eps: float | None = None
    size: tuple[int, int] = (0, 0)
    levels: int = 0
    controlled: Controlled | None = None

    def larger(self, path: tuple[str, ...], size: tuple[int, int]) -> tuple[int, int]:
        """The sides that `size` is enlarged to by the layer at `path`.

        In the UNet those of the next level's skip tensors: no doubles where they are odd.
        """
        if not self.levels:
            return 2 * size[0], 2 * size[1]
        return self._size_at(self.levels - 2 - _number(path[0]))

    def layer(self, path: tuple[str, ...], heads: int) -> Layer:
        """The layer of attention at `path`, which is the next that runs."""
        level = self.levels - 1
        if not path[0].startswith("mid"):
            number = _number(path[0])
            level = number if path[0].startswith("down") else level - number
        block = len(self.controlled.layers) // 2  # each has one to itself and one to the text
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
    """GroupNorm with the config's number of groups; Flax's UNet has always 32."""
    scale, bias = _scale_and_bias(module, x)
    eps = module.epsilon if interceptor.eps is None else interceptor.eps
    if isinstance(module.parent, attention_flax.FlaxTransformer2DModel):
        eps = 1e-6  # of PyTorch's spatial transformer, whatever the config says
    return layers.group_norm(
        x, scale, bias, groups=interceptor.groups or module.num_groups, eps=eps
    )


def _layer_norm(interceptor, module, x):
    """LayerNorm by the two-pass formula; Flax's subtracts two large numbers."""
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
    if interceptor.controlled is None:
        h = attention(q, k, v)
    else:
        h = interceptor.controlled.attend(interceptor.layer(module.path, module.heads), q, k, v)
    return module.proj_attn(h.reshape(*h.shape[:2], -1))


def _vae_attention(interceptor, module, x):
    """Attention of all places of [B, H, W, C], in one head, and the residual."""
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
