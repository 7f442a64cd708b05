"""Heads on top of the towers, for training only: SimCLR, identity classification and MLM.

Letters: `B` batch, `L` text tokens, `N` image tokens, `D` embedding.
"""

import flax.linen as nn

from jaxtbpr.retrieval.clip.transformer import (
    ACTIVATIONS,
    TowerConfig,
    Transformer,
    attention,
    dense,
    layer_norm,
)

EPS = 1e-5
HEAD_WIDTH = 64


class ViewHead(nn.Module):
    """SimCLR's projection of image features: [B, D] -> [B, D] through `hidden` ReLUs.

    TBPS-CLIP has 512 -> 128 -> 512.
    """

    hidden: int

    @nn.compact
    def __call__(self, features):
        width = features.shape[-1]
        h = nn.relu(dense(self.hidden, width**-0.5, features.dtype, "in")(features))
        return dense(width, self.hidden**-0.5, features.dtype, "out")(h)


class IdentityHead(nn.Module):
    """One linear classifier of identities for image and text features, [B, D] -> [B, identities].

    IRRA's (arXiv:2303.12501), weights initialised with std 0.001.
    """

    identities: int

    @nn.compact
    def __call__(self, features):
        return dense(self.identities, 0.001, features.dtype, "classifier")(features)


class MaskedWordHead(nn.Module):
    """Predicts masked words from text and image: ([B, L, D], [B, N, D]) -> [B, L, vocabulary].

    Words attend to image tokens once (cross-attention), then to each other in `layers` blocks:
    IRRA's interaction encoder (arXiv:2303.12501, four layers there) as in TBPS-CLIP.
    """

    vocab_size: int
    layers: int = 4

    @nn.compact
    def __call__(self, text, image):
        width, dtype = text.shape[-1], text.dtype
        # As many as divide the width, which those of the published models all do.
        heads = next(n for n in range(max(width // HEAD_WIDTH, 1), 0, -1) if width % n == 0)
        words = layer_norm(EPS, dtype, "ln_text")(text)
        patches = layer_norm(EPS, dtype, "ln_image")(image)

        def split(name, x):
            x = dense(width, width**-0.5, dtype, name)(x)
            return x.reshape(*x.shape[:2], heads, width // heads)

        h = attention(split("attn_q", words), split("attn_k", patches), split("attn_v", patches))
        h = dense(width, width**-0.5, dtype, "attn_out")(h)
        tower = TowerConfig(width, self.layers, heads, activation="quick_gelu", eps=EPS)
        h = Transformer(tower, causal=False, dtype=dtype, name="transformer")(h)
        h = layer_norm(EPS, dtype, "ln_post")(h)
        h = ACTIVATIONS["quick_gelu"](dense(width, width**-0.5, dtype, "dense")(h))
        h = layer_norm(EPS, dtype, "ln")(h)
        return dense(self.vocab_size, width**-0.5, dtype, "words")(h)
