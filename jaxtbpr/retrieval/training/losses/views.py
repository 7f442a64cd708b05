"""SimCLR: two random views of an image are each other's positives (TBPS-CLIP, arXiv:2308.10045)."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from jaxtbpr.core.dtypes import Array
from jaxtbpr.retrieval.training.losses.similarity import AxisName, gather, normalize, product


def simclr_loss(
    first: Float[Array, "b d"],
    second: Float[Array, "b d"],
    *,
    temperature: float = 0.1,
    axis_name: AxisName = None,
) -> Float[Array, ""]:
    r"""Each view must match the other view of its image among both views of all images.

    first, second: features [B, D] of two views of the same images, after the projection head if
    there is one. Row i of view a is classified over the columns b_j / tau and, except itself,
    a_j / tau, with class i; the same with a and b exchanged; the mean of the two cross-entropies.
    With `axis_name` the rows are this device's, see `contrastive`. Chen et al., ICML 2020,
    arXiv:2002.05709.

    >>> print(f"{simclr_loss(np.eye(2), np.eye(2), temperature=1.0):.4f}")
    0.5514
    """
    loss = jnp.mean(simclr_rows(first, second, temperature=temperature, axis_name=axis_name))
    return loss if axis_name is None else jax.lax.pmean(loss, axis_name)


def simclr_rows(
    first: Float[Array, "b d"],
    second: Float[Array, "b d"],
    *,
    temperature: float = 0.1,
    axis_name: AxisName = None,
) -> Float[Array, " b"]:
    """The terms [B] of this device's images of which `simclr_loss` is the mean.

    >>> print(np.asarray(simclr_rows(np.eye(2), np.eye(2), temperature=1.0)).round(4))
    [0.5514 0.5514]
    """
    first, second = normalize(first), normalize(second)
    firsts, seconds = gather(first, axis_name), gather(second, axis_name)
    start = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(first)
    positive = start + jnp.arange(len(first))

    def one_way(
        view: Float[Array, "b d"], same_view: Float[Array, "n d"], other_view: Float[Array, "n d"]
    ) -> Float[Array, " b"]:
        others = product(view, other_view) / temperature
        itself = positive[:, None] == jnp.arange(len(same_view))[None, :]
        siblings = jnp.where(itself, -jnp.inf, product(view, same_view) / temperature)
        logits = jnp.concatenate([others, siblings], axis=1)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, positive)

    return 0.5 * (one_way(first, firsts, seconds) + one_way(second, seconds, firsts))
