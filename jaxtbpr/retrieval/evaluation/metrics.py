"""Exact retrieval metrics: R@k, mAP, mINP and the CMC curve of text-to-image person retrieval.

The field's protocol: every caption is a query, every image of the split is in the gallery, and a
gallery image is correct ("positive") if it shows the query's identity. The published codebases
sort the gallery for every query; here items that outrank a positive are counted (`ranking`).

Ties. Items of equal similarity have no order of their own, so a rule must give them one:

- ``pessimistic`` (default): a negative ranks before the positives of the same score, so that a
  collapsed model, which gives all images one score, gets R@1 = 0 and not 1;
- ``gallery_order``: the item with the lower gallery index ranks first (a stable sort);
- ``optimistic``: a positive ranks before the negatives of the same score.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Integer, Shaped

from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.evaluation import ranking
from jaxtbpr.retrieval.evaluation.ranking import CHUNK_BYTES, TIES, top_k

__all__ = ["CMC_RANKS", "TIES", "Metrics", "retrieval_metrics", "similarity_metrics", "top_k"]

CMC_RANKS = 50  # the CMC curve ends here


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What a set of queries scores on a gallery; all metrics are fractions, not percent.

    A query without any positive in the gallery is a miss for R@k and the CMC. Its AP and INP are
    0/0, so it is left out of mAP and mINP and counted in `queries_without_match`.

    R1, R5, R10: share of queries with a positive among the first 1, 5, 10. r_mean: their mean.
    mAP: mean of (1/P) sum over positives of (positives so far) / rank. mINP: mean of
    P / (rank of the last positive). cmc: R@1 .. R@50, [50]. identities: those in the gallery.
    chance_R1: expected R@1 of a random ranking, the mean of positives / gallery.
    Per query, [Q]: first_match_rank (from 1; 0 if there is none), average_precision and
    inverse_negative_penalty (NaN if there is none).
    """

    R1: float
    R5: float
    R10: float
    mAP: float
    mINP: float
    r_mean: float
    chance_R1: float
    queries: int
    queries_without_match: int
    gallery: int
    identities: int
    cmc: Float[np.ndarray, "50"] = dataclasses.field(repr=False)
    first_match_rank: Integer[np.ndarray, " q"] = dataclasses.field(repr=False)
    average_precision: Float[np.ndarray, " q"] = dataclasses.field(repr=False)
    inverse_negative_penalty: Float[np.ndarray, " q"] = dataclasses.field(repr=False)

    def summary(self) -> dict[str, float | int]:
        """The single numbers, in the order above, for a table or a JSON file."""
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: value for name, value in fields if not isinstance(value, np.ndarray)}


def retrieval_metrics(
    query_features,
    gallery_features,
    query_ids,
    gallery_ids,
    *,
    ties: str = "pessimistic",
    chunk_bytes: int = CHUNK_BYTES,
) -> Metrics:
    """Scores captions against a gallery by the inner product of their features.

    query_features [Q, D], gallery_features [G, D]: normalised rows make it the cosine, which is
    the field's choice (nothing is normalised here). query_ids [Q], gallery_ids [G]: identities.
    ties: see the module. chunk_bytes: similarities held in memory at once; it changes no result.
    Raises ValueError for shapes that do not fit and an unknown tie rule, InputError for NaN or
    infinite features and queries none of which has a positive. Protocol: Li et al., CVPR 2017
    (CUHK-PEDES); AP and INP as in IRRA, CVPR 2023.

    >>> found = retrieval_metrics(np.eye(2), np.eye(2), np.array([7, 8]), np.array([8, 7]))
    >>> found.R1, found.R5, found.mAP
    (0.0, 1.0, 0.5)
    """
    queries, gallery = ranking.checked_features(query_features, gallery_features)
    similarity = ranking.feature_similarity(queries, gallery)
    size = (len(queries), len(gallery))
    return _metrics(similarity, size, query_ids, gallery_ids, ties, chunk_bytes)


