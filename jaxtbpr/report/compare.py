"""Compares finished runs on one self-contained HTML page.

  jaxtbpr compare runs/one runs/other --out=comparison.html

Results with intervals, their differences query by query, curves, the keys that differ, and queries
that one run gets right and the other wrong.
"""

import dataclasses
import itertools
import json
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging
from etils import epath

from jaxtbpr.core import command, files
from jaxtbpr.core.errors import InputError, UserError
from jaxtbpr.core.metrics_writer import read_metrics
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.report import failures, intervals, page, pictures, plots, results
from jaxtbpr.report.people import SetImages
from jaxtbpr.report.plots import Line, Plot

SHOWN = 8  # queries of each kind
_NONE = "–"


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its name on the page, its folder, its config's keys and its results."""

    name: str
    workdir: Workdir
    keys: dict[str, Any]
    results: dict[str, dict[str, Any]]


def open_runs(folders: Sequence[str]) -> list[Run]:
    """Opens the runs in `folders`.

    Raises UserError for fewer than two, for the same folder twice, and for a run that was not
    evaluated.
    """
    roots = [epath.Path(folder).expanduser() for folder in folders]
    if len(roots) < 2 or len({root.resolve() for root in roots}) < len(roots):
        raise UserError("name the folders of two or more runs to compare, each once.")
    names = [root.name for root in roots]
    if len(set(names)) < len(names):
        names = [str(root) for root in roots]
    return [_open(name, root) for name, root in zip(names, roots, strict=True)]


def compare(runs: Sequence[Run]) -> str:
    """Returns the page. Raises UserError where no test set is in all of the runs."""
    shared = [name for name in runs[0].results if all(name in run.results for run in runs)]
    if not shared:
        sets = "; ".join(f"{run.name}: {', '.join(run.results)}" for run in runs)
        command = _evaluation(runs[1], runs[0], next(iter(runs[0].results)))
        raise UserError(
            f"the runs share no test set ({sets}), so nothing can be compared; to evaluate the "
            f"model of one on the test set of the other, run: {command}"
        )
    context = {
        "runs": [run.name for run in runs],
        "sets": [_compared(name, runs) for name in shared],
        "alone": _alone(runs, shared),
        "plots": _curves(runs, shared),
        "keys": differing_keys(runs),
    }
    return page.render(context, template="compare.html")


