"""Losses: pure functions of features, identities and the logit scale, on one device or a mesh."""

from jaxtbpr.retrieval.losses.contrastive import citc_loss, global_nitc, nitc_loss, ritc_loss
from jaxtbpr.retrieval.losses.similarity import (
    SOFT_LABELS,
    clamped_scale,
    global_loss,
    normalize,
    product,
    soft_targets,
)
from jaxtbpr.retrieval.losses.views import simclr_loss

__all__ = [
    "SOFT_LABELS",
    "citc_loss",
    "clamped_scale",
    "global_loss",
    "global_nitc",
    "nitc_loss",
    "normalize",
    "product",
    "ritc_loss",
    "simclr_loss",
    "soft_targets",
]
