"""The Flax classes of diffusers and transformers, the last releases that have them.

No other module of this project imports these packages' models.
"""

import importlib
import logging

# Every layer warns that Flax classes are deprecated, some when they are imported: so this is first.
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

# By its name, since pyright would read all of transformers' models, which takes most of its time.
modeling_flax_clip = importlib.import_module("transformers.models.clip.modeling_flax_clip")
CLIPTextConfig = modeling_flax_clip.CLIPTextConfig

__all__ = [
    "CLIPTextConfig",
    "FlaxUNet2DConditionModel",
    "attention_flax",
    "embeddings_flax",
    "modeling_flax_clip",
    "resnet_flax",
    "vae_flax",
]
