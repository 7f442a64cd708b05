"""Losses: pure functions of features, identities and the logit scale, on one device or a mesh."""

from jaxtbpr.retrieval.training.losses.classification import (
    NOT_MASKED,
    identity_loss,
    masked_word_loss,
)
from jaxtbpr.retrieval.training.losses.contrastive import (
    citc_loss,
    citc_parts,
    direction_losses,
    multi_view,
    nitc_loss,
    pair_losses,
    ritc_loss,
    sdm_loss,
)
from jaxtbpr.retrieval.training.losses.robust import (
    ROBUST,
    bootstrapped_loss,
    gce_loss,
    mask_channels,
    small_loss_weights,
    smoothed_loss,
    symmetric_loss,
    tal_loss,
)
from jaxtbpr.retrieval.training.losses.similarity import (
    SOFT_LABELS,
    clamped_scale,
    global_loss,
    normalize,
    product,
    soft_targets,
)
from jaxtbpr.retrieval.training.losses.views import simclr_loss, simclr_rows

__all__ = [
    "NOT_MASKED",
    "ROBUST",
    "SOFT_LABELS",
    "bootstrapped_loss",
    "citc_loss",
    "citc_parts",
    "clamped_scale",
    "direction_losses",
    "gce_loss",
    "global_loss",
    "identity_loss",
    "mask_channels",
    "masked_word_loss",
    "multi_view",
    "nitc_loss",
    "normalize",
    "pair_losses",
    "product",
    "ritc_loss",
    "sdm_loss",
    "simclr_loss",
    "simclr_rows",
    "small_loss_weights",
    "smoothed_loss",
    "soft_targets",
    "symmetric_loss",
    "tal_loss",
]
