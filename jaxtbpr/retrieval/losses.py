r"""Contrastive losses over identities: N-ITC and R-ITC of SynTBPR (after TBPS-CLIP).

A batch holds several images and captions of one identity, and all of them match. With
L2-normalised features v, t, scale s and identities y,

.. math:: S_{ij} = s\, v_i^\top t_j, \quad p_{ij} = \mathrm{softmax}_j(S_{ij}), \quad
          q_{ij} = [y_i = y_j] \,/\, \textstyle\sum_k [y_i = y_k]

and the same with t and v exchanged; a loss is the mean of the two directions. Letters: `B` rows
(pairs on this device), `N` columns (pairs on all devices), `D` features.

Every loss is a pure function ``loss(image_features [B, D], text_features [B, D],
person_ids [B], logit_scale [], *, axis_name=None, ...) -> scalar``. With `axis_name` (inside
`jax.shard_map`) its rows are this device's and its columns everybody's, gathered with gradient,
and the result is the mean over all rows: that of one device with the whole batch. `global_loss`
wraps this up for arrays that are sharded over a mesh.

Everything is computed in float32 (float64 for such features), whatever dtype the features have:
in half precision R-ITC's eps of 1e-8 would be 0.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxtbpr.core.errors import UserError

MAX_SCALE = 100.0
SOFT_LABELS = ("sigmoid", "softmax")
Loss = Callable[..., jax.Array]
AxisName = str | tuple[str, ...] | None


def nitc_loss(
    image_features,
    text_features,
    person_ids,
    logit_scale,
    *,
    alpha=0.0,
    soft_labels: str = "sigmoid",
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Normalised image-text contrastive loss: cross-entropy to the identity targets.

    .. math:: \frac12 \left[-\frac1B \sum_{ij} Q_{ij} \log p_{ij} \right] + \text{(text to image)}

    alpha: share of the model's own soft labels in Q, see `soft_targets`; with 0, Q = q.
    Arguments and result: see the module. SynTBPR (arXiv:2503.22171), TBPS-CLIP (arXiv:2308.10045).
    """

    def cross_entropy(logits, same):
        targets = soft_targets(logits, same, alpha, soft_labels)
        return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=1)

    pairs = _both_directions(image_features, text_features, person_ids, logit_scale, axis_name)
    return _mean_of(cross_entropy, pairs, axis_name)


def ritc_loss(
    image_features,
    text_features,
    person_ids,
    logit_scale,
    *,
    alpha=0.0,
    soft_labels: str = "sigmoid",
    eps: float = 1e-8,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Reversed image-text contrastive loss: KL divergence from prediction to target.

    .. math:: \frac12 \left[\frac1B \sum_{ij} p_{ij} (\log p_{ij} - \log(Q_{ij} + \epsilon))\right]
              + \text{(text to image)}

    Q as in `nitc_loss`. Q + eps is not renormalised, so the loss can be slightly negative; eps
    sets how hard probability on a wrong item is punished. SynTBPR has soft Q and eps 1e-8,
    TBPS-CLIP hard Q (alpha 0) and eps 1e-2. Sources: see `nitc_loss`.
    """

    def reverse_kl(logits, same):
        targets = soft_targets(logits, same, alpha, soft_labels)
        log_p = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(log_p) * (log_p - jnp.log(targets + eps)), axis=1)

    pairs = _both_directions(image_features, text_features, person_ids, logit_scale, axis_name)
    return _mean_of(reverse_kl, pairs, axis_name)


def global_loss(mesh: Mesh, loss: Loss, axes: tuple[str, ...] | None = None) -> Loss:
    """`loss` for features and ids whose rows are sharded over `axes` (all axes) of `mesh`.

    The result takes global arrays, equals `loss` of one device on them, and may be used and
    differentiated under jax.jit; each device holds a [B, N] part of the similarities.
    """
    axes = mesh.axis_names if axes is None else axes
    rows = P(axes)
    return jax.shard_map(
        functools.partial(loss, axis_name=axes),
        mesh=mesh,
        in_specs=(rows, rows, rows, P()),
        out_specs=P(),
    )


def global_nitc(mesh: Mesh, **options) -> Loss:
    """`nitc_loss` with `options` (alpha, soft_labels) by `global_loss`."""
    return global_loss(mesh, functools.partial(nitc_loss, **options))


# --- the parts that the losses share -----------------------------------------------------------


def clamped_scale(logit_scale) -> jax.Array:
    """min(exp(logit_scale), 100), with the gradient of the unclamped exponential.

    So the parameter can come back from above its cap, where a plain minimum would leave it.
    """
    scale = jnp.exp(logit_scale)
    clamped = jax.lax.stop_gradient(jnp.minimum(scale, MAX_SCALE))
    return clamped + (scale - jax.lax.stop_gradient(scale))


def normalize(features) -> jax.Array:
    """Rows of [..., D] divided by their Euclidean norm (1e-12 at least), in float32 or wider."""
    features = jnp.asarray(features)
    features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    # The floor is inside the root, whose gradient at 0 is infinite.
    return features * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def soft_targets(logits, same, alpha, kind: str) -> jax.Array:
    """Targets Q [B, N]: alpha f(logits) + (1 - alpha) q, rows divided by their sum, no gradient.

    logits [B, N]; same: bool [B, N], equal identity; f: elementwise sigmoid (SynTBPR's) or row
    softmax. Sigmoids of scaled logits are nearly all 0 or 1, so this is in effect a label
    smoothing whose strength grows with N. Raises UserError for another `kind`.
    """
    if kind not in SOFT_LABELS:
        raise UserError(f"soft_labels={kind!r} is unknown; use one of {', '.join(SOFT_LABELS)}.")
    same = same.astype(logits.dtype)
    hard = same / jnp.sum(same, axis=1, keepdims=True)
    soft = jax.nn.sigmoid(logits) if kind == "sigmoid" else jax.nn.softmax(logits)
    alpha = jnp.asarray(alpha, logits.dtype)
    mixed = alpha * soft + (1 - alpha) * hard
    return jax.lax.stop_gradient(mixed / jnp.sum(mixed, axis=1, keepdims=True))


def _both_directions(image, text, person_ids, logit_scale, axis_name):
    """(logits [B, N], same [B, N]) of image to text and of text to image."""
    image, text = normalize(image), normalize(text)
    scale = clamped_scale(jnp.asarray(logit_scale, image.dtype))
    ids = jnp.asarray(person_ids)
    same = ids[:, None] == _gather(ids, axis_name)[None, :]
    exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    image_to_text = scale * exact(image, _gather(text, axis_name).T)
    text_to_image = scale * exact(text, _gather(image, axis_name).T)
    return (image_to_text, same), (text_to_image, same)


def _gather(rows, axis_name: AxisName):
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


def _mean_of(row_loss, pairs, axis_name: AxisName) -> jax.Array:
    """Mean of `row_loss` [B] over the rows of all devices and over both directions."""
    loss = 0.5 * sum(jnp.mean(row_loss(logits, same)) for logits, same in pairs)
    return loss if axis_name is None else jax.lax.pmean(loss, axis_name)
