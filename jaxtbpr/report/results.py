"""What stage evaluate measured: the tables, the CMC curves and example rankings."""

from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.report import pictures, plots
from jaxtbpr.report.people import SetImages
from jaxtbpr.report.plots import Line, Plot
from jaxtbpr.report.table import chance, chance_curve, cut_captions

CHOICES = {"selected": "best on validation", "last": "last", "best_on_test": "best on test"}


def test_sets(folder: epath.Path, metrics: dict[str, dict]) -> list[dict[str, Any]]:
    """Returns what was measured on each test set; folder: that of stage evaluate.

    metrics: {test set: metrics} of the stage's commit. Each of the results has "name", "metrics",
    "chance", "choices" (rows of epoch and metrics), "cut" (see `table`), "cmc" and "examples".
    """
    results = []
    for name, own in metrics.items():
        path = folder / f"{name.replace('/', '__')}.json"
        detail = files.read_json(path) if path.exists() else {}
        choices = [
            {"label": label, "epoch": detail[key].get("epoch"), "metrics": detail[key]}
            for key, label in CHOICES.items()
            if detail.get(key)
        ]
        results.append(
            {
                "name": name,
                "metrics": own,
                "chance": chance(own),
                "choices": choices,
                "cut": cut_captions(own),
                "cmc": detail.get("cmc") or [],
                "examples": detail.get("examples") or [],
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
            guessed = chance_curve(result["metrics"], len(curve))
            lines.append(Line(f"{result['name']}, by chance", ranks, guessed, quiet=True))
    if not lines:
        return None
    title = "Right person within the first k (CMC)"
    return plots.lines(title, lines, x_label="k", percent=True, from_zero=True)


def queries(result: dict[str, Any], images: SetImages, limit: int) -> list[dict[str, Any]]:
    """Returns the first `limit` example queries of a test set with their ranked pictures."""
    return [_query(result["name"], example, images) for example in result["examples"][:limit]]


def _query(set_name: str, example: dict, images: SetImages) -> dict[str, Any]:
    def show(image_id: Any, alt: str) -> pictures.Picture:
        return pictures.picture(lambda: images.read(set_name, image_id), alt)

    ranked = [
        {
            "rank": rank,
            "right": bool(hit["right"]),
            "score": hit["score"],
            "picture": show(
                hit["image_id"],
                f"Rank {rank}, {'right' if hit['right'] else 'wrong'}: "
                f"image {hit['image_id']} of person {hit['identity']}",
            ),
        }
        for rank, hit in enumerate(example["ranked"], 1)
    ]
    described = f"The person described: image {example['query_image_id']}"
    return {
        "caption": example["caption"],
        "described": show(example["query_image_id"], described),
        "first_right_rank": example["first_right_rank"],
        "ranked": ranked,
    }
