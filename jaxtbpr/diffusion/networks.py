"""The three networks of Stable Diffusion as pure functions of parameters, exact to PyTorch's.

The modules are Flax classes of diffusers and transformers (`flax_classes`). Where they compute
something else than the PyTorch classes that the published weights were trained with, the call is
intercepted (`interceptor`).
Letters: `B` batch, `H`, `W` sides of an image, `h`, `w` of its latents, `L` tokens.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.core.dtypes import widen
from jaxtbpr.diffusion.control import Control, Controlled, Layer
from jaxtbpr.diffusion.flax_classes import (
    CLIPTextConfig,
    FlaxUNet2DConditionModel,
    modeling_flax_clip,
    vae_flax,
)
from jaxtbpr.diffusion.interceptor import Interceptor
from jaxtbpr.diffusion.sizes import Sizes, make_sizes

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
        """The factor of the VAE's latents before noise is added."""
        return self.sizes.vae["scaling_factor"]

    @property
    def factor(self) -> int:
        """Pixels of an image per latent, in height and width."""
        return 2 ** (len(self.sizes.vae["block_out_channels"]) - 1)

    def encode_text(self, params: Params, ids: jax.Array) -> jax.Array:
        """Token ids [B, L] -> text states [B, L, D]: the last hidden state after the final norm."""
        return self.text_outputs(params, ids)["last_hidden_state"]

    def text_outputs(self, params: Params, ids: jax.Array) -> dict[str, Any]:
        """All outputs of the text encoder for ids [B, L].

        last_hidden_state [B, L, D]; hidden_states, one [B, L, D] before each layer and one after
        the last; pooler_output [B, D], the state at the end token.
        """
        longest = self.sizes.text["max_position_embeddings"]
        if ids.shape[1] > longest:
            raise ValueError(
                f"a text of {ids.shape[1]} tokens is longer than the {longest} of the text "
                "encoder; truncate it."
            )
        module = _text_encoder(self.sizes, self.dtype)
        places = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        arguments = params["text_encoder"], ids, None, places
        outputs = _apply(module, *arguments, output_hidden_states=True)
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

        step: number of steps before; carry: that of the step before, see `Control`. Raises
        InputError for a control that applies to no layer of the UNet.
        """
        controlled = Controlled(control, step, carry)
        predicted = self._predict(params, latents, timesteps, text, controlled)
        return predicted, controlled.finish()

    def attention_layers(self, size: tuple[int, int]) -> tuple[Layer, ...]:
        """The UNet's attention layers, in the order in which they run.

        size: sides (h, w) of the latents.
        """
        return _attention_layers(self.sizes, tuple(size))

    def encode_image(self, params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images [B, H, W, 3] in [-1, 1] -> (mean, log variance) of latents, [B, h, w, 4] each.

        The log variance is clipped to [-30, 20]; neither is multiplied by `scaling_factor`.
        """
        module = _vae(self.sizes, self.dtype)
        arguments = params["vae"], images.transpose(0, 3, 1, 2)
        latents = _apply(module, *arguments, method=module.encode).latent_dist
        return widen(latents.mean), widen(latents.logvar)

    def decode(self, params: Params, latents: jax.Array) -> jax.Array:
        """Latents [B, h, w, 4], divided by `scaling_factor` -> images [B, H, W, 3], not clipped."""
        module = _vae(self.sizes, self.dtype)
        images = _apply(module, params["vae"], latents, method=module.decode).sample
        return widen(images.transpose(0, 2, 3, 1))

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Returns new random parameters, float32.

        Scales are 1, biases 0, embeddings have std 0.02, all others fan_in^-1/2.
        """
        flat = {
            (name, path): shape
            for name, shapes in self.shapes().items()
            for path, shape in shapes.items()
        }
        return flax.traverse_util.unflatten_dict(
            {(name, *path.split("/")): leaf for (name, path), leaf in _initial(key, flat).items()}
        )

    def shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Returns {network: {path: shape}} of all parameters, paths with slashes."""
        trees = _abstract(self.sizes)
        return {name: dict(trees[name]) for name in _NETWORKS}

    def _predict(self, params, latents, timesteps, text, controlled) -> jax.Array:
        timesteps = jnp.atleast_1d(jnp.asarray(timesteps, jnp.float32))
        module = _unet(self.sizes, self.dtype)
        arguments = params["unet"], latents.transpose(0, 3, 1, 2), timesteps, text
        interceptor = self._unet_interceptor(latents.shape[1:3], controlled)
        predicted = _apply(module, *arguments, interceptor=interceptor).sample
        return widen(predicted.transpose(0, 2, 3, 1))

    def _unet_interceptor(
        self, size: tuple[int, int], controlled: Controlled | None = None
    ) -> Interceptor:
        unet = self.sizes.unet
        return Interceptor(
            groups=unet["norm_num_groups"],
            eps=unet["norm_eps"],
            size=size,
            levels=len(unet["block_out_channels"]),
            controlled=controlled,
        )


