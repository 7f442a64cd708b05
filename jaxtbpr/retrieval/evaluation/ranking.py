"""Queries against a gallery, a chunk at a time: the ranks of the positives, and the k best items.

No gallery is sorted and the similarities are never held all at once. The rank of a positive is
one more than the number of items that outrank it, and that number is a comparison and a sum.
Device functions have static shapes: queries are padded to blocks and the gallery to tiles, so
that a data set compiles once, whatever its last chunk.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int32, Integer, Shaped

from jaxtbpr.core.dtypes import Array, Scalar
from jaxtbpr.core.errors import InputError

TIES = ("pessimistic", "gallery_order", "optimistic")
CHUNK_BYTES = 160 << 20  # of similarities held at once
BLOCK_ROWS, BLOCK_POSITIVES = 32, 8  # queries and positives of one call of _count_outranking
FOLDS, LANES = 64, 64  # see _count_outranking; the sum over folds must fit int8
TILE = FOLDS * LANES  # the gallery is padded to a multiple of it


def top_k(
    query_features, gallery_features, k: int, *, chunk_bytes: int = CHUNK_BYTES
) -> tuple[Int32[np.ndarray, "q {k}"], Float32[np.ndarray, "q {k}"]]:
    """The k best gallery items of each query: indices int32 [Q, k] and scores float32 [Q, k].

    query_features [Q, D], gallery_features [G, D]. Best first; equal scores keep gallery order.
    Raises ValueError for k outside 1..G and shapes that do not fit, InputError for features that
    are not finite.

    >>> gallery = np.array([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    >>> print(*top_k(np.array([[1.0, 0.0]]), gallery, 2))
    [[2 1]] [[1.  0.6]]
    """
    queries, gallery = checked_features(query_features, gallery_features)
    if not 1 <= k <= len(gallery):
        raise ValueError(f"top_k: k={k} must lie in 1..{len(gallery)}, the size of the gallery.")
    similarity = feature_similarity(queries, gallery)
    indices = np.empty((len(queries), k), np.int32)
    scores = np.empty((len(queries), k), np.float32)
    order = np.arange(len(queries))
    for rows, chunk in _chunks(similarity, order, len(gallery), chunk_bytes):
        best = _top_k(chunk, k=k)
        scores[rows], indices[rows] = (np.asarray(x)[: len(rows)] for x in best)
    return indices, scores


@functools.partial(jax.jit, static_argnames="k")
def _top_k(
    similarity: Float32[Array, "rows columns"], *, k: int
) -> tuple[Float32[Array, "rows {k}"], Int32[Array, "rows {k}"]]:
    similarity = jnp.where(similarity == 0, 0.0, similarity)  # top_k would put +0 before -0
    scores, indices = jax.lax.top_k(similarity, k)
    return scores, indices


# --- similarities ------------------------------------------------------------------------------

Similarity = Callable[[np.ndarray, int], Array]
"""similarity(rows, height): float32 [height, G'] on the device for up to `height` query indices
`rows`; G' is the gallery's size rounded up to TILE. Padded columns are -inf, which outranks
nothing; padded rows are never read."""


def feature_similarity(
    queries: Shaped[np.ndarray, "q d"], gallery: Shaped[np.ndarray, "g d"]
) -> Similarity:
    """Inner products of queries [Q, D] and gallery [G, D] in full float32."""
    size = len(gallery)
    padded = jnp.asarray(_pad_rows(gallery, TILE), jnp.float32)

    def similarity(
        rows: Integer[np.ndarray, " rows"], height: int
    ) -> Float32[Array, "{height} columns"]:
        chunk = _pad_rows(queries[rows].astype(np.float32), height)
        return _inner_products(chunk, padded, gallery_size=size)

    return similarity


_LARGEST = np.finfo(np.float32).max


def matrix_similarity(matrix: Shaped[np.ndarray, "q g"]) -> Similarity:
    """The rows of a matrix [Q, G] that somebody else has computed."""
    size = matrix.shape[1]
    columns = _round_up(size, TILE)

    def similarity(
        rows: Integer[np.ndarray, " rows"], height: int
    ) -> Float32[Array, "{height} columns"]:
        chunk = np.full((height, columns), -np.inf, np.float32)
        # What float32 cannot hold is no less similar than what is not there.
        chunk[: len(rows), :size] = np.clip(matrix[rows], -_LARGEST, _LARGEST)
        return jnp.asarray(chunk)

    return similarity


@functools.partial(jax.jit, static_argnames="gallery_size")
def _inner_products(
    queries: Float32[Array, "rows d"], gallery: Float32[Array, "columns d"], *, gallery_size: int
) -> Float32[Array, "rows columns"]:
    # Full float32: the default precision of a GPU or TPU keeps 8 to 11 bits of a feature.
    products = jnp.matmul(queries, gallery.T, precision=jax.lax.Precision.HIGHEST)
    return products.at[:, gallery_size:].set(-jnp.inf)


def _chunks(
    similarity: Similarity, order: Integer[np.ndarray, " q"], gallery: int, chunk_bytes: int
) -> Iterator[tuple[np.ndarray, Array]]:
    """Yields query indices, cut from `order`, and their similarities, at most `chunk_bytes` (or
    BLOCK_ROWS rows) of them. All chunks have one shape: the queries are spread evenly."""
    most = chunk_bytes // (4 * _round_up(gallery, TILE)) // BLOCK_ROWS * BLOCK_ROWS
    chunks = -(-len(order) // max(most, BLOCK_ROWS))
    height = _round_up(-(-len(order) // chunks), BLOCK_ROWS)
    for start in range(0, len(order), height):
        rows = order[start : start + height]
        yield rows, similarity(rows, height)


# --- ranks of the positives --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Positives:
    """The (query, positive) pairs in the order of queries.

    by_identity [G]: gallery indices grouped by identity. The positives of query q are
    by_identity[first[q] : first[q] + number[q]], and its pairs are numbered from offset[q].
    """

    by_identity: Int32[np.ndarray, " g"]
    first: Integer[np.ndarray, " q"]
    number: Integer[np.ndarray, " q"]
    offset: Integer[np.ndarray, " q"]

    @classmethod
    def find(
        cls, query_ids: Shaped[np.ndarray, " q"], gallery_ids: Shaped[np.ndarray, " g"]
    ) -> "Positives":
        """Pairs queries [Q] with the gallery items [G] of equal identity."""
        by_identity = np.argsort(gallery_ids, kind="stable").astype(np.int32)
        grouped = gallery_ids[by_identity]
        first = np.searchsorted(grouped, query_ids, side="left")
        number = np.searchsorted(grouped, query_ids, side="right") - first
        return cls(by_identity, first, number, np.cumsum(number) - number)

    @property
    def query(self) -> Integer[np.ndarray, " pairs"]:
        """The query of each pair, [pairs]."""
        return np.repeat(np.arange(len(self.number)), self.number)

    def block(
        self, rows: Integer[np.ndarray, " rows"]
    ) -> tuple[
        Int32[np.ndarray, "height p"], Integer[np.ndarray, "height p"], Bool[np.ndarray, "height p"]
    ]:
        """The pairs of up to BLOCK_ROWS queries as a table [BLOCK_ROWS, P], P the largest number
        of positives rounded up: gallery index, number of the pair, and which entries are real."""
        number, first, offset = np.zeros((3, BLOCK_ROWS), np.int64)
        number[: len(rows)] = self.number[rows]
        first[: len(rows)] = self.first[rows]
        offset[: len(rows)] = self.offset[rows]
        steps = np.arange(_round_up(int(number.max()), BLOCK_POSITIVES))
        real = steps < number[:, None]
        index = np.where(real, first[:, None] + steps, 0)
        return self.by_identity[index], offset[:, None] + steps, real


def rank_positives(
    similarity: Similarity,
    positives: Positives,
    gallery: int,
    *,
    ties: str,
    chunk_bytes: int = CHUNK_BYTES,
) -> Integer[np.ndarray, " pairs"]:
    """Ranks (from 1) of the positives, rising within each query, [pairs].

    gallery: its size. ties: the rule for equal scores, one of TIES. Positives of one query that
    tie rank one after the other. Work: one comparison per positive and gallery item.
    """
    counts = _all_counts(similarity, positives, gallery, ties, chunk_bytes)
    query = positives.query
    return _ranks(counts[np.lexsort((counts, query))], query, ties)


def _all_counts(
    similarity: Similarity, positives: Positives, gallery: int, ties: str, chunk_bytes: int
) -> Int32[np.ndarray, " pairs"]:
    """`_count_outranking` of every (query, positive) pair, [pairs]."""
    counts = np.empty(positives.number.sum(), np.int32)
    # Queries with alike numbers of positives share a block, so that little of it is padding.
    matched = np.flatnonzero(positives.number)
    order = matched[np.argsort(-positives.number[matched], kind="stable")]
    for rows, chunk in _chunks(similarity, order, gallery, chunk_bytes):
        calls = []
        for start in range(0, len(rows), BLOCK_ROWS):
            block = _block(chunk, start)
            columns, pairs, real = positives.block(rows[start : start + BLOCK_ROWS])
            for left in range(0, columns.shape[1], BLOCK_POSITIVES):
                part = np.s_[:, left : left + BLOCK_POSITIVES]
                outranking = _count_outranking(block, columns[part], ties=ties)
                calls.append((pairs[part], real[part], outranking))
        for pairs, real, outranking in calls:  # dispatch is asynchronous: wait once per chunk
            counts[pairs[real]] = np.asarray(outranking)[real]
    return counts


@jax.jit
def _block(
    similarity: Float32[Array, "rows columns"], start: Scalar
) -> Float32[Array, "block columns"]:
    return jax.lax.dynamic_slice_in_dim(similarity, start, BLOCK_ROWS)


@functools.partial(jax.jit, static_argnames="ties")
def _count_outranking(
    similarity: Float32[Array, "rows columns"], columns: Int32[Array, "rows p"], *, ties: str
) -> Int32[Array, "rows p"]:
    """How many gallery items outrank each of some positives: int32 [BLOCK_ROWS, P].

    similarity [BLOCK_ROWS, G']; columns [BLOCK_ROWS, P]: the positives, whose own scores are read
    out of the matrix that they are compared with (computed twice, they might differ in a bit).
    pessimistic counts >= (itself too); the other rules count what is strictly before.

    XLA's CPU backend sums along the last axis in a scalar loop. Therefore the gallery is cut into
    tiles of FOLDS x LANES; folds are added elementwise, which is vector code on data that stays
    in the first-level cache for all P positives, and only a FOLDS-th is left for that loop. The
    barrier keeps XLA from fusing the two again. (Measured: 60 times faster than a plain sum.)
    """
    positive = jnp.take_along_axis(similarity, columns, axis=1)[:, None, :, None]
    tiles = similarity.reshape(BLOCK_ROWS, -1, 1, FOLDS, LANES)
    first = TILE * jnp.arange(tiles.shape[1])[:, None, None] + jnp.arange(LANES)

    def outranks(fold):  # [rows, tiles, P, LANES]
        other = tiles[..., fold, :]
        if ties == "pessimistic":
            return other >= positive
        if ties == "optimistic":
            return other > positive
        earlier = first + fold * LANES < columns[:, None, :, None]
        return (other > positive) | ((other == positive) & earlier)

    folded = sum(outranks(fold).astype(jnp.int8) for fold in range(FOLDS))
    return jnp.sum(jax.lax.optimization_barrier(folded), axis=(1, 3), dtype=jnp.int32)


def _ranks(
    counts: Int32[np.ndarray, " pairs"], query: Integer[np.ndarray, " pairs"], ties: str
) -> Integer[np.ndarray, " pairs"]:
    """Ranks of each query's positives from their sorted counts, both [pairs].

    Positives of equal score have equal counts (but under gallery_order, where no two are equal)
    and stand in a run: pessimistic counts hold the whole run, optimistic ones none of it.
    """
    pair = np.arange(len(counts))
    starts = np.ones(len(counts), bool)
    starts[1:] = (query[1:] != query[:-1]) | (counts[1:] != counts[:-1])
    run_start = np.flatnonzero(starts)
    run = np.cumsum(starts) - 1
    if ties == "pessimistic":
        run_last = np.append(run_start[1:], len(counts)) - 1
        return counts - (run_last[run] - pair)
    return counts + 1 + (pair - run_start[run])


# --- arguments ---------------------------------------------------------------------------------


def checked_features(
    query_features, gallery_features
) -> tuple[Shaped[np.ndarray, "q d"], Shaped[np.ndarray, "g d"]]:
    """Both as matrices; ValueError if their widths differ, and as of `checked_rows`."""
    queries = checked_rows(query_features, "query_features")
    gallery = checked_rows(gallery_features, "gallery_features")
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query_features have {queries.shape[1]} numbers per row and gallery_features "
            f"{gallery.shape[1]}; embed both with the same model."
        )
    return queries, gallery


def checked_rows(array, name: str) -> Shaped[np.ndarray, "rows columns"]:
    """`array` as a matrix; ValueError if it is none or is empty, InputError if it is not finite."""
    array = np.asarray(array)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be a matrix that is not empty, but has shape {array.shape}.")
    # In pieces, since a mask of a million rows takes half a gigabyte.
    finite = [np.isfinite(array[i : i + 4096]).all(axis=1) for i in range(0, len(array), 4096)]
    bad = np.flatnonzero(~np.concatenate(finite))
    if len(bad):
        raise InputError(
            f"{name} has NaN or infinite numbers in {len(bad)} of {len(array)} rows, first in row "
            f"{bad[0]}; look for a training that diverged or an overflow in half precision."
        )
    return array


def _pad_rows(array: np.ndarray, multiple: int) -> np.ndarray:
    missing = _round_up(len(array), multiple) - len(array)
    return np.pad(array, ((0, missing), (0, 0))) if missing else array


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
