"""Captions that are lists where one caption is usual: read item by item, and told."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from jaxtbpr.datasets import build, formats
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import write_image, write_json
from tests.datasets.sets import make_config, make_workdir
from tests.datasets.test_packed import write_tar
from tests.datasets.test_tables import captions, write_csv, write_rows

LIST = "['a man', \"it's a woman\"]"
READ = ("a man", "it's a woman")


def notes(folder):
    return survey(folder, decode=False).notes.lines()


@pytest.mark.parametrize("key", ["caption", "captions", "text", "sentence", "sentences"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("cell", [LIST, json.dumps(READ), "('a man', \"it's a woman\")"])
def test_each_item_of_a_list_in_text_is_a_caption(tmp_path, key, ending, cell):
    rows = [{"image": "a.jpg", key: cell}, {"image": "b.jpg", key: "[blurry] a man"}]
    write_rows(tmp_path / f"all.{ending}", rows)
    assert captions(tmp_path) == [READ, ("[blurry] a man",)]
    assert notes(tmp_path) == [
        f"images whose '{key}' is a list written as text, each item of which is one caption: "
        "1 (a.jpg)."
    ]


def test_validate_and_build_tell_of_such_lists(tmp_path, capsys):
    folder = tmp_path / "own"
    write_image(folder / "a.png", 0)
    write_csv(folder / "captions.csv", ["image", "caption"], [["a.png", LIST]])
    (told,) = notes(folder)
    assert told in survey(folder).warnings()
    result = build.run(make_config(folders={"own": str(folder)}), make_workdir(tmp_path / "run"))
    assert result["sets"]["own"]["train"]["captions"] == 2
    assert f"build own: warning: {told}" in capsys.readouterr().err


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"image_id": 1, "caption": list(READ)}],
}
RECORD = {"id": 1, "file_path": "a.jpg", "split": "train", "captions": LIST}


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("reid_raw.json", [RECORD]),
        ("all.json", [RECORD]),
        ("train.json", [{"image": "a.jpg", "caption": LIST, "image_id": 1}]),
        ("all.json", {"a.jpg": LIST}),
        ("coco.json", COCO),
    ],
)
def test_the_other_forms_read_them_alike(tmp_path, name, held):
    write_json(tmp_path / name, held)
    assert captions(tmp_path) == [READ]
    assert ["each item of which is one caption" in one for one in notes(tmp_path)] == [True]


def test_lists_in_shards_and_parquet_columns_are_read_alike(tmp_path):
    told = json.dumps({"captions": LIST}).encode()
    write_tar(tmp_path / "tar" / "a.tar", [("a.jpg", b"x"), ("a.json", told)])
    (tmp_path / "parquet").mkdir()
    table = pyarrow.table({"image": ["a.jpg", "b.jpg"], "text": [[list(READ)], [["one", None]]]})
    pyarrow.parquet.write_table(table, tmp_path / "parquet" / "a.parquet")
    assert captions(tmp_path / "tar") == [READ]
    assert captions(tmp_path / "parquet") == [READ, ("one", "")]
    nested = "images whose 'text' has lists in a list, each item of which is one caption: 2"
    assert notes(tmp_path / "parquet")[0].startswith(nested)


def test_empty_items_and_lists_that_cannot_be_read_are_counted(tmp_path):
    cells = ["['a man', None]", "['the man's hat']", "[]"]
    rows = [[f"{k}.jpg", cell] for k, cell in enumerate(cells)]
    write_csv(tmp_path / "captions.csv", ["image", "caption"], rows)
    assert captions(tmp_path) == [("a man", ""), ("['the man's hat']",), ()]
    told = "\n".join(notes(tmp_path))
    assert "empty captions beside good ones, which are left out: 1 (0.jpg)." in told
    assert "looks like a list but cannot be read as one, and stays one caption: 1 (1.jpg)." in told


def test_an_empty_caption_beside_a_good_one_is_counted(tmp_path):
    write_json(tmp_path / "reid_raw.json", [RECORD | {"captions": ["a man", ""]}])
    assert notes(tmp_path) == ["empty captions beside good ones, which are left out: 1 (a.jpg)."]


def test_an_object_in_a_list_of_captions_is_no_caption(tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"image": "a.jpg", "sentences": [{"raw": "a man"}]}])
    (one,) = formats.read(tmp_path)
    assert one.problem == "row 1 of a.jsonl has an object where a caption belongs"
