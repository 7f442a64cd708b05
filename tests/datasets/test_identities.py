"""Who is on an image: the same person however a file writes it, nobody where it says unknown."""

import json

import pytest

from jaxtbpr.datasets import build, entry, formats
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import write_image
from tests.datasets.sets import make_config, make_workdir


def write_csv(file, header, rows):
    file.write_text("\n".join([header, *rows]) + "\n")


def identities(folder):
    return {one.extra["image_id"]: one.identity for one in formats.read(folder)}


def test_numbers_are_the_same_person_with_and_without_a_decimal_point(tmp_path):
    # pandas writes 12.0 in a column that has an empty cell, and 12 in one that has none.
    write_csv(tmp_path / "train.csv", "image,caption,pid", ["a.jpg,x,12.0", "b.jpg,y,"])
    write_csv(tmp_path / "test.csv", "image,caption,pid", ["c.jpg,z,12"])
    assert identities(tmp_path) == {"a.jpg": "12", "b.jpg": "image:b.jpg", "c.jpg": "12"}
    assert "identities in several splits: 1 (12)" in survey(tmp_path, decode=False).problems()[1]


@pytest.mark.parametrize("value", ["-1", "-1.0", "", "NaN", "unknown", "N/A"])
def test_people_who_are_not_known_are_not_one_person_and_are_counted(tmp_path, value):
    rows = [f"a.jpg,x,{value}", f"b.jpg,y,{value}", "c.jpg,z,1"]
    write_csv(tmp_path / "captions.csv", "image,caption,pid", rows)
    assert set(identities(tmp_path).values()) == {"image:a.jpg", "image:b.jpg", "1"}
    notes = survey(tmp_path, decode=False).notes.lines()
    assert notes == [f"{entry.NOBODY}: 2 (a.jpg, b.jpg)."]


@pytest.mark.parametrize("form", ["reid", "aptm", "coco"])
def test_minus_one_is_nobody_in_other_forms_too(tmp_path, form):
    names = ("a.jpg", "b.jpg")
    reid = [{"id": -1, "file_path": n, "captions": ["x"], "split": "test"} for n in names]
    aptm = [{"image_id": -1, "image": n, "caption": "x"} for n in names]
    images = [{"id": k, "file_name": n, "pid": -1} for k, n in enumerate(names)]
    said = [{"image_id": k, "caption": "x"} for k in range(2)]
    coco = {"images": images, "annotations": said}
    (tmp_path / "anno.json").write_text(
        json.dumps({"reid": reid, "aptm": aptm, "coco": coco}[form])
    )
    assert set(identities(tmp_path).values()) == {"image:a.jpg", "image:b.jpg"}
    assert all(one.notes == (entry.NOBODY,) for one in formats.read(tmp_path))


def test_identities_that_differ_by_zeros_or_case_alone_are_told(tmp_path, capsys):
    folder, people = tmp_path / "own", ("0007", "7", "8", "P1", "p1", "image", "0")
    for k in range(len(people)):
        write_image(folder / f"{k}.jpg", k)
    rows = [f"{k}.jpg,caption {k},{who}" for k, who in enumerate(people)]
    write_csv(folder / "captions.csv", "image,caption,pid", rows)
    told = (
        "identities that differ only by case or leading zeros, read as different: 2 (0007 and 7, "
    )
    assert any(told in text for text in survey(folder).warnings())
    build.run(make_config(folders={"own": str(folder)}), make_workdir(tmp_path / "run"))
    assert f"build own: warning: {told}" in capsys.readouterr().err


def test_files_of_the_same_columns_read_the_identity_from_the_same_one(tmp_path):
    # In test.csv alone, every label differs: it might as well be a number of the row.
    rows = [f"{k},{k}.jpg,x,{k // 2}" for k in range(4)]
    write_csv(tmp_path / "train.csv", "id,image,caption,label", rows)
    write_csv(tmp_path / "test.csv", "id,image,caption,label", ["0,8.jpg,x,8", "1,9.jpg,x,9"])
    assert list(identities(tmp_path).values()) == ["8", "9", "0", "0", "1", "1"]


def test_files_of_different_columns_tell_where_each_identity_is_read(tmp_path):
    write_csv(tmp_path / "train.csv", "pid,image,caption", ["1,a.jpg,x"])
    write_csv(tmp_path / "test.csv", "id,image,caption", ["1,b.jpg,x"])
    warnings = survey(tmp_path, decode=False).warnings()
    assert "test.csv: the identity is read from column 'id'." in warnings
    assert "train.csv: the identity is read from column 'pid'." in warnings


@pytest.mark.parametrize("key", ["label", "person", "subject"])
@pytest.mark.parametrize("form", ["reid", "aptm", "edit"])
def test_a_count_of_records_is_no_identity_in_json_either(tmp_path, key, form):
    kinds = {
        "reid": lambda k: {"id": k, "file_path": f"{k}.jpg", "captions": ["x"], "split": "test"},
        "edit": lambda k: {"id": k, "file_path": f"{k}.jpg", "captions": ["x"], "subset": "test"},
        "aptm": lambda k: {"image_id": k, "image": f"{k}.jpg", "caption": "x", "split": "test"},
    }
    records = [kinds[form](k) | {key: k // 2} for k in range(4)]
    (tmp_path / "anno.json").write_text(json.dumps(records))
    assert list(identities(tmp_path).values()) == ["0", "0", "1", "1"]
    found = survey(tmp_path, decode=False)
    assert list(found.tally.counts()) == ["test"]
    assert any(f"read from column '{key}'" in text for text in found.warnings())


def test_two_files_of_one_split_are_told(tmp_path):
    write_csv(tmp_path / "train.csv", "image,caption", ["a.jpg,x"])
    (tmp_path / "train.json").write_text(json.dumps([{"image": "a.jpg", "caption": "new"}]))
    assert any(
        text.startswith("train.csv and train.json are read as one train set")
        for text in survey(tmp_path, decode=False).warnings()
    )


def test_a_record_with_another_split_than_its_file_is_counted(tmp_path):
    write_csv(tmp_path / "test.csv", "image,caption,split", ["a.jpg,x,train", "b.jpg,y,test"])
    assert survey(tmp_path, decode=False).notes.lines() == [f"{entry.OTHER_SPLIT}: 1 (a.jpg)."]


def test_one_odd_value_does_not_make_a_column_useless(tmp_path):
    rows = [{"image": f"{k}.jpg", "caption": "x", "identity": k // 2} for k in range(4)]
    rows[0]["identity"] = ["0"]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "has the identity ['0']" in survey(tmp_path, decode=False).problems()[0]
    assert [one.identity for one in formats.read(tmp_path) if not one.problem] == ["0", "1", "1"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("form", ["reid", "aptm"])
def test_json_records_without_the_split_that_others_have_are_counted(tmp_path, first, form):
    image = {"reid": {"id": 1, "captions": ["x"]}, "aptm": {"image_id": 1, "caption": "x"}}[form]
    key = {"reid": "file_path", "aptm": "image"}[form]
    records = [image | {key: "a.jpg"}, image | {key: "b.jpg", "split": "train"}]
    (tmp_path / "anno.json").write_text(json.dumps(records if first else records[::-1]))
    notes = survey(tmp_path, decode=False).notes.lines()
    assert notes == [f"{entry.NO_SPLIT}: 1 (a.jpg)."]
