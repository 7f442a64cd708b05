"""Stage evaluate, and the same as a command for any checkpoint and data set.

  jaxtbpr evaluate --checkpoint WORKDIR/train --data WORKDIR/build/synthetic
  jaxtbpr evaluate --checkpoint WORKDIR/train --data FOLDER --split test

The field's protocol (TBPS-CLIP, IRRA, SynTBPR): every caption queries all images of its split; a
hit is an image of the same identity. Most papers print the numbers of the epoch that was best on
the test split; here the model is selected on validation identities, and the last and the
best-on-test epoch are reported beside it.
"""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import command, files
from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.metrics_writer import read_metrics
from jaxtbpr.core.options import Option, Options, default_config
from jaxtbpr.core.progress import say
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import build
from jaxtbpr.datasets.source import SPLITS, RetrievalSet, file_stem, find_built
from jaxtbpr.retrieval.clip.model import Clip
from jaxtbpr.retrieval.evaluation.embed import Embedder, Features
from jaxtbpr.retrieval.evaluation.metrics import Metrics
from jaxtbpr.retrieval.evaluation.ranking import top_k
from jaxtbpr.retrieval.saved import (
    RESIZE_HELP,
    RESIZES,
    open_saved,
    placed_shapes,
    trained_folder,
)
from jaxtbpr.retrieval.training.checkpoint import WHICH, Checkpoints
from jaxtbpr.retrieval.training.log import EVALS
from jaxtbpr.retrieval.training.setup import open_test_sets

_LARGEST_BATCH = 1_000_000
_BATCH_SIZE = Option(100, "images or captions embedded per batch", low=1, high=_LARGEST_BATCH)
OPTIONS: Options = {
    "batch_size": _BATCH_SIZE,
    "examples": Option(24, "example queries per test set in the report", low=0, high=1000),
}

