"""The sections of stages measure and denoise: numbers with units, plots and examples."""

import json

import pytest

from jaxtbpr.core import files
from tests.report import fixture
from tests.report.test_page import Reader, make

PAIR = {"caption": fixture.HOSTILE, "score": 0.12}
HISTOGRAM = {"edges": [0.0, 0.5, 1.0], "believed": [0, 9], "doubted": [3, 0]}
NUMBERS = {
    "images": 1200, "captions": 2400, "model": "tiny-clip", "reference": "runs/other",
    "reference_images": 900, "clip_score": 0.4321, "cmmd": 0.0512, "feature_variance": 0.9,
    "reference_feature_variance": 0.8, "evenness": 0.75, "evenness_from": "model",
    "exact_duplicates": 0.0, "near_duplicates": 0.005, "words_mean": 21.5, "words_sd": None,
    "vocabulary": 1234, "distinct_captions": 1.0,
}  # fmt: skip


def commit(run, name, result, config):
    counts = {"outputs": {}, "records_in": 12, "records_out": 12, "rejected": 0, "seconds": 1.0}
    recipe = {"config": {f"{name}.{key}": value for key, value in config.items()}, "inputs": {}}
    run.dir(name).mkdir()
    files.write_json_atomic(run.dir(name) / "commit.json", counts | {"recipe": recipe} | result)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    run = fixture.workdir(tmp_path_factory.mktemp("judged"))
    fixture.write_manifests(run, people=6)
    path = {"path": next(iter(run.manifest("caption")))["image"]["path"]}
    pair = PAIR | {"id": "00000003", "image": path}
    noise = {"pairs": 12, "wrong": 4, "precision": 0.5, "recall": None, "by_chance": 1 / 3}
    done = {"pairs": 12, "doubted": 3, "mean_clean": 0.7, "histogram": HISTOGRAM}
    done |= {"examples": [pair | {"clean": 0.2, "wrong": ["upper_colour"]}], "noise": noise}
    commit(run, "denoise", {"pairs": done}, {"action": "reweight"})
    filtered = json.loads((run.dir("filter") / "commit.json").read_text())
    filtered["rejected_by"] = {"quality": 2, "clip": 0}
    files.write_json_atomic(run.dir("filter") / "commit.json", filtered)
    commit(run, "measure", {"measures": NUMBERS}, {"model": "tiny-clip"})
    found = {
        "measures": NUMBERS, "words": {"20": 3, "23": 5}, "scores": HISTOGRAM,
        "attributes": {"upper_colour": {"values": 3, "entropy": 0.5, "min": 1, "max": 4}},
        "examples": {"lowest": [pair], "highest": [pair | {"image": {"path": "gone.png"}}]},
    }  # fmt: skip
    files.write_json_atomic(run.dir("measure") / "measures.json", found)
    return make(run)


def part(text, name):
    return text[text.index(f'<section id="{name}">') :].partition("</section>")[0]


def test_both_sections_are_there_and_linked(text):
    read = Reader(text)
    assert read.wrong == []
    assert {"quality", "denoise"} < {attrs["id"] for attrs in read.all("section")}
    assert {"#quality", "#denoise"} < {attrs["href"] for attrs in read.all("a")}


def test_each_number_has_its_unit_and_what_is_not_measured_is_left_out(text):
    shown = part(text, "quality")
    for words in ('<td>0.432</td><td class="text">0 to 2.5</td>', "<td>0.0512</td>", "1,234"):
        assert words in shown
    assert "standard deviation" not in shown
    assert "compared with 900 images of runs/other" in shown
    assert "of the attributes that the model predicts, mistakes included" in shown
    assert len(Reader(shown).all("svg")) >= 2
    assert (len(Reader(shown).all("img")), shown.count('class="gone"')) == (1, 1)


def test_what_denoise_did_is_told_with_its_precision(text):
    shown = part(text, "denoise")
    assert "Of 12 (image, caption) pairs, 3 (25.0%)" in shown
    assert "they count less in training" in shown
    assert "50.0% of the doubted ones are wrong (precision; 33.3% by chance)" in shown
    assert "–% of the wrong ones are doubted" in shown
    assert "(wrong: upper colour)" in shown


def test_captions_are_escaped(text):
    assert "<script>" not in text


def test_it_is_told_which_engine_refused_how_many(text):
    assert "Stage filter rejected 2 by engine quality, 0 by engine clip." in part(text, "rejected")
