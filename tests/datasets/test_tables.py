import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import build, formats
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import write_image
from tests.datasets.sets import make_config, make_workdir

# Half surrogates cannot be written to a UTF-8 file, and no CSV reader takes a NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def write_csv(path, header, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


def captions(folder):
    return [one.captions for one in formats.read(folder)]


@SAME_FOLDER
@given(texts=st.lists(TEXT, min_size=1, max_size=4), delimiter=st.sampled_from(",;\t"))
def test_any_caption_survives_csv(tmp_path, texts, delimiter):
    rows = [[f"{k}.jpg", text] for k, text in enumerate(texts)]
    write_csv(tmp_path / "captions.csv", ["file_path", "caption"], rows, delimiter)
    assert captions(tmp_path) == [(text,) for text in texts]


@SAME_FOLDER
@given(texts=st.lists(TEXT | st.just("\0"), min_size=1, max_size=4), ascii_only=st.booleans())
def test_any_captions_survive_json_lines(tmp_path, texts, ascii_only):
    row = json.dumps({"image": "a.jpg", "captions": texts}, ensure_ascii=ascii_only)
    (tmp_path / "captions.jsonl").write_text(row + "\n", encoding="utf-8", newline="")
    assert captions(tmp_path) == [tuple(texts)]


@SAME_FOLDER
@given(texts=st.lists(TEXT | st.just("\0"), min_size=1, max_size=4), ascii_only=st.booleans())
def test_any_captions_survive_json(tmp_path, texts, ascii_only):
    records = [{"id": 1, "split": "test", "file_path": "a.jpg", "captions": texts}]
    text = json.dumps(records, ensure_ascii=ascii_only)
    (tmp_path / "reid_raw.json").write_text(text, encoding="utf-8", newline="")
    assert captions(tmp_path) == [tuple(texts)]


def test_rows_of_one_image_are_joined_in_their_order(tmp_path):
    rows = [["a.jpg", "first", 7], ["b.jpg", "other", 8], ["a.jpg", "second", 7]]
    write_csv(tmp_path / "captions.csv", ["path", "text", "identity"], rows)
    assert captions(tmp_path) == [("first", "second"), ("other",)]


def test_one_image_with_two_identities_is_set_aside_the_second_time(tmp_path):
    rows = [["a.jpg", "first", 7], ["a.jpg", "second", 8]]
    write_csv(tmp_path / "captions.csv", ["path", "caption", "id"], rows)
    bad, good = formats.read(tmp_path)
    assert bad.problem == "a.jpg has the identity '8' in train after '7' in train"
    assert (good.identity, good.captions) == ("7", ("first",))


def test_unlabelled_images_are_each_their_own_person(tmp_path):
    rows = [["a.jpg", "x", ""], ["b.jpg", "y", "nan"], ["c.jpg", "z", "5"]]
    write_csv(tmp_path / "captions.csv", ["image", "caption", "id"], rows)
    assert [one.identity for one in formats.read(tmp_path)] == ["image:a.jpg", "image:b.jpg", "5"]


def test_an_unlabelled_image_never_shares_the_identity_of_a_labelled_one(tmp_path):
    (tmp_path / "captions.jsonl").write_text(
        '{"image": "5", "caption": "x"}\n{"image": "6", "caption": "y", "id": 5}\n'
    )
    first, second = formats.read(tmp_path)
    assert first.identity != second.identity


def test_the_split_is_the_rows_own_then_the_files(tmp_path):
    write_csv(tmp_path / "test.csv", ["image", "caption", "split"], [["a.jpg", "x", ""]])
    write_csv(tmp_path / "val.csv", ["image", "caption", "split"], [["b.jpg", "x", "train"]])
    assert {one.path[-5:]: one.split for one in formats.read(tmp_path)} == {
        "a.jpg": "test",
        "b.jpg": "train",
    }


def test_two_tables_of_different_names_are_not_mixed(tmp_path):
    for name in ("one.csv", "two.csv"):
        write_csv(tmp_path / name, ["image", "caption"], [["a.jpg", "x"]])
    with pytest.raises(InputError, match="annotations of 2 sets"):
        formats.read(tmp_path)


