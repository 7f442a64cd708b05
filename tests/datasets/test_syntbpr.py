import pytest

from jaxtbpr.datasets import formats
from jaxtbpr.datasets.syntbpr import parse_image_name
from tests.datasets.folders import make_folder, write_json


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("images_42_918273_base.png", ("42", 918273, "")),
        ("out/images_42_918273_3.jpg", ("42", 918273, "3")),
        ("images_42_7_3.jpg", ("42", 7, "3")),  # the style script draws a seed of its own
        ("0017_c1_2.jpg", ("image:0017_c1", None, "2")),
        ("0017_c1.jpg", ("image:0017_c1", None, "")),
        ("0017_c1_base.jpg", ("image:0017_c1", None, "")),
        ("person_2.jpg", ("image:person_2", None, "")),
    ],
)
def test_file_names_tell_person_seed_and_edit(name, expected):
    assert parse_image_name(name, {"0017_c1", "person_1", "person_2"}) == expected


def test_a_prompt_is_kept_beside_the_generated_image(tmp_path):
    entries = list(formats.read(make_folder(tmp_path, "syntbpr_images").path))
    assert [one.identity for one in entries] == [str(k) for k in range(6)]
    assert entries[2].extra["seed"] == 2 * 977 + 5
    assert entries[2].extra["edits"] == []
    assert entries[2].extra["prompt"] == entries[2].captions[0]


def test_edits_share_the_identity_of_their_base_image(tmp_path):
    entries = list(formats.read(make_folder(tmp_path, "syntbpr_captions", images=4).path))
    people = [one for one in entries if one.identity == "40"]
    assert [one.extra["edits"] for one in people] == [[], ["1"], ["2"], ["3"], ["4"]]
    assert entries[0].extra["MiniCPM_question"] == "Describe the person."


def test_captions_of_several_models_are_joined(tmp_path):
    folder = make_folder(tmp_path, "syntbpr_captions")
    records = [
        {"image_path": photo.name, "captions": ["Qwen's."], "Qwen_question": "Who?"}
        for photo in folder.photos
    ]
    write_json(folder.path / "captions_2.json", records)
    entries = list(formats.read(folder.path))
    assert len(entries) == len(folder.photos)
    assert all(one.captions[1] == "Qwen's." for one in entries)


def test_an_id_that_the_user_added_is_the_identity(tmp_path):
    record = {"image_path": "a.jpg", "captions": ["x"], "Qwen_question": "Who?", "id": 9}
    write_json(tmp_path / "captions.json", [record])
    assert next(formats.read(tmp_path)).identity == "9"


def test_base_images_of_two_runs_with_one_number_are_not_one_person(tmp_path):
    records = [
        {"id": 0, "image_path": f"{run}/images_0_{seed}_base.png", "caption": "a man"}
        for run, seed in (("a", 11), ("b", 12))
    ]
    write_json(tmp_path / "t2i.json", records)
    first, second = formats.read(tmp_path)
    assert not first.problem
    assert "record 2 of t2i.json has the number 0 of another run's base image" in second.problem
