"""Where a model fails: ranks of the first match, by attributes and by length of captions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxtbpr.core import files
from jaxtbpr.datasets.source import file_stem
from jaxtbpr.report import intervals

# The ranks of the first match that are counted together: 1, 2, 3 to 5, ...
RANKS = (1, 2, 5, 10, 20, 50, 100, 1000)
MIN_QUERIES = 5  # of a value of an attribute, for its R@1 to be shown
VALUES_SHOWN = 16
_LENGTHS = 5
Query = Mapping[str, Any]


def read(folder: epath.Path, set_name: str) -> list[dict[str, Any]]:
    """Returns the queries of a test set as `evaluate.query_rows` wrote them; [] of older runs.

    folder: that of stage evaluate.
    """
    path = folder / f"{file_stem(set_name)}.queries.jsonl"
    return list(files.read_json_lines(path)) if path.exists() else []


def rank_rows(queries: Sequence[Query]) -> list[dict[str, Any]]:
    """Returns a histogram of the rank of the first match, as rows of bars."""
    ranks = np.array([query["first_match_rank"] for query in queries])
    top = max(int(ranks.max(initial=1)), 10)
    bounds = [(low + 1, high) for low, high in zip((0, *RANKS), (*RANKS, top), strict=False)]
    rows = [
        _row(f"{low:,}" if low == high else f"{low:,} to {min(high, top):,}", count, len(ranks))
        for low, high in bounds
        if low <= top
        for count in [int(((low <= ranks) & (ranks <= high)).sum())]
    ]
    none = int((ranks == 0).sum())
    return rows + ([_row("no right image", none, len(ranks))] if none else [])


def by_length(queries: Sequence[Query]) -> list[dict[str, Any]]:
    """Returns R@1 by length of caption, from short to long, in groups of about equal size."""
    words = np.array([len(query["caption"].split()) for query in queries])
    edges = np.unique(np.quantile(words, np.linspace(0, 1, _LENGTHS + 1)).round().astype(int))
    lows = edges[:-1] if len(edges) > 1 else edges
    part = np.searchsorted(lows, words, side="right") - 1
    rows = []
    for number in range(len(lows)):
        counts = words[part == number]
        if len(counts):
            few, many = counts.min(), counts.max()
            label = f"{few} words" if few == many else f"{few} to {many} words"
            rows.append(
                _share(label, [q for q, p in zip(queries, part, strict=True) if p == number])
            )
    return rows


def by_attribute(
    queries: Sequence[Query], looks: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Any]]:
    """Returns R@1 by attribute of the person, the lowest first.

    looks: {image id: {slot: value}} of the images that the captions describe. Values of fewer than
    `MIN_QUERIES` queries are left out.
    """
    groups: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        for slot, value in looks.get(query["image_id"], {}).items():
            groups[f"{slot.replace('_', ' ')}: {value}"].append(query)
    rows = [_share(name, group) for name, group in groups.items() if len(group) >= MIN_QUERIES]
    return sorted(rows, key=lambda row: (row["share"], -row["count"], row["label"]))[:VALUES_SHOWN]


def is_right(queries: Iterable[Query]) -> np.ndarray:
    """Returns which queries have a right image first, bool [Q]."""
    return np.array([query["first_match_rank"] == 1 for query in queries], bool)


def interval(queries: Sequence[Query]) -> tuple[float, float] | None:
    """Returns the 95 % interval of R@1 over people; None without queries.

    Over people, since the captions of one person fail together: see `intervals.bootstrap`.
    """
    if not queries:
        return None
    return intervals.bootstrap(is_right(queries), [query["identity"] for query in queries])


def _share(label: str, queries: Sequence[Query]) -> dict[str, Any]:
    return _row(label, int(is_right(queries).sum()), len(queries)) | {"count": len(queries)}


def _row(label: str, count: int, total: int) -> dict[str, Any]:
    return {"label": label, "count": count, "share": count / max(total, 1)}
