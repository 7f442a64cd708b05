"""A run: checks before the first stage, the stages in order, and the summary at the end."""

import errno
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxtbpr import resume, stages
from jaxtbpr.core import compilation, files, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.stage import Fingerprint
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import build, leakage
from jaxtbpr.report import facts
from jaxtbpr.retrieval.training import setup


def run(config: ConfigDict, root: epath.PathLike, *, rerun: bool = False) -> dict[str, Any]:
    """Runs the stages named in `config.stages` in the order of the pipeline.

    A stage finished before with the same config and inputs is skipped; an interrupted one resumes
    where it stopped. rerun: a stage with results of another config is run again, where otherwise
    UserError lists what differs; its old results are kept until then. Returns the summary, also in
    `root/summary.json`. Raises UserError for everything that the user can fix.
    """
    options.validate(config, stages.OPTIONS)
    compilation.set_up()
    names = [name for name in stages.STAGES if name in config.stages]
    if not names:
        raise UserError(f"config.stages is empty; name at least one of {', '.join(stages.STAGES)}.")
    workdir = Workdir(root, order=stages.ORDER, chosen=names)
    try:
        _check_sets(config, workdir, names)
        _check_together(config, names)
        _check_attributes(config, names)
        _check_batch(config, names)
        # Computed once, since fingerprints of large models take a while.
        prints = {name: _fingerprint(name, config) for name in names}
        _check_stages(config, workdir, prints, rerun)
        with workdir.lock(), compilation.explain_backend_error():
            for name in names:
                stage = stages.STAGES[name]
                resume.run_stage(stage, config, workdir, prints[name], rerun=rerun)
                summary = _write_summary(workdir)
                _require_records(name, workdir)
    except OSError as error:
        raise _explain(error, workdir) from error
    except ValueError as error:  # in this form Orbax reports a disk error
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            number = int(code[1])
            raise _explain(OSError(number, os.strerror(number)), workdir) from error
        raise
    return summary


def _check_sets(config: ConfigDict, workdir: Workdir, names: list[str]) -> None:
    """Raises UserError, before anything is built, for train and test sets that will not exist.

    Without stage build the sets must exist already, which the stages check themselves.
    """
    if "build" not in names:
        return
    built = build.set_names(_config_of("build", config), workdir)
    readers = {"train_sets": {"train"}, "test_sets": {"train", "evaluate"}}
    for key, readers_of_it in readers.items():
        missing = [one for one in config.data[key] if one not in built]
        if missing and readers_of_it & set(names):
            raise UserError(
                f"config.data.{key} names {missing[0]!r}, but stage 'build' will make "
                f"{', '.join(built) or 'no set'}: give "
                f"--config.build.folders.{missing[0]}=FOLDER, or name another set."
            )


def _check_together(config: ConfigDict, names: list[str]) -> None:
    """Raises UserError, before anything is made, for stages that cannot be combined."""
    if "photos" in names and (others := [one for one in ("prompts", "generate") if one in names]):
        raise UserError(
            f"config.stages names 'photos' and {others[0]!r}, which both make the people; "
            "leave one of them out."
        )
    reweights = {"denoise", "build", "train"} <= set(names) and config.denoise.action == "reweight"
    if reweights and "synthetic" in config.data.train_sets:
        setup.check_captions(config.train.captions)


def _check_attributes(config: ConfigDict, names: list[str]) -> None:
    """Raises UserError for an engine that needs attributes where the people have none."""
    if "photos" in names:
        source, advice = "stage 'photos'", "."
    elif "prompts" in names and config.prompts.engine != "template":
        source = f"config.prompts.engine={config.prompts.engine!r}"
        advice = ", or prompts.engine='template'."
    else:
        return
    for name in names:
        needing = stages.STAGES[name].need_attributes
        if needing and (engine := config[name].engine) in needing:
            raise UserError(
                f"config.{name}.engine={engine!r} needs the attributes of persons, which {source} "
                f"does not make: choose another engine for it{advice}"
            )


