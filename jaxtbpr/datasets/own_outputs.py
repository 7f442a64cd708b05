"""Folders that this program wrote: runs and built sets, which are not read as data, and exports."""

from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.workdir import COMMIT

# Hidden, so that neither other tools nor the search for annotations take it for one.
EXPORT = ".jaxtbpr-export.json"
_STAGE = (COMMIT, "started.json")


def is_export(folder: epath.PathLike) -> bool:
    """Whether `python -m jaxtbpr.datasets.export` wrote the data set in `folder`."""
    return (epath.Path(folder) / EXPORT).is_file()


def is_part_of_run(folder: epath.Path) -> bool:
    """Whether `folder` is that of a stage, or of a set that stage build made."""
    return any((folder / name).is_file() for name in _STAGE) or bool(_built(folder))


def explain(folder: epath.Path) -> str:
    """Returns what a run's folder is and which commands accept it; "" for other folders."""
    if counts := _built(folder):
        return (
            f"{folder} is a data set that this program built and checked: {counts}. These commands "
            f"take it:\n{_commands(folder.parent.parent, folder)}"
        )
    run = folder.parent if is_part_of_run(folder) else folder
    if not files.matches(run, *(f"*/{name}" for name in _STAGE)):
        return ""
    built = [(one, _built(one)) for one in files.matches(run, "build/*")]
    sets = "; ".join(f"{one} ({counts})" for one, counts in built if counts)
    part = "" if run == folder else f"stage {folder.name!r} of "
    return (
        f"{folder} is {part}a run of this program, not a data set; its built sets are: "
        f"{sets or 'none yet'}. These commands take it:\n{_commands(run, run)}"
    )


def _built(folder: epath.Path) -> str:
    """Returns the counts of a built set, in words; "" where `folder` is none."""
    if not (folder / "done.json").is_file() or not files.matches(folder, "*/*/dataset_info.json"):
        return ""
    splits: dict[str, Any] = files.read_json(folder / "done.json").get("splits", {})
    return "; ".join(
        f"{split} " + ", ".join(f"{number:,} {what}" for what, number in counts.items())
        for split, counts in splits.items()
    )


def _commands(run: epath.Path, data: epath.Path) -> str:
    return "\n".join(
        (
            f"python -m jaxtbpr.retrieval.evaluate --checkpoint={run}/train --data={data}",
            f"python -m jaxtbpr.datasets.export --data={data} --format=reid_json --out=FOLDER",
            f"python -m jaxtbpr.report.compare {run} OTHER_RUN --out=comparison.html",
        )
    )
