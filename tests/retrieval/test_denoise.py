"""Stage denoise: which pairs it doubts, what becomes of them, and that training feels it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from jaxtbpr.core import manifest, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.record import keep_captions
from jaxtbpr.core.workdir import COMMIT, Workdir
from jaxtbpr.datasets import build
from jaxtbpr.datasets.source import RetrievalSet
from jaxtbpr.retrieval import denoise
from jaxtbpr.retrieval.denoise import agreement
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.retrieval.training import mixture, setup
from tests.datasets.sets import make_config as build_config
from tests.retrieval import runs
from tests.retrieval.colours import Colours, make_run, record


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr(scoring, "open_scorer", lambda options: Colours())


def people():
    """Six train people and one to test on; what is wrong is 1's second, all of 4's and 6's."""
    return [
        record("0", "red", ["red", "red"]),
        record("1", "green", ["green", "blue"], wrong=(1,)),
        record("2", "blue", ["blue", "blue"]),
        record("3", "red", ["red", "red"]),
        record("4", "green", ["red", "blue"], wrong=(0, 1)),
        record("5", "blue", ["blue", "blue"]),
        record("6", "red", ["green"], split="test"),
    ]


def run(workdir, **values):
    """Returns what the stage reports, {id: record kept} and {id: why one was rejected}."""
    config = ConfigDict({"seed": 0, "denoise": options.default_config(denoise.OPTIONS)})
    config.denoise.update(values)
    result = denoise.run(config, workdir)
    (workdir.dir("denoise") / COMMIT).write_text(json.dumps(result))
    made = manifest.Manifest(workdir.dir("denoise"), result["outputs"])
    rejected = {r["id"]: r["rejected"]["reason"] for r in made.rejected()}
    return result, {r["id"]: r for r in made}, rejected


WAYS = {
    "threshold": {"method": "threshold", "min_score": 0.5},
    "quantile": {"method": "quantile", "reject_fraction": 0.25},
    "mixture": {"method": "mixture"},
}


@pytest.mark.parametrize("method", WAYS)
def test_doubted_captions_are_dropped_with_all_that_goes_with_them(tmp_path, method):
    result, kept, rejected = run(make_run(tmp_path, people()), **WAYS[method])
    assert rejected == {"4": "none of its captions fits the image: the best CLIP score is 0.000"}
    assert kept["1"]["captions"] == ["a person in a green coat"]
    assert kept["1"]["caption_noise"] == [[]]
    assert kept["1"]["facts"]["mentioned"] == [{"upper_colour": "green"}]
    assert all(len(kept[name]["captions"]) == 2 for name in "0235")
    assert kept["6"]["captions"] == ["a person in a green coat"]  # not a split to train on
    assert (result["records_in"], result["records_out"], result["rejected"]) == (7, 6, 1)
    assert not (tmp_path / "denoise" / "measured").exists()


def test_what_was_refused_before_goes_with_no_caption():
    refused = [{"reason": "empty"}, {"reason": "short"}]
    given = {"id": "1", "captions": ["a", "b"], "caption_source": [{"model": "x"}, {"model": "y"}]}
    kept = keep_captions(given | {"rejected_captions": refused}, np.array([False, True]))
    assert kept == {
        "id": "1",
        "captions": ["b"],
        "caption_source": [{"model": "y"}],
        "rejected_captions": refused,
    }


def test_a_mixture_gives_weights_and_the_others_two(tmp_path):
    _, kept, rejected = run(make_run(tmp_path / "m", people()), action="reweight", method="mixture")
    assert rejected == {}
    weights = {name: one["caption_weights"] for name, one in kept.items()}
    assert weights["0"] == pytest.approx([1, 1], abs=0.01)
    assert weights["1"] == pytest.approx([1, 0], abs=0.01)
    assert weights["6"] == [1.0]
    _, kept, _ = run(make_run(tmp_path / "t", people()), action="reweight", **WAYS["threshold"])
    assert (kept["1"]["caption_weights"], kept["4"]["caption_weights"]) == ([1, 0.1], [0.1, 0.1])


def test_it_reports_how_well_doubt_agrees_with_what_is_wrong(tmp_path):
    result, _, _ = run(make_run(tmp_path, people()), **WAYS["quantile"] | {"reject_fraction": 0.34})
    found = result["pairs"]
    assert (found["pairs"], found["doubted"]) == (12, 4)
    noise = {"pairs": 12, "wrong": 3, "precision": 0.75, "recall": 1.0, "by_chance": 0.25}
    assert found["noise"] == noise
    shown = {(one["id"], *one["wrong"]) for one in found["examples"]}
    assert {("1", "upper_colour"), ("4", "upper_colour")} < shown
    assert sum(found["histogram"]["doubted"]) == 4
    assert sum(found["histogram"]["believed"]) == 8


