"""The results as a plain table: every test set and the chance level."""

from collections.abc import Mapping

import numpy as np

from jaxtbpr.core.tokenizer import Cut

COLUMNS = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "mAP": "mAP", "mINP": "mINP"}


def results_table(summary: Mapping) -> str:
    """Returns the table of `summary["evaluate"]` in percent, chance below each test set.

    summary: as in summary.json, with {test set: {"R1", "R5", "R10", "mAP", "mINP", "chance_R1",
    "queries", "gallery", "identities", "captions_cut", "text_length"}}, metrics as fractions.
    Without "evaluate": "".
    """
    sets = summary.get("evaluate") or {}
    if not sets:
        return ""
    width = max(len(name) for name in ("test set", *sets))
    width = max(width, len("  by chance"))
    lines = [_line("test set", COLUMNS.values(), width) + "   queries  gallery  identities"]
    for name, metrics in sets.items():
        sizes = f"{metrics['queries']:>10}{metrics['gallery']:>9}{metrics['identities']:>12}"
        lines.append(_line(name, _percents(metrics), width) + sizes)
        lines.append(_line("  by chance", _percents(chance(metrics)), width))
        if metrics.get("captions_cut"):
            lines.append(f"  {cut_captions(metrics)}")
    return "\n".join(lines)


def cut_captions(metrics: Mapping) -> Cut | None:
    """Returns how many captions were cut to the model's text length.

    metrics: of a test set; None where an older version did not count them.
    """
    if "captions_cut" not in metrics:
        return None
    return Cut(metrics["captions_cut"], metrics["queries"], metrics["text_length"])


def chance(metrics: Mapping) -> dict[str, float]:
    """Returns the expected metrics of a gallery in random order, as fractions.

    metrics: one test set's, of which "chance_R1" (the mean share of right images in the gallery)
    and "gallery" (its number of images, N) are read. Every query is taken to have the mean number
    of right images, P. R@k is hypergeometric; AP is the closed form of Bestgen, "Exact expected
    average precision of the random baseline" (PBML 103, 2015); INP is P over the rank of the last
    right image, of which the exact distribution is used.
    """
    size = max(1, int(metrics["gallery"]))
    right = min(size, max(1, round(metrics["chance_R1"] * size)))
    recalls = {f"R{k}": _chance_recall(size, right, k) for k in (5, 10)}
    average_precision = _chance_average_precision(size, right)
    return (
        {"R1": float(metrics["chance_R1"])}
        | recalls
        | {
            "mAP": average_precision,
            "mINP": _chance_inverse_penalty(size, right),
        }
    )


def chance_curve(metrics: Mapping, ranks: int) -> list[float]:
    """Returns R@1 .. R@`ranks` of a gallery in random order; see `chance`."""
    size = max(1, int(metrics["gallery"]))
    right = min(size, max(1, round(metrics["chance_R1"] * size)))
    return [_chance_recall(size, right, k) for k in range(1, ranks + 1)]


def _chance_recall(size: int, right: int, k: int) -> float:
    drawn = np.arange(min(k, size))
    return float(1 - np.prod((size - right - drawn).clip(0) / (size - drawn)))


def _chance_average_precision(size: int, right: int) -> float:
    if size == 1:
        return 1.0
    others = (right - 1) / (size - 1)
    harmonic = np.sum(1 / np.arange(1, size + 1)) / size
    return float(others + harmonic * (1 - others))


def _chance_inverse_penalty(size: int, right: int) -> float:
    """Returns the mean of P / l, where l is the rank of the last of P right among N images.

    P(l = N) = P / N, and P(l - 1) = P(l) (l - P) / (l - 1), down to l = P.
    """
    ranks = np.arange(size, right - 1, -1, dtype=np.float64)
    steps = (ranks[:-1] - right) / (ranks[:-1] - 1)
    probability = right / size * np.concatenate([[1.0], np.cumprod(steps)])
    return float(np.sum(probability * right / ranks))


def _percents(metrics: Mapping) -> list[str]:
    return [f"{100 * metrics[key]:.1f}" if key in metrics else "-" for key in COLUMNS]


def _line(name: str, cells, width: int) -> str:
    return f"{name:<{width}}" + "".join(f"{cell:>8}" for cell in cells)
