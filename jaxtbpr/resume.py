"""Whether a stage runs, is skipped, resumes where it stopped, or is refused; and running it.

The order of the steps in `run_stage` makes it safe to kill at any moment:

1. Old results that a killed run has moved away are moved back, unless new ones were begun.
2. `commit.json` is written last, so a stage that has one is complete; the old results go.
3. The recipe of a stage that has begun is in `started.json`. If it differs from the present one the
   run stops, or with --rerun moves the old results away.
4. The recipe is written before the stage runs, so that a restart can tell whether its partial
   results are of the same settings; then the stage itself resumes from them.
5. If the stage stops before it has written anything, the old results are moved back.
"""

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxtbpr import __version__, stages
from jaxtbpr.core import files, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.progress import say
from jaxtbpr.core.run_info import run_info
from jaxtbpr.core.stage import Fingerprint, Stage
from jaxtbpr.core.workdir import COMMIT, Workdir

Recipe = Mapping[str, Any]
_FINGERPRINT = "fingerprint"  # among the inputs of a recipe


def run_stage(
    stage: Stage,
    config: ConfigDict,
    workdir: Workdir,
    fingerprint: Fingerprint | None,
    *,
    rerun: bool,
) -> None:
    """Runs a stage unless it is done.

    config: of the whole run; fingerprint: of what the stage reads from outside the workdir. Raises
    UserError where it has results of other settings, unless `rerun` is set.
    """
    name, recipe = stage.name, _recipe(stage, config, workdir, fingerprint)
    directory = workdir.dir(name)
    started = directory / "started.json"
    kept = workdir.root / f".{name}.before"
    _move_back(directory, kept)  # of a run that was killed
    if commit := workdir.commit(name):
        kept.rmtree(missing_ok=True)
    before = commit or (files.read_json(started) if started.exists() else None)
    if before and before["recipe"] != recipe:
        if _has_content(directory):
            if not rerun:
                raise UserError(_refusal(stage, before["recipe"], recipe, directory))
            differing = "; ".join(_differences(stage, before["recipe"], recipe))
            say(f"{name}: run again: {differing}")
            _move_away(directory, kept)
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
        result = stage.run(config_of(stage, config), workdir)
        seconds = round(spent + time.monotonic() - began, 3)
        entries = {"recipe": recipe, "seconds": seconds, "versions": _versions()}
        entries["changed"] = _changed(recipe["config"])
        entries["ran"] = run_info(devices=name in ("train", "evaluate"))
        files.write_json_atomic(directory / COMMIT, entries | result)
    finally:
        _move_back(directory, kept)  # where the stage refused the new settings
    started.unlink()
    kept.rmtree(missing_ok=True)
    rejected = f", {result['rejected']} rejected" if result["rejected"] else ""
    say(f"{name}: {result['records_out']} records{rejected}, {seconds:.1f} s")


def is_due(
    stage: Stage,
    config: ConfigDict,
    workdir: Workdir,
    fingerprint: Fingerprint | None,
    *,
    rerun: bool,
) -> bool:
    """Whether `run_stage` with the same arguments would run the stage."""
    commit = workdir.commit(stage.name)
    wanted = _recipe(stage, config, workdir, fingerprint)
    return commit is None or (rerun and commit["recipe"] != wanted)


def config_of(stage: Stage, config: ConfigDict) -> ConfigDict:
    """Returns the part of the config that a stage may read, so that its recipe is complete."""
    sections = ("seed", *stage.sections, stage.name)
    return ConfigDict({key: config[key] for key in sections})


def is_current(commit: Mapping[str, Any], done: Mapping[str, dict[str, Any]]) -> bool:
    """Whether the inputs of a finished stage are unchanged, and theirs too."""
    inputs = dict(commit["recipe"]["inputs"])
    inputs.pop(_FINGERPRINT, None)
    return all(
        _digest(done.get(name)) == digests and (digests is None or is_current(done[name], done))
        for name, digests in inputs.items()
    )