# --- modules -------------------------------------------------------------------------------------


def _apply(module: nn.Module, params: Any, *inputs, interceptor=None, **options) -> Any:
    """What the module returns: its outputs alone, since no other collection is mutable."""
    with nn.intercept_methods(interceptor or Interceptor()):
        return module.apply({"params": params}, *inputs, **options)


@functools.cache
def _attention_layers(sizes: Sizes, size: tuple[int, int]) -> tuple[Layer, ...]:
    """By tracing a control that applies to every layer."""
    controlled = Controlled(Control(), 0, ())
    jax.eval_shape(lambda: _init_unet(sizes, size, controlled))
    return tuple(controlled.layers)


@functools.cache
def _abstract(sizes: Sizes) -> dict[str, dict[str, tuple[int, ...]]]:
    """{network: {path: shape}}, by tracing the modules' own initialisation."""

    def init():
        factor = Networks(sizes).factor
        image = jnp.zeros((1, sizes.vae["in_channels"], factor, factor))
        ids, key = jnp.zeros((1, 1), jnp.int32), jax.random.key(0)
        variables = {"unet": _init_unet(sizes)}
        with nn.intercept_methods(Interceptor()):
            variables["vae"] = _vae(sizes, "float32").init(key, image)
            text_encoder = _text_encoder(sizes, "float32")
            variables["text_encoder"] = text_encoder.init(key, ids, None, ids)
        return variables

    variables = jax.eval_shape(init)
    flat: dict[str, dict[str, Any]] = {
        name: flax.traverse_util.flatten_dict(variables[name]["params"], sep="/")
        for name in _NETWORKS
    }
    return {
        name: {path: leaf.shape for path, leaf in leaves.items()} for name, leaves in flat.items()
    }


def _init_unet(sizes: Sizes, size: tuple[int, int] = (8, 8), controlled: Controlled | None = None):
    latents = jnp.zeros((1, sizes.unet["in_channels"], *size))
    states = jnp.zeros((1, 1, sizes.unet["cross_attention_dim"]))
    with nn.intercept_methods(Networks(sizes)._unet_interceptor(size, controlled)):
        return _unet(sizes, "float32").init(jax.random.key(0), latents, jnp.zeros(1), states)


def _initial(key: jax.Array, shapes: Mapping[Any, tuple[int, ...]]) -> dict[Any, jax.Array]:
    """One draw for all leaves: a draw for each, as in the modules, takes minutes to compile."""
    leaf_of = {path: path[-1].rpartition("/")[2] for path in shapes}
    drawn = [path for path in shapes if leaf_of[path] in ("kernel", "embedding")]
    ends = np.cumsum([math.prod(shapes[path]) for path in drawn])
    # Without the barrier XLA draws again for every leaf.
    draws = jax.lax.optimization_barrier(jax.random.normal(key, (ends[-1],)))
    params = {path: jnp.full(shapes[path], float(leaf_of[path] == "scale")) for path in shapes}
    for path, end in zip(drawn, ends, strict=True):
        shape = shapes[path]
        std = 0.02 if leaf_of[path] == "embedding" else math.prod(shape[:-1]) ** -0.5
        params[path] = std * draws[end - math.prod(shape) : end].reshape(shape)
    return params


@functools.cache
def _unet(sizes: Sizes, dtype: str) -> FlaxUNet2DConditionModel:
    ours = ("sample_size", "norm_num_groups", "norm_eps", "upcast_attention")
    return FlaxUNet2DConditionModel(**_without(sizes.unet, ours), dtype=jnp.dtype(dtype))


@functools.cache
def _vae(sizes: Sizes, dtype: str) -> vae_flax.FlaxAutoencoderKL:
    ours = ("sample_size", "force_upcast")
    return vae_flax.FlaxAutoencoderKL(**_without(sizes.vae, ours), dtype=jnp.dtype(dtype))


@functools.cache
def _text_encoder(sizes: Sizes, dtype: str) -> nn.Module:
    return modeling_flax_clip.FlaxCLIPTextModule(CLIPTextConfig(**sizes.text), jnp.dtype(dtype))


def _without(config: Mapping, keys: tuple[str, ...]) -> dict[str, Any]:
    """The entries that the Flax class has, too."""
    return {key: value for key, value in config.items() if key not in keys}