RANKED = 10  # images shown of each example's ranking
HARDEST = 12  # queries kept whose right image is ranked lowest
SUMMARY = (
    "R1", "R5", "R10", "mAP", "mINP", "chance_R1", "queries", "gallery", "identities",
    "captions_cut", "text_length",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, loaded for evaluation.

    params: {"selected" and "last": parameters}; epochs: {the same: epochs trained}; rows: those
    of evals.jsonl.
    """

    embedder: Embedder
    params: dict[str, Any]
    epochs: dict[str, float | None]
    rows: list[dict[str, Any]]


def run(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
    """Evaluates the trained model on every test set that `config.data` names.

    Writes one JSON file per set, and one line per query beside it, and returns the metrics too.
    Raises UserError where training is not finished or a set is not there.
    """
    directory = workdir.dir("evaluate")
    directory.mkdir(parents=True, exist_ok=True)
    options = config.evaluate
    trained = load(workdir.dir("train"), batch_size=options.batch_size)
    outputs, metrics, queries = {}, {}, 0
    tests = open_test_sets(config.data, workdir.dir("build"))
    if not tests:
        say("evaluate: no set has a test split, so nothing is evaluated")
    for one in tests:
        detail = evaluate_set(trained, one, examples=options.examples)
        stem = file_stem(one.name)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in detail.pop("queries"))
        files.write_text_atomic(directory / f"{stem}.queries.jsonl", "".join(lines))
        files.write_json_atomic(directory / f"{stem}.json", detail)
        for name in (f"{stem}.json", f"{stem}.queries.jsonl"):
            outputs[name] = files.sha256((directory / name).read_bytes())
        metrics[one.name] = {key: detail["selected"][key] for key in SUMMARY}
        queries += detail["selected"]["queries"]
    counts = {"records_in": queries, "records_out": queries, "rejected": 0}
    return {"outputs": outputs, "metrics": metrics} | counts


def load(
    directory: epath.Path, *, batch_size: int, which: tuple[str, ...] = WHICH, resize: str = ""
) -> Trained:
    """Reads the model in `directory` (WORKDIR/train) and its checkpoints called `which`.

    A published checkpoint, see `open_saved`, counts as each of them; resize: of RESIZES. Raises
    UserError where there are none.
    """
    first, mesh = open_saved(directory, resize=resize), meshes.make_mesh()
    embedder = Embedder(
        Clip(first.config),
        first.tokenizer(),
        mesh,
        batch_size=batch_size,
        resample=first.resample,
        resize=first.resize,
    )
    if (trained := trained_folder(directory)) is None:
        params = jax.device_put(first.read_params(), meshes.replicated(mesh))
        return Trained(embedder, dict.fromkeys(which, params), dict.fromkeys(which), [])
    directory = trained
    rows = read_metrics(directory / EVALS)
    epoch_of = {row["step"]: row["epoch"] for row in rows}
    shapes = placed_shapes(first.config, mesh)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        steps = {name: checkpoints.step_of(name) for name in which}
        params = {s: checkpoints.restore_params(s, shapes) for s in set(steps.values())}
    return Trained(
        embedder=embedder,
        params={name: params[step] for name, step in steps.items()},
        epochs={name: epoch_of.get(step) for name, step in steps.items()},
        rows=rows,
    )


def evaluate_set(trained: Trained, one: RetrievalSet, *, examples: int) -> dict[str, Any]:
    """Evaluates one test set and returns what the report shows of it; metrics as fractions.

    {"set", "selected", "last", "best_on_test", "cmc", "examples", "hardest", "queries"}; the last
    four are of the selected model. examples: how many queries to show; queries: see `query_rows`.
    """
    result: dict[str, Any] = {"set": one.name}
    cut = trained.embedder.cut(text for captions in one.captions for text in captions)
    if cut.cut:
        say(f"evaluate {one.name}: {cut}")
    for name, params in trained.params.items():
        if name == "last" and params is trained.params.get("selected"):
            result[name] = result["selected"]
            continue
        features = trained.embedder.features(params, one)
        metrics = features.metrics(one.identities)
        read = {"captions_cut": cut.cut, "text_length": cut.length}
        result[name] = metrics.summary() | read | {"epoch": trained.epochs[name]}
        if "cmc" not in result:  # the first is the selected one, if it is among them
            ranks = metrics.first_match_rank
            few = {"examples": choose_examples(ranks, examples)}
            few["hardest"] = hardest(ranks, min(examples, HARDEST))
            shown = {k: example_queries(one, features, metrics, qs) for k, qs in few.items()}
            queries = query_rows(one, features, metrics)
            result |= {"cmc": metrics.cmc.tolist(), **shown, "queries": queries}
    return result | {"best_on_test": best_on_test(trained.rows, one.name)}


def best_on_test(rows: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Returns the row of evals.jsonl with the best (R1, mAP) on set `name`; None without one."""
    rows_of_set = [row for row in rows if row["set"] == name]
    return max(rows_of_set, key=lambda row: (row["R1"], row["mAP"]), default=None)


def query_rows(one: RetrievalSet, features: Features, metrics: Metrics) -> list[dict[str, Any]]:
    """Returns of each query {"image_id", "identity", "caption", "first_match_rank", "ap"}.

    image_id: the image that the caption was written for; identity: as the source of the set names
    it. first_match_rank: from 1, or 0 where no image is right; ap: average precision, or None
    where no image is right.
    """
    captions = [text for captions in one.captions for text in captions]
    return [
        {
            "image_id": one.image_ids[image],
            "identity": one.identity_names[image],
            "caption": caption,
            "first_match_rank": int(rank),
            "ap": round(float(ap), 6) if rank else None,
        }
        for image, caption, rank, ap in zip(
            features.image_of_caption,
            captions,
            metrics.first_match_rank,
            metrics.average_precision,
            strict=True,
        )
    ]


def example_queries(
    one: RetrievalSet, features: Features, metrics: Metrics, queries: Sequence[int]
) -> list[dict[str, Any]]:
    """Returns the queries of these indices with their top-ranked images.

    first_match: the right image of the highest score, at whatever rank.
    """
    if not queries:
        return []
    k = min(RANKED, len(one))
    indices, scores = top_k(features.captions[queries], features.images, k)
    captions = [text for captions in one.captions for text in captions]
    return [
        {
            "caption": captions[query],
            "query_identity": int(one.identities[features.image_of_caption[query]]),
            "query_identity_name": one.identity_names[features.image_of_caption[query]],
            "query_image_id": one.image_ids[features.image_of_caption[query]],
            "ranked": _ranked(one, features.image_of_caption[query], *ranking),
            "first_match_rank": int(metrics.first_match_rank[query]),
            "first_match": _first_match(one, features, query),
        }
        for query, *ranking in zip(queries, indices, scores, strict=True)
    ]


def choose_examples(first_match_rank: np.ndarray, count: int) -> list[int]:
    """Returns the indices of `count` queries: right and wrong ones in turn.

    Right ones are spread over the set, wrong ones over the ranks from near misses to the worst.
    """
    right = np.flatnonzero(first_match_rank == 1)
    wrong = np.flatnonzero(first_match_rank != 1)
    # Rank 0 means that there is no right image at all: the worst.
    ranks = first_match_rank[wrong].astype(np.float64)
    wrong = wrong[np.argsort(np.where(ranks == 0, np.inf, ranks), kind="stable")]
    chosen_wrong = _spread(wrong, min(len(wrong), max(count // 2, count - len(right))))
    chosen_right = _spread(right, min(len(right), count - len(chosen_wrong)))
    turns = [(i / max(len(group), 1), query) for group in (chosen_right, chosen_wrong)
             for i, query in enumerate(group)]  # fmt: skip
    return [query for _, query in sorted(turns, key=lambda turn: turn[0])]


def hardest(first_match_rank: np.ndarray, count: int) -> list[int]:
    """Returns the indices of the `count` queries whose first match is ranked lowest.

    Worst first; a query without any right image is the worst. Queries right at rank 1 are left out.
    """
    ranks = np.where(first_match_rank == 0, np.inf, first_match_rank)
    order = np.argsort(-ranks, kind="stable")
    return order[ranks[order] > 1][:count].tolist()


def _spread(items: np.ndarray, count: int) -> list[int]:
    places = np.linspace(0, len(items) - 1, count) if count > 1 else np.zeros(count)
    return items[places.round().astype(int)].tolist()


def _ranked(one: RetrievalSet, image: int, indices, scores) -> list[dict[str, Any]]:
    return [_hit(one, image, *pair) for pair in zip(indices, scores, strict=True)]


def _first_match(one: RetrievalSet, features: Features, query: int) -> dict[str, Any]:
    image = features.image_of_caption[query]
    right = np.flatnonzero(one.identities == one.identities[image])
    scores = features.images[right] @ features.captions[query]
    return _hit(one, image, int(right[scores.argmax()]), scores.max())


def _hit(one: RetrievalSet, image: int, index: int, score: float) -> dict[str, Any]:
    return {
        "image_id": one.image_ids[index],
        "identity": int(one.identities[index]),
        "identity_name": one.identity_names[index],
        "score": round(float(score), 4),
        "right": bool(one.identities[index] == one.identities[image]),
    }


# --- the command ---------------------------------------------------------------------------------


def open_set(
    folder: epath.Path, split: str, scratch: epath.Path, *, exif: bool = True
) -> RetrievalSet:
    """Opens a built set, or a folder in any format of `datasets`, which is built in `scratch`.

    exif: see `build.exif`. Raises UserError where `folder` is neither or has no such split, and
    for `exif=False` of a built set, whose images were turned, or not, when it was built.
    """
    if built := find_built(folder, split):
        if not exif:
            raise UserError(
                f"--noexif works on data folders only, and {built} is a built set; leave --noexif "
                "out, or build the set again with --config.build.exif=False."
            )
        return RetrievalSet(built, split)
    name = "".join(c if c.isalnum() else "_" for c in folder.name.lower()).strip("_") or "data"
    if name == build.SYNTHETIC:  # which stage build keeps for itself
        name += "_folder"
    config = ConfigDict({"seed": 0, "build": default_config(build.OPTIONS)})
    config.build.folders = {name: str(folder)}
    config.build.val_fraction, config.build.exif = 0.0, exif
    workdir = Workdir(scratch, order=(), chosen=())
    if rejected := build.run(config, workdir)["rejected"]:
        first = next(files.read_json_lines(workdir.dir("build") / "rejected.jsonl"))
        say(
            f"{rejected} images of {folder} are left out; the first: {first['id']} "
            f"{first['reason']}"
        )
    return RetrievalSet(workdir.dir("build") / name, split)


def main() -> None:
    """Prints the metrics of one checkpoint on one set as one line of JSON."""
    args = flags.FLAGS
    if args.output:
        files.check_output(args.output, "--output")
    with tempfile.TemporaryDirectory() as scratch:
        data, scratch = epath.Path(args.data).expanduser(), epath.Path(scratch)
        one = open_set(data, args.split, scratch, exif=args.exif)
        trained = load(
            epath.Path(args.checkpoint),
            batch_size=args.batch_size,
            which=(args.which,),
            resize=args.resize,
        )
        detail = evaluate_set(trained, one, examples=24)
    metrics = {key: detail[args.which][key] for key in SUMMARY}
    print(json.dumps({"set": one.name, "checkpoint": args.which} | metrics), flush=True)
    if args.output:
        files.write_json_atomic(epath.Path(args.output).expanduser(), detail)


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("checkpoint", None, "WORKDIR, or a published checkpoint")
    flags.DEFINE_string("data", None, "WORKDIR, WORKDIR/build/NAME, or folder of a data set")
    flags.DEFINE_enum("split", "test", SPLITS, "split whose captions query its images")
    flags.DEFINE_bool("exif", True, "turn a folder's images by their EXIF orientation")
    flags.DEFINE_enum("which", "selected", WHICH, "checkpoint: best on validation, or last")
    flags.DEFINE_enum("resize", "", RESIZES, RESIZE_HELP)
    flags.DEFINE_integer(
        "batch_size",
        _BATCH_SIZE.default,
        _BATCH_SIZE.help,
        lower_bound=1,
        upper_bound=_LARGEST_BATCH,
    )
    flags.DEFINE_string("output", "", "file for the metrics, CMC and example queries as JSON")
    command.require("checkpoint", "data")


STAGE = Stage(
    "evaluate", "measures retrieval on the test sets", OPTIONS, run,
    reads=("build", "train"), sections=("data", "model"),
)  # fmt: skip


COMMAND = "evaluate", "compute Rank-k, mAP and mINP of a checkpoint on a set"

if __name__ == "__main__":
    define_flags()
    command.run(main, "--checkpoint, --data and --split")
