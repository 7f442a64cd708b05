"""Stage denoise: drops captions that do not fit their image, or gives them a lower weight.

SynTBPR has a step "data denoising" between captioning and training. Here a CLIP scores each
(image, caption) pair; a threshold, a quantile or a mixture of two normal distributions decides
which scores are too low. It is not among the stages of a usual run; add it to `config.stages`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxtbpr.core.errors import UserError, of_key
from jaxtbpr.core.manifest import Record, Shard, reject
from jaxtbpr.core.measured import Arrays, measure_shards
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.progress import say
from jaxtbpr.core.record import keep_captions
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets.source import SPLITS
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.retrieval.training import mixture

OPTIONS: Options = {
    "method": Option(
        "mixture", "how doubted pairs are found", choices=("mixture", "threshold", "quantile")
    ),
    "action": Option("drop", "what is done with doubted pairs", choices=("drop", "reweight")),
    "low_weight": Option(
        0.1, "weight of a doubted pair where the method gives no probability", low=0.0, high=1.0
    ),
    "splits": Option(("train",), "splits whose pairs are scored", choices=SPLITS),
    **scoring.CUT_OPTIONS,
    **scoring.JUDGE_OPTIONS,
}

EXAMPLES = 12
BINS = 40


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The scores of the captions of a record, and which of them fit.

    scores: float [captions]; clean: the probability that each fits its image, float [captions];
    problem: why the image cannot be used, or "".
    """

    scores: np.ndarray
    clean: np.ndarray
    problem: str

    @property
    def fits(self) -> np.ndarray:
        """Which captions fit their image, bool [captions]."""
        return self.clean >= mixture.THRESHOLD


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the fingerprint of the model that the stage reads."""
    with of_key("denoise.model"):
        return {"clip": scoring.fingerprint(config.denoise.model)}


def run(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
    """Drops or reweights the pairs of the manifest before it.

    Action `reweight` adds "caption_weights" to a record, one for each caption, which stage build
    packs and the losses of stage train use. Returns the counts of every stage, and "pairs": what
    was done, and how well it agrees with "caption_noise", see `account`.
    """
    options = config.denoise
    shards = list(workdir.before("denoise").shards())
    judged = [[r for r in shard if r["split"] in options.splits] for shard in shards]
    if not any(judged):
        raise UserError(
            f"stage 'denoise' finds no record of the splits {tuple(options.splits)!r} in "
            f"{workdir.root}; see what earlier stages rejected, or choose other splits in "
            "config.denoise.splits."
        )
    verdicts = _judge(judged, options, workdir)
    done = workdir.map_stage("denoise", lambda rs: ([_apply(r, verdicts, options)] for r in rs))
    (workdir.dir("denoise") / "measured").rmtree(missing_ok=True)
    counts = account([record for shard in judged for record in shard], verdicts)
    _report(counts)
    return done | {"pairs": counts}


def _judge(shards: Sequence[Shard], options: ConfigDict, workdir: Workdir) -> dict[str, Verdict]:
    """Returns {id: verdict} of the records in `shards`."""
    scorer = scoring.open_scorer(options)
    measured = measure_shards(
        shards,
        workdir.dir("denoise") / "measured",
        lambda shard: _score(scorer, shard, workdir, options.clauses),
        label="denoise",
    )
    problems = np.concatenate([one["problem"] for one in measured])
    scores = np.concatenate([one["score"] for one in measured])
    records = [record for shard in shards for record in shard]
    captions = [caption for record in records for caption in record["captions"]]
    scorer.say_cut(captions, "denoise", clauses=options.clauses)
    owner = np.repeat(np.arange(len(records)), [len(r["captions"]) for r in records])
    usable = problems[owner] == ""
    clean = np.ones(len(scores))
    clean[usable] = clean_probability(scores[usable], options)
    ends = np.cumsum([len(r["captions"]) for r in records])[:-1]
    parts = zip(np.split(scores, ends), np.split(clean, ends), problems, strict=True)
    return {
        record["id"]: Verdict(score, probability, str(problem))
        for record, (score, probability, problem) in zip(records, parts, strict=True)
    }


def _score(scorer: scoring.Scorer, shard: Shard, workdir: Workdir, clauses: bool) -> Arrays:
    """The scores of all pairs of a shard, and what is wrong with its images."""
    for record in shard:
        if "captions" not in record or "image" not in record:
            raise UserError(
                f"stage 'denoise' needs images and captions, but record {record['id']} lacks one; "
                "add stages 'generate' and 'caption' to config.stages."
            )
    features, problems = scoring.image_features(scorer, shard, workdir.root)
    owner = np.repeat(np.arange(len(shard)), [len(record["captions"]) for record in shard])
    captions = [caption for record in shard for caption in record["captions"]]
    return {
        "score": scorer.cosines(features[owner], captions, clauses=clauses),
        "problem": problems,
    }


def clean_probability(scores: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """Returns the probability that each pair fits, float64 [P]; 0 or 1 but for the mixture."""
    if options["method"] == "threshold":
        return (scores >= options["min_score"]).astype(np.float64)
    if options["method"] == "quantile":
        return 1.0 - scoring.worst(scores, options["reject_fraction"])
    if len(scores) < 2:
        return np.ones(len(scores))
    return mixture.clean_probability(-scores, monotone=True)


def _apply(record: Record, verdicts: Mapping[str, Verdict], options: ConfigDict) -> Record:
    """The record without its doubted captions, or with weights, or rejected."""
    verdict = verdicts.get(record["id"])
    if verdict is None:
        if options.action == "reweight" and "captions" in record:
            # All records of a set have weights or none.
            return record | {"caption_weights": [1.0] * len(record["captions"])}
        return record
    if verdict.problem:
        return reject(record, "denoise", verdict.problem)
    if options.action == "reweight":
        is_graded = options.method == "mixture"
        weights = verdict.clean if is_graded else np.where(verdict.fits, 1.0, options.low_weight)
        return record | {"caption_weights": [round(float(weight), 4) for weight in weights]}
    if not verdict.fits.any():
        best = max(verdict.scores, default=0.0)
        reason = f"none of its captions fits the image: the best CLIP score is {best:.3f}"
        return reject(record, "denoise", reason)
    return keep_captions(record, verdict.fits.tolist())


# --- counts for the report -----------------------------------------------------------------------


def account(records: Sequence[Record], verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """Returns the counts, scores and examples of all pairs, for the report.

    {"pairs", "doubted": how many, "mean_clean": the mean probability, "histogram": {"edges",
    "believed", "doubted"} of the scores, "examples": the doubted pairs of the lowest and of the
    highest score, "noise": see `agreement`, None where no caption's noise is known}.
    """
    pairs = [pair for record in records for pair in _pairs(record, verdicts[record["id"]])]
    fits = np.array([pair["clean"] >= mixture.THRESHOLD for pair in pairs], bool)
    scores = np.array([pair["score"] for pair in pairs], float)
    doubted = sorted((p for p, fit in zip(pairs, fits, strict=True) if not fit), key=_by_score)
    half = EXAMPLES // 2
    return {
        "pairs": len(pairs),
        "doubted": int((~fits).sum()),
        "mean_clean": round(float(np.mean([p["clean"] for p in pairs])), 4) if pairs else 1.0,
        "histogram": histogram(scores, fits),
        "examples": doubted[:half] + doubted[half:][-half:],
        "noise": agreement(
            ~fits[np.array([pair["wrong"] is not None for pair in pairs], bool)],
            np.array([bool(p["wrong"]) for p in pairs if p["wrong"] is not None], bool),
        ),
    }


def agreement(doubted: np.ndarray, wrong: np.ndarray) -> dict[str, Any] | None:
    """Returns precision and recall of the doubted pairs against those known to be wrong.

    doubted, wrong: bool [P]. {"pairs", "wrong": how many, "precision": fraction of the doubted
    that are wrong, "recall": fraction of the wrong that are doubted, "by_chance": the precision
    of doubting at random}.
    """
    if not len(wrong):
        return None
    both = int((doubted & wrong).sum())
    return {
        "pairs": len(wrong),
        "wrong": int(wrong.sum()),
        "precision": both / int(doubted.sum()) if doubted.any() else None,
        "recall": both / int(wrong.sum()) if wrong.any() else None,
        "by_chance": float(wrong.mean()),
    }


def histogram(scores: np.ndarray, fits: np.ndarray) -> dict[str, list]:
    """Returns {"edges" [BINS + 1], "believed" [BINS], "doubted" [BINS]}: counts of the scores."""
    edges = np.histogram_bin_edges(scores, BINS) if len(scores) else np.linspace(0, 1, BINS + 1)
    counts = {"believed": scores[fits], "doubted": scores[~fits]}
    bins = {name: np.histogram(some, edges)[0].tolist() for name, some in counts.items()}
    return {"edges": [round(float(edge), 5) for edge in edges], **bins}


def _pairs(record: Record, verdict: Verdict) -> list[dict[str, Any]]:
    """The pairs of a record; wrong: the slots that the caption gets wrong, None if not known.

    A caption that leaves an attribute out is not wrong.
    """
    if verdict.problem:
        return []
    return [
        {
            "id": record["id"],
            "image": {"path": record["image"]["path"]},
            "caption": caption,
            "score": round(float(verdict.scores[k]), 4),
            "clean": round(float(verdict.clean[k]), 4),
            "wrong": None if told is None else [slot for slot, _, value in told if value],
        }
        for k, (caption, told) in enumerate(zip(record["captions"], _noise(record), strict=True))
    ]


def _noise(record: Record) -> list[Any]:
    """The mistakes of each caption as stage caption made them; None where that is not known."""
    noise, count = record.get("caption_noise"), len(record["captions"])
    return noise if noise is not None and len(noise) == count else [None] * count


def _by_score(pair: Mapping[str, Any]) -> tuple[float, str]:
    return pair["score"], pair["id"]


def _report(counts: Mapping[str, Any]) -> None:
    line = f"denoise: {counts['doubted']} of {counts['pairs']} pairs doubted"
    if noise := counts["noise"]:
        fractions = {key: noise[key] for key in ("precision", "recall") if noise[key] is not None}
        text = ", ".join(f"{key} {100 * fraction:.1f} %" for key, fraction in fractions.items())
        line += f"; {noise['wrong']} are known to be wrong: {text or 'none'}"
    say(line)


STAGE = Stage(
    "denoise", "doubts some of them", OPTIONS, run, is_usual=False, fingerprint=fingerprint
)
