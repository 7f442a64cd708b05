"""Several records of one image: joined where they agree, rejected where they do not, and told."""

import json

import pytest

from jaxtbpr.datasets import build, entry, formats
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import make_folder, write_image, write_json
from tests.datasets.sets import build_folder, make_config, make_workdir

ARRAYS = {
    "cuhk_pedes": "reid_raw.json",
    "cuhk_caption_all": "caption_all.json",
    "icfg_pedes": "ICFG-PEDES.json",
    "rstpreid": "data_captions.json",
    "rasa": "processed_data/train.json",
    "tbps_clip": "train_reid.json",
    "ufine": "annotations.json",
    "syntbpr_edit_input": "anno.json",
}


def one_record_per_caption(records):
    return [{**one, "captions": [text]} for one in records for text in one["captions"]]


def edit(folder, form, change):
    file = folder.path / ARRAYS[form]
    write_json(file, change(json.loads(file.read_text(encoding="utf-8-sig"))))


@pytest.mark.parametrize("form", ARRAYS)
def test_one_record_per_caption_is_read_as_one_image(tmp_path, form):
    folder = make_folder(tmp_path, form)
    whole = {one.path: one.captions for one in formats.read(folder.path)}
    edit(folder, form, one_record_per_caption)
    entries = list(formats.read(folder.path))
    assert len(entries) == len(whole)
    assert {one.path: one.captions for one in entries} == whole


def test_validate_and_build_tell_that_records_were_joined(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_pedes")
    edit(folder, "cuhk_pedes", one_record_per_caption)
    found = survey(folder.path)
    count = len(folder.photos)
    first = (
        f"images with several records, whose captions are joined: {count} ({folder.photos[0].name}"
    )
    assert not found.problems()
    assert any(text.startswith(first) for text in found.warnings())
    config = make_config(folders={"real": str(folder.path)})
    result = build.run(config, make_workdir(tmp_path / "run"))
    assert (result["records_out"], result["rejected"]) == (count, 0)
    assert f"build real: warning: {first}" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "value"), [("id", 99), ("split", "test")])
def test_a_record_that_contradicts_is_a_problem_and_is_set_aside(tmp_path, key, value):
    folder = make_folder(tmp_path, "cuhk_pedes")
    edit(folder, "cuhk_pedes", lambda records: [*records, {**records[0], key: value}])
    (problem,) = survey(folder.path).problems()
    assert f"{folder.photos[0].name} has the identity" in problem
    config = make_config(folders={"real": str(folder.path)})
    result = build.run(config, make_workdir(tmp_path / "run"))
    assert (result["records_out"], result["rejected"]) == (len(folder.photos), 1)


def test_back_translated_captions_are_joined_too(tmp_path):
    folder = make_folder(tmp_path, "tbps_clip")
    records = [
        {"id": 1, "file_path": "a.jpg", "captions": [c], "captions_bt": [f"bt {c}"]} for c in "xy"
    ]
    write_json(folder.path / "train_reid.json", records)
    first = next(one for one in formats.read(folder.path) if one.path.endswith("a.jpg"))
    assert (first.captions, first.extra["captions_bt"]) == (("x", "y"), ["bt x", "bt y"])


def test_an_image_named_in_two_ways_is_one(tmp_path):
    write_image(tmp_path / "c" / "a.png", 0)
    rows = "image,caption,id\nc/a.png,x,1\n./c/a.png,y,1\nc//a.png,z,1\n"
    (tmp_path / "captions.csv").write_text(rows)
    (one,) = formats.read(tmp_path)
    assert one.captions == ("x", "y", "z")


def test_rows_that_are_repeated_word_for_word_count_once(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption,id\na.png,x,1\na.png,x,1\na.png,y,1\n")
    (one,) = formats.read(tmp_path)
    assert (one.captions, one.notes) == (("x", "y"), (entry.REPEATED,))


def test_an_empty_caption_in_a_row_of_its_own_is_kept_to_be_counted(tmp_path):
    rows = "image,caption,id\na.png,x,1\na.png,,1\nb.png,,2\nb.png,y,2\n"
    (tmp_path / "captions.csv").write_text(rows)
    found = [(one.captions, one.notes) for one in formats.read(tmp_path)]
    assert found == [(("x", ""), ()), (("", "y"), ())]


@pytest.mark.parametrize("none", [{}, {"captions": []}, {"captions": None}])
@pytest.mark.parametrize("place", [0, 1])
def test_a_record_without_caption_beside_another_is_kept_to_be_counted(tmp_path, none, place):
    records = [{"image": "a.png", "captions": ["x"]}]
    records.insert(place, {"image": "a.png", **none})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "captions.jsonl").write_text(lines)
    (one,) = formats.read(tmp_path)
    assert sorted(one.captions) == ["", "x"]
    assert one.notes == ()


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("mals", "gene_attrs/g_i_g_a_12_attrs.json"),
        ("synth_pedes", "synthpedes_dataset.json"),
        ("syntbpr_images", "t2i.json"),
    ],
)
def test_large_sets_reject_a_second_record_of_an_image(tmp_path, form, file):
    folder = make_folder(tmp_path, form)
    records = json.loads((folder.path / file).read_text())
    write_json(folder.path / file, [*records, records[0]])
    (problem,) = survey(folder.path).problems()
    assert "has a second record; put all captions" in problem
    bad = [one for one in formats.read(folder.path) if one.problem]
    assert len(bad) == 1


def test_a_build_of_one_record_per_image_has_no_notes(tmp_path, capsys):
    build_folder(tmp_path)
    assert "warning" not in capsys.readouterr().err
