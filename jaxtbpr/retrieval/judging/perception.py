"""The hidden layers of a CLIP as features of images, for a perceptual loss.

Stage finetune is in another room, which knows no retrieval model; `stages.py` passes it this.
"""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxtbpr.core.errors import of_key
from jaxtbpr.core.options import Option, Options
from jaxtbpr.retrieval.clip.model import Clip
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.retrieval.saved import open_saved

OPTIONS: Options = {
    "weight": Option(0.0, "weight of the autoencoder's perceptual loss; 0 = off", low=0.0),
    "model": Option("tiny-clip", "CLIP of that loss: WORKDIR/train, a published one or tiny-clip"),
}


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns what tells one state of the CLIP, if it is wanted, from another."""
    options = config.finetune.perceptual
    if not options.weight:
        return {}
    with of_key("finetune.perceptual.model"):
        return {"perceptual": scoring.fingerprint(options.model)}


def layers(model: str) -> Callable[[jax.Array], list[jax.Array]]:
    """Returns what gives the tokens [B, L, D] that each layer of a CLIP makes of images.

    The images are [B, H, W, 3] in [-1, 1], of any sides; they are resized to the model's.
    """
    saved = open_saved(model, scan=False)
    clip, params = Clip(saved.config), saved.read_params()

    def see(images: jax.Array) -> list[jax.Array]:
        size = (len(images), *saved.config.image_size, 3)
        pixels = jax.image.resize((images + 1) * 127.5, size, "linear")
        _, seen = clip.apply(
            {"params": params},
            pixels,
            every_token=True,
            method="encode_image",
            mutable=["intermediates"],
        )
        return jax.tree.leaves(seen["intermediates"])

    return see