def similarity_metrics(
    similarity,
    query_ids,
    gallery_ids,
    *,
    ties: str = "pessimistic",
    chunk_bytes: int = CHUNK_BYTES,
) -> Metrics:
    """As `retrieval_metrics`, for scores that are not an inner product (a re-ranker's, say).

    similarity [Q, G], finite: give items that a re-ranker skipped a low number, not -inf.

    >>> scores = np.array([[0.9, 0.5, 0.1]])
    >>> found = similarity_metrics(scores, np.array([7]), np.array([8, 7, 7]))
    >>> found.R1, found.R5, round(found.mAP, 4)  # (1/2 + 2/3) / 2
    (0.0, 1.0, 0.5833)
    """
    matrix = ranking.checked_rows(similarity, "similarity")
    rows = ranking.matrix_similarity(matrix)
    return _metrics(rows, matrix.shape, query_ids, gallery_ids, ties, chunk_bytes)


def _metrics(
    similarity: ranking.Similarity,
    size: tuple[int, int],
    query_ids,
    gallery_ids,
    ties: str,
    chunk_bytes: int,
) -> Metrics:
    queries, gallery = size
    query_ids = _checked_ids(query_ids, queries, "query_ids")
    gallery_ids = _checked_ids(gallery_ids, gallery, "gallery_ids")
    if ties not in TIES:
        raise ValueError(f"ties={ties!r} is not a tie rule; use one of {', '.join(TIES)}.")
    positives = ranking.Positives.find(query_ids, gallery_ids)
    if not positives.number.any():
        raise InputError(
            f"None of the {queries} queries has an image of its identity among the {gallery} "
            "of the gallery; check that query_ids and gallery_ids come from the same split."
        )
    ranks = ranking.rank_positives(
        similarity, positives, gallery, ties=ties, chunk_bytes=chunk_bytes
    )
    return _summarise(ranks, positives, gallery, identities=len(np.unique(gallery_ids)))


def _summarise(
    ranks: Integer[np.ndarray, " pairs"],
    positives: ranking.Positives,
    gallery: int,
    identities: int,
) -> Metrics:
    """The metrics, from the rising ranks of each query's positives, [pairs]."""
    first, ap, inp = _per_query(ranks, positives)
    hits = np.bincount(first, minlength=CMC_RANKS + 1)[1 : CMC_RANKS + 1]
    cmc = np.cumsum(hits) / len(first)
    return Metrics(
        R1=float(cmc[0]),
        R5=float(cmc[4]),
        R10=float(cmc[9]),
        mAP=float(np.nanmean(ap)),
        mINP=float(np.nanmean(inp)),
        r_mean=float(cmc[[0, 4, 9]].mean()),
        chance_R1=float(positives.number.mean() / gallery),
        queries=len(first),
        queries_without_match=int((first == 0).sum()),
        gallery=gallery,
        identities=identities,
        cmc=cmc,
        first_match_rank=first,
        average_precision=ap,
        inverse_negative_penalty=inp,
    )


def _per_query(
    ranks: Integer[np.ndarray, " pairs"], positives: ranking.Positives
) -> tuple[Integer[np.ndarray, " q"], Float[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """Rank of the first positive, AP and INP of each query, [Q]; see `Metrics`."""
    number, query = positives.number, positives.query
    matched = number > 0
    so_far = np.arange(1, len(ranks) + 1) - positives.offset[query]
    precisions = np.bincount(query, so_far / ranks, minlength=len(number))
    first = np.zeros(len(number), np.int64)
    first[matched] = ranks[positives.offset[matched]]
    ap, inp = np.full((2, len(number)), np.nan)
    ap[matched] = precisions[matched] / number[matched]
    inp[matched] = number[matched] / ranks[(positives.offset + number - 1)[matched]]
    return first, ap, inp


def _checked_ids(ids, size: int, name: str) -> Shaped[np.ndarray, " {size}"]:
    ids = np.asarray(ids)
    if ids.shape != (size,):
        raise ValueError(f"{name} has shape {ids.shape}, but there are {size} rows to identify.")
    return ids
