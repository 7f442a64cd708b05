"""Retrieval metrics against the published code's: eval_metrics*.npz with its .json."""

import json
import pathlib

import numpy as np

from jaxtbpr.retrieval.evaluation import metrics

PUBLISHED_AS = {
    "gallery_order": "stable_order",
    "pessimistic": "ties_positives_last",
    "optimistic": "ties_positives_first",
}
KEYS = (
    ("r1", "R1"),
    ("r5", "R5"),
    ("r10", "R10"),
    ("r_mean", "r_mean"),
    ("mAP", "mAP"),
    ("irra_mINP", "mINP"),
)


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance) of every case; percentages."""
    path = pathlib.Path(path)
    arrays = np.load(path)
    rows = []
    for case in json.loads(path.with_suffix(".json").read_text()):
        rows += _check_case(case, arrays)
    return rows


def _check_case(case, arrays):
    name = case["case"]
    inputs = [arrays[f"{name}/{part}"] for part in ("similarity", "query_ids", "gallery_ids")]
    rows = []
    for ties, published_as in PUBLISHED_AS.items():
        # Cases without ties have one order only, and its numbers under one name only.
        expected = case.get(published_as, case["stable_order"])
        found = metrics.similarity_metrics(*inputs, ties=ties)
        pairs = _pairs(found, expected) if isinstance(expected, dict) else []
        if pairs:
            largest = _largest(*zip(*pairs, strict=True))
            rows.append((f"{name}: percentages, {ties}", largest, 1e-4))
    return rows + _check_stable(
        case, arrays, metrics.similarity_metrics(*inputs, ties="gallery_order")
    )


def _pairs(found, expected):
    """(ours, published) of every percentage that the published code could compute."""
    wanted = [(getattr(found, ours), _published(found, expected, key)) for key, ours in KEYS]
    cmc = expected["irra_cmc"]
    curve = [] if isinstance(cmc, str) else zip(found.cmc[: len(cmc)], cmc, strict=True)
    pairs = [*wanted, *((ours, _number(theirs)) for ours, theirs in curve)]
    return [(100 * ours, theirs) for ours, theirs in pairs if theirs is not None]


def _published(found, expected, key):
    """The published number, None where there is none to compare with.

    Means over queries are NaN where one has no match. Ours are those over the queries with a
    match, which may stand beside.
    """
    number = _number(expected[key])
    has_none = key.endswith(("mAP", "mINP")) and found.queries_without_match
    if number is None or not (np.isnan(number) and has_none):
        return number
    names = [f"{one}_over_queries_with_a_match" for one in (key, key.removeprefix("irra_"))]
    return next((_number(expected[name]) for name in names if name in expected), None)


def _number(value):
    """A number, which may be written as a string ("nan"); None for the text of an error."""
    try:
        return float(value)
    except ValueError:
        return None


def _check_stable(case, arrays, found):
    name, expected = case["case"], case["stable_order_float64"]
    ranks = arrays[f"{name}/first_match_rank0"]
    means = [
        (100 * ours, _published(found, expected, key))
        for ours, key in ((found.mAP, "mAP"), (found.mINP, "mINP"))
    ]
    means = [pair for pair in means if pair[1] is not None]
    rows = [
        (f"{name}: rank of the first match", _largest(found.first_match_rank - 1, ranks), 0.0),
        (f"{name}: AP", _largest(found.average_precision, arrays[f"{name}/ap_f64"]), 1e-11),
        (
            f"{name}: INP",
            _largest(found.inverse_negative_penalty, arrays[f"{name}/inp_f64"]),
            1e-11,
        ),
    ]
    if means:
        rows.append((f"{name}: mAP, mINP in double", _largest(*zip(*means, strict=True)), 1e-9))
    return rows


def _largest(found, expected) -> float:
    """Largest difference; NaN where only one is NaN."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    both = np.isnan(found) & np.isnan(expected)
    return float(np.abs(np.where(both, 0, found - expected)).max(initial=0))
