"""What engine `edit` plans: kinds, counts, targets, prompts of all sources."""

import dataclasses

import pytest

from jaxtbpr.core import attributes, seeds
from jaxtbpr.core.options import default_config
from jaxtbpr.diffusion.editing import editor
from jaxtbpr.prompts import template
from jaxtbpr.synthesis import augment, edit_plans

LOOKS = attributes.normalise(
    attributes.sample_person(seeds.rng(0, "p"))
    | {"background": "beach", "weather": "clear", "style": "photo", "posture": "standing",
       "view": "front", "camera": "eye level"}
)  # fmt: skip
DRAWN = {"id": "7", "identity": "7", "split": "train", "prompt": template.prompt(LOOKS),
         "attributes": LOOKS, "captions": ["A man walks on a beach."]}  # fmt: skip
PHOTO = {"id": "8", "identity": "8", "split": "train", "captions": ["A man in a red coat."]}


def kinds(**counts):
    """The default kinds, with these counts."""
    tables = default_config(augment.OPTIONS)["kinds"].to_dict()
    return {kind: tables[kind] | {"count": counts.get(kind, 0)} for kind in edit_plans.KINDS}


def only(record, kind, source, **changes):
    tables = kinds(**{kind: 1})
    tables[kind] |= changes
    [planned] = edit_plans.plan(record, tables, source, 0)[kind]
    return planned


def test_methods_are_those_of_the_editor():
    assert edit_plans.METHODS == editor.METHODS


def test_each_kind_has_its_count_and_edits_are_numbered_through():
    counts = {"background": 2, "weather": 1, "style": 0, "posture": 3}
    planned = edit_plans.plan(DRAWN, kinds(**counts), "record", 0)
    edits = [one for some in planned.values() for one in some]
    assert [len(some) for some in planned.values()] == list(counts.values())
    assert [one.record["id"] for one in edits] == [f"7-{k}" for k in range(1, 7)]
    assert {one.record["identity"] for one in edits} == {"7"}
    assert [one.record["edits"] for one in edits] == (
        [["background"]] * 2 + [["weather"]] + [["posture"]] * 3
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_target_is_drawn_twice_nor_what_the_image_shows(seed):
    planned = edit_plans.plan(DRAWN, kinds(background=5), "record", seed)["background"]
    places = [one.record["attributes"]["background"] for one in planned]
    assert len(set(places)) == 5
    assert "beach" not in places


def test_an_image_that_shows_a_target_has_one_less():
    planned = edit_plans.plan(DRAWN, kinds(background=6), "record", 0)["background"]
    assert [one.target is None for one in planned] == [False] * 5 + [True]
    assert "augment.kinds.background.targets has only 5" in planned[-1].record["rejected"]["reason"]


def test_the_paper_says_nothing_of_the_person():
    place = only(DRAWN, "background", "paper", targets=("lake",))
    assert place.source == "a person in the street"
    assert dataclasses.asdict(place.target) == {
        "prompt": "a person in the lake", "method": "replace", "cross": 0.8, "self_replace": 0.5,
        "weights": {"lake": 2.0},
    }  # fmt: skip
    assert (place.source_words, place.words) == (("street",), ("lake",))
    posture = only(DRAWN, "posture", "paper", targets=("sitting",))
    assert (posture.source, posture.target.prompt) == ("a person", "a person, sitting")


def test_weather_and_style_of_the_paper_stand_before_the_caption():
    snow = only(DRAWN, "weather", "paper", targets=("snow",))
    assert snow.source == "A man walks on a beach"
    assert snow.target.prompt == "in the snow, A man walks on a beach"
    assert (snow.target.method, snow.target.weights) == ("refine", {"snow": 3.0})
    assert snow.words == ()
    assert only(PHOTO, "style", "caption", targets=("van gogh",)).target.prompt == (
        "Van Gogh painting, A man in a red coat"
    )


def test_the_record_s_prompt_has_the_scene_exchanged():
    place = only(DRAWN, "background", "record", targets=("lake",))
    assert place.source == DRAWN["prompt"]
    assert place.target.prompt == DRAWN["prompt"].replace("on a beach", "by a lake")
    assert place.record["prompt"] == place.target.prompt
    assert (place.source_words, place.words) == (("beach",), ("lake",))


def test_a_record_without_what_the_prompts_are_made_of_is_rejected():
    reason = only(PHOTO, "weather", "record").record["rejected"]["reason"]
    assert reason == "it has no prompt to edit (augment.source)"
    assert only(PHOTO, "posture", "paper").target is not None


def test_kinds_share_an_inversion_where_prompt_and_settings_are_the_same():
    every = kinds(background=1, weather=1, style=2, posture=1)
    shared = ["background", "weather", "style"]
    assert list(edit_plans.groups(every, "record").values()) == [shared, ["posture"]]
    assert list(edit_plans.groups(every, "paper").values()) == [
        ["background"], ["weather", "style"], ["posture"],
    ]  # fmt: skip
    every["style"]["guidance_scale"] = 5.0
    assert list(edit_plans.groups(every, "record").values()) == [
        ["background", "weather"], ["style"], ["posture"],
    ]  # fmt: skip
