"""Config keys: a wrong name or value is told before anything runs."""

import pytest
from ml_collections import ConfigDict

from jaxtbpr.core import options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.options import Option

OPTIONS = {
    "seed": Option(0, "seed", low=0),
    "train": {
        "epochs": Option(8, "epochs", low=1, high=100),
        "learning_rate": Option(1e-3, "peak", low=0.0),
        "sets": Option(("a",), "sets", choices=("a", "b")),
        "mirror": Option(True, "flip"),
    },
    "build": {"folders": Option({}, "name -> folder")},
}


def config(**changes):
    made = options.default_config(OPTIONS)
    made.update_from_flattened_dict(changes)
    return made


def test_defaults_are_valid():
    options.validate(config(), OPTIONS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.epochs": 0}, r"config.train.epochs=0 is out of range; it must be at least 1 and"),
        ({"train.learning_rate": -1.0}, r"learning_rate=-1.0 .* at least 0.0"),
        ({"train.learning_rate": float("nan")}, "out of range"),
        (
            {"train.sets": ("a", "c")},
            r"train.sets has 'c', which is not one of \['a', 'b'\]",
        ),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(changes, said):
    with pytest.raises(UserError, match=said):
        options.validate(config(**changes), OPTIONS)


@pytest.mark.parametrize(
    ("key", "value", "noun"),
    [
        ("epochs", "many", "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", 1.5, "a whole number"),
        ("mirror", 1, "True or False"),
        ("sets", "a", "a tuple"),
    ],
)
def test_a_value_of_another_type_is_refused(key, value, noun):
    values = options.default_config(OPTIONS).to_dict()
    values["train"][key] = value
    with pytest.raises(UserError, match=rf"config.train.{key}={value!r} .* it must be {noun}"):
        options.validate(ConfigDict(values), OPTIONS)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (("a", 1), r"train.sets has 1 of type int; its elements must be a string"),
        ((True,), r"train.sets has True of type bool"),
    ],
)
def test_the_elements_of_a_tuple_are_checked(value, said):
    values = options.default_config(OPTIONS).to_dict()
    values["train"]["sets"] = value
    with pytest.raises(UserError, match=said):
        options.validate(ConfigDict(values), OPTIONS)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((64,), r"size=\(64,\) has 1 elements; it must have 2, like the default \(128, 64\)"),
        ((64, 32, 3), "has 3 elements"),
        (("64x32",), "has '64x32' of type str; its elements must be a whole number each"),
        ((64, 32.5), "has 32.5 of type float"),
        ((64, 4), "out of range"),
    ],
)
def test_a_tuple_of_numbers_has_as_many_as_its_default(value, said):
    size = {"size": Option((128, 64), "height and width", low=8)}
    with pytest.raises(UserError, match=said):
        options.validate(ConfigDict({"size": value}), size)
    options.validate(ConfigDict({"size": [64, 32]}), size)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.epoch", "train.epochs"),
        ("training.epochs", "train.epochs"),
        ("epochs", "train.epochs"),
        ("sede", "seed"),
        ("train.lr", "train.learning_rate"),
    ],
)
def test_a_mistyped_key_names_the_nearest_right_one(key, nearest):
    with pytest.raises(UserError, match=f"did you mean config.{nearest}"):
        options.check_key(key, OPTIONS)


def test_a_mistyped_key_in_a_config_file_names_the_nearest_right_one():
    made = config()
    made.train.epochz = 3
    with pytest.raises(UserError, match=r"config.train.epochz .* config.train.epochs"):
        options.validate(made, OPTIONS)


def test_a_number_in_place_of_a_section_is_refused():
    with pytest.raises(UserError, match="config.train=3 must be a section"):
        options.validate(ConfigDict({"train": 3}), OPTIONS)


@pytest.mark.parametrize("text", ["warm", "", "1,5"])
def test_a_text_of_the_command_line_that_is_no_number_is_told(text):
    with pytest.raises(UserError, match=rf"config.train.learning_rate={text} must be a number, li"):
        options.check_number("train.learning_rate", text, OPTIONS)
    with pytest.raises(
        UserError, match=rf"config.seed={text} must be a whole number, like the def"
    ):
        options.check_number("seed", text, OPTIONS)
    options.check_number("train.learning_rate", "1e-3", OPTIONS)
    options.check_number("build.folders.a", text, OPTIONS)


def test_whole_numbers_serve_as_numbers():
    values = options.default_config(OPTIONS).to_dict()
    values["train"]["learning_rate"] = 1
    options.validate(ConfigDict(values), OPTIONS)


def test_keys_below_a_table_are_free():
    made = config()
    made.build.folders.cuhk_pedes = "/data/CUHK-PEDES"
    options.validate(made, OPTIONS)
    options.check_key("build.folders.cuhk_pedes", OPTIONS)
