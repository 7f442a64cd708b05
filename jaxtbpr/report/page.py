"""Assembles the page: reads the results of the finished stages and fills in the template."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup

from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import leakage
from jaxtbpr.datasets.source import RetrievalSet, list_splits
from jaxtbpr.report import facts, failures, pictures, plots, quality, results, training
from jaxtbpr.report.people import PersonImage, SetImages, Survey, from_manifest, from_set, survey
from jaxtbpr.report.table import COLUMNS

MANIFEST_SET = "synthetic"  # the name under which stage build packs the manifest before it
CAPTIONS_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Page:
    """The finished page: its text, how many person images were read for it, the config shown."""

    html: str
    images: int
    config: dict[str, Any]


def assemble(workdir: Workdir, report_config: Mapping[str, Any], does: Mapping[str, str]) -> Page:
    """Makes the page of a run.

    report_config: the part of the config that stage report has; does: {stage before it: what it
    does}. What a run does not have (a stage that did not run, an image that is gone) is left out.
    Raises UserError where a finished stage's files are damaged.
    """
    done = workdir.commits(does)
    options = report_config["report"]
    surveys = dict(_surveys(workdir, done, report_config["seed"], options["people"]))
    config = facts.config(done, report_config)
    context = {
        "columns": COLUMNS,
        "stages": facts.pipeline_strip(done, does),
        "rejected": facts.rejected(workdir, done),
        "remarks": done.get("build", {}).get("remarks", {}),
        "prompts": _prompts(done),
        "rejected_by": done.get("filter", {}).get("rejected_by", {}),
        "quality": quality.measured(workdir, done),
        "denoised": quality.denoised(workdir, done),
        "surveys": surveys,
        "images": sum(set_survey.images.total() for set_survey in surveys.values()),
        "identities": sum(set_survey.identities.total() for set_survey in surveys.values()),
        "has_images": any(set_survey.has_images for set_survey in surveys.values()),
        "people": _people(surveys, options["images_per_person"]),
        "captions": _captions(surveys),
        "mention": _mention(config.get("caption", {})),
        "answers": done.get("caption", {}).get("answers"),
        "config": config,
        "changed": facts.changed(done),
        "runs": facts.runs(done),
        "versions": facts.versions(done),
        **_training(workdir, done, config.get("model", {}).get("weights", "")),
        **_evaluation(workdir, done, options["queries"]),
    }
    return Page(render(context), context["images"], config)


def render(context: Mapping[str, Any], template: str = "template.html") -> str:
    """Fills in the template; all text that is not the page's own is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": percent,
        "share": lambda fraction: f"{100 * fraction:.3g}",
        "count": lambda number: f"{number:,}",
        "duration": duration,
        "section": lambda key: key.partition(".")[0],
        "json": lambda value: json.dumps(value, ensure_ascii=False),
    }
    return environment.get_template(template).render(style=Markup(_source("style.css")), **context)


def _source(name: str) -> str:
    return (resources.files("jaxtbpr.report") / name).read_text()


def percent(fraction: float | None) -> str:
    """Returns a fraction in percent, finer below one: "52.3", "0.50"; None: "–"."""
    if fraction is None:
        return "–"
    return f"{100 * fraction:.1f}" if fraction >= 0.01 else f"{100 * fraction:.2f}"


