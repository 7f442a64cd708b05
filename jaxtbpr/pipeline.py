"""The stages in order: which to run, skip or resume, and what to say when one fails."""

import dataclasses
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxtbpr import __version__
from jaxtbpr.captioning import fid, pose_filter
from jaxtbpr.captioning import stage as caption
from jaxtbpr.core import compilation, files, options
from jaxtbpr.core.circumstances import circumstances
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import MANIFEST_STAGES
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.progress import say
from jaxtbpr.core.workdir import COMMIT, Workdir
from jaxtbpr.datasets import build, photos, seen
from jaxtbpr.prompts import stage as prompts
from jaxtbpr.report import facts
from jaxtbpr.report import stage as report
from jaxtbpr.report.table import results_table
from jaxtbpr.retrieval import clip_filter, denoise_stage, evaluate, measure, perception, train
from jaxtbpr.synthesis import augment, filter, finetune, generate, quality


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    module: a module or what stands for one; has `OPTIONS` (its section of the config),
      `run(config, workdir)`, which returns {"outputs": {file: digest}, "records_in",
      "records_out", "set_aside"}, and may have `outside(config)`, a fingerprint of what it reads
      from outside the workdir, with `outside_changes(before, now)`, phrases on what differs between
      two of them, and `check(config)`, which raises UserError before anything runs.
    after: the stages whose outputs it reads; None means the manifest stage before it.
    sections: the config sections that it reads besides its own and `seed`.
    """

    module: Any
    after: tuple[str, ...] | None = None
    sections: tuple[str, ...] = ()


STAGES: dict[str, Stage] = {
    "prompts": Stage(prompts, after=()),
    "generate": Stage(generate),
    "filter": Stage(filter.Filter({"quality": quality, "clip": clip_filter, "pose": pose_filter})),
    "augment": Stage(augment, sections=("generate",)),
    "caption": Stage(caption),
    "denoise": Stage(denoise_stage),
    "measure": Stage(measure.Measure(fid)),
    "build": Stage(build),
    "train": Stage(train, after=("build",), sections=("data", "model")),
    "evaluate": Stage(evaluate, after=("build", "train"), sections=("data", "model")),
}
STAGES["report"] = Stage(report, after=tuple(STAGES))  # it shows all of these
STAGES["finetune"] = Stage(finetune.Finetune(perception))
STAGES = {"photos": Stage(photos, after=())} | STAGES
_UNUSUAL = ("photos", "denoise", "measure", "finetune")
USUAL_STAGES = tuple(name for name in STAGES if name not in _UNUSUAL)

OPTIONS: Options = {
    "seed": Option(0, "seed of everything random", low=0, high=2**32 - 1),
    "stages": Option(USUAL_STAGES, "the stages to run", choices=tuple(STAGES)),
    "data": train.DATA_OPTIONS,
    "model": train.MODEL_OPTIONS,
} | {name: stage.module.OPTIONS for name, stage in STAGES.items()}


def default_config() -> ConfigDict:
    """Returns a config with every key at its default; a config file changes what it needs."""
    return options.default_config(OPTIONS)


def prepare_arguments(argv: list[str]) -> list[str]:
    """Returns the command line with its config file found and its workdir filled in.

    Raises UserError for a config key that does not exist, naming the nearest right one, for what is
    no number where one is wanted, and for a config file that is found neither as given nor among
    the packaged ones.
    """
    words = _one_spelling(argv[1:])
    for word in words:
        if word.startswith("--config."):
            key, equals, value = word.removeprefix("--config.").partition("=")
            options.check_key(key, OPTIONS)
            if equals:
                options.check_number(key, value, OPTIONS)
    given = [w.removeprefix("--config=") for w in words if w.startswith("--config=")]
    path, colon, argument = (given[-1] if given else "configs/syn.py").partition(":")
    found = _find_config(path)
    name = found.stem + (f"-{argument}" if argument else "")
    # First words lose to later ones, so what the user gave stays in force.
    rest = [word for word in words if not word.startswith("--config=")]
    return [argv[0], f"--config={found}{colon}{argument}", f"--workdir=runs/{name}", *rest]


def is_config_error(error: Exception) -> bool:
    """Whether a flag error of absl comes from running the config file, not from the flags."""
    return "Error whilst parsing config file" in str(error)  # so ml_collections calls it


def explain_config_error(error: BaseException, words: list[str]) -> str:
    """Returns one sentence on why the config file of a prepared command line cannot be used."""
    path = words[1].removeprefix("--config=").split(":")[0]
    while is_config_error(error) and error.__context__:
        error = error.__context__
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    where = f"{path} line {lines[-1]}" if lines else path
    return f"the config file {where} does not work: {type(error).__name__}: {error}"


def find_workdir(given: str) -> epath.Path:
    """Returns the folder that --workdir names; "~" is the home folder, also after a "=".

    Raises UserError where it is empty.
    """
    if not given:
        raise UserError("--workdir is empty; give the folder of the run.")
    return epath.Path(given).expanduser()


def closing_words(summary: dict[str, Any], root: epath.PathLike) -> str:
    """Returns what a finished run prints last: its results and where its report is."""
    words = [results_table(summary)] if summary.get("evaluate") else []
    words += [f"not a test on unseen people: {text}" for text in summary.get("doubts", {}).values()]
    page = epath.Path(root) / "report" / "index.html"
    if page.exists() and "report" not in summary["outdated"]:
        words.append(f"report: {page.resolve()}")
    if summary["outdated"]:
        names = ", ".join(summary["outdated"])
        words.append(f"of an earlier state: {names}; name them in config.stages to make them anew")
    return "\n".join([*words, f"summary: {(epath.Path(root) / 'summary.json').resolve()}"])


def run(config: ConfigDict, root: epath.PathLike, *, rerun: bool = False) -> dict[str, Any]:
    """Runs the stages named in `config.stages` in the order of the pipeline.

    A stage finished before with the same config and inputs is skipped; one that was cut off goes
    on where it stopped. rerun: a stage that was made with another config is made anew, where
    otherwise UserError lists what differs; what it made is kept until then. Returns the summary,
    also in `root/summary.json`. Raises UserError for everything that the user can mend.
    """
    options.validate(config, OPTIONS)
    compilation.set_up()
    names = [name for name in STAGES if name in config.stages]
    if not names:
        raise UserError(f"config.stages is empty; name at least one of {', '.join(STAGES)}.")
    workdir = Workdir(root, order=MANIFEST_STAGES, chosen=names)
    try:
        _check_sets(config, workdir, names)
        _check_together(config, names)
        _check_batch(config, names)
        # Once for all that need it: fingerprints of large models take a while.
        outsides = {name: _outside(name, config) for name in names}
        _check_stages(config, workdir, outsides, rerun)
        with workdir.lock(), compilation.backend_told():
            for name in names:
                _run_stage(name, config, workdir, outsides[name], rerun)
                summary = _write_summary(workdir)
                _require_records(name, workdir)
    except OSError as error:
        raise _explain(error, workdir) from error
    except ValueError as error:  # so Orbax tells of a disk that fails
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            number = int(code[1])
            raise _explain(OSError(number, os.strerror(number)), workdir) from error
        raise
    return summary


def _one_spelling(words: list[str]) -> list[str]:
    """Returns the words of a command line with every "-config X" written as "--config=X"."""
    words = [re.sub(r"^-(?=config\b)", "--", word) for word in words]
    joined = []
    for word in words:
        if joined and joined[-1] == "--config":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _find_config(path: str) -> epath.Path:
    packaged = epath.Path(__file__).parent / path
    for candidate in (epath.Path(path).expanduser(), packaged):
        if candidate.is_file():
            return candidate
    raise UserError(f"--config={path} does not exist; give the path of a config file.")


def _check_sets(config: ConfigDict, workdir: Workdir, names: list[str]) -> None:
    """Raises UserError, before anything is built, for a set to train or test on that will not be.

    Without stage build the sets must be there already, which the stages check themselves.
    """
    if "build" not in names:
        return
    built = build.set_names(_config_of("build", config), workdir)
    readers = {"train_sets": {"train"}, "test_sets": {"train", "evaluate"}}
    for key, stages in readers.items():
        missing = [one for one in config.data[key] if one not in built]
        if missing and stages & set(names):
            raise UserError(
                f"config.data.{key} names {missing[0]!r}, but what will be built is "
                f"{', '.join(built) or 'nothing'}: give "
                f"--config.build.folders.{missing[0]}=FOLDER, or name another set."
            )


def _check_together(config: ConfigDict, names: list[str]) -> None:
    """Raises UserError, before anything is made, for stages that do not go together."""
    if "photos" in names and (others := [one for one in ("prompts", "generate") if one in names]):
        raise UserError(
            f"config.stages names 'photos' and {others[0]!r}, which both give the people; "
            "leave one of them out."
        )
    if "prompts" in names and config.prompts.engine != "template":
        drawing = {"generate": "render", "augment": "render", "caption": "template"}
        for name, engine in drawing.items():
            if name in names and config[name].engine == engine:
                raise UserError(
                    f"config.{name}.engine={engine!r} needs the attributes of persons, which "
                    f"config.prompts.engine={config.prompts.engine!r} does not give: choose "
                    "another engine for it, or prompts.engine='template'."
                )
    is_weighed = {"denoise", "build", "train"} <= set(names) and config.denoise.action == "weigh"
    if is_weighed and "synthetic" in config.data.train_sets:
        train.check_captions(config.train.captions)


def _check_batch(config: ConfigDict, names: list[str]) -> None:
    """Raises UserError, before anything is made, for a batch larger than the train sets can be."""
    if not {"build", "train"} <= set(names):
        return
    size, most = config.train.batch_size, 0
    for name in config.data.train_sets:
        if name == build.SYNTHETIC and not {"prompts", "caption"} <= set(names):
            return  # made earlier, or by hand: stage train counts them
        if name == build.SYNTHETIC:
            most += _most_synthetic_pairs(config, names)
        else:
            most += build.most_train_pairs(_config_of("build", config), name, size)
    if config.data.train_sets and most < size:
        raise UserError(
            f"config.train.batch_size={size} is larger than the {most:,} (image, caption) pairs "
            f"that {', '.join(config.data.train_sets)} can have to train on; make it {most} or "
            "less, or add data."
        )


def _most_synthetic_pairs(config: ConfigDict, names: list[str]) -> int:
    edits = config.augment.edits if "augment" in names else 0
    images = config.prompts.train * config.prompts.per_prompt * (1 + edits)
    return images * config.caption.per_image.train


def _check_stages(
    config: ConfigDict, workdir: Workdir, outsides: Mapping[str, Any], rerun: bool
) -> None:
    """Raises UserError, before anything is made, for what a stage would stop at in its turn.

    A stage that is finished, and is not to be made anew, needs nothing any more.
    """
    for name, outside in outsides.items():
        recipe, commit = _recipe(name, config, workdir, outside), workdir.commit(name)
        is_due = commit is None or (rerun and commit["recipe"] != recipe)
        if is_due and hasattr(STAGES[name].module, "check"):
            STAGES[name].module.check(_config_of(name, config))


def _run_stage(
    name: str, config: ConfigDict, workdir: Workdir, outside: dict[str, Any] | None, rerun: bool
) -> None:
    recipe = _recipe(name, config, workdir, outside)
    directory = workdir.dir(name)
    started = directory / "started.json"
    kept = workdir.root / f".{name}.before"
    _give_back(directory, kept)  # of a run that was killed
    if commit := workdir.commit(name):
        kept.rmtree(missing_ok=True)
    before = commit or (files.read_json(started) if started.exists() else None)
    if before and before["recipe"] != recipe:
        if _has_content(directory):
            if not rerun:
                raise UserError(_refusal(name, before["recipe"], recipe, directory))
            differing = "; ".join(_differences(name, before["recipe"], recipe))
            say(f"{name}: made anew: {differing}")
            _put_aside(directory, kept)
        commit = before = None
    if commit:
        say(f"{name}: already done, skipped")
        return
    directory.mkdir(parents=True, exist_ok=True)
    spent = before["seconds"] if before else 0.0
    files.write_json_atomic(started, {"recipe": recipe, "seconds": spent})
    say(f"{name}: {'resumed' if before else 'started'}")
    began = time.monotonic()
    try:
        result = STAGES[name].module.run(_config_of(name, config), workdir)
        seconds = round(spent + time.monotonic() - began, 3)
        told = {"recipe": recipe, "seconds": seconds, "versions": _versions()}
        told["changed"] = _changed(recipe["config"])
        told["ran"] = circumstances(devices=name in ("train", "evaluate"))
        files.write_json_atomic(directory / COMMIT, told | result)
    finally:
        _give_back(directory, kept)  # where the new settings were refused
    started.unlink()
    kept.rmtree(missing_ok=True)
    aside = f", {result['set_aside']} set aside" if result["set_aside"] else ""
    say(f"{name}: {result['records_out']} records{aside}, {seconds:.1f} s")


def _require_records(name: str, workdir: Workdir) -> None:
    """Raises UserError, with the commonest reason, where a stage has set aside all it was given."""
    commit = workdir.commit(name)
    if name not in MANIFEST_STAGES or commit["records_out"] or not commit["set_aside"]:
        return
    reasons = [record["set_aside"]["reason"] for record in workdir.manifest(name).set_aside()]
    kinds = [facts.general_reason(reason) for reason in reasons]
    kind, count = Counter(kinds).most_common(1)[0]
    raise UserError(
        f"stage {name!r} has set aside all of its {len(reasons)} records, {count} of them for a "
        f"reason like this: {reasons[kinds.index(kind)]}; mend it, delete "
        f"{workdir.dir(name)} and start again."
    )


def _outside(name: str, config: ConfigDict) -> dict[str, Any] | None:
    """Returns the fingerprint of what a stage reads from outside; None: it reads nothing."""
    module = STAGES[name].module
    return module.outside(_config_of(name, config)) if hasattr(module, "outside") else None


def _recipe(
    name: str, config: ConfigDict, workdir: Workdir, outside: dict[str, Any] | None
) -> dict[str, Any]:
    """Returns all that decides a stage's output: its part of the config and its inputs."""
    stage = STAGES[name]
    after = stage.after
    if after is None:
        before = workdir.name_before(name)
        after = (before,) if before else ()
    inputs = {other: _digest(workdir.commit(other)) for other in after}
    if outside is not None:
        inputs["outside"] = outside
    values = _leaves(json.loads(_config_of(name, config).to_json()))
    runtime = {key for key, option in options.flatten(OPTIONS).items() if option.runtime}
    return {"config": {k: v for k, v in values.items() if k not in runtime}, "inputs": inputs}


