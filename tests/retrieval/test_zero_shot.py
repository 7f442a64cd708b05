"""Asking for attributes: one answer per sentence, only of what a picture shows."""

import re
import types

import numpy as np
import pytest
from etils import epath

from jaxtbpr.core import attributes, seeds
from jaxtbpr.core.errors import UserError
from jaxtbpr.retrieval import train, zero_shot
from jaxtbpr.retrieval.judging.scoring import Scorer
from jaxtbpr.retrieval.saved import open_saved
from tests.retrieval import colours
from tests.retrieval.runs import build_set, make_config


def make_records(root, count=40):
    """Images whose bytes are their number, with drawn attributes."""
    records = []
    for n in range(count):
        rng = seeds.rng(0, "zero-shot", n)
        looks = attributes.sample_person(rng) | attributes.sample_scene(rng)
        (root / f"{n}.png").write_bytes(str(n).encode())
        records.append({"attributes": looks, "image": {"path": f"{n}.png"}})
    return records


class Knowing:
    """A judge that reads the attributes themselves, and is wrong where `wrong` says."""

    def __init__(self, records, wrong=()):
        self._looks, self._wrong = [r["attributes"] for r in records], wrong

    def features(self, images):
        return np.array([[int(data)] for data in images])

    def probabilities(self, slot, features):
        said = zero_shot.answers(slot)
        values = list(dict.fromkeys(said.values()))
        true = [said.get(self._looks[n][slot]) for n in features[:, 0]]
        found = np.array([[float(value == t) for value in values] for t in true])
        return values, 1 - found if slot in self._wrong else found


def test_a_judge_who_knows_is_always_right_on_what_is_shown(tmp_path):
    records = make_records(tmp_path)
    found = zero_shot.accuracy(Knowing(records, wrong=("sex",)), records, epath.Path(tmp_path))
    assert found.pop("sex")["accuracy"] == 0
    assert {row["accuracy"] for row in found.values()} == {1.0}
    bags = sum(r["attributes"]["bag"] != "none" for r in records)
    assert found["bag"]["images"] == bags
    assert found["bag"]["values"] == 4
    backs = [r["attributes"] for r in records if r["attributes"]["view"] == "back"]
    unseen = sum(looks["eyewear"] != "none" for looks in backs)
    there = sum(r["attributes"]["eyewear"] != "none" for r in records)
    assert found["eyewear"]["images"] == there - unseen


def test_left_and_right_are_one_answer():
    assert zero_shot.answers("view") == {
        "front": "front", "back": "back", "left": "left", "right": "left",
    }  # fmt: skip
    assert "none" not in zero_shot.answers("hat")


def test_every_value_is_asked_for_in_words_of_its_own():
    for slot in zero_shot.PROMPTS:
        said = zero_shot.answers(slot)
        every = [tuple(zero_shot.sentences(slot, value)) for value in set(said.values())]
        assert len(set(every)) == len(every) > 1
        assert not any("{" in text for forms in every for text in forms)


def test_sentences_that_the_model_reads_in_part_are_counted(monkeypatch, capsys):
    zero_shot.ZeroShot(colours.Colours())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(colours, "LENGTH", 5)
    zero_shot.ZeroShot(colours.Colours())
    assert re.search(r"zero-shot: \d+ of \d+ sentences are cut at 5 tok", capsys.readouterr().err)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    workdir = build_set(tmp_path_factory.mktemp("judge"))
    train.run(make_config(**{"train.steps": 1}), workdir)
    return zero_shot.ZeroShot(Scorer(open_saved(workdir.dir("train")), batch_size=8))


def test_a_trained_model_gives_probabilities(judge):
    features = np.eye(3, 16, dtype=np.float32)
    values, found = judge.probabilities("upper_colour", features)
    assert values == list(attributes.COLOURS)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (found > 0).all()


def test_images_whose_attributes_are_unknown_are_told(tmp_path, capsys):
    (drawn,) = (record | {"split": "test"} for record in make_records(tmp_path, 1))
    plain = {"split": "test", "prompt": "a person", "image": drawn["image"]}

    def read(*records):
        run = types.SimpleNamespace(root=tmp_path, manifest=lambda stage: records)
        return zero_shot.read_records(run, "generate", "test")

    assert read(drawn, plain) == [drawn]
    assert (
        "1 of 2 images are left out, since their attributes are not known"
        in capsys.readouterr().err
    )
    with pytest.raises(UserError, match="no known attributes"):
        read(plain, plain)
    with pytest.raises(UserError, match="no images of split 'test'"):
        read(drawn | {"split": "train"})
