"""What is wrong with a folder is told by build in validate's words, and by what shows results."""

import json

import pytest

from jaxtbpr import command_line
from jaxtbpr.datasets import build, leakage
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import (
    blank_bytes,
    deep_bytes,
    encoded_image,
    make_folder,
    transparent_bytes,
    turned_bytes,
)
from tests.datasets.sets import make_config, make_workdir


def spoil(folder):
    """Gives test a person of train, one image a second identity, and repeats a record."""
    path = folder.path / "reid_raw.json"
    records = json.loads(path.read_text())
    train = next(record for record in records if record["split"] == "train")
    test = [record for record in records if record["split"] == "test"]
    person = test[0]["id"]
    for record in test:
        record["id"] = train["id"] if record["id"] == person else record["id"]
    records += [dict(test[-1], id=987654), dict(train)]
    path.write_text(json.dumps(records))


def built(folder, root, **config):
    return build.run(make_config(folders={"real": str(folder.path)}, **config), make_workdir(root))


def test_build_says_each_problem_of_validate_in_one_line(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_pedes", people=4, faults=True)
    spoil(folder)
    built(folder, tmp_path / "run")
    said = capsys.readouterr().err
    lines = [line.partition("PROBLEM ")[2] for line in said.split("\n") if "PROBLEM" in line]
    assert lines == survey(folder.path).problems()
    for words in ("identities in several splits: 1", "images missing: 1 of", "cannot be used"):
        assert sum(words in line for line in lines) == 1
    assert "images with a record that is repeated" in said


def test_a_sound_folder_is_built_without_a_word_of_problems(tmp_path, capsys):
    result = built(make_folder(tmp_path, "cuhk_pedes"), tmp_path / "run")
    assert "PROBLEM" not in capsys.readouterr().err
    assert result["seen"] == {"real": 0}


CAPTIONS = {
    "blank.jpg": ["a man"],
    "turned.jpg": ["a man"],
    "deep.png": ["a man", "", "someone", " "],
    "transparent.png": ["a man", ""],
    "none.jpg": [],
    "empty.jpg": ["", " "],
}
SAID = [
    "images without a caption, which will be rejected unless they get one: 1 (none.jpg).",
    "images whose captions are all empty, which will be rejected unless they get one: 1 "
    "(empty.jpg).",
    "empty captions beside good ones, which are left out: 3 (deep.png, transparent.png).",
    "images of one colour, which show nobody: 1 (blank.jpg).",
    "images with an EXIF orientation, by which a run turns them as viewers do unless "
    "build.exif=False (of stage photos: photos.exif): 1 (turned.jpg).",
    "images with more than 8 bits per channel, which are read with 8: 1 (deep.png).",
    "images with transparent parts, which are read as if these were opaque: 1 (transparent.png).",
]


def write_unusual(folder, form):
    """Writes `CAPTIONS` as a table of one row per image or per caption, or as CUHK-like JSON."""
    folder.mkdir()
    shapes = [blank_bytes(), turned_bytes(1), deep_bytes(2), transparent_bytes(3)]
    for name, data in zip(CAPTIONS, [*shapes, *map(encoded_image, (4, 5))], strict=True):
        (folder / name).write_bytes(data)
    rows = [{"id": k, "split": "test", "file_path": n, "captions": c}
            for k, (n, c) in enumerate(CAPTIONS.items())]  # fmt: skip
    if form == "rows.jsonl":
        rows = [row | {"captions": c} for row in rows for c in row["captions"] or [[]]]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    is_table = form.endswith("jsonl")
    (folder / form).write_text(lines if is_table else json.dumps(rows))


@pytest.mark.parametrize("form", ["images.jsonl", "rows.jsonl", "own.json"])
def test_unusual_images_and_lost_captions_are_told_alike_by_validate_build_and_report(
    tmp_path, capsys, form
):
    write_unusual(tmp_path / "set", form)
    found = survey(tmp_path / "set")
    config = make_config(folders={"real": str(tmp_path / "set")})
    result = build.run(config, make_workdir(tmp_path / "run"))
    said = capsys.readouterr().err
    assert found.problems() + found.notices() == SAID
    assert all(f"build real: PROBLEM {text}" in said for text in found.problems())
    assert all(f"build real: warning: {text}" in said for text in found.notices())
    assert set(SAID) <= set(result["remarks"]["real"])
    counts = found.tally.counts()["test"]
    assert (counts.images, counts.captions) == (6, 5)
    assert (result["records_out"], result["rejected"]) == (4, 2)
    assert result["sets"]["real"]["test"]["captions"] == counts.captions


def test_without_decoding_only_captions_are_told(tmp_path):
    write_unusual(tmp_path / "set", "images.jsonl")
    found = survey(tmp_path / "set", decode=False)
    assert found.problems() + found.notices() == SAID[:3]


def commits(trained_on=("real",), **told):
    splits = {"test": {"identities": 40}}
    made = {"sets": {"real": splits, "other": splits}, "seen": {}, "overlaps": {}} | told
    return made, {"recipe": {"config": {"data.train_sets": list(trained_on)}}}


@pytest.mark.parametrize(
    ("test_set", "stages", "said"),
    [
        ("real/test", commits(), ""),
        ("real/test", commits(seen={"real": 3}), "3 of the 40 people of real/test are in its"),
        ("real/test", commits(["other"], seen={"real": 3}), ""),
        ("real/val", commits(), "real/val is part of what the model was trained"),
        ("other/test", commits(overlaps={"real other": "Both are one."}), "Both are one"),
        ("other/test", commits(["x"], overlaps={"real other": "Both are one."}), ""),
    ],
)
def test_the_model_has_never_seen_the_people_only_where_that_is_true(test_set, stages, said):
    doubt = leakage.doubt(test_set, *stages)
    assert doubt.startswith(said)
    assert bool(doubt) == bool(said)


def test_people_of_val_count_as_seen():
    people = {"train": {"a": None}, "val": {"b": None}, "test": {"a": None, "b": None, "c": None}}
    assert leakage.seen_people(people) == 2


def test_the_end_of_a_run_says_that_the_test_was_on_people_of_train(tmp_path):
    summary = {"outdated": [], "doubts": {"real/test": "3 of the 40 people are in train, too"}}
    assert "not a test on unseen people: 3 of the 40" in command_line.final_lines(summary, tmp_path)