def test_rows_that_cannot_be_read_are_set_aside_with_their_number(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,x\nb.jpg\n\n,y\n")
    problems = [one.problem for one in formats.read(tmp_path) if one.problem]
    assert problems == [
        "row 2 of captions.csv has 1 cells for 2 columns",
        "row 3 of captions.csv names no image: none of file_path, img_path, image_path, "
        "file_name, image, path holds a path",
    ]


def test_json_lines_that_cannot_be_read_are_set_aside(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "a.jpg", "caption": "x"}\n{"image": \n\n7\n')
    problems = [one.problem for one in formats.read(tmp_path) if one.problem]
    assert problems[0].startswith("row 2 of a.jsonl is not JSON")
    assert problems[1] == "row 3 of a.jsonl is a int, not an object with keys"


def test_a_table_that_is_not_utf8_is_an_error(tmp_path):
    # Far enough down that the first row, by which the table is recognised, is read before it.
    rows = "".join(f"{k}.jpg,a man\n" for k in range(4000))
    text = "image,caption\n" + rows + "b.jpg,café\n"
    (tmp_path / "captions.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"captions\.csv is not UTF-8"):
        list(formats.read(tmp_path))


def test_an_image_without_caption_is_kept(tmp_path):
    write_csv(tmp_path / "captions.csv", ["image", "caption"], [["a.jpg", ""]])
    assert captions(tmp_path) == [("",)]


IDENTITY_NAMES = ("identity", "Person ID", "person_id", "personId", "pid", "person", "id", "label")


@pytest.mark.parametrize("name", IDENTITY_NAMES)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
def test_the_identity_is_read_from_any_usual_column(tmp_path, name, ending):
    rows = [{"image": f"{k}.jpg", "caption": "x", name: 7 + k // 2} for k in range(4)]
    write_rows(tmp_path / f"captions.{ending}", rows)
    assert [one.identity for one in formats.read(tmp_path)] == ["7", "7", "8", "8"]


def write_rows(file, rows):
    if file.suffix == ".csv":
        write_csv(file, list(rows[0]), [list(row.values()) for row in rows])
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["identity", "pid", "person", "label"])
def test_a_column_id_that_counts_rows_is_no_identity_beside_another(tmp_path, name):
    rows = [{"id": k, "image": f"{k}.jpg", "caption": "x", name: 7 + k // 2} for k in range(4)]
    write_rows(tmp_path / "captions.csv", rows)
    assert [one.identity for one in formats.read(tmp_path)] == ["7", "7", "8", "8"]


def test_an_id_that_names_people_is_preferred_to_a_label(tmp_path):
    rows = [{"id": k // 2, "image": f"{k}.jpg", "caption": "x", "label": 1} for k in range(4)]
    write_rows(tmp_path / "captions.csv", rows)
    assert [one.identity for one in formats.read(tmp_path)] == ["0", "0", "1", "1"]


@pytest.mark.parametrize("name", ["split", "Subset", "partition", "set", "fold"])
@pytest.mark.parametrize("image_key", ["image", "file_path"])
@pytest.mark.parametrize("ending", ["csv", "json"])
def test_the_split_is_read_from_any_usual_column(tmp_path, name, image_key, ending):
    # With file_path, the keys of the JSON are those of SynTBPR's editing input.
    rows = [
        {"id": k, image_key: f"{k}.jpg", "captions": ["x"], name: split}
        for k, split in enumerate(("train", "valid", "Test"))
    ]
    write_rows(tmp_path / f"captions.{ending}", rows)
    assert [one.split for one in formats.read(tmp_path)] == ["train", "val", "test"]


def test_the_split_is_read_from_the_names_of_json_files_that_tell_none(tmp_path):
    for k, split in enumerate(("train", "test")):
        row = {"id": k, "file_path": f"{k}.jpg", "captions": ["x"]}
        write_rows(tmp_path / f"{split}.json", [row])
    assert {one.split for one in formats.read(tmp_path)} == {"train", "test"}


def test_a_column_named_like_a_split_that_holds_none_is_not_used(tmp_path):
    rows = [{"image": f"{k}.jpg", "caption": "x", "id": k, "fold": k % 5} for k in range(9)]
    write_rows(tmp_path / "captions.csv", rows)
    found = survey(tmp_path, decode=False)
    assert found.tally.counts()["train"].images == 9
    assert "captions.csv: columns that are not used: fold." in found.warnings()
    assert "captions.csv: no column holds the split: all are train." in found.warnings()


@pytest.mark.parametrize(
    ("columns", "remark"),
    [
        ({"pid": 1, "split": "train"}, "captions.csv: the identity is read from column 'pid'."),
        ({"id": 1, "subset": "test"}, "captions.csv: the split is read from column 'subset'."),
        (
            {"split": "val"},
            "captions.csv: no column holds the identity: each image is a separate person",
        ),
        ({"id": 1, "split": "val", "camera": 2}, "captions.csv: columns that are not used: camera"),
        ({"identity": 1, "split": "val", "pid": 2}, "captions.csv: columns that are not used: pid"),
    ],
)
def test_validate_and_build_tell_how_columns_are_read(tmp_path, capsys, columns, remark):
    folder = tmp_path / "own"
    write_image(folder / "a.png", 0)
    write_rows(folder / "captions.csv", [{"image": "a.png", "caption": "x", **columns}])
    assert any(remark in one for one in survey(folder).warnings())
    config = make_config(folders={"own": str(folder)})
    build.run(config, make_workdir(tmp_path / "run"))
    assert f"build own: warning: {remark}" in capsys.readouterr().err


def test_rows_without_split_in_a_column_of_splits_are_counted(tmp_path):
    rows = [{"image": f"{k}.jpg", "caption": "x", "id": k, "split": "test"} for k in range(3)]
    rows[1]["split"] = ""
    write_rows(tmp_path / "captions.csv", rows)
    notes = survey(tmp_path, decode=False).notes.lines()
    assert notes == ["records without a split, read as train: 1 (1.jpg)."]


@pytest.mark.parametrize("key", ["identity", "person_id", "pid"])
def test_the_records_of_other_forms_prefer_a_key_that_names_the_person(tmp_path, key):
    record = {"id": 3, "file_path": "a.jpg", "captions": ["x"], "split": "test", key: 17}
    (tmp_path / "own.json").write_text(json.dumps([record]))
    assert [one.identity for one in formats.read(tmp_path)] == ["17"]


@pytest.mark.parametrize("start", ["sep=;\n", "\n\n", "\ufeff", "\ufeffsep=;\r\n"])
def test_lines_before_the_column_names_are_passed_over(tmp_path, start):
    (tmp_path / "captions.csv").write_text(start + "image;caption\na.jpg;a man\n;\n", newline="")
    assert captions(tmp_path) == [("a man",)]


@pytest.mark.parametrize("second", ["caption", "caption.1", "Caption 2", "text"])
def test_every_column_of_captions_is_read(tmp_path, second):
    write_csv(tmp_path / "captions.csv", ["image", "caption", second], [["a.jpg", "one", "two"]])
    assert captions(tmp_path) == [("one", "two")]


def test_a_second_column_of_names_is_told_to_be_unused(tmp_path):
    write_csv(tmp_path / "own.csv", ["image", "path", "caption", ""], [["a.jpg", "cam0", "x", "1"]])
    told = "own.csv: columns that are not used: path, (without a name)."
    assert told in survey(tmp_path, decode=False).warnings()


def test_a_table_without_column_names_is_refused_as_such(tmp_path):
    (tmp_path / "captions.csv").write_text("a.jpg,a man,1\n")
    with pytest.raises(InputError, match=r"captions\.csv has no line of column names"):
        formats.detect(tmp_path)


@pytest.mark.parametrize("image", ["Image Path", "filename", "img_name", "FilePath"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_columns_are_known_by_their_usual_names(tmp_path, image, ending):
    rows = [{image: "a.jpg", "Description": "a man", "Person ID": 7}]
    write_rows(tmp_path / f"captions.{ending}", rows)
    (one,) = formats.read(tmp_path)
    assert (one.extra["image_id"], one.captions, one.identity) == ("a.jpg", ("a man",), "7")


@pytest.mark.parametrize("value", ["", 0])
def test_a_column_split_without_a_split_gives_way_to_one_that_tells_it(tmp_path, value):
    rows = [{"image": "a.jpg", "caption": "x", "split": value, "subset": "test"}]
    write_rows(tmp_path / "captions.csv", rows)
    assert [one.split for one in formats.read(tmp_path)] == ["test"]


def test_a_file_of_another_encoding_is_not_said_to_be_near_to_a_known_name(tmp_path):
    (tmp_path / "captions.json").write_bytes(json.dumps([{"image": "a.jpg"}]).encode("utf-16"))
    with pytest.raises(InputError, match=r"captions\.json is not UTF-8 but UTF-16"):
        formats.detect(tmp_path)


def test_files_of_other_tools_are_named_where_nothing_is_recognised(tmp_path):
    (tmp_path / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    with pytest.raises(InputError, match=r"\.arrow is in a form that is not read; save it as CSV"):
        formats.detect(tmp_path)


@pytest.mark.parametrize("place", ["query", "Gallery", "imgs/query"])
def test_images_of_queries_and_galleries_do_not_become_train_beside_those_of_train(tmp_path, place):
    rows = [{"image": f"{folder}/a.jpg", "caption": "x"} for folder in ("train", place)]
    write_rows(tmp_path / "captions.csv", rows)
    bad, good = sorted(formats.read(tmp_path), key=lambda one: not one.problem)
    assert "has no split; put the test images into test/" in bad.problem
    assert good.split == "train"
    write_rows(tmp_path / "captions.csv", rows[1:])  # a folder called so, where none tells a split
    assert [one.split for one in formats.read(tmp_path)] == ["train"]
