r"""Contrastive losses over identities: N-ITC and R-ITC of SynTBPR, C-ITC of TBPS-CLIP.

A batch holds several images and captions of one identity, and all of them match. With
L2-normalised features v, t, scale s and identities y,

.. math:: S_{ij} = s\, v_i^\top t_j, \quad p_{ij} = \mathrm{softmax}_j(S_{ij}), \quad
          q_{ij} = [y_i = y_j] \,/\, \textstyle\sum_k [y_i = y_k]

and the same with t and v exchanged; a loss is the mean of the two directions. Letters: `B` rows
(pairs on this device), `N` columns (pairs on all devices), `D` features.

Every loss is a pure function ``loss(image_features [B, D], text_features [B, D],
person_ids [B], logit_scale [], *, weights=None, at_once=0, axis_name=None, ...) -> scalar``. Most
are written below as a function of one direction's logits S and of `same` [B, N] (which items
match); `of_rows` turns that into such a loss. person_ids: identities; or labels int [B, 2, 1 + S]
of image and caption, which match by facts (`similarity.matches`). weights: [B], of the pairs of
this device, for a weighted mean; None: all 1. at_once: rows of the similarities that are held at a
time, for batches of 32k and more; 0 = all. With `axis_name` (inside `jax.shard_map`) the rows are
those of this device and the columns those of all devices, gathered with gradient; the result is
the mean over all rows, as on one device with the whole batch. `global_loss` wraps this for arrays
that are sharded over a mesh.

Everything is computed in float32 (float64 for such features), whatever dtype the features have:
in half precision R-ITC's eps of 1e-8 would be 0.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxtbpr.core.dtypes import Array, Scalar
from jaxtbpr.retrieval.training.losses.similarity import (
    AxisName,
    Ids,
    Loss,
    both_directions,
    gather,
    normalize,
    of_rows,
    product,
    soft_targets,
)


@of_rows
def nitc_loss(
    logits: Float[Array, "b n"],
    same: Bool[Array, "b n"],
    *,
    alpha: Scalar = 0.0,
    soft_labels: str = "sigmoid",
) -> Float[Array, " b"]:
    r"""Normalised image-text contrastive loss: cross-entropy to the identity targets.

    .. math:: \frac12 \left[-\frac1B \sum_{ij} Q_{ij} \log p_{ij} \right] + \text{(text to image)}

    alpha: fraction of the model's soft labels in Q, see `soft_targets`; with 0, Q = q. Arguments
    and result: see the module. SynTBPR (arXiv:2503.22171), TBPS-CLIP (arXiv:2308.10045).

    >>> print(f"{nitc_loss(np.eye(2), np.eye(2), np.array([0, 1]), 0.0):.4f}")
    0.3133
    """
    targets = soft_targets(logits, same, alpha, soft_labels)
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=1)


@of_rows
def ritc_loss(
    logits: Float[Array, "b n"],
    same: Bool[Array, "b n"],
    *,
    alpha: Scalar = 0.0,
    soft_labels: str = "sigmoid",
    eps: Scalar = 1e-8,
) -> Float[Array, " b"]:
    r"""Reversed image-text contrastive loss: KL divergence from prediction to target.

    .. math:: \frac12 \left[\frac1B \sum_{ij} p_{ij} (\log p_{ij} - \log(Q_{ij} + \epsilon))\right]
              + \text{(text to image)}

    Q as in `nitc_loss`. Q + eps is not renormalised, so the loss can be slightly negative; eps
    sets how hard probability on a wrong item is punished. SynTBPR has soft Q and eps 1e-8,
    TBPS-CLIP hard Q (alpha 0) and eps 1e-2; IRRA's SDM (arXiv:2303.12501) is twice this loss with
    hard Q, eps 1e-8 and a fixed scale of 50, see `sdm_loss`. Sources: see `nitc_loss`.

    >>> print(f"{ritc_loss(np.eye(2), np.eye(2), np.array([0, 1]), 0.0, eps=1e-2):.4f}")
    0.6490
    """
    targets = soft_targets(logits, same, alpha, soft_labels)
    log_p = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_p) * (log_p - jnp.log(targets + eps)), axis=1)


def direction_losses(
    image_features: Float[Array, "b d"],
    text_features: Float[Array, "b d"],
    person_ids: Ids,
    logit_scale: Scalar,
    *,
    axis_name: AxisName = None,
) -> Float[Array, "2 b"]:
    """N-ITC of each pair of this device, from image to text and back, [2, B]; no gradient.

    >>> print(np.asarray(direction_losses(np.eye(2), np.eye(2), np.array([0, 1]), 0.0)).round(4))
    [[0.3133 0.3133]
     [0.3133 0.3133]]
    """
    pairs = both_directions(image_features, text_features, person_ids, logit_scale, axis_name)
    rows = jnp.stack([direction.rows(nitc_loss.row_loss) for direction in pairs])
    return jax.lax.stop_gradient(rows)


def pair_losses(*arrays, axis_name: AxisName = None) -> Float[Array, " b"]:
    """The mean of both directions of `direction_losses`, [B].

    >>> print(np.asarray(pair_losses(np.eye(2), np.eye(2), np.array([0, 1]), 0.0)).round(4))
    [0.3133 0.3133]
    """
    return jnp.mean(direction_losses(*arrays, axis_name=axis_name), axis=0)


def sdm_loss(
    image_features: Float[Array, "b d"],
    text_features: Float[Array, "b d"],
    person_ids: Ids,
    logit_scale: Scalar | None = None,
    *,
    temperature: float = 0.02,
    **options,
) -> Float[Array, ""]:
    """Similarity distribution matching: twice `ritc_loss` at a fixed scale of 1 / temperature.

    The logit scale does not enter. options: of `ritc_loss`. IRRA (arXiv:2303.12501).

    >>> print(f"{sdm_loss(np.eye(2), np.eye(2)[::-1], np.array([0, 1])):.2f}")  # -2 log 1e-8
    36.84
    """
    del logit_scale
    scale = -math.log(temperature)
    return 2 * ritc_loss(image_features, text_features, person_ids, scale, **options)


def multi_view(loss: Loss) -> Loss:
    """Multi-view supervision: the mean of `loss` of an image and of a second view of it.

    The result takes the features of both, [B, D] each, where `loss` takes the image's. TBPS-CLIP
    (arXiv:2308.10045), with `nitc_loss`.

    >>> loss = multi_view(nitc_loss)
    >>> print(f"{loss(np.eye(2), np.eye(2)[::-1], np.eye(2), np.array([0, 1]), 0.0):.4f}")
    0.8133
    """

    def mean(
        image_features: Float[Array, "b d"], view_features: Float[Array, "b d"], *rest, **options
    ) -> Float[Array, ""]:
        views = (image_features, view_features)
        one, other = (loss(view, *rest, **options) for view in views)
        return 0.5 * (one + other)

    return mean


def citc_loss(
    image_features: Float[Array, "b d"],
    text_features: Float[Array, "b d"],
    person_ids,
    logit_scale,
    *,
    axis_name: AxisName = None,
) -> Float[Array, ""]:
    r"""Cyclic contrastive loss: similarities within and across modalities must be symmetric.

    .. math:: \frac14 \operatorname{mean}_{ij} (v_i^\top v_j - t_i^\top t_j)^2
              + \frac14 \operatorname{mean}_{ij} (v_i^\top t_j - t_i^\top v_j)^2

    Identities and scale are not used; they are arguments so that all losses have one signature.
    CyCLIP (Goel et al., NeurIPS 2022, arXiv:2205.14459) as in TBPS-CLIP (arXiv:2308.10045).

    >>> print(f"{citc_loss(np.eye(2), np.eye(2)[[0, 0]], None, None):.4f}")
    0.2500
    """
    del person_ids, logit_scale
    in_modal, cross_modal = citc_parts(image_features, text_features, axis_name=axis_name)
    return 0.25 * (in_modal + cross_modal)


def citc_parts(
    image_features: Float[Array, "b d"],
    text_features: Float[Array, "b d"],
    *,
    axis_name: AxisName = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The two means of `citc_loss`: (in-modal, cross-modal).

    >>> in_modal, cross_modal = citc_parts(np.eye(2), np.eye(2)[[0, 0]])
    >>> print(f"{in_modal:.2f} {cross_modal:.2f}")
    0.50 0.50
    """
    image, text = normalize(image_features), normalize(text_features)
    images, texts = gather(image, axis_name), gather(text, axis_name)
    in_modal = jnp.mean((product(image, images) - product(text, texts)) ** 2)
    cross_modal = jnp.mean((product(image, texts) - product(text, images)) ** 2)
    parts = (in_modal, cross_modal)
    return parts if axis_name is None else jax.lax.pmean(parts, axis_name)
