"""Vocabularies: what the packaged files hold, and what is said of a user's wrong one."""

import itertools
import json
import shutil

import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.prompts import descriptors, rules
from jaxtbpr.prompts.descriptors import Entry, spell


@pytest.fixture(scope="module")
def packaged():
    return descriptors.load("")


def says(vocabulary, slot):
    return [entry.say for entry in vocabulary.entries[slot]]


def own(folder, name, **changes):
    """A folder with one file of the packaged vocabulary, some of its slots changed."""
    table = json.loads((descriptors.PACKAGED / name).read_text())
    (folder / name).write_text(json.dumps(table | changes))
    return str(folder)


def test_the_packaged_vocabulary_is_as_rich_as_the_papers(packaged):
    # PAPER: the sizes of the descriptor lists of SynTBPR's plain template, and 70 professions.
    fewest = {
        "age": 3, "gender": 2, "hair": 2, "pattern": 5, "upper": 11, "sleeves": 2, "lower": 7,
        "cut": 38, "shoes": 5, "item": 6, "camera": 6, "profession": 70,
    }  # fmt: skip
    assert {slot: n for slot, n in fewest.items() if len(says(packaged, slot)) < n} == {}
    assert min(len(says(packaged, "location")), len(says(packaged, "state"))) >= 60


def test_the_words_of_an_entry_do_not_repeat_each_other(packaged):
    for slot in ("profession", "state", "location"):
        for entry in packaged.entries[slot]:
            given = dict(entry.details)
            for words in itertools.product(*(given.get(k, ("",)) for k in descriptors.DETAILS)):
                assert rules.problem(" ; ".join([entry.say, *words])) == ""


def test_every_profession_has_its_clothes_and_every_state_its_place(packaged):
    for slot, detail in (("profession", "wears"), ("profession", "at"), ("state", "at")):
        assert all(dict(entry.details)[detail] for entry in packaged.entries[slot])


def test_rules_look_back_and_ahead(packaged):
    man = {"gender": Entry("male")}
    woman = {"gender": Entry("female")}
    assert "a skirt" not in [e.say for e in packaged.admissible("lower", man)]
    assert "a skirt" in [e.say for e in packaged.admissible("lower", woman)]
    dress = next(e for e in packaged.entries["upper"] if e.say == "a summer dress")
    assert [e.say for e in packaged.admissible("lower", woman | {"upper": dress})] == [""]


def test_a_colour_is_filled_in_or_left_out():
    assert spell("a {colour} bag", "red") == "a red bag"
    assert spell("a {colour} bag") == "a bag"
    assert spell("a bag", "red") == "a bag"


def test_a_file_of_the_users_replaces_the_packaged_one(tmp_path):
    folder = own(tmp_path, "locations.json", location=["in a  lighthouse"])
    mine = descriptors.load(folder)
    assert says(mine, "location") == ["in a lighthouse"]
    assert says(mine, "state") == says(descriptors.load(""), "state")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hairs": ["x"]}, r"appearance.json has the slot 'hairs'; its slots are gender, "),
        ({"hair": []}, r"appearance.json: 'hair' must be a list with at least one entry"),
        ({"hair": ["x", 3]}, r"entry 2 of 'hair' is 3; it must be a string, or an object"),
        (
            {"item": ["a {color} bag"]},
            r"says 'a {color} bag'; the only braces allowed are {colour}",
        ),
        ({"upper": ["a {colour} coat"]}, r"in the words of hair, item, wears"),
        ({"hair": [{"say": "x", "when": 1}]}, r"entry 1 of 'hair' has the key 'when'; it may"),
        ({"hair": [{"say": "x", "if": []}]}, r"has if \[\]; it must be an object"),
        ({"hair": [{"say": "x", "if": {"age": []}}]}, r"has if.age \[\]; it must be a list of"),
        ({"hair": [{"say": "x", "if": {"age": ["ol"]}}]}, r"if age='ol', which 'age' of .* not"),
        ({"hair": [{"say": "x", "if": {"item": ["x"]}}]}, r"'if' takes a slot drawn before it"),
        ({"hair": [{"say": "x", "set": {"age": ["old"]}}]}, r"'set' takes a slot drawn after it"),
        ({"hair": ["x", "y", "x"]}, r"entry 3 of 'hair' repeats 'x'; remove it"),
        ({"hair": [{"say": "x", "verb": 2}]}, r"has verb 2; it must be a string"),
    ],
)
def test_a_wrong_file_is_one_clear_sentence(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        descriptors.load(own(tmp_path, "appearance.json", **changes))


def test_a_slot_that_is_lacking_and_broken_json_are_told(tmp_path):
    (tmp_path / "states.json").write_text("{}")
    with pytest.raises(InputError, match=r"states.json lacks the slot 'state'; its slots are"):
        descriptors.load(str(tmp_path))
    (tmp_path / "states.json").write_text("{")
    with pytest.raises(InputError, match=r"states.json is not valid JSON"):
        descriptors.load(str(tmp_path))
    (tmp_path / "states.json").write_text("[]")
    with pytest.raises(InputError, match=r"states.json must be a JSON object"):
        descriptors.load(str(tmp_path))


def test_a_folder_that_replaces_nothing_is_told(tmp_path):
    with pytest.raises(InputError, match=r"^vocabulary='/none' is not a folder"):
        descriptors.load("/none")
    with pytest.raises(InputError, match="has no vocabulary file; name your files like"):
        descriptors.load(str(tmp_path))
    shutil.copy(descriptors.PACKAGED / "states.json", tmp_path / "state.json")
    with pytest.raises(
        InputError, match=r"state.json is not a vocabulary file; name your files like"
    ):
        descriptors.load(str(tmp_path))


def test_rules_that_leave_nothing_are_told_with_what_was_drawn(tmp_path):
    women = [{"say": "boots", "if": {"gender": ["female"]}}]
    mine = descriptors.load(own(tmp_path, "appearance.json", shoes=women))
    with pytest.raises(InputError, match=r"no shoes that goes with gender 'male'; relax an 'if'"):
        mine.admissible("shoes", {"gender": Entry("male")})