def _config_of(name: str, config: ConfigDict) -> ConfigDict:
    """Returns the part of the config that a stage may read, so that its recipe misses nothing."""
    stage = STAGES[name]
    return ConfigDict({key: config[key] for key in ("seed", *stage.sections, name)})


def _digest(commit: dict[str, Any] | None) -> str | None:
    if commit is None:
        return None
    return hashlib.sha256(json.dumps(commit["outputs"], sort_keys=True).encode()).hexdigest()


def _has_content(directory: epath.Path) -> bool:
    # A stage that stopped at a wrong value has only noted its settings; others may replace them.
    return any(path.name != "started.json" for path in directory.iterdir())


def _put_aside(directory: epath.Path, kept: epath.Path) -> None:
    """Keeps what a stage made as `kept` until it is made anew; what is kept there already stays."""
    if kept.exists():
        directory.rmtree()
    else:
        directory.rename(kept)


def _give_back(directory: epath.Path, kept: epath.Path) -> None:
    """Puts what is kept in its place again, unless something was made there since."""
    if kept.exists() and not (directory.exists() and _has_content(directory)):
        directory.rmtree(missing_ok=True)
        kept.rename(directory)


def _refusal(name: str, old: dict, new: dict, directory: epath.Path) -> str:
    differing = "; ".join(_differences(name, old, new))
    return (
        f"stage {name!r} in {directory} was made with other settings ({differing}): "
        "choose another --workdir, or add --rerun to make it and what follows from it anew."
    )


