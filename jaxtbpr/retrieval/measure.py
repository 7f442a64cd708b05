"""Stage measure: numbers for the quality of a data set, next to a reference set if there is one.

CLIPScore of the captions, CMMD and FID from the reference, variance of the features, balance of the
attributes, duplicates, and statistics of the captions. All but the last need the features of every
image, which takes minutes on a CPU: so it is not among the stages of a usual run.
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import duplicates, files
from jaxtbpr.core.balance import balance
from jaxtbpr.core.errors import UserError, of_key
from jaxtbpr.core.images import ImageError, attempt
from jaxtbpr.core.manifest import Record, split_shards
from jaxtbpr.core.measured import Arrays, measure_shards
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.progress import say
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets.source import SPLITS
from jaxtbpr.retrieval.denoise import histogram
from jaxtbpr.retrieval.judging import reference, scoring
from jaxtbpr.retrieval.zero_shot import PROMPTS, ZeroShot

OPTIONS: Options = {
    "split": Option("train", "split to measure", choices=SPLITS),
    "max_images": Option(10_000, "images to measure, drawn at random; 0 = all images", low=0),
    "reference": Option(
        "",
        "images to compare with: WORKDIR, WORKDIR/build/NAME or a data folder; '' = no comparison",
    ),
    "reference_split": Option("train", "split of the reference", choices=SPLITS),
    "duplicate_distance": Option(
        24, "max Hamming distance of the 256-bit hashes of near-duplicates", low=0, high=255
    ),
    **scoring.JUDGE_OPTIONS,
}

EXAMPLES = 6
RESULT = "measures.json"
_SHARD = 1000  # images measured at a time
_WORDS = re.compile(r"\w+(?:['-]\w+)*")


@dataclasses.dataclass(frozen=True)
class EmbeddedImages:
    """Features, hashes and digests of the images that could be read.

    features: float32 [N, D], of length 1; hashes: uint8 [N, 32]; digests: str [N], of the files;
    names: str [N]; problems: {name: why it could not be used}.
    """

    features: np.ndarray
    hashes: np.ndarray
    digests: np.ndarray
    names: list[str]
    problems: dict[str, str]


def stage(fid: ModuleType, order: Sequence[str]) -> Stage:
    """Returns the stage.

    fid: the module that computes the features for FID, with `OPTIONS`, `fingerprint(config)`,
    `check(config)` and `features(encoded images, config, directory)`. order: the record stages of a
    run; where the reference is another run, the last finished one gives its images.
    """
    return Stage(
        "measure",
        "measures how good the data are",
        OPTIONS | {"fid": fid.OPTIONS},
        lambda config, workdir: run(
            config, workdir, order, fid if config.measure.fid.weights else None
        ),
        is_usual=False,
        fingerprint=lambda config: fingerprint(config, order) | fid.fingerprint(config),
        check=fid.check,
    )


def fingerprint(config: ConfigDict, order: Sequence[str]) -> dict[str, Any]:
    """Returns the fingerprints of the model and of the reference."""
    options = config.measure
    with of_key("measure.model"):
        prints: dict[str, Any] = {"clip": scoring.fingerprint(options.model)}
    if options.reference:
        with of_key("measure.reference"):
            prints["reference"] = reference.fingerprint(options.reference, order)
    return prints


def run(
    config: ConfigDict, workdir: Workdir, order: Sequence[str], fid: ModuleType | None = None
) -> dict[str, Any]:
    """Writes WORKDIR/measure/measures.json, what `measure` returns with "examples" and more.

    fid: the module for FID (see `stage`), or None for no FID. An image that cannot be used is
    left out and counted. Returns the counts of every stage, and "measures": the
    numbers.
    """
    options, directory = config.measure, workdir.dir("measure")
    candidates = (
        record for record in workdir.before("measure") if record["split"] == options.split
    )
    records = reference.sample(
        candidates, options.max_images, config.seed, lambda record: record["id"]
    )
    if not any("image" in record for record in records):
        raise UserError(
            f"stage 'measure' finds no image of split {options.split!r} in {workdir.root}; add "
            "stage 'generate' to config.stages, or choose another split in config.measure.split."
        )
    scorer = scoring.open_scorer(options)
    images = list(reference.of_records(records, options.split, workdir.root))
    embedded = embed_images(scorer, images, directory / "measured", "measure")
    others = _reference_images(config, order)
    other = _embed_reference(scorer, config, others, directory / "reference")
    records = [record for record in records if record["id"] not in embedded.problems]
    result = measure(scorer, records, embedded, other, options.duplicate_distance)
    numbers = result["measures"] | {"model": options.model, "reference": options.reference}
    if fid:
        sides = {"own": (images, embedded), "reference": (others, other)}
        features = [
            fid.features(_usable(*side), config, directory / "fid" / name)
            for name, side in sides.items()
        ]
        numbers["fid"] = scoring.frechet_distance(*features)
    path = directory / RESULT
    files.write_json_atomic(path, result | {"measures": numbers, "problems": embedded.problems})
    for name in ("measured", "reference", "fid"):
        (directory / name).rmtree(missing_ok=True)
    _report(numbers)
    count = len(records)
    return {
        "outputs": {RESULT: files.sha256(path.read_bytes())},
        "records_in": count + len(embedded.problems),
        "records_out": count,
        "rejected": len(embedded.problems),
        "measures": numbers,
    }


def embed_images(
    scorer: scoring.Scorer, images: Sequence[reference.Image], directory: epath.Path, label: str
) -> EmbeddedImages:
    """Reads, hashes and embeds images; resumes in `directory` at the shard where it stopped."""
    shards = split_shards(images, _SHARD)
    parts = measure_shards(
        shards, directory, lambda shard: _embed_shard(scorer, shard), label=label
    )
    every = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    good = every["problem"] == ""
    names = [image.name for image in images]
    bad = {names[k]: str(every["problem"][k]) for k in np.flatnonzero(~good)}
    return EmbeddedImages(
        features=every["features"][good],
        hashes=every["hash"][good],
        digests=every["digest"][good],
        names=[names[k] for k in np.flatnonzero(good)],
        problems=bad,
    )


def measure(
    scorer: scoring.Scorer,
    records: Sequence[Record],
    embedded: EmbeddedImages,
    other: EmbeddedImages | None,
    duplicate_distance: int,
) -> dict[str, Any]:
    """Returns all measures of the images of `records`; `embedded` has them in the same order.

    {"measures": {name: number, None where there is nothing to measure}, "attributes", see
    `core.balance`, "words": {words of a caption: how many}, "scores": a histogram of cosines, None
    without captions, "examples": the pairs of the "lowest" and of the "highest" score}.
    other: the reference. CLIPScore is of the captions as they are, without the prefix "A photo
    depicts" of its authors, since the default model is trained on captions alone.
    """
    captions = [caption for record in records for caption in record.get("captions", ())]
    owner = np.repeat(np.arange(len(records)), [len(r.get("captions", ())) for r in records])
    cut, texts = scorer.say_cut(captions, "measure"), scorer.texts(captions)
    cosines = np.sum(embedded.features[owner] * texts, axis=1)
    counts, source = attributes_of(scorer, records, embedded.features)
    attributes = balance(counts)
    measures = {
        "images": len(records),
        "clip_score": float(scoring.clip_score(embedded.features[owner], texts))
        if captions
        else None,
        "captions_cut": cut.cut,
        "text_length": cut.length,
        "cmmd": scoring.cmmd(embedded.features, other.features) if other else None,
        "reference_images": len(other.features) if other else None,
        "feature_variance": scoring.feature_variance(embedded.features),
        "reference_feature_variance": scoring.feature_variance(other.features) if other else None,
        "evenness": float(np.mean([row["entropy"] for row in attributes.values()])),
        "evenness_from": source,
        "exact_duplicates": 1 - len(set(embedded.digests.tolist())) / len(records),
        "near_duplicates": near_duplicates(embedded, duplicate_distance),
        **caption_statistics(captions),
    }
    return {
        "measures": measures,
        "attributes": attributes,
        "words": _lengths(captions),
        "scores": histogram(cosines, np.ones(len(cosines), bool)) if captions else None,
        "examples": _examples(records, owner, captions, cosines),
    }


def attributes_of(
    scorer: scoring.Scorer, records: Sequence[Record], features: np.ndarray
) -> tuple[dict[str, Counter[str]], str]:
    """Returns ({slot: counts of its values}, where the values come from: "records" or "model").

    Where not all records have attributes, the model predicts them (see `zero_shot`), with its
    mistakes.
    """
    if all(record.get("attributes") for record in records):
        slots = dict.fromkeys(slot for record in records for slot in record["attributes"])
        looks = {slot: [r["attributes"].get(slot, "none") for r in records] for slot in slots}
        source = "records"
    else:
        looks, source = _predicted(ZeroShot(scorer), features), "model"
    return {slot: Counter(values) for slot, values in looks.items()}, source


def near_duplicates(embedded: EmbeddedImages, bits: int) -> float:
    """Returns the fraction of images that are near-duplicates of one of a smaller name."""
    repeated = duplicates.duplicates_by_id(embedded.names, embedded.hashes, bits)
    return len(repeated) / len(embedded.names)


def caption_statistics(captions: Sequence[str]) -> dict[str, Any]:
    """Returns count, length, vocabulary and distinctness of the captions.

    A word is letters and digits, apostrophes and hyphens inside, in lower case.
    """
    split = [split_words(caption) for caption in captions]
    lengths = [len(words) for words in split]
    return {
        "captions": len(captions),
        "words_mean": float(np.mean(lengths)) if captions else None,
        "words_sd": float(np.std(lengths)) if captions else None,
        "vocabulary": len(set(itertools.chain.from_iterable(split))),
        "distinct_captions": len(set(captions)) / len(captions) if captions else None,
    }


def split_words(text: str) -> list[str]:
    """Returns the words of `text` in lower case, without punctuation."""
    return _WORDS.findall(text.lower())


# --- parts ---------------------------------------------------------------------------------------


def _embed_shard(scorer: scoring.Scorer, images: Sequence[reference.Image]) -> Arrays:
    """Features, hashes and digests of images; zeros and "" where one cannot be used."""
    hashes = np.zeros((len(images), duplicates.BITS // 8), np.uint8)
    digests = [""] * len(images)

    def opened() -> Iterator[PIL.Image.Image | ImageError]:
        for row, image in enumerate(images):
            opened_image = attempt(image.open)
            if isinstance(opened_image, ImageError):
                yield opened_image
                continue
            data, pixels = opened_image
            digests[row] = files.sha256(data)
            hashes[row] = duplicates.perceptual_hash(pixels)
            yield pixels

    features, problems = scoring.usable_features(scorer, opened())
    digest = np.array(digests, str)
    return {"features": features, "hash": hashes, "digest": digest, "problem": problems}


def _usable(images: Sequence[reference.Image], embedded: EmbeddedImages) -> Iterator[bytes]:
    return (image.read() for image in images if image.name not in embedded.problems)


def _reference_images(config: ConfigDict, order: Sequence[str]) -> list[reference.Image]:
    options = config.measure
    if not options.reference:
        return []
    with of_key("measure.reference"):
        every = reference.images(options.reference, options.reference_split, order)
        return reference.sample(every, options.max_images, config.seed, lambda image: image.name)


def _embed_reference(
    scorer: scoring.Scorer,
    config: ConfigDict,
    images: Sequence[reference.Image],
    directory: epath.Path,
) -> EmbeddedImages | None:
    options = config.measure
    if not options.reference:
        return None
    embedded = embed_images(scorer, images, directory, "measure: reference") if images else None
    if embedded is None or not embedded.names:
        raise UserError(
            f"config.measure.reference={options.reference!r} has no usable image of split "
            f"{options.reference_split!r}; choose another in config.measure.reference_split."
        )
    if embedded.problems:
        name, problem = next(iter(embedded.problems.items()))
        count = len(embedded.problems)
        say(f"measure: {count} images of the reference are left out; the first: {name} {problem}")
    return embedded


def _predicted(classifier: ZeroShot, features: np.ndarray) -> dict[str, list[str]]:
    """{slot: the value that the model finds most likely, of each image}."""
    answers = {slot: classifier.probabilities(slot, features) for slot in PROMPTS}
    return {
        slot: [values[k] for k in probabilities.argmax(axis=1)]
        for slot, (values, probabilities) in answers.items()
    }


def _lengths(captions: Sequence[str]) -> dict[str, int]:
    counts = Counter(len(split_words(caption)) for caption in captions)
    return {str(length): counts[length] for length in sorted(counts)}


def _examples(
    records: Sequence[Record], owner: np.ndarray, captions: Sequence[str], cosines: np.ndarray
) -> dict[str, list[dict[str, Any]]]:
    """The pairs of the lowest and of the highest score, each image once."""
    order = np.argsort(cosines, kind="stable")
    return {
        name: [
            {
                "id": records[owner[k]]["id"],
                "image": {"path": records[owner[k]]["image"]["path"]},
                "caption": captions[k],
                "score": round(float(cosines[k]), 4),
            }
            for k in _first_of_each(some, owner)
        ]
        for name, some in {"lowest": order, "highest": order[::-1]}.items()
    }


def _first_of_each(order: np.ndarray, owner: np.ndarray) -> list[int]:
    """The first `EXAMPLES` of `order` that belong to different images."""
    first: dict[int, int] = {}
    for k in order.tolist():
        first.setdefault(int(owner[k]), k)
        if len(first) == EXAMPLES:
            break
    return list(first.values())


def _report(numbers: Mapping[str, Any]) -> None:
    shown = {
        "CLIPScore": numbers["clip_score"],
        "CMMD": numbers["cmmd"],
        "FID": numbers.get("fid"),
        "feature variance": numbers["feature_variance"],
        "near-duplicates": numbers["near_duplicates"],
    }
    text = ", ".join(f"{name} {value:.4g}" for name, value in shown.items() if value is not None)
    say(f"measure: {text}")
