"""The published models: one `ClipConfig` each, at the image size that they were trained for.

Sizes: Radford et al., arXiv:2103.00020, table 20 (OpenAI's CLIP), and the model configs of
EVA02-CLIP's released code (arXiv:2303.15389).
"""

import dataclasses

from jaxtbpr.retrieval.clip.model import ClipConfig
from jaxtbpr.retrieval.clip.transformer import TowerConfig

CLIP_VOCABULARY = 49_408


def _openai(patch: int, vision: tuple[int, ...], text: tuple[int, ...], embed_dim: int):
    return ClipConfig(
        image_size=(224, 224),
        patch_size=patch,
        stem="patch",
        vision=TowerConfig(*vision, activation="quick_gelu"),
        text=TowerConfig(*text, activation="quick_gelu"),
        text_length=77,
        vocab_size=CLIP_VOCABULARY,
        embed_dim=embed_dim,
    )


def _eva02(like: ClipConfig) -> ClipConfig:
    """EVA02-CLIP of the sizes of `like`: another vision tower, and exact GELU in the text's."""
    vision = dataclasses.replace(like.vision, **EVA02_VISION, mlp_ratio=2.6667, rope=True)
    text = dataclasses.replace(like.text, activation="gelu")
    return dataclasses.replace(like, vision=vision, text=text, **EVA02)


EVA02 = {"pre_norm": False, "stem_bias": True, "head_bias": True}
EVA02_VISION = {
    "activation": "silu",
    "gated": True,
    "sub_norm": True,
    "key_bias": False,
    "eps": 1e-6,
}

_BASE = (768, 12, 12), (512, 12, 8), 512
_LARGE = (1024, 24, 16), (768, 12, 12), 768

PUBLISHED = {
    "clip_vit_b32": _openai(32, *_BASE),
    "clip_vit_b16": _openai(16, *_BASE),
    "clip_vit_l14": _openai(14, *_LARGE),
    "eva02_clip_b16": _eva02(_openai(16, *_BASE)),
    "eva02_clip_l14": _eva02(_openai(14, *_LARGE)),
}
