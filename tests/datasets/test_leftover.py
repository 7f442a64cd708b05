"""An annotation that cannot be read is told with its reason, and never costs a split in silence."""

import codecs
import gzip
import json

import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import build, formats
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import write_image, write_json
from tests.datasets.sets import make_config, make_workdir

HEADER = "image,caption,id\n"
ROW = "{0}.jpg,a man in red,{0}\n"


def encoded(text, encoding):
    return (codecs.BOM_UTF16_LE if encoding == "utf-16-le" else b"") + text.encode(encoding)


BAD_TESTS = {
    "test.csv is not read: it is not UTF-8 but UTF-16": encoded(HEADER + ROW, "utf-16-le"),
    "test.csv is not read: it has column names but no row": HEADER.encode(),
    "test.csv is not read: it is empty": b"",
    "its columns are image, captoin, id; 'captoin' is similar to 'caption'": (
        b"image,captoin,id\n7.jpg,a man,7\n"
    ),
    "test.csv is not read: it is a pointer of Git LFS": b"version https://git-lfs.github.com/spec",
    "test.csv is not read: it is a web page": b"<!DOCTYPE html><html></html>",
    "test.csv is not read: it is compressed": gzip.compress(b"image,caption\n"),
    "test.json is not read: it is not complete, valid JSON (line 1": b'[{"image": "7.jpg", "capt',
    "test.json is not read: it holds no record": b"[]",
    "test.json is not read: it is an object whose first key is 'images'": b'{"images": []}',
    "test.json is not read: it holds a int where a record belongs": b"[7]",
    "test.jsonl is not read: it is no table: its first row is not JSON": b'{"image": "7.jpg", \n',
    "test.xlsx is not read: it is a spreadsheet": b"PK\x03\x04",
    "test.csv.gz is not read: it is compressed": gzip.compress(b"image,caption\n"),
}


def own_folder(path, files):
    """Writes train.csv and val.csv with their images, and `files` (name -> bytes)."""
    for k, split in enumerate(("train", "val")):
        (path / f"{split}.csv").write_text(HEADER + ROW.format(k))
    for k in range(8):
        write_image(path / f"{k}.jpg", k)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def built(path, run):
    config = make_config(folders={"own": str(path)})
    return build.run(config, make_workdir(run))


@pytest.mark.parametrize("reason", BAD_TESTS)
def test_a_test_file_that_cannot_be_read_is_a_problem_and_is_refused_by_build(tmp_path, reason):
    name = next((word for word in reason.split() if word.startswith("test.")), "test.csv")
    path = own_folder(tmp_path, {name: BAD_TESTS[reason]})
    (problem,) = survey(path).problems()
    assert reason in problem
    with pytest.raises(InputError) as error:
        build.fingerprint(make_config(folders={"own": str(path)}))
    assert problem in str(error.value)
    with pytest.raises(InputError, match="would be read incompletely"):
        built(path, tmp_path / "run")


def test_bytes_of_windows_1252_are_told_with_their_line(tmp_path):
    text = HEADER + ROW.format(6) + "7.jpg,a café,7\n"
    path = own_folder(tmp_path, {"test.csv": encoded(text, "cp1252")})
    (problem,) = survey(path).problems()
    assert "test.csv is not UTF-8 after line 2 (byte 0xe9" in problem
    assert "Windows-1252" in problem
    with pytest.raises(InputError, match=r"test\.csv is not UTF-8 after line 2"):
        built(path, tmp_path / "run")


def test_a_first_row_with_more_cells_than_columns_costs_that_row_only(tmp_path):
    text = HEADER + "6.jpg,a man, in red,6\n" + ROW.format(7)
    path = own_folder(tmp_path, {"test.csv": text.encode()})
    found = survey(path)
    assert [file.name for file in found.files] == ["test.csv", "train.csv", "val.csv"]
    (problem,) = found.problems()
    assert "1 (row 1 of test.csv has 4 cells for 3 columns)" in problem
    assert built(path, tmp_path / "run")["sets"]["own"]["test"]["images"] == 1


def test_an_empty_file_among_several_of_a_known_form_is_a_problem(tmp_path):
    record = {"id": 1, "file_path": "a.jpg", "captions": ["a man"]}
    write_json(tmp_path / "processed_data" / "train.json", [record])
    write_json(tmp_path / "processed_data" / "test.json", [])
    write_image(tmp_path / "imgs" / "a.jpg", 0)
    assert survey(tmp_path).problems() == ["test.json holds no record."]


def test_a_split_in_another_form_is_a_problem_and_a_second_copy_of_a_set_a_warning(tmp_path):
    record = {"id": 7, "file_path": "7.jpg", "captions": ["a man"], "split": "test"}
    (tmp_path / "own").mkdir()
    path = own_folder(tmp_path / "own", {})
    write_json(path / "test.json", [record])  # this form is looked for before tables
    assert any("train.csv is not read beside test.json" in one for one in survey(path).problems())
    other = tmp_path / "cuhk"
    write_json(other / "reid_raw.json", [record])
    write_json(other / "train_reid.json", [record])
    write_image(other / "imgs" / "7.jpg", 0)
    found = survey(other)
    assert found.problems() == []
    assert "train_reid.json is not read beside reid_raw.json" in found.warnings()[0]


