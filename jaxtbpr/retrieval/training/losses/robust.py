r"""Noise-robust losses: smoothing, bootstrapping, GCE, symmetric cross-entropy, TAL.

Each is a contrastive loss over identities with the arguments and sharding of `contrastive`, where
`S`, `p` and the identity targets `q` are defined. `p_y` is the probability of a row's identity,
the sum of p over the items of that identity, and `N` the number of columns.

RDE's clean labels are weights of the pairs, see `training/mixture.py`. SynTBPR's figure names label
smoothing, a two-component mixture and channel masking, without their settings, so the defaults here
are those of the methods' own papers.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float

from jaxtbpr.core.dtypes import Array, Scalar
from jaxtbpr.retrieval.training.losses.similarity import (
    AxisName,
    Ids,
    gather,
    identity_targets,
    of_rows,
)


@of_rows
def smoothed_loss(
    logits: Float[Array, "b n"], same: Bool[Array, "b n"], *, beta: Scalar = 0.1
) -> Float[Array, " b"]:
    r"""N-ITC with smoothed labels, (1 - beta) q + beta / N.

    Szegedy et al., CVPR 2016, arXiv:1512.00567. SynTBPR's figure names it.

    >>> print(f"{smoothed_loss(np.eye(2), np.eye(2), np.array([0, 1]), 0.0):.4f}")
    0.3633
    """
    targets = identity_targets(same, logits.dtype)
    smooth = (1 - beta) * targets + beta / logits.shape[1]
    return optax.losses.softmax_cross_entropy(logits, smooth)


@of_rows
def bootstrapped_loss(
    logits: Float[Array, "b n"],
    same: Bool[Array, "b n"],
    *,
    weight: Scalar = 0.95,
    hard: bool = False,
) -> Float[Array, " b"]:
    r"""Targets weight * q + (1 - weight) * the model's prediction: p, or if `hard` its argmax.

    No gradient flows through the targets. Reed et al., arXiv:1412.6596 (0.95 soft, 0.8 hard).

    >>> print(f"{bootstrapped_loss(np.eye(2), np.eye(2), np.array([0, 1]), 0.0):.4f}")
    0.3267
    """
    predicted = jax.nn.softmax(logits)
    if hard:
        predicted = jax.nn.one_hot(
            jnp.argmax(logits, axis=1), logits.shape[1], dtype=predicted.dtype
        )
    targets = weight * identity_targets(same, logits.dtype) + (1 - weight) * predicted
    return optax.losses.softmax_cross_entropy(logits, jax.lax.stop_gradient(targets))


@of_rows
def gce_loss(
    logits: Float[Array, "b n"], same: Bool[Array, "b n"], *, power: Scalar = 0.7
) -> Float[Array, " b"]:
    r"""Generalised cross-entropy, (1 - p_y^power) / power.

    Cross-entropy for power -> 0, mean absolute error for 1. Zhang and Sabuncu, NeurIPS 2018,
    arXiv:1805.07836.

    >>> print(f"{gce_loss(np.eye(2), np.eye(2), np.array([0, 1]), 0.0, power=1.0):.4f}")
    0.2689
    """
    log_p_y = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1, where=same)
    return -jnp.expm1(power * log_p_y) / power


@of_rows
def symmetric_loss(
    logits: Float[Array, "b n"],
    same: Bool[Array, "b n"],
    *,
    forward: Scalar = 0.1,
    backward: Scalar = 1.0,
    log_zero: Scalar = -4.0,
) -> Float[Array, " b"]:
    r"""forward * cross-entropy + backward * reverse cross-entropy -sum_j p_j log q_j.

    log_zero stands for log 0. Wang et al., ICCV 2019, arXiv:1908.06112. R-ITC is its reverse part
    with log_zero = log eps, less the entropy of p.

    >>> print(f"{symmetric_loss(np.eye(2), np.eye(2), np.array([0, 1]), 0.0):.4f}")
    1.1071
    """
    targets = identity_targets(same, logits.dtype)
    log_p = jax.nn.log_softmax(logits)
    log_q = jnp.where(same, jnp.log(jnp.where(same, targets, 1)), log_zero)
    straight = -jnp.sum(targets * log_p, axis=1)
    return forward * straight - backward * jnp.sum(jnp.exp(log_p) * log_q, axis=1)


def tal_loss(
    image_features: Float[Array, "b d"],
    text_features: Float[Array, "b d"],
    person_ids: Ids,
    logit_scale: Scalar | None = None,
    **options,
) -> Float[Array, ""]:
    r"""Triplet alignment loss: the log-sum-exp of all negatives in place of the hardest.

    .. math:: [m - S^+_i + \tau \log \sum_{y_j \ne y_i} e^{S_{ij} / \tau}]_+
              + \text{(text to image)}

    S: cosines; S^+_i: the mean of those to the same identity, weighted by their softmax, no
    gradient through the weights. options: margin (m, 0.1) and temperature (tau, 0.015). The logit
    scale does not enter. Mean over pairs where RDE sums. Qin et al. (RDE), CVPR 2024,
    arXiv:2308.09911.

    >>> print(f"{tal_loss(np.eye(2), np.eye(2)[::-1], np.array([0, 1])):.2f}")
    2.20
    """
    del logit_scale
    return 2 * _triplets(image_features, text_features, person_ids, None, **options)


@of_rows
def _triplets(
    cosines: Float[Array, "b n"],
    same: Bool[Array, "b n"],
    *,
    margin: Scalar = 0.1,
    temperature: Scalar = 0.015,
) -> Float[Array, " b"]:
    scaled = cosines / temperature
    weights = jax.lax.stop_gradient(jax.nn.softmax(jnp.where(same, scaled, -jnp.inf)))
    positive = jnp.sum(weights * jnp.where(same, cosines, 0), axis=1)
    negative = temperature * jax.nn.logsumexp(scaled, axis=1, where=~same)
    # A row without negatives has no loss.
    return jnp.where(same.all(axis=1), 0, jax.nn.relu(margin - positive + negative))


ROBUST = {
    "smoothing": smoothed_loss,
    "bootstrap": bootstrapped_loss,
    "bootstrap_hard": functools.partial(bootstrapped_loss, weight=0.8, hard=True),
    "gce": gce_loss,
    "symmetric": symmetric_loss,
    "tal": tal_loss,
}


def small_loss_weights(
    row_losses: Float[Array, " b"], fraction: Scalar, *, axis_name: AxisName = None
) -> Float[Array, " b"]:
    """1 for the `fraction` of all rows with the smallest losses, else 0; [B] -> [B], no gradient.

    The small-loss trick of co-teaching (Han et al., NeurIPS 2018, arXiv:1804.06872), which keeps
    1 - min(epoch / 10, 1) * (rate of wrong pairs).

    >>> print(small_loss_weights(np.array([0.1, 2.0, 0.3, 0.2], "f"), 0.75))
    [1. 0. 1. 1.]
    """
    every = gather(jax.lax.stop_gradient(row_losses), axis_name)
    kept = jnp.clip(jnp.round(fraction * len(every)), 1, len(every)).astype(jnp.int32)
    limit = jnp.sort(every)[kept - 1]
    return (jax.lax.stop_gradient(row_losses) <= limit).astype(row_losses.dtype)


def mask_channels(
    key: jax.Array,
    image_features: Float[Array, "b d"],
    text_features: Float[Array, "b d"],
    rate: float,
) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
    """Both modalities' features with the same random channels of the embedding set to 0.

    Each channel is masked with probability `rate`, one draw for the whole batch, before the
    features are normalised, so that a wrong pair cannot be learned by a few channels. Our reading
    of the channel masking in SynTBPR's figure, of which nothing is published. Raises ValueError
    for a rate outside [0, 1).

    >>> images, texts = mask_channels(jax.random.key(0), np.ones((1, 8)), np.ones((1, 8)), 0.5)
    >>> bool(images.sum() < 8), bool((images == texts).all())
    (True, True)
    """
    if not 0 <= rate < 1:
        raise ValueError(f"channel mask rate {rate} is out of range; it must be in [0, 1).")
    kept = jax.random.bernoulli(key, 1 - rate, (image_features.shape[-1],))
    images, texts = jnp.asarray(image_features), jnp.asarray(text_features)
    return images * kept.astype(images.dtype), texts * kept.astype(texts.dtype)
