"""Filter engine `clip`: rejects images that show little of what their prompt asks for.

Stage filter is in another room, which knows no retrieval model; `stages.py` passes it this engine.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core.errors import of_key
from jaxtbpr.core.manifest import Record, Shard
from jaxtbpr.core.measured import Arrays, measure_shards
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.record import require
from jaxtbpr.retrieval.judging import scoring

OPTIONS: Options = {
    "method": Option("quantile", "what is rejected", choices=("quantile", "threshold")),
    **scoring.CUT_OPTIONS,
    **scoring.JUDGE_OPTIONS,
}


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the fingerprint of the model that the engine reads."""
    with of_key("filter.clip.model"):
        return {"clip": scoring.fingerprint(config.filter.clip.model)}


def reject(
    shards: Sequence[Shard], config: ConfigDict, root: epath.Path, directory: epath.Path
) -> dict[str, str]:
    """Returns {id: why the image of this record is rejected}.

    config: holds section `filter`; root: the workdir; directory: for the scores. Raises UserError
    for a record that has no prompt.
    """
    options = config.filter.clip
    scorer = scoring.open_scorer(options)
    measured = measure_shards(
        shards, directory, lambda s: _score(scorer, s, root, options.clauses), label="filter clip"
    )
    records = [record for shard in shards for record in shard]
    scorer.say_cut([_prompt(r) for r in records], "filter clip", "prompts", clauses=options.clauses)
    scores = np.concatenate([one["score"] for one in measured])
    problems = np.concatenate([one["problem"] for one in measured])
    rejected = {
        record["id"]: f"{record['image']['path']}: {problem}"
        for record, problem in zip(records, problems, strict=True)
        if problem
    }
    usable = np.flatnonzero(problems == "")
    for row in usable[_is_low(scores[usable], options)]:
        record = records[row]
        path, score = record["image"]["path"], scores[row]
        rejected[record["id"]] = f"{path} shows little of its prompt: CLIP score {score:.3f}"
    return rejected


def _score(scorer: scoring.Scorer, shard: Shard, root: epath.Path, clauses: bool) -> Arrays:
    features, problems = scoring.image_features(scorer, shard, root)
    prompts = [_prompt(record) for record in shard]
    return {"score": scorer.cosines(features, prompts, clauses=clauses), "problem": problems}


def _prompt(record: Record) -> str:
    advice = "leave 'clip' out of config.filter.engines"
    require(record, "prompt", "filter engine 'clip'", advice)
    return record["prompt"]


def _is_low(scores: np.ndarray, options: ConfigDict) -> np.ndarray:
    if options.method == "threshold":
        return scores < options.min_score
    return scoring.worst(scores, options.reject_fraction)
