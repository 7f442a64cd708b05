"""Quality of the data: the results of stages measure and denoise, as rows and plots."""

import itertools
from collections.abc import Mapping
from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.report import pictures, plots
from jaxtbpr.report.facts import Commits
from jaxtbpr.report.plots import Line, Plot

# Name in measures.json: (what it is called, its unit, what it means, how many digits).
MEASURES = {
    "clip_score": (
        "CLIPScore",
        "0 to 2.5",
        "how well captions fit their images; higher is better",
        3,
    ),
    "cmmd": ("CMMD", "0 and up", "distance of the images from the reference; lower is better", 4),
    "fid": ("FID", "0 and up", "the same by Inception features; lower is better", 2),
    "feature_variance": ("Feature variance", "0 to 1", "how different the images are", 3),
    "reference_feature_variance": (
        "  of the reference",
        "0 to 1",
        "how different its images are",
        3,
    ),
    "evenness": ("Evenness of attributes", "0 to 1", "1 where all values are equally frequent", 3),
    "exact_duplicates": ("Exact duplicates", "fraction", "images with the same file as another", 4),
    "near_duplicates": ("Near-duplicates", "fraction", "images that look almost like another", 4),
    "words_mean": ("Words in a caption", "words", "on average", 1),
    "words_sd": ("  standard deviation", "words", "of the words in a caption", 1),
    "vocabulary": ("Vocabulary", "words", "different words in all captions", 0),
    "distinct_captions": ("Distinct captions", "fraction", "different captions, of all", 4),
}


def measured(workdir: Workdir, done: Commits) -> dict[str, Any] | None:
    """Returns what the page shows of stage measure, None where it did not run."""
    if "measure" not in done:
        return None
    measures = files.read_json(workdir.dir("measure") / "measures.json")
    numbers = measures["measures"]
    words = {int(length): count for length, count in measures["words"].items()}
    return {
        "numbers": numbers,
        "rows": _rows(numbers),
        "attributes": measures["attributes"],
        "plots": [
            *(
                [_scores("Cosine of image and caption", measures["scores"])]
                if measures["scores"]
                else []
            ),
            *([plots.histogram("Words in a caption", words, x_label="words")] if words else []),
        ],
        "examples": {
            name: [_pair(workdir.root, pair) for pair in pairs]
            for name, pairs in measures["examples"].items()
        },
    }


def denoised(workdir: Workdir, done: Commits) -> dict[str, Any] | None:
    """Returns what the page shows of stage denoise, None where it did not run."""
    if "denoise" not in done:
        return None
    counts = done["denoise"]["pairs"]
    plot = [_scores("Score of a pair", counts["histogram"])] if counts["pairs"] else []
    examples = [_pair(workdir.root, pair) for pair in counts["examples"]]
    settings = done["denoise"]["recipe"]["config"]
    action = settings.get("denoise.action", "drop")
    return counts | {"plots": plot, "examples": examples, "action": action}


def _rows(numbers: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row for each number that was measured."""
    return [
        {"name": name, "value": f"{numbers[key]:,.{digits}f}", "unit": unit, "meaning": meaning}
        for key, (name, unit, meaning, digits) in MEASURES.items()
        if numbers.get(key) is not None
    ]


def _scores(title: str, histogram: Mapping[str, list]) -> Plot:
    edges = histogram["edges"]
    centres = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    names = {name: sum(histogram[name]) for name in ("believed", "doubted")}
    lines = [Line(name, centres, histogram[name]) for name, count in names.items() if count]
    return plots.lines(title, lines, x_label="score", from_zero=True)


def _pair(root: epath.Path, pair: Mapping[str, Any]) -> dict[str, Any]:
    alt = f"Image {pair['id']}: {pair['caption']}"
    return (
        {"wrong": None} | dict(pair) | {"picture": pictures.record_picture(root, dict(pair), alt)}
    )