def test_noise_that_is_not_known_is_not_counted(tmp_path):
    made = people()
    for one in made:
        del one["caption_noise"]
    result, _, _ = run(make_run(tmp_path, made))
    assert result["pairs"]["noise"] is None
    assert agreement(np.zeros(2, bool), np.zeros(2, bool)) == {
        "pairs": 2, "wrong": 0, "precision": None, "recall": None, "by_chance": 0.0,
    }  # fmt: skip


def test_an_image_that_cannot_be_used_is_set_aside_and_not_judged(tmp_path):
    workdir = make_run(tmp_path, people())
    (tmp_path / "generate/images/3.png").unlink()
    result, _, rejected = run(workdir, **WAYS["threshold"])
    assert rejected["3"] == "the image cannot be read (No such file or directory)"
    assert result["pairs"]["pairs"] == 10


def test_splits_without_records_are_told(tmp_path):
    with pytest.raises(UserError, match=r"finds no record of the splits \('val',\) in"):
        run(make_run(tmp_path, people()), splits=("val",))


def test_records_without_captions_are_told(tmp_path):
    made = people()
    for one in made:
        del one["captions"]
    with pytest.raises(UserError, match="record 0 lacks one; add stages 'generate' and 'caption'"):
        run(make_run(tmp_path, made))


def test_a_killed_stage_ends_with_the_same_bytes(tmp_path, monkeypatch):
    whole, killed = (make_run(tmp_path / name, people()) for name in ("whole", "killed"))
    run(whole)
    real, left = denoise._score, [1]

    def die(*given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(denoise, "_score", die)
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    monkeypatch.setattr(denoise, "_score", real)
    run(killed)
    for path in (tmp_path / "whole" / "denoise").iterdir():
        assert (tmp_path / "killed" / "denoise" / path.name).read_bytes() == path.read_bytes()


@given(st.integers(0, 10_000), st.floats(0.05, 3), st.floats(0.05, 3))
@settings(max_examples=40)
def test_a_monotone_mixture_never_doubts_the_better_of_two(seed, one, other):
    rng = np.random.default_rng(seed)
    losses = np.concatenate([rng.normal(0, one, 80), rng.normal(2, other, 40)])
    clean = mixture.clean_probability(losses, monotone=True)[np.argsort(losses)]
    assert (np.diff(clean) <= 1e-12).all()


# --- on the way to the losses --------------------------------------------------------------------


def weighed_run(root):
    """A built set whose captions were weighed, and the records that it was built of."""
    workdir = make_run(root, [*people(), record("7", "green", ["green"], split="val")])
    _, kept, _ = run(workdir, action="reweight", **WAYS["threshold"])
    built = Workdir(root, order=("caption", "denoise"), chosen=("denoise", "build"))
    build.run(build_config(), built)
    return built, kept


def test_weights_reach_the_built_set_and_the_batches(tmp_path):
    workdir, kept = weighed_run(tmp_path)
    one = RetrievalSet(workdir.dir("build") / "synthetic", "train")
    given = [kept[name]["caption_weights"] for name in one.image_ids]
    np.testing.assert_allclose(one.caption_weights, np.concatenate(given))
    np.testing.assert_allclose(one.record(1)["caption_weights"], given[1])
    config = runs.make_config(**{"train.batch_size": 8})
    sets = setup.open_sets(config.data, workdir.dir("build"))
    words = setup.open_tokenizer(config.data, sets.train, None)
    trainer = setup.build_trainer(config, sets, words, workdir.dir("train"))
    np.testing.assert_allclose(trainer.weights(np.array([3, 8, 0])), [0.1, 0.1, 1.0])
    config.train.captions = 2
    with pytest.raises(UserError, match="needs one weight per image"):
        setup.open_batches(config, sets.train, words)


def test_a_set_that_was_not_weighed_has_the_features_it_had_and_weights_of_one(tmp_path):
    workdir = runs.build_set(tmp_path)
    one = RetrievalSet(workdir.dir("build") / "synthetic", "train")
    assert "caption_weights" not in one.record(0)
    assert one.caption_weights.tolist() == [1.0] * sum(map(len, one.captions))
