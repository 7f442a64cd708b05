"""Retrieval metrics against the published code's: eval_metrics*.npz with its .json."""

import json
import pathlib

import numpy as np

from jaxtbpr.retrieval import metrics

PUBLISHED_AS = {
    "gallery_order": "stable_order",
    "pessimistic": "ties_positives_last",
    "optimistic": "ties_positives_first",
}
PERCENT = {"r1": "R1", "r5": "R5", "r10": "R10", "r_mean": "r_mean", "mAP": "mAP"}


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
        pairs = [(100 * getattr(found, ours), expected[key]) for key, ours in PERCENT.items()]
        pairs.append((100 * found.mINP, expected["irra_mINP"]))
        if found.queries_without_match:  # 0/0 in the published means: compare ours below
            pairs = [pair for pair in pairs if not np.isnan(pair[1])]
        cmc = expected["irra_cmc"]
        pairs += list(zip(100 * found.cmc[: len(cmc)], cmc, strict=True))
        rows.append((f"{name}: percentages, {ties}", _largest(*zip(*pairs, strict=True)), 1e-4))
    return rows + _check_stable(
        case, arrays, metrics.similarity_metrics(*inputs, ties="gallery_order")
    )


def _check_stable(case, arrays, found):
    name, expected = case["case"], case["stable_order_float64"]
    ranks = arrays[f"{name}/first_match_rank0"]
    means = [
        (100 * found.mAP, expected["mAP_over_queries_with_a_match"]),
        (100 * found.mINP, expected["mINP_over_queries_with_a_match"]),
    ]
    return [
        (f"{name}: rank of the first match", _largest(found.first_match_rank - 1, ranks), 0.0),
        (f"{name}: AP", _largest(found.average_precision, arrays[f"{name}/ap_f64"]), 1e-11),
        (
            f"{name}: INP",
            _largest(found.inverse_negative_penalty, arrays[f"{name}/inp_f64"]),
            1e-11,
        ),
        (f"{name}: mAP, mINP in double", _largest(*zip(*means, strict=True)), 1e-9),
    ]


def _largest(found, expected) -> float:
    """Largest difference; NaN where only one is NaN."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    both = np.isnan(found) & np.isnan(expected)
    return float(np.abs(np.where(both, 0, found - expected)).max(initial=0))
