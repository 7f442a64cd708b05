"""Facts about a run from its commit files: stages, what was rejected, config, versions."""

import collections
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.report import pictures

EXAMPLES_OF_A_REASON = 6
Commits = Mapping[str, dict[str, Any]]


def pipeline_strip(done: Commits, does: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the rows of the stages: times, their fraction of the whole, records.

    does: {stage: what it does}.
    """
    total = sum(commit["seconds"] for commit in done.values()) or 1.0
    return [
        {
            "name": name,
            "what": does[name],
            "seconds": commit["seconds"],
            "share": commit["seconds"] / total,
            "records_in": commit["records_in"],
            "records_out": commit["records_out"],
            "rejected": commit["rejected"],
        }
        for name, commit in done.items()
    ]


def rejected(workdir: Workdir, done: Commits) -> list[dict[str, Any]]:
    """Returns the reasons for which records were rejected: stage, count and some examples.

    Reasons that differ only in numbers and quoted words are grouped.
    """
    groups: dict[tuple[str, str], list[dict]] = collections.defaultdict(list)
    counts: collections.Counter = collections.Counter()
    for stage, record, reason in _rejected_records(workdir, done):
        key = (stage, general_reason(reason))
        counts[key] += 1
        if len(groups[key]) < EXAMPLES_OF_A_REASON:
            groups[key].append(_example(workdir.root, record, reason))
    order = list(done)
    keys = sorted(groups, key=lambda key: (order.index(key[0]), -counts[key], key[1]))
    return [
        {"stage": key[0], "reason": key[1], "count": counts[key], "examples": groups[key]}
        for key in keys
    ]


def general_reason(reason: str) -> str:
    """Returns `reason` with what is special to one record (numbers, quoted words) as "…"."""
    reason = re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason)
    reason = re.sub(r"\S*/\S+", "…", reason)  # a path
    return re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "…", reason)


def config(done: Commits, report_config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config of the finished stages and the report, a dict for each section.

    report_config: the report's part of it. Runtime keys, which do not change a stage's output
    (the number of processes), are not in its commit, and so not here.
    """
    merged: dict[str, Any] = {}
    for commit in done.values():
        for key, value in commit["recipe"]["config"].items():
            _put(merged, key.split("."), value)
    return merged | json.loads(json.dumps(report_config)) | {"stages": [*done, "report"]}


def changed(done: Commits) -> set[str]:
    """Returns the keys of the finished stages whose values were not the defaults."""
    return {key for commit in done.values() for key in commit.get("changed", ())}


def runs(done: Commits) -> list[dict[str, Any]]:
    """Returns date, machine and command of the stages, grouped by command and machine.

    Each has "stages" and what `core.run_info` noted when they ran, with the date of the last
    stage; nothing is read from today's machine, so that the page is always the same.
    """
    runs_of: dict[tuple, dict[str, Any]] = {}
    for name, commit in done.items():
        if ran := commit.get("ran"):
            key = (ran["command"], ran["machine"].split(",")[0], ran["source"])
            row = runs_of.setdefault(key, {"stages": []})
            row["stages"].append(name)
            machine = max(row.get("machine", ""), ran["machine"], key=len)  # with its devices
            row |= ran | {"machine": machine}
    return list(runs_of.values())


def versions(done: Commits) -> dict[str, str]:
    """Returns {package: version}; stages run with different ones show all of them."""
    values: dict[str, list[str]] = collections.defaultdict(list)
    for commit in done.values():
        for package, version in commit.get("versions", {}).items():
            if version not in values[package]:
                values[package].append(version)
    return {package: ", ".join(several) for package, several in values.items()}


def config_file(values: Mapping[str, Any]) -> str:
    """Returns the text of a config file that repeats the run; values: see `config`."""
    text = json.dumps(values, indent=2, ensure_ascii=False).replace("'", "\\u0027")
    return (
        '"""The config of a finished run, written by its report."""\n\n'
        "import json\n\n"
        "from jaxtbpr.stages import default_config\n\n"
        f"CONFIG = r'''\n{text}\n'''\n\n\n"
        'def get_config(arg=""):\n'
        "    config = default_config()\n"
        "    config.update(json.loads(CONFIG))\n"
        "    return config\n"
    )


def _rejected_records(workdir: Workdir, done: Commits) -> Iterator[tuple[str, dict, str]]:
    for stage in workdir.order:
        if stage in done and done[stage]["rejected"]:
            for record in workdir.manifest(stage).rejected():
                yield stage, record, record["rejected"]["reason"]
    path = workdir.dir("build") / "rejected.jsonl"
    if "build" in done and path.exists():
        for record in files.read_json_lines(path):
            yield "build", record, record.get("reason", "no reason given")


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _example(root: epath.Path, record: dict, reason: str) -> dict[str, Any]:
    name = str(record.get("id") or record.get("image_id") or record.get("path") or "")
    has_image = bool((record.get("image") or {}).get("path"))
    alt = f"Image {name}, rejected"
    return {
        "name": name,
        "reason": reason,
        "text": record.get("prompt", ""),
        "picture": pictures.record_picture(root, record, alt) if has_image else None,
    }
