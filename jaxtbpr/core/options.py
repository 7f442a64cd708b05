"""Config keys: each with a default, a range and a sentence, checked before anything runs."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.renamed import RENAMED, USUAL_WORDS


@dataclasses.dataclass(frozen=True)
class Option:
    """One config key of a stage.

    default: also gives the key's type; a float key takes integers too. A dict default makes the
      key a table whose own keys are free (for example data set names). A tuple default gives the
      type of the elements too, and of numbers how many there are.
    help: one sentence for the config table. low, high: inclusive bounds of a number.
    choices: the allowed values; of a tuple, those of each element. runtime: the key changes how
      fast a stage works but not what it makes, so that a run may resume with another value.
    """

    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple | None = None
    runtime: bool = False


Options = dict[str, "Option | Options"]


def default_config(options: Options) -> ConfigDict:
    """Returns an unlocked ConfigDict holding every option's default."""
    config = ConfigDict()
    for key, option in options.items():
        is_table = isinstance(option, Mapping)
        config[key] = default_config(option) if is_table else option.default
    return config


def flatten(options: Options, prefix: str = "") -> dict[str, Option]:
    """Returns {dotted key: option}, for example {"train.steps": Option(...)}."""
    flat = {}
    for key, option in options.items():
        if isinstance(option, Mapping):
            flat |= flatten(option, f"{prefix}{key}.")
        else:
            flat[prefix + key] = option
    return flat


def validate(config: ConfigDict, options: Options) -> None:
    """Checks every key and value of `config`.

    Raises UserError naming the key, the value and the nearest right key or the allowed range.
    """
    _validate(config.to_dict(), options, "config.", list(flatten(options)))


def check_key(key: str, options: Options) -> None:
    """Raises UserError, with the nearest right key, unless dotted `key` is an option.

    Sections ("train") and the free keys below a table option count as right.
    """
    known = flatten(options)
    table = known.get(key.rpartition(".")[0])
    is_section = any(name.startswith(key + ".") for name in known)
    in_table = table is not None and isinstance(table.default, Mapping)
    if not (key in known or is_section or in_table):
        raise UserError(_unknown(key, list(known)))


def check_number(key: str, text: str, options: Options) -> None:
    """Raises UserError where option `key` is a number and `text`, of a command line, is none."""
    option = flatten(options).get(key)
    if option is None or type(option.default) not in (int, float):
        return
    number_type = type(option.default)
    try:
        number_type(text)
    except ValueError as error:
        raise UserError(
            f"config.{key}={text} must be {_noun(number_type)}, like the default "
            f"{option.default!r}."
        ) from error


def _validate(config: Mapping, options: Options, prefix: str, known: list[str]) -> None:
    for key, value in config.items():
        option = options.get(key)
        if option is None:
            raise UserError(_unknown((prefix + key).removeprefix("config."), known))
        if isinstance(option, Option):
            _check_value(prefix + key, value, option)
        elif isinstance(value, Mapping):
            _validate(value, option, f"{prefix}{key}.", known)
        else:
            raise UserError(f"{prefix}{key}={value!r} must be a section with keys {list(option)}.")


def _unknown(key: str, known: list[str]) -> str:
    section, _, word = key.rpartition(".")
    renamed = [RENAMED[key]] if RENAMED.get(key) in known else []
    # In its section what is called so elsewhere, or nearly so; then the word in another section.
    usual = [name for name in known if name == f"{section}.{USUAL_WORDS.get(word)}"]
    beside = [name for name in known if name.startswith(f"{section}.")]
    beside = difflib.get_close_matches(key, beside, n=1, cutoff=0.85) if section else []
    same_word = sorted((name for name in known if name.split(".")[-1] == word),
                       key=lambda name: name.count("."))  # fmt: skip
    similar = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    nearest = renamed or usual or beside or same_word or similar
    return f"config.{key} is not a config key; did you mean config.{nearest[0]}?"


def _check_value(name: str, value: Any, option: Option) -> None:
    value_type = type(option.default)
    if isinstance(option.default, Mapping):
        value_type = Mapping
    if value_type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if value_type is tuple and isinstance(value, list):
        value = tuple(value)
    is_bool_for_number = isinstance(value, bool) and value_type in (int, float)
    if not isinstance(value, value_type) or is_bool_for_number:
        raise UserError(
            f"{name}={value!r} is of type {type(value).__name__}; it must be {_noun(value_type)}, "
            f"like the default {option.default!r}."
        )
    if isinstance(value, tuple):
        _check_elements(name, value, option)
    _check_range(name, value, option)


def _check_elements(name: str, value: tuple, option: Option) -> None:
    element_type = type(option.default[0])
    wrong = [v for v in value if type(v) is not element_type]
    if wrong:
        raise UserError(
            f"{name} has {wrong[0]!r} of type {type(wrong[0]).__name__}; its elements must be "
            f"{_noun(element_type)} each, like the default {option.default!r}."
        )
    if element_type is int and len(value) != len(option.default):
        raise UserError(
            f"{name}={value!r} has {len(value)} elements; it must have {len(option.default)}, like "
            f"the default {option.default!r}."
        )


def _check_range(name: str, value: Any, option: Option) -> None:
    if option.choices is not None:
        wrong = [v for v in _elements(value) if v not in option.choices]
        if wrong:
            near = difflib.get_close_matches(str(wrong[0]), map(str, option.choices), 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UserError(
                f"{name} has {wrong[0]!r}, which is not one of {list(option.choices)}{hint}"
            )
    too_low = option.low is not None and any(not v >= option.low for v in _elements(value))
    too_high = option.high is not None and any(not v <= option.high for v in _elements(value))
    if too_low or too_high:
        bounds = f"at least {option.low}" if option.low is not None else ""
        bounds += " and " if option.low is not None and option.high is not None else ""
        bounds += f"at most {option.high}" if option.high is not None else ""
        raise UserError(f"{name}={value!r} is out of range; it must be {bounds}.")


def _elements(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _noun(value_type: type) -> str:
    names = {int: "a whole number", float: "a number", str: "a string", bool: "True or False"}
    return names.get(value_type, "a table" if value_type is Mapping else f"a {value_type.__name__}")


def as_literal(key: str, text: str, options: Options) -> str:
    """Returns `text`, of a command line, as Python writes the value of option `key`.

    Only the value of a tuple option is changed: "a,b" is "('a', 'b')".
    """
    option = flatten(options).get(key)
    if option is None or not isinstance(option.default, tuple):
        return text
    if text.strip().startswith(("(", "[")):
        return text
    items = [item.strip().strip("'\"") for item in text.split(",") if item.strip()]
    if option.default and not isinstance(option.default[0], str):
        return f"({', '.join(items)},)"
    return repr(tuple(items))


def describe(option: Option) -> str:
    """Returns what an option is, and which values are allowed, in one line of plain text."""
    return f"{option.help}{_allowed(option)}".replace("`", "")


def markdown_table(options: Options) -> str:
    """Returns the table of all config keys: key, default, meaning and allowed values."""
    rows = ["| key | default | what it is |", "|---|---|---|"]
    for key, option in flatten(options).items():
        rows.append(f"| `{key}` | `{option.default!r}` | {option.help}{_allowed(option)} |")
    return "\n".join(rows)


def _allowed(option: Option) -> str:
    if option.choices is not None:
        return "; of " + ", ".join(f"`{choice}`" if choice else "''" for choice in option.choices)
    bounds = {"at least": option.low, "at most": option.high}
    phrases = [f"{word} {value}" for word, value in bounds.items() if value is not None]
    return "; " + ", ".join(phrases) if phrases else ""