def duration(seconds: float) -> str:
    """Returns a readable duration: "0.4 s", "42 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _prompts(done: facts.Commits) -> dict[str, Any] | None:
    """Returns how even the attributes of the prompts are, None without attributes."""
    survey = done.get("prompts", {})
    return dict(survey) if survey.get("evenness") else None


def _surveys(
    workdir: Workdir, done: facts.Commits, seed: int, people: int
) -> Iterator[tuple[str, Survey]]:
    """Yields (data set, what is in it): the last manifest, then the sets made of other folders."""
    name = workdir.name_before("report")
    if name:
        images = from_manifest(workdir.root, workdir.manifest(name))
        yield MANIFEST_SET, survey(images, seed=seed, people=people)
    if "build" not in done:
        return
    for one in done["build"]["sets"]:
        if not (name and one == MANIFEST_SET):
            images = _all_splits(workdir.dir("build") / one)
            yield one, survey(images, seed=seed, people=people)


def _all_splits(folder: epath.Path) -> Iterator[PersonImage]:
    for split in list_splits(folder):
        yield from from_set(RetrievalSet(folder, split), split)


def _people(surveys: Mapping[str, Survey], max_images: int) -> list[dict[str, Any]]:
    """Returns the sampled people of each data set, for the page."""
    return [
        {"set": name, "people": [_person(images[:max_images]) for images in set_survey.sample]}
        for name, set_survey in surveys.items()
        if set_survey.sample
    ]


def _person(images: list[PersonImage]) -> dict[str, Any]:
    is_edited = any(image.edits for image in images)
    shown = [
        {
            "label": ", ".join(image.edits) or ("base" if is_edited else ""),
            "picture": _picture(image, number),
            "captions": image.captions,
        }
        for number, image in enumerate(images, 1)
    ]
    first = images[0]
    return {
        "identity": first.identity,
        "split": first.split,
        "prompt": first.prompt,
        "images": shown,
        "more": any(len(image.captions) > 1 for image in images),
    }


def _picture(image: PersonImage, number: int) -> pictures.Picture | None:
    if image.read is None:
        return None
    caption = f": {image.captions[0]}" if image.captions else ""
    return pictures.picture(image.read, f"Image {number} of person {image.identity}{caption}")


def _captions(surveys: Mapping[str, Survey]) -> list[dict[str, Any]]:
    """Returns, for each data set with captions, a histogram of their lengths and examples."""
    shown = []
    for name, set_survey in surveys.items():
        if not set_survey.lengths:
            continue
        words = sum(length * count for length, count in set_survey.lengths.items())
        total = set_survey.lengths.total()
        examples = [c for person in set_survey.sample for c in person[0].captions[-1:]]
        plot = plots.histogram("Words in a caption", set_survey.lengths, x_label="words")
        shown.append(
            {
                "set": name,
                "total": total,
                "mean": words / total,
                "noise": _noise(set_survey),
                "plot": plot,
                "examples": examples[:CAPTIONS_SHOWN],
            }
        )
    return shown


def _mention(options: Mapping[str, Any]) -> dict[str, float]:
    """Returns how often the template mentions each slot; {} where models wrote the captions."""
    is_template = options.get("engine", "template") == "template"
    return options.get("mention", {}) if is_template else {}


def _noise(set_survey: Survey) -> dict[str, float] | None:
    """Returns the fractions of noisy train captions; None where no noise was added."""
    captions = set_survey.captions["train"]
    if not (set_survey.wrong["train"] or set_survey.lacking["train"]):
        return None
    return {
        "wrong": set_survey.wrong["train"] / captions,
        "lacking": set_survey.lacking["train"] / captions,
    }


def _training(workdir: Workdir, done: facts.Commits, weights: str) -> dict[str, Any]:
    if "train" not in done:
        return {"scalars": [], "recall": None, "model": []}
    folder = workdir.dir("train")
    return {
        "scalars": training.scalar_plots(folder),
        "recall": training.recall_plot(folder),
        "model": training.model_rows(folder, weights),
    }


def _evaluation(workdir: Workdir, done: facts.Commits, queries: int) -> dict[str, Any]:
    if "evaluate" not in done:
        return {"results": [], "cmc": None, "opening": None}
    measured = results.test_sets(workdir.dir("evaluate"), done["evaluate"]["metrics"])
    images = SetImages(workdir.dir("build"))
    for result in measured:
        result["doubt"] = leakage.doubt(result["name"], done.get("build", {}), done.get("train"))
        result["queries"] = results.queries(result, images, queries)
        result["worst"] = results.hardest(result, images, queries)
        result["breakdown"] = results.breakdown(result, images)
        result["interval"] = failures.interval(result["asked"])
    asked = [query for result in measured[:1] for query in result["queries"]]
    worked = [query for query in asked if query["first_match_rank"] == 1]
    opening = (worked or asked or [None])[0]
    return {"results": measured, "cmc": results.cmc_plot(measured), "opening": opening}
