"""Classification losses: identities (IRRA) and masked language modelling."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Integer

from jaxtbpr.core.dtypes import Array
from jaxtbpr.retrieval.training.losses.similarity import AxisName

NOT_MASKED = -100


def identity_loss(
    image_logits: Float[Array, "b identities"],
    text_logits: Float[Array, "b identities"],
    person_ids: Integer[Array, " b"],
    *,
    axis_name: AxisName = None,
) -> Float[Array, ""]:
    """Cross-entropy of the identities, mean of both modalities.

    image_logits, text_logits: [B, identities], of one classifier on features that are not
    normalised; person_ids: int [B], classes. IRRA (arXiv:2303.12501), TBPS-CLIP.

    >>> print(f"{identity_loss(np.zeros((1, 4)), np.zeros((1, 4)), np.array([2])):.4f}")  # log 4
    1.3863
    """
    cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
    image, text = (
        jnp.mean(cross_entropy(logits.astype(jnp.float32), person_ids))
        for logits in (image_logits, text_logits)
    )
    loss = 0.5 * (image + text)
    return loss if axis_name is None else jax.lax.pmean(loss, axis_name)


def masked_word_loss(
    logits: Float[Array, "b l vocabulary"],
    labels: Integer[Array, "b l"],
    *,
    axis_name: AxisName = None,
) -> Float[Array, ""]:
    """Cross-entropy of the masked words: mean over the places whose label is not -100.

    logits: [B, L, vocabulary]; labels: int [B, L], the ids that were there. 0 where nothing is
    masked. With `axis_name` the mean is over the places of all devices. IRRA, TBPS-CLIP.

    >>> labels = np.array([[NOT_MASKED, 3]])
    >>> print(f"{masked_word_loss(np.zeros((1, 2, 4), 'f'), labels):.4f}")  # log 4
    1.3863
    """
    masked = labels != NOT_MASKED
    each = optax.losses.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.where(masked, labels, 0)
    )
    total, count = jnp.sum(jnp.where(masked, each, 0)), jnp.sum(masked)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1).astype(total.dtype)
