"""The results of stage evaluate: tables, CMC curves and example rankings."""

from typing import Any

import numpy as np
from etils import epath

from jaxtbpr.core import files
from jaxtbpr.datasets.source import file_stem
from jaxtbpr.report import failures, pictures, plots
from jaxtbpr.report.people import SetImages
from jaxtbpr.report.plots import Line, Plot
from jaxtbpr.report.table import chance, chance_curve, cut_captions

CHOICES = {"selected": "best on validation", "last": "last", "best_on_test": "best on test"}


def test_sets(folder: epath.Path, metrics: dict[str, dict]) -> list[dict[str, Any]]:
    """Returns the results on each test set; folder: that of stage evaluate.

    metrics: {test set: metrics} of the stage's commit. Each of the results has "name", "metrics",
    "chance", "choices" (rows of epoch and metrics), "cut" (see `table`), "cmc", "examples",
    "hardest" and "asked" (all queries).
    """
    results = []
    for name, metrics_of_set in metrics.items():
        path = folder / f"{file_stem(name)}.json"
        detail = files.read_json(path) if path.exists() else {}
        choices = [
            {"label": label, "epoch": detail[key].get("epoch"), "metrics": detail[key]}
            for key, label in CHOICES.items()
            if detail.get(key)
        ]
        results.append(
            {
                "name": name,
                "metrics": metrics_of_set,
                "chance": chance(metrics_of_set),
                "choices": choices,
                "cut": cut_captions(metrics_of_set),
                "cmc": detail.get("cmc") or [],
                "examples": detail.get("examples") or [],
                "hardest": detail.get("hardest") or [],
                "asked": failures.read(folder, name),
            }
        )
    return results


def cmc_plot(results: list[dict[str, Any]]) -> Plot | None:
    """Returns the CMC curves: per test set R@k by k, and the same of a random order."""
    lines = []
    for result in results:
        curve = result["cmc"]
        ranks = range(1, len(curve) + 1)
        if curve:
            lines.append(Line(result["name"], ranks, curve))
            by_chance = chance_curve(result["metrics"], len(curve))
            lines.append(Line(f"{result['name']}, by chance", ranks, by_chance, quiet=True))
    if not lines:
        return None
    title = "Right person within the first k (CMC)"
    return plots.lines(title, lines, x_label="k", percent=True, from_zero=True)


def queries(result: dict[str, Any], images: SetImages, limit: int) -> list[dict[str, Any]]:
    """Returns `limit` example queries, spread over those of a test set, with ranked pictures."""
    examples = result["examples"]
    places = np.unique(np.linspace(0, len(examples) - 1, min(limit, len(examples))).round())
    return [_query(result["name"], examples[int(place)], images) for place in places]


def hardest(result: dict[str, Any], images: SetImages, limit: int) -> list[dict[str, Any]]:
    """Returns the `limit` queries whose right image is ranked lowest, that image last."""
    return [_query(result["name"], one, images, True) for one in result["hardest"][:limit]]


def breakdown(result: dict[str, Any], images: SetImages) -> dict[str, list[dict[str, Any]]] | None:
    """Returns R@1 of a test set by rank, length and attribute; None without saved queries."""
    asked = result["asked"]
    if not asked:
        return None
    return {
        "ranks": failures.rank_rows(asked),
        "lengths": failures.by_length(asked),
        "attributes": failures.by_attribute(asked, images.looks(result["name"])),
    }


def _query(
    set_name: str, example: dict, images: SetImages, is_hard: bool = False
) -> dict[str, Any]:
    def show(image_id: Any, alt: str) -> pictures.Picture:
        return pictures.picture(lambda: images.read(set_name, image_id), alt)

    hits = list(enumerate(example["ranked"], 1))
    first, rank = example.get("first_match"), example["first_match_rank"]
    if is_hard and first and rank > len(hits):
        hits = [*hits[:-1], (rank, first)]
    ranked = [
        {
            "rank": rank,
            "right": bool(hit["right"]),
            "score": hit["score"],
            "name": f"{hit['image_id']}, person {_who(hit)}",
            "picture": show(
                hit["image_id"],
                f"Rank {rank}, {'right' if hit['right'] else 'wrong'}: "
                f"image {hit['image_id']} of person {_who(hit)}",
            ),
        }
        for rank, hit in hits
    ]
    described = f"The person described: image {example['query_image_id']}"
    return {
        "caption": example["caption"],
        "image_id": example["query_image_id"],
        "identity": example.get("query_identity_name", example["query_identity"]),
        "described": show(example["query_image_id"], described),
        "first_match_rank": example["first_match_rank"],
        "ranked": ranked,
    }


def _who(hit: dict) -> str:
    return hit.get("identity_name", hit["identity"])  # older runs saved only the number
