"""Stage caption: sentences for each image.

Engine `template` describes the attributes, in training with mistakes as people make them; engines
`transformers` (a local model) and `openai` (a server) ask multimodal models (see `models`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxtbpr.captioning import facts, models, template
from jaxtbpr.core import attributes, manifest
from jaxtbpr.core.errors import InputError
from jaxtbpr.core.manifest import Record
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.seeds import rng
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.workers import client as clients

SPLITS = ("train", "val", "test")


def _mention_option(slot: str, probability: float) -> Option:
    what = slot.replace("_", " ")
    return Option(probability, f"probability that a caption names the {what}", low=0.0, high=1.0)


OPTIONS: Options = {
    "engine": Option(
        "template", "what writes the captions", choices=("template", *clients.ENGINES)
    ),
    "per_image": {
        "train": Option(2, "captions of a train image", low=1),
        "val": Option(1, "captions of a val image", low=1),
        "test": Option(1, "captions of a test image", low=1),
    },
    "wrong": Option(0.02, "probability that a named attribute is wrong", low=0.0, high=1.0),
    "missing": Option(0.05, "probability that a named attribute is left out", low=0.0, high=1.0),
    "template_min_words": Option(
        template.MIN_WORDS, "fewest words of a caption, if enough is visible", low=1, high=40
    ),
    "noisy_splits": Option(("train",), "splits with wrong and missing attributes", choices=SPLITS),
    "mention": {slot: _mention_option(slot, p) for slot, p in facts.MENTION.items()},
    **models.OPTIONS,
}


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the digests of the models that the stage uses."""
    return {} if config.caption.engine == "template" else clients.fingerprint(config.caption)


def check(config: ConfigDict) -> None:
    """Raises UserError where the stage's models cannot be used."""
    if config.caption.engine != "template":
        clients.check(config.caption, "caption")


def run(config: ConfigDict, workdir: Workdir) -> dict:
    """Adds captions to each record of the manifest before it; by a model: see `models.run`.

    Engine `template` adds "captions", "caption_noise" and "facts".
    caption_noise: for each caption the list of [slot, true value, stated value or None], so that
    robustness to noise can be measured. facts: {"shown": {slot: value} of what
    can be seen, "mentioned": the same of what each caption says}, by which a caption can be
    compared with other images. Records with missing or inconsistent attributes are rejected.
    """
    options = config.caption.to_dict()
    if options["engine"] != "template":
        return models.run(config, workdir)

    def work(records: Iterator[Record]) -> Iterator[list[Record]]:
        return ([add_captions(record, config.seed, options)] for record in records)

    return workdir.map_stage("caption", work)


def add_captions(record: Record, seed: int, options: Mapping) -> Record:
    """Returns `record` with its captions, or rejected; options: the section's plain values."""
    if "attributes" not in record:
        reason = "engine 'template' needs attributes, and the record has none: use another engine"
        return manifest.reject(record, "caption", reason)
    try:
        attributes.check(record["attributes"])
    except InputError as error:
        return manifest.reject(record, "caption", str(error))
    is_noisy = record["split"] in options["noisy_splits"]
    captions = [
        template.describe(
            record["attributes"],
            rng(seed, "caption", record["id"], k),
            mention=options["mention"],
            wrong=options["wrong"] if is_noisy else 0.0,
            missing=options["missing"] if is_noisy else 0.0,
            min_words=options["template_min_words"],
        )
        for k in range(options["per_image"][record["split"]])
    ]
    looks = record["attributes"]
    shown = facts.labels({slot: looks[slot] for slot in facts.visible(looks)})
    return record | {
        "captions": [caption.text for caption in captions],
        "caption_noise": [caption.noise for caption in captions],
        "facts": {
            "shown": shown,
            "mentioned": [facts.labels(caption.mentioned) for caption in captions],
        },
    }


STAGE = Stage(
    "caption", "writes sentences", OPTIONS, run,
    fingerprint=fingerprint, check=check, need_attributes=("template",),
)  # fmt: skip