def _differences(name: str, old: dict, new: dict) -> list[str]:
    olds, news = old["config"], new["config"]
    keys = [key for key in olds | news if olds.get(key) != news.get(key)]
    lines = [f"config.{key} was {olds.get(key)!r}, now {news.get(key)!r}" for key in keys]
    inputs = old["inputs"] | new["inputs"]
    changed = [k for k in inputs if old["inputs"].get(k) != new["inputs"].get(k)]
    told = getattr(STAGES[name].module, "outside_changes", None)
    if "outside" in changed and told:
        lines += told(*(recipe["inputs"].get("outside") or {} for recipe in (old, new)))
        if lines:
            changed.remove("outside")
    return lines + [f"its input {key!r} has changed" for key in changed]


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    below = (_leaves(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items())
    return {key: value for leaves in below for key, value in leaves.items()}


def _write_summary(workdir: Workdir) -> dict[str, Any]:
    """Writes what the finished stages did; "outdated" are those made from what is no more."""
    done = {name: commit for name in STAGES if (commit := workdir.commit(name))}
    current = {name: commit for name, commit in done.items() if _is_current(commit, done)}
    keys = ("seconds", "records_in", "records_out", "set_aside")
    summary: dict[str, Any] = {
        "stages": {name: {key: c[key] for key in keys} for name, c in current.items()},
        "outdated": [name for name in done if name not in current],
    }
    if "evaluate" in current:
        summary["evaluate"] = current["evaluate"]["metrics"]
        told = {name: seen.doubt(name, current.get("build", {}), current.get("train"))
                for name in summary["evaluate"]}  # fmt: skip
        summary |= {"doubts": doubts} if (doubts := {k: v for k, v in told.items() if v}) else {}
    if "measure" in current:
        summary["measure"] = current["measure"]["measures"]
    files.write_json_atomic(workdir.root / "summary.json", summary)
    return summary


def _is_current(commit: dict[str, Any], done: dict[str, dict[str, Any]]) -> bool:
    """Whether all stages that a stage was made from are as they were then."""
    inputs = {name: given for name, given in commit["recipe"]["inputs"].items() if name in STAGES}
    return all(
        _digest(done.get(name)) == given and (given is None or _is_current(done[name], done))
        for name, given in inputs.items()
    )


def _changed(values: dict[str, Any]) -> list[str]:
    """Returns the keys of a recipe whose values are not the defaults."""
    defaults = _leaves(json.loads(default_config().to_json()))
    return [key for key, value in values.items() if key not in defaults or defaults[key] != value]


def _versions() -> dict[str, str]:
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")
    versions = {package: importlib.metadata.version(package) for package in (*packages, "aggdraw")}
    return {"jaxtbpr": __version__, "python": platform.python_version()} | versions


def _explain(error: OSError, workdir: Workdir) -> UserError:
    where = error.filename or workdir.root
    advice = {
        errno.ENOSPC: "make room",
        errno.EDQUOT: "raise the quota or make room",
        errno.EROFS: "choose a --workdir that can be written",
        errno.EACCES: "choose a --workdir that you may write",
        errno.EPERM: "choose a --workdir that you may write",
        errno.EEXIST: "choose a --workdir that is a folder",
        errno.ENOTDIR: "choose a --workdir that is a folder",
    }.get(error.errno, "mend it")
    return UserError(
        f"{error.strerror or error} at {where}: {advice} and start again; what was done is kept."
    )