def _recipe(
    stage: Stage, config: ConfigDict, workdir: Workdir, fingerprint: Fingerprint | None
) -> dict[str, Any]:
    """Returns everything that a stage's output depends on: its part of the config, its inputs."""
    reads = stage.reads
    if reads is None:
        before = workdir.name_before(stage.name)
        reads = (before,) if before else ()
    inputs: dict[str, Any] = {other: _digest(workdir.commit(other)) for other in reads}
    if fingerprint is not None:
        inputs[_FINGERPRINT] = fingerprint
    values = _leaves(json.loads(config_of(stage, config).to_json()))
    runtime = {key for key, option in options.flatten(stages.OPTIONS).items() if option.runtime}
    return {"config": {k: v for k, v in values.items() if k not in runtime}, "inputs": inputs}


def _digest(commit: dict[str, Any] | None) -> str | None:
    if commit is None:
        return None
    return hashlib.sha256(json.dumps(commit["outputs"], sort_keys=True).encode()).hexdigest()


def _has_content(directory: epath.Path) -> bool:
    # A stage that refused a value has only written its recipe, which others may replace.
    return any(path.name != "started.json" for path in directory.iterdir())


def _move_away(directory: epath.Path, kept: epath.Path) -> None:
    """Moves a stage's results to `kept` until it has run again; those already in `kept` stay."""
    if kept.exists():
        directory.rmtree()
    else:
        directory.rename(kept)


def _move_back(directory: epath.Path, kept: epath.Path) -> None:
    """Moves kept results back, unless there are new ones."""
    if kept.exists() and not (directory.exists() and _has_content(directory)):
        directory.rmtree(missing_ok=True)
        kept.rename(directory)


def _refusal(stage: Stage, old: Recipe, new: Recipe, directory: epath.Path) -> str:
    differing = "; ".join(_differences(stage, old, new))
    return (
        f"stage {stage.name!r} in {directory} has results of other settings ({differing}): "
        "choose another --workdir, or add --rerun to run it and the stages after it again."
    )


def _differences(stage: Stage, old: Recipe, new: Recipe) -> list[str]:
    olds, news = old["config"], new["config"]
    lines = [
        f"config.{key} was {olds.get(key)!r}, now {news.get(key)!r}" for key in _unequal(olds, news)
    ]
    read_before, read_now = (recipe["inputs"].get(_FINGERPRINT) or {} for recipe in (old, new))
    changed = _unequal(read_before, read_now)
    if changed and stage.fingerprint_changes:
        lines += stage.fingerprint_changes(read_before, read_now)
    elif changed:
        which = ", ".join(_key_of(stage, one, news) for one in changed)
        lines.append(f"a model or folder that it reads has changed: {which}")
    inputs = [name for name in _unequal(old["inputs"], new["inputs"]) if name in stages.STAGES]
    lines += [f"the results of stage {name!r} have changed" for name in inputs]
    return lines or ["something that it reads from outside the workdir has changed"]


def _unequal(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def _key_of(stage: Stage, name: str, values: Mapping[str, Any]) -> str:
    """Returns the config key of an entry of a fingerprint: "clip" is filter.clip.model."""
    key_of_stage = f"{stage.name}.model" if name == "clip" else f"{stage.name}.{name}"
    endings = (f".{name}", f".{name}.model", f".{name}.weights", key_of_stage)
    keys = (key for end in endings for key in values if key.endswith(end) and values[key])
    return next((f"config.{key}" for key in keys), name)


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    below = (_leaves(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items())
    return {key: value for leaves in below for key, value in leaves.items()}


def _changed(values: dict[str, Any]) -> list[str]:
    """Returns the keys of a recipe whose values are not the defaults."""
    defaults = _leaves(json.loads(stages.default_config().to_json()))
    return [key for key, value in values.items() if key not in defaults or defaults[key] != value]


def _versions() -> dict[str, str]:
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")
    versions = {package: importlib.metadata.version(package) for package in (*packages, "aggdraw")}
    return {"jaxtbpr": __version__, "python": platform.python_version()} | versions
