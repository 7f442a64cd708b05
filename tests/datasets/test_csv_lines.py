"""Quotation marks in CSV and TSV: a stray one swallows no rows, and is told."""

import csv

import pytest

from jaxtbpr.datasets import build, csv_lines, formats
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import write_image
from tests.datasets.sets import make_config, make_workdir

COUNT = 12


def table(folder, captions, delimiter="\t", name="captions.tsv"):
    """Writes a table without any quoting."""
    rows = [("image", "caption", "id"), *((f"{k}.png", c, k) for k, c in enumerate(captions))]
    text = "".join(delimiter.join(map(str, row)) + "\n" for row in rows)
    (folder / name).write_text(text, newline="")


def plain():
    return [f"a man no. {k}" for k in range(COUNT)]


STRAYS = {
    "one that opens a cell": {3: '"a tall man'},
    "one that ends a cell": {3: 'a tall man"'},
    "one in the middle": {3: 'a 5" heel'},
    "one in the first and one in the last row": {0: '"a tall man', COUNT - 1: '"a short man'},
    "one that opens and, far below, one that ends": {2: '"a tall man', 9: 'a short man"'},
    "a quoted word first": {3: '"tall" he is'},
    "one in the last row": {COUNT - 1: '"a tall man'},
    "nothing but a mark": {3: '"'},
    "one that opens in every row": {k: f'"man no. {k}' for k in range(COUNT)},
}


@pytest.mark.parametrize("case", STRAYS)
@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_a_stray_quotation_mark_costs_no_row_and_stays_in_its_caption(tmp_path, case, delimiter):
    texts = [STRAYS[case].get(k, text) for k, text in enumerate(plain())]
    table(tmp_path, texts, delimiter)
    assert [one.captions for one in formats.read(tmp_path)] == [(text,) for text in texts]


def test_validate_and_build_tell_stray_quotation_marks(tmp_path, capsys):
    folder = tmp_path / "own"
    for k in range(COUNT):
        write_image(folder / f"{k}.png", k)
    table(folder, [*plain()[:-1], '"a tall man'])
    said = f"{csv_lines.STRAY}: 1 ({COUNT - 1}.png)."
    assert said in survey(folder).warnings()
    config = make_config(folders={"own": str(folder)})
    assert build.run(config, make_workdir(tmp_path / "run"))["records_out"] == COUNT
    assert f"build own: warning: {said}" in capsys.readouterr().err


def test_a_cell_that_holds_line_ends_is_kept_and_told(tmp_path):
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["image", "caption", "id"], ["a.png", "tall,\n\nin red", 1], ["b.png", "x", 2]]
        )
    first, second = formats.read(tmp_path)
    assert (first.captions, second.captions) == (("tall,\n\nin red",), ("x",))
    assert f"{csv_lines.LINE_ENDS}: 1 (a.png)." in survey(tmp_path, decode=False).warnings()


def test_a_row_whose_cells_cannot_be_told_is_set_aside_alone(tmp_path):
    text = 'image,caption,id\na.png,"tall, in red,1\nb.png,"short, in blue",2\nc.png,x,3\n'
    (tmp_path / "captions.csv").write_text(text)
    bad, *good = formats.read(tmp_path)
    assert bad.problem == (
        "row 1 of captions.csv has 4 cells for 3 columns and an unpaired quotation mark"
    )
    assert [one.captions for one in good] == [("short, in blue",), ("x",)]


@pytest.mark.parametrize("delimiter", ["\t", ","])
@pytest.mark.parametrize(
    "quoting",
    [
        {"quoting": csv.QUOTE_ALL},
        {"quoting": csv.QUOTE_NONNUMERIC},
        {"quoting": csv.QUOTE_MINIMAL},
        {"quoting": csv.QUOTE_MINIMAL, "lineterminator": "\r\n"},
        {"quoting": csv.QUOTE_ALL, "doublequote": False, "escapechar": "\\"},
    ],
)
def test_whatever_pandas_and_the_csv_module_write_is_read_back(tmp_path, delimiter, quoting):
    # DataFrame.to_csv writes by csv.writer and hands these options on to it.
    texts = ['a "red" coat, long', "plain", '"all of it"', 'ends with "this"', "a 5' heel; x"]
    write(tmp_path / "captions.csv", texts, delimiter=delimiter, **quoting)
    found = survey(tmp_path, decode=False)
    assert [one.captions for one in formats.read(tmp_path)] == [(text,) for text in texts]
    assert found.notes.lines() == []


def test_a_table_that_is_written_without_quotes_is_read_as_such(tmp_path):
    texts = ['"tall', 'a "red" coat', 'coat"', "plain"]
    quoting = {"quoting": csv.QUOTE_NONE, "quotechar": None}
    write(tmp_path / "captions.tsv", texts, delimiter="\t", **quoting)
    assert [one.captions for one in formats.read(tmp_path)] == [(text,) for text in texts]


def write(file, texts, **options):
    with file.open("w", newline="") as opened:
        rows = [["image", "caption"], *([f"{k}.png", text] for k, text in enumerate(texts))]
        csv.writer(opened, **options).writerows(rows)


@pytest.mark.parametrize(("ending", "delimiter"), [(".heic", ","), (".HEIC", "\t"), ("", "\t")])
def test_marks_cost_no_rows_of_images_with_rare_endings(tmp_path, ending, delimiter):
    texts = ['"a tall man', "a man", 'a short man"']
    rows = [("image", "caption", "id"), *((f"{k}{ending}", c, k) for k, c in enumerate(texts))]
    text = "".join(delimiter.join(map(str, row)) + "\n" for row in rows)
    (tmp_path / "captions.csv").write_text(text)
    assert [one.captions for one in formats.read(tmp_path)] == [(text,) for text in texts]


def test_blanks_before_quoted_cells_are_no_part_of_them(tmp_path):
    (tmp_path / "captions.csv").write_text('image, caption, id\na.png, "tall, in red", 7\n')
    (one,) = formats.read(tmp_path)
    assert (one.captions, one.identity) == (("tall, in red",), "7")
