"""Shared parts of the losses: normalised features, scaled similarities, targets, sharding."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Bool, Float, Shaped

from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.dtypes import Array, Scalar, widen

MAX_SCALE = 100.0
SOFT_LABELS = ("sigmoid", "softmax")
Loss = Callable[..., Array]
AxisName = str | tuple[str, ...] | None
Ids = Shaped[Array, " b"] | Shaped[Array, "b 2 labels"]  # with facts, see `matches`


def global_loss(mesh: Mesh, loss: Loss) -> Loss:
    """`loss` for global arrays whose rows are sharded over all axes of `mesh`.

    The result takes the arrays that `loss` takes by position and, by name, the weights of the
    pairs if there are any. It equals `loss` of one device on them and may be used and
    differentiated under jax.jit; each device holds a [B, N] part of the similarities.

    >>> mesh = meshes.make_mesh(devices=jax.devices()[:2])
    >>> loss = global_loss(mesh, lambda x, axis_name: jax.lax.pmean(jnp.mean(x), axis_name))
    >>> loss(np.array([1.0, 2.0], "f")).item()
    1.5
    """

    def run(*arrays, weights=None):
        def local(*rows):
            options = {} if weights is None else {"weights": rows[-1]}
            return loss(*rows[: len(arrays)], axis_name=mesh.axis_names, **options)

        inputs = arrays if weights is None else (*arrays, weights)
        return meshes.on_rows(mesh, local, P())(*inputs)

    return run


def of_rows(row_loss: Callable[..., Array]) -> Loss:
    """Turns `row_loss(logits [B, N], same [B, N], **options) -> [B]` into a contrastive loss.

    same: bool, equal identity. The result has the signature that module `contrastive` describes,
    the options of `row_loss`, and `row_loss` itself as an attribute.
    """

    def loss(
        image_features: Float[Array, "b d"],
        text_features: Float[Array, "b d"],
        person_ids: Ids,
        logit_scale: Scalar | None,
        *,
        weights: Float[Array, " b"] | None = None,
        at_once: int = 0,
        axis_name: AxisName = None,
        **options,
    ) -> Float[Array, ""]:
        pairs = both_directions(image_features, text_features, person_ids, logit_scale, axis_name)
        rows = functools.partial(row_loss, **options)
        return mean_of(rows, pairs, weights, axis_name, at_once)

    loss.__name__, loss.__doc__, loss.row_loss = row_loss.__name__, row_loss.__doc__, row_loss
    return loss


def clamped_scale(logit_scale: Scalar) -> Float[Array, ""]:
    """min(exp(logit_scale), 100), with the gradient of the unclamped exponential.

    So the parameter can come back from above its cap, where a plain minimum would leave it.

    >>> print([round(float(clamped_scale(x)), 2) for x in (0.0, np.log(50), 9.0)])
    [1.0, 50.0, 100.0]
    """
    scale = jnp.exp(jnp.minimum(logit_scale, 80.0))  # beyond, float32 is infinite
    clamped = jax.lax.stop_gradient(jnp.minimum(scale, MAX_SCALE))
    return clamped + (scale - jax.lax.stop_gradient(scale))


def normalize(features: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    """Rows of [..., D] divided by their Euclidean norm (1e-12 at least), in float32 or wider.

    >>> print(normalize(np.array([[3.0, 4.0]])))
    [[0.6 0.8]]
    """
    features = widen(jnp.asarray(features))
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    # The floor is inside the root, whose gradient at 0 is infinite.
    return features * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def soft_targets(
    logits: Float[Array, "b n"], same: Bool[Array, "b n"], alpha: Scalar, kind: str
) -> Float[Array, "b n"]:
    """Targets Q [B, N]: alpha f(logits) + (1 - alpha) q, rows divided by their sum, no gradient.

    logits [B, N]; same: bool [B, N], equal identity; f: elementwise sigmoid (SynTBPR's) or row
    softmax. Sigmoids of scaled logits are nearly all 0 or 1, so this is in effect a label
    smoothing whose strength grows with N. Raises ValueError for another `kind`.

    >>> same = np.array([[True, True, False]])
    >>> print(soft_targets(np.zeros((1, 3), "f"), same, 0.5, "sigmoid").round(3))
    [[0.4 0.4 0.2]]
    """
    if kind not in SOFT_LABELS:
        raise ValueError(f"soft_labels={kind!r} is unknown; use one of {', '.join(SOFT_LABELS)}.")
    hard = identity_targets(same, logits.dtype)
    soft = jax.nn.sigmoid(logits) if kind == "sigmoid" else jax.nn.softmax(logits)
    alpha = jnp.asarray(alpha, logits.dtype)
    mixed = alpha * soft + (1 - alpha) * hard
    return jax.lax.stop_gradient(mixed / jnp.sum(mixed, axis=1, keepdims=True))


def identity_targets(same: Bool[Array, "b n"], dtype) -> Float[Array, "b n"]:
    """The targets q [B, N]: each row shares 1 among the items of its identity; same: bool."""
    same = same.astype(dtype)
    return same / jnp.sum(same, axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Direction:
    """The similarities of queries to all items of the other modality, not computed yet.

    queries [B, D] and items [N, D], of length 1; scale []; query_ids [B], item_ids [N], or with
    facts [B, 1 + S] and [N, 1 + S], see `matches`.
    """

    queries: Float[Array, "b d"]
    items: Float[Array, "n d"]
    scale: Float[Array, ""]
    query_ids: Shaped[Array, " b *labels"]
    item_ids: Shaped[Array, " n *labels"]

    def rows(self, row_loss: Callable[..., Array], at_once: int = 0) -> Float[Array, " b"]:
        """Returns row_loss(logits [B, N], same [B, N]) -> [B]; same: equal identity.

        at_once: rows computed at a time, and again for the backward pass, so that no [B, N] is
        held; 0 = all rows. Where it does not divide B, all rows are computed at once.
        """

        def of(
            queries: Float[Array, "rows d"], ids: Shaped[Array, " rows *labels"]
        ) -> Float[Array, " rows"]:
            logits = self.scale * product(queries, self.items)
            return row_loss(logits, matches(ids, self.item_ids))

        count = len(self.queries)
        if not at_once or count <= at_once or count % at_once:
            return of(self.queries, self.query_ids)
        parts = jax.tree.map(
            lambda x: x.reshape(-1, at_once, *x.shape[1:]), (self.queries, self.query_ids)
        )
        return jax.lax.map(lambda part: jax.checkpoint(of)(*part), parts).reshape(-1)


def both_directions(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    person_ids: Ids,
    logit_scale: Scalar | None,
    axis_name: AxisName,
) -> tuple[Direction, Direction]:
    """Image to text and text to image; logit_scale: None for cosines as they are."""
    image, text = normalize(image), normalize(text)
    one = jnp.ones((), image.dtype)
    scale = one if logit_scale is None else clamped_scale(jnp.asarray(logit_scale, image.dtype))
    ids = jnp.asarray(person_ids)
    image_ids, text_ids = (ids, ids) if ids.ndim == 1 else (ids[:, 0], ids[:, 1])
    return (
        Direction(image, gather(text, axis_name), scale, image_ids, gather(text_ids, axis_name)),
        Direction(text, gather(image, axis_name), scale, text_ids, gather(image_ids, axis_name)),
    )


def matches(
    queries: Shaped[Array, " b *labels"], items: Shaped[Array, " n *labels"]
) -> Bool[Array, "b n"]:
    """Which items match which queries, bool [B, N]: by identity, and with facts by agreement.

    queries [B] and items [N]: identities; or [B, 1 + S] and [N, 1 + S]: the identity, then the
    value of each of S slots, -1 where it is not mentioned, which agrees with any value.
    """
    if queries.ndim == 1:
        return queries[:, None] == items[None, :]
    one, other = queries[:, None], items[None, :]
    agree = (one == other) | (one == -1) | (other == -1)
    return (one[..., 0] == other[..., 0]) | jnp.all(agree[..., 1:], axis=-1)


def product(one: Float[Array, "b d"], other: Float[Array, "n d"]) -> Float[Array, "b n"]:
    """Inner products [B, N] of rows [B, D] and [N, D], at the full precision of their dtype.

    >>> print(product(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]])))
    [[11. 17.]]
    """
    return jnp.matmul(one, other.T, precision=jax.lax.Precision.HIGHEST)


def gather(rows: Shaped[Array, " b *rest"], axis_name: AxisName) -> Shaped[Array, " n *rest"]:
    """The rows of all devices, [B, ...] -> [N, ...]; of this one without an axis."""
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


def mean_of(
    row_loss: Callable[..., Array],
    directions: tuple[Direction, Direction],
    weights: Float[Array, " b"] | None = None,
    axis_name: AxisName = None,
    at_once: int = 0,
) -> Float[Array, ""]:
    """Mean of `row_loss` over the rows of all devices and over both directions, by their weights.

    weights: [B], of this device's rows, or None for all 1. at_once: see `Direction.rows`.
    """
    rows = 0.5 * sum(direction.rows(row_loss, at_once) for direction in directions)
    if weights is None:
        loss = jnp.mean(rows)
        return loss if axis_name is None else jax.lax.pmean(loss, axis_name)
    total, count = jnp.sum(weights * rows), jnp.sum(weights)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1e-12)
