"""What is wrong with a folder is told by build in validate's words, and by what shows results."""

import json

import pytest

from jaxtbpr import pipeline
from jaxtbpr.datasets import build, seen
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import make_folder
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
    assert "images of a record that is repeated" in said


def test_a_sound_folder_is_built_without_a_word_of_problems(tmp_path, capsys):
    result = built(make_folder(tmp_path, "cuhk_pedes"), tmp_path / "run")
    assert "PROBLEM" not in capsys.readouterr().err
    assert result["seen"] == {"real": 0}


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
        ("real/val", commits(), "real/val is a part of what the model was trained"),
        ("other/test", commits(overlaps={"real other": "Both are one."}), "Both are one"),
        ("other/test", commits(["x"], overlaps={"real other": "Both are one."}), ""),
    ],
)
def test_the_model_has_never_seen_the_people_only_where_that_is_true(test_set, stages, said):
    doubt = seen.doubt(test_set, *stages)
    assert doubt.startswith(said)
    assert bool(doubt) == bool(said)


def test_people_of_val_count_as_seen():
    people = {"train": {"a": None}, "val": {"b": None}, "test": {"a": None, "b": None, "c": None}}
    assert seen.seen_people(people) == 2


def test_the_end_of_a_run_says_that_the_test_was_on_people_of_train(tmp_path):
    summary = {"outdated": [], "doubts": {"real/test": "3 of the 40 people are in train, too"}}
    assert "not a test on unseen people: 3 of the 40" in pipeline.closing_words(summary, tmp_path)
