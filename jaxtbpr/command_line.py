"""The command line of a run: its config file and workdir, and the last lines that it prints."""

import difflib
import re
import traceback
from collections.abc import Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxtbpr import stages
from jaxtbpr.core import files, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.stage import Stage
from jaxtbpr.report.table import results_table


def prepare_arguments(argv: list[str]) -> list[str]:
    """Returns the command line with the path of its config file and a default workdir.

    Raises UserError for a config key that does not exist, naming the nearest one, for a value that
    must be a number and is not, and for a config file that does not exist, also among the packaged
    ones.
    """
    arguments = [_checked(flag) for flag in _one_spelling(argv[1:])]
    configs = [a.removeprefix("--config=") for a in arguments if a.startswith("--config=")]
    path, colon, argument = (configs[-1] if configs else "configs/syn.py").partition(":")
    config_file = _find_config(path)
    name = config_file.stem + (f"-{argument}" if argument else "")
    # Later flags override earlier ones, so the user's are last.
    rest = [flag for flag in arguments if not flag.startswith("--config=")]
    return [argv[0], f"--config={config_file}{colon}{argument}", f"--workdir=runs/{name}", *rest]


def is_config_error(error: BaseException) -> bool:
    """Whether a flag error of absl comes from running the config file, not from the flags."""
    return "Error whilst parsing config file" in str(error)  # so ml_collections calls it


def explain_config_error(error: BaseException, argv: list[str]) -> str:
    """Returns one sentence that says why the config file of a prepared command line fails."""
    path = argv[1].removeprefix("--config=").split(":")[0]
    while is_config_error(error) and error.__context__:
        error = error.__context__
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    where = f"{path} line {lines[-1]}" if lines else path
    return f"the config file {where} fails: {type(error).__name__}: {error}"


def find_workdir(path: str | None) -> epath.Path:
    """Returns the folder that --workdir names; "~" is the home folder, also after a "=".

    Raises UserError where it is empty.
    """
    if not path:
        raise UserError("--workdir is empty; give the folder of the run.")
    return epath.Path(path).expanduser()


def final_lines(summary: dict[str, Any], root: epath.PathLike) -> str:
    """Returns what a finished run prints last: its results and where its report is."""
    lines = [results_table(summary)] if summary.get("evaluate") else []
    lines += [f"not a test on unseen people: {text}" for text in summary.get("doubts", {}).values()]
    page = epath.Path(root) / "report" / "index.html"
    if page.exists() and "report" not in summary["outdated"]:
        lines.append(f"report: {page.resolve()}")
    if summary["outdated"]:
        names = ", ".join(summary["outdated"])
        lines.append(f"outdated: {names}; name them in config.stages to run them again")
    return "\n".join([*lines, f"summary: {(epath.Path(root) / 'summary.json').resolve()}"])


def add_stages(config: ConfigDict, more: Sequence[str]) -> None:
    """Adds stages to those of a config, each once.

    Raises UserError for one that does not exist, naming the nearest one.
    """
    for name in more:
        if name not in stages.STAGES:
            (nearest,) = difflib.get_close_matches(name, stages.STAGES, n=1, cutoff=0.0)
            raise UserError(f"--with={name} is not a stage; did you mean {nearest}?")
    config.stages = tuple(dict.fromkeys([*config.stages, *more]))


def keys_table(section: str) -> str:
    """Returns the config keys of a section ("train", "filter.pose"; "": all).

    Raises UserError for a section that does not exist.
    """
    every = options.flatten(stages.OPTIONS)
    rows = {
        key: option
        for key, option in every.items()
        if not section or key == section or key.startswith(f"{section}.")
    }
    if not rows:
        sections = [key for key, value in stages.OPTIONS.items() if isinstance(value, dict)]
        raise UserError(f"--keys={section} is not a section; give one of {', '.join(sections)}.")
    return "\n".join(
        f"{key} = {option.default!r}\n    {options.describe(option)}"
        for key, option in rows.items()
    )


def stages_table() -> str:
    """Returns what each stage does, one line each, for --help."""
    rows = [f"  {stage.name:<10}{stage.does}{_off(stage)}" for stage in stages.STAGES.values()]
    return "\n".join(rows)


def _off(stage: Stage) -> str:
    return "" if stage.is_usual else f" (off; --with={stage.name})"


def _checked(argument: str) -> str:
    """An argument; a list (`--config.stages=prompts,generate`) is written as a Python literal."""
    if not argument.startswith("--config."):
        return argument
    key, equals, value = argument.removeprefix("--config.").partition("=")
    options.check_key(key, stages.OPTIONS)
    if not equals:
        return argument
    options.check_number(key, value, stages.OPTIONS)
    return f"--config.{key}={options.as_literal(key, value, stages.OPTIONS)}"


def _one_spelling(argv: list[str]) -> list[str]:
    """Returns the arguments with every "-config X" written as "--config=X".

    The same holds for config keys whose values are lists.
    """
    argv = [re.sub(r"^-(?=config\b)", "--", argument) for argument in argv]
    joined: list[str] = []
    for argument in argv:
        if joined and _wants_value(joined[-1]):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _wants_value(argument: str) -> bool:
    if argument == "--config":
        return True
    option = options.flatten(stages.OPTIONS).get(argument.removeprefix("--config."))
    return option is not None and isinstance(option.default, tuple)


def _find_config(path: str) -> epath.Path:
    package = epath.Path(__file__).parent
    # In a checkout the packaged configs are beside the package, in a wheel inside it.
    packaged = [folder / "configs" for folder in (package, package.parent)]
    named = [folder / f"{path}.py" for folder in packaged]
    for candidate in (epath.Path(path).expanduser(), package / path, *named):
        if candidate.is_file():
            return candidate
    names = sorted({file.stem for folder in packaged for file in files.matches(folder, "*.py")})
    raise UserError(
        f"--config={path} does not exist; give the path of a config file or one of "
        f"{', '.join(names)}."
    )