def test_a_table_in_a_text_file_is_read(tmp_path):
    text = (HEADER + ROW.format(7)).replace(",", "\t")
    path = own_folder(tmp_path, {"test.txt": text.encode(), "README.txt": b"image and caption"})
    found = survey(path)
    assert (found.problems(), found.tally.counts()["test"].images) == ([], 1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("annotations/test.csv", "put all tables of a set into one folder"),
        ("splits/test.csv", "put all tables of a set into one folder"),
        ("test/metadata.csv", "put all tables of a set into one folder"),
        ("gallery/captions.csv", "put all tables of a set into one folder"),
        ("test.csv.zip", "it is an archive; unpack it"),
        ("test.zip", "it is an archive; unpack it"),
        ("test.pkl", "save it as CSV UTF-8 or parquet"),
        ("test.yaml", "save it as CSV UTF-8 or parquet"),
        ("query.txt", "its first line is 7.jpg"),
        ("test.csv.part", "it does not have a table's extension; rename it if it is a table"),
        ("test.json.bak", "it does not have a table's extension; rename it if it is a table"),
        ("test", "it does not have a table's extension; rename it if it is a table"),
    ],
)
def test_a_test_set_in_another_place_or_form_is_not_lost_in_silence(tmp_path, name, reason):
    path = own_folder(tmp_path, {})
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(ROW.format(7) if name == "query.txt" else HEADER + ROW.format(7))
    (problem,) = survey(path).problems()
    assert problem.startswith(f"{name} is not read")
    assert reason in problem
    with pytest.raises(InputError) as error:
        built(path, tmp_path / "run")
    assert problem in str(error.value)


def test_folders_of_splits_are_found_among_many_and_query_is_not_passed_over(tmp_path):
    for k in range(70):
        (tmp_path / f"person{k}").mkdir()
    for k, split in enumerate(("train", "test")):
        write_image(tmp_path / split / f"{k}.jpg", k)
        (tmp_path / split / "metadata.csv").write_text(HEADER + ROW.format(k))
    assert survey(tmp_path).problems() == []
    (tmp_path / "test").rename(tmp_path / "query")
    (problem,) = survey(tmp_path).problems()
    assert problem.startswith("query/metadata.csv is not read beside train/metadata.csv")


def test_a_link_to_a_file_that_is_gone_is_told(tmp_path):
    path = own_folder(tmp_path, {})
    (path / "test.csv").symlink_to(tmp_path / "gone" / "test.csv")
    (problem,) = survey(path).problems()
    assert "test.csv is not read: it is a link to a file that is not there" in problem


def test_archives_of_images_and_lists_of_splits_that_are_read_are_no_matter(tmp_path):
    path = own_folder(tmp_path, dict.fromkeys(("train.zip", "images.zip", "val.txt"), b"PK"))
    assert survey(path).problems() == []


def test_a_list_of_names_beside_a_table_that_tells_no_split_is_told(tmp_path):
    (tmp_path / "captions.csv").write_text(HEADER + ROW.format(7))
    (tmp_path / "test.txt").write_text("7.jpg\n")
    write_image(tmp_path / "7.jpg", 7)
    found = survey(tmp_path)
    assert found.problems() == []
    assert any(
        "test.txt is not read: it has no line of column names" in t for t in found.warnings()
    )


def test_a_file_of_something_else_is_told_and_does_not_stop_the_build(tmp_path, capsys):
    path = own_folder(tmp_path, {"cameras.json": json.dumps([{"camera": 1}]).encode()})
    (problem,) = survey(path).problems()
    assert "cameras.json is not read" in problem
    assert built(path, tmp_path / "run")["records_out"] == 2
    assert "build own: warning: cameras.json is not read" in capsys.readouterr().err


def test_hidden_files_and_locks_of_editors_are_no_annotation(tmp_path):
    names = ("._test.csv", ".~lock.test.csv#", "~$test.xlsx", "readme.txt", "code.tar.gz")
    path = own_folder(tmp_path, dict.fromkeys(names, b"x"))
    assert survey(path).problems() == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(HEADER + ROW, "utf-16-le"), "captions.csv is not UTF-8 but UTF-16"),
        (HEADER.encode(), "captions.csv has column names but no row"),
        (b"", "captions.csv is empty"),
    ],
)
def test_a_folder_of_one_such_table_tells_the_same_reason(tmp_path, data, reason):
    (tmp_path / "captions.csv").write_bytes(data)
    with pytest.raises(InputError, match=reason):
        formats.detect(tmp_path)


@pytest.mark.parametrize("name", ["test.csv", "test.parquet"])
def test_a_folder_of_the_parts_of_a_table_is_not_lost_in_silence(tmp_path, name):
    path = own_folder(tmp_path, {})
    (path / name).mkdir()
    (path / name / "part-00000.csv").write_text(HEADER + ROW.format(7))
    (problem,) = survey(path).problems()
    assert problem.startswith(f"folder {name} is not read: it is a folder; join its parts")


def test_a_split_of_texts_beside_images_is_told_once_beside_tables(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "metadata.csv").write_text(HEADER + ROW.format(7))
    write_image(tmp_path / "test" / "7.jpg", 7)
    for k in range(30):
        write_image(tmp_path / "train" / f"{k}.jpg", k)
        (tmp_path / "train" / f"{k}.txt").write_text("a man in red")
    (problem,) = survey(tmp_path).problems()
    assert problem.startswith(
        "folder train is not read beside test/metadata.csv; it is images with"
    )
    with pytest.raises(InputError, match="folder train is not read"):
        built(tmp_path, tmp_path / "run")


@pytest.mark.parametrize(
    "name", ["eval_results.json", "test_results.json", "test_config.yaml", "test_scores.npz"]
)
def test_files_about_a_test_do_not_stop_a_build_without_one(tmp_path, name):
    path = own_folder(tmp_path, {name: b'{"R1": 0.5}'})
    assert any(name in text for text in survey(path).problems() + survey(path).warnings())
    assert built(path, tmp_path / "run")["records_out"] == 2