def _check_batch(config: ConfigDict, names: list[str]) -> None:
    """Raises UserError, before anything is made, for a batch larger than the train sets can be."""
    if not {"build", "train"} <= set(names):
        return
    size, most = config.train.batch_size, 0
    for name in config.data.train_sets:
        if name == build.SYNTHETIC and not {"prompts", "caption"} <= set(names):
            return  # from an earlier run, or made by hand: stage train counts them
        if name == build.SYNTHETIC:
            most += _most_synthetic_pairs(config, names)
        else:
            most += build.count_train_pairs(_config_of("build", config), name, size)
    if config.data.train_sets and most == 0:
        raise UserError(
            f"config.data.train_sets={config.data.train_sets!r} has nothing to train on: no train "
            "split has an image with a caption; python -m jaxtbpr.datasets.validate says which "
            "splits a folder has."
        )
    if config.data.train_sets and most < size:
        raise UserError(
            f"config.train.batch_size={size} is larger than the {most:,} (image, caption) pairs "
            f"that {', '.join(config.data.train_sets)} can have to train on; make it {most} or "
            "less, or add data."
        )


def _most_synthetic_pairs(config: ConfigDict, names: list[str]) -> int:
    edits = config.augment.edits if "augment" in names else 0
    images = config.prompts.train * config.prompts.images_per_prompt * (1 + edits)
    return images * config.caption.per_image.train


def _check_stages(
    config: ConfigDict, workdir: Workdir, prints: Mapping[str, Fingerprint | None], rerun: bool
) -> None:
    """Raises UserError, before anything is made, for errors that a stage would stop at later.

    A stage that is finished, and will not run again, is not checked.
    """
    for name, fingerprint in prints.items():
        stage = stages.STAGES[name]
        if stage.check and resume.is_due(stage, config, workdir, fingerprint, rerun=rerun):
            stage.check(_config_of(name, config))


def _fingerprint(name: str, config: ConfigDict) -> Fingerprint | None:
    stage = stages.STAGES[name]
    return stage.fingerprint(_config_of(name, config)) if stage.fingerprint else None


def _config_of(name: str, config: ConfigDict) -> ConfigDict:
    return resume.config_of(stages.STAGES[name], config)


def _require_records(name: str, workdir: Workdir) -> None:
    """Raises UserError, with the most common reason, where a stage has rejected all records."""
    commit = workdir.commit(name)
    assert commit is not None  # the stage has just finished
    if name not in stages.ORDER or commit["records_out"] or not commit["rejected"]:
        return
    reasons = [record["rejected"]["reason"] for record in workdir.manifest(name).rejected()]
    kinds = [facts.general_reason(reason) for reason in reasons]
    kind, count = Counter(kinds).most_common(1)[0]
    raise UserError(
        f"stage {name!r} has rejected all of its {len(reasons)} records, {count} of them for a "
        f"reason like this: {reasons[kinds.index(kind)]}; fix it, delete "
        f"{workdir.dir(name)} and rerun."
    )


def _write_summary(workdir: Workdir) -> dict[str, Any]:
    """Writes the counts of the finished stages; "outdated" are those whose inputs have changed."""
    done = workdir.commits(stages.STAGES)
    current = {name: commit for name, commit in done.items() if resume.is_current(commit, done)}
    keys = ("seconds", "records_in", "records_out", "rejected")
    summary: dict[str, Any] = {
        "stages": {name: {key: c[key] for key in keys} for name, c in current.items()},
        "outdated": [name for name in done if name not in current],
    }
    if "evaluate" in current:
        summary["evaluate"] = current["evaluate"]["metrics"]
        doubt_of = {name: leakage.doubt(name, current.get("build", {}), current.get("train"))
                for name in summary["evaluate"]}  # fmt: skip
        summary |= (
            {"doubts": doubts} if (doubts := {k: v for k, v in doubt_of.items() if v}) else {}
        )
    if "measure" in current:
        summary["measure"] = current["measure"]["measures"]
    files.write_json_atomic(workdir.root / "summary.json", summary)
    return summary


def _explain(error: OSError, workdir: Workdir) -> UserError:
    where = error.filename or workdir.root
    advice = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "raise the quota or free some space",
        errno.EROFS: "choose a --workdir that is writable",
        errno.EACCES: "choose a --workdir that you can write to",
        errno.EPERM: "choose a --workdir that you can write to",
        errno.EEXIST: "choose a --workdir that is a folder",
        errno.ENOTDIR: "choose a --workdir that is a folder",
    }.get(error.errno or 0, "fix it")
    return UserError(
        f"{error.strerror or error} at {where}: {advice} and rerun; finished work is kept."
    )