def differing_keys(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns {"key", "values"} of each config key that is not the same in all runs."""
    names = dict.fromkeys(key for run in runs for key in run.keys)
    rows = [
        {"key": key, "values": [json.dumps(r.keys[key]) if key in r.keys else _NONE for r in runs]}
        for key in names
    ]
    return [row for row in rows if len(set(row["values"])) > 1]


def matched(one: Sequence[dict], other: Sequence[dict]) -> list[tuple[dict, dict]]:
    """Returns the queries that both have: the same image name and the same caption.

    `SetImages.digest` tells whether images of the same name are the same.
    """
    known = {_key(query, n): query for query, n in _numbered(other)}
    return [(q, known[_key(q, n)]) for q, n in _numbered(one) if _key(q, n) in known]


def difference(pairs: Sequence[tuple[dict, dict]]) -> dict[str, Any] | None:
    """Returns the gain in R@1 of the second over the first, with its interval over people.

    None without a query that both have. only_first, only_second: queries right in one alone. The
    interval is None where there are no such queries, since its width is then unknown.
    """
    if not pairs:
        return None
    first, second = (failures.is_right(side) for side in zip(*pairs, strict=True))
    gain = second.astype(float) - first
    people = [query["identity"] for query, _ in pairs]
    return {
        "queries": len(pairs),
        "mean": float(gain.mean()),
        "interval": intervals.bootstrap(gain, people, (-1.0, 1.0)) if gain.any() else None,
        "only_first": int((first & ~second).sum()),
        "only_second": int((second & ~first).sum()),
    }


def _open(name: str, root: epath.Path) -> Run:
    workdir = Workdir(root, order=(), chosen=())
    done = workdir.commits()
    if not done.get("evaluate", {}).get("metrics"):
        raise UserError(
            f"{root} is not the WORKDIR of a run with results; name one whose stage 'evaluate' is "
            "finished."
        )
    keys = {key: value for one in done.values() for key, value in one["recipe"]["config"].items()}
    test_results = results.test_sets(workdir.dir("evaluate"), done["evaluate"]["metrics"])
    return Run(name, workdir, keys, {result["name"]: result for result in test_results})


def _compared(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """The results on a test set, and the comparison with the first run, query by query.

    Runs with another gallery had another task, so their queries are not compared.
    """
    rows = [_row(run, run.results[name]) for run in runs]
    first, *others = runs
    unreadable: list[str] = []
    digest = _digest(name, first, unreadable)
    other_gallery = [
        run for run in others if _has_another_gallery(name, first, digest, run, unreadable)
    ]
    pairs = [(run, _pairs(name, first, run)) for run in others if run not in other_gallery]
    return {
        "name": name,
        "rows": rows,
        "unreadable": unreadable,
        "other_gallery": [
            {"name": run.name, "command": _evaluation(run, first, name)} for run in other_gallery
        ],
        "other_queries": [
            run.name for run, both in pairs if _has_other_queries(name, first, run, both)
        ],
        "unmatched": [run.name for run, both in pairs if not both],
        "against": first.name,
        "differences": [
            {"name": run.name, **comparison}
            for run, both in pairs
            if (comparison := difference(both))
        ],
        "queries": [
            group for run, both in pairs for group in _disagreements(name, first, run, both)
        ],
    }


def _evaluation(run: Run, other: Run, name: str) -> str:
    """The command that evaluates the model of `run` on the test set `name` of another run."""
    folder, _, split = name.rpartition("/")
    argv = ["python", "-m", "jaxtbpr.retrieval.evaluate", f"--checkpoint={run.workdir.root}"]
    argv += [f"--data={other.workdir.dir('build') / folder}"]
    return shlex.join(argv if split == "test" else [*argv, f"--split={split}"])


def _digest(name: str, run: Run, unreadable: list[str]) -> str | None:
    """The digest of a run's images; None where they are gone, or unreadable: then also a line."""
    try:
        return SetImages(run.workdir.dir("build")).digest(name)
    except InputError as error:
        unreadable.append(f"{error}, so {run.name} is compared without checking its gallery")
        return None


def _has_another_gallery(
    name: str, one: Run, digest: str | None, other: Run, unreadable: list[str]
) -> bool:
    """Whether two runs searched other images under the same name; digest: that of `one`'s.

    Where a built set is gone, only the number of images is compared. Adds a line to `unreadable`
    for a set that cannot be read.
    """
    first, second = (run.results[name]["metrics"]["gallery"] for run in (one, other))
    if first != second:
        return True
    return None not in (digest, second := _digest(name, other, unreadable)) and digest != second


def _has_other_queries(name: str, one: Run, other: Run, pairs: Sequence[tuple[dict, dict]]) -> bool:
    """Whether two runs had other queries under the same name, as far as they were saved."""
    both = one.results[name], other.results[name]
    kept = [len(result["asked"]) for result in both]
    counts = {result["metrics"]["queries"] for result in both}
    return len(counts) > 1 or (all(kept) and kept != [len(pairs)] * 2)


def _alone(runs: Sequence[Run], shared: Sequence[str]) -> list[dict[str, Any]]:
    """The test sets that not all runs have; they are not compared."""
    names = dict.fromkeys(name for run in runs for name in run.results if name not in shared)
    return [
        {"name": name, "runs": [run.name for run in runs if name in run.results]} for name in names
    ]


def _row(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    metrics = result["metrics"]
    interval = failures.interval(result["asked"])
    if interval is None:  # an older run saved no queries, only R@1
        hits = round(metrics["R1"] * metrics["queries"])
        interval = intervals.wilson(hits, metrics["queries"])
    return {"name": run.name, "metrics": metrics, "interval": interval}


def _pairs(name: str, one: Run, other: Run) -> list[tuple[dict, dict]]:
    return matched(one.results[name]["asked"], other.results[name]["asked"])


def _disagreements(
    name: str, one: Run, other: Run, pairs: Sequence[tuple[dict, dict]]
) -> list[dict[str, Any]]:
    """Queries that one run gets right and the other wrong, the largest rank difference first."""
    images = SetImages(one.workdir.dir("build"))
    groups = []
    for better, worse, place in ((other, one, 1), (one, other, 0)):
        differing = [pair for pair in pairs if pair[place]["first_match_rank"] == 1]
        differing = [pair for pair in differing if pair[1 - place]["first_match_rank"] != 1]
        differing.sort(key=lambda pair: -(pair[1 - place]["first_match_rank"] or np.inf))
        shown = [_shown(name, pair, place, images) for pair in differing[:SHOWN]]
        groups.append(
            {"right": better.name, "wrong": worse.name, "total": len(differing), "queries": shown}
        )
    return [group for group in groups if group["total"]]


def _shown(name: str, pair: tuple[dict, dict], place: int, images: SetImages) -> dict[str, Any]:
    query = pair[place]
    who = f"{query['image_id']}, person {query['identity']}"
    picture = pictures.picture(lambda: images.read(name, query["image_id"]), f"Image {who}")
    rank = pair[1 - place]["first_match_rank"]
    return {"caption": query["caption"], "who": who, "rank": rank, "picture": picture}


def _curves(runs: Sequence[Run], shared: Sequence[str]) -> list[Plot]:
    shown = []
    for name in shared:
        curves = {run.name: run.results[name]["cmc"] for run in runs}
        lines = [Line(run, range(1, len(c) + 1), c) for run, c in curves.items() if c]
        if lines:
            title = f"Right person within the first k, {name}"
            shown.append(plots.lines(title, lines, x_label="k", percent=True))
    for scalar, title in (("loss", "Loss"), ("R1", "R@1 on validation people")):
        lines = [line for run in runs if (line := _training_line(run, scalar))]
        if lines:
            is_share = scalar == "R1"
            label = "epoch" if is_share else "step"
            smooth = not is_share
            made = plots.lines(title, lines, x_label=label, percent=is_share, smooth=smooth)
            shown.append(made)
    return shown


def _training_line(run: Run, scalar: str) -> Line | None:
    folder = run.workdir.dir("train")
    if scalar == "R1":
        rows = [r for r in read_metrics(folder / "evals.jsonl") if r["set"].endswith("/val")]
        rows = [row for row in rows if row["set"] == rows[0]["set"]]
        x = "epoch"
    else:
        rows, x = [r for r in read_metrics(folder / "metrics.jsonl") if scalar in r], "step"
    if not rows:
        return None
    return Line(run.name, [r[x] for r in rows], [r[scalar] for r in rows], marks=scalar == "R1")


def _numbered(queries: Sequence[dict]) -> list[tuple[dict, int]]:
    """Each query and how many of the same image and caption come before it."""
    seen: dict[tuple, Any] = {}
    counts = (
        next(seen.setdefault((q["image_id"], q["caption"]), itertools.count())) for q in queries
    )
    return list(zip(queries, counts, strict=True))


def _key(query: dict, number: int) -> tuple[str, str, int]:
    return query["image_id"], query["caption"], number


# --- the command ---------------------------------------------------------------------------------


def main(argv: list[str]) -> None:
    """Writes the page of the runs that the command line names."""
    logging.set_verbosity(logging.WARNING)  # TFDS logs each of its steps
    with command.exit_on_error():
        out = epath.Path(flags.FLAGS.out).expanduser()
        files.check_output(out, "--out")
        html = compare(open_runs(argv[1:]))
        files.write_text_atomic(out, html)
    print(f"comparison: {out.resolve()}")


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("out", "comparison.html", "HTML file to write")


COMMAND = "compare", "write a page that compares runs"

if __name__ == "__main__":
    define_flags()
    app.run(main)
