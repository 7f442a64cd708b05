"""How well each method of stage denoise finds wrong captions, on a run whose captions are known.

    python tests/benchmarks/denoise.py --workdir=RUN [--model=tiny-clip] [--share=0.2]
                                        [--images=600]

Two kinds of wrong captions: those in which stage caption said an attribute wrong, one word of
twenty; and captions that a share of the pairs exchange, which are right but for another image.
Prints precision and recall of each method, with the whole caption and with its clauses.
"""

import argparse
import itertools

import numpy as np

from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import noise
from jaxtbpr.retrieval import denoise
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.retrieval.saved import open_saved
from jaxtbpr.retrieval.training import mixture


def main():
    options = parse()
    workdir = Workdir(options.workdir, order=(), chosen=())
    train = (record for record in workdir.manifest("caption") if record["split"] == "train")
    records = list(itertools.islice(train, options.images))
    scorer = scoring.Scorer(open_saved(options.model))
    features, _ = scoring.image_features(scorer, records, workdir.root)
    owner = np.repeat(np.arange(len(records)), [len(r["captions"]) for r in records])
    captions = [caption for record in records for caption in record["captions"]]
    said = [any(s for *_, s in one) for record in records for one in record["caption_noise"]]
    given = noise.exchange(len(captions), options.share, 0)
    cases = {
        "a wrong attribute": (captions, np.array(said)),
        "exchanged": ([captions[n] for n in given], owner[given] != owner),
    }
    print("| wrong captions | scored by | method | doubted, % | precision, % | recall, % |")
    print("|---|---|---|---|---|---|")
    for (name, (texts, wrong)), clauses in itertools.product(cases.items(), (False, True)):
        scores = scorer.cosines(features[owner], texts, clauses=clauses)
        for method, values in methods(wrong).items():
            report(name, clauses, method, scores, wrong, values)


def methods(wrong: np.ndarray) -> dict[str, dict]:
    """The methods with their settings; the quantile is told how many are wrong."""
    return {
        "mixture": {"method": "mixture"},
        "quantile": {"method": "quantile", "reject_fraction": float(wrong.mean())},
        "threshold 0": {"method": "threshold", "min_score": 0.0},
    }


def report(name: str, clauses: bool, method: str, scores, wrong, values: dict) -> None:
    doubted = denoise.clean_probability(scores, values) < mixture.THRESHOLD
    found = denoise.agreement(doubted, wrong)
    shares = (doubted.mean(), found["precision"] or 0, found["recall"] or 0)
    what = f"{name} ({100 * found['by_chance']:.0f} %)"
    parts = "clauses" if clauses else "whole"
    print(
        " | ".join([f"| {what}", parts, method, *(f"{100 * share:.1f}" for share in shares)]) + " |"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--model", default="tiny-clip")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--images", type=int, default=600)
    return parser.parse_args()


if __name__ == "__main__":
    main()
