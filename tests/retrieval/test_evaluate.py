"""Stage evaluate and its command: the metrics, the files, and that padding changes nothing."""

import dataclasses
import functools
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

from jaxtbpr.core import files, images, tokenizer
from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import InputError, UserError
from jaxtbpr.core.metrics_writer import read_metrics
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets.source import RetrievalSet
from jaxtbpr.retrieval import evaluate, saved, train
from jaxtbpr.retrieval.clip.model import Clip, init_params
from jaxtbpr.retrieval.evaluation.embed import Embedder
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.retrieval.training import setup
from jaxtbpr.retrieval.training.checkpoint import Checkpoints
from tests.datasets.folders import make_folder, turned_bytes
from tests.retrieval.runs import build_set, make_config
from tests.retrieval.test_train import REPOSITORY


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir with finished stages build and train."""
    workdir = build_set(tmp_path_factory.mktemp("run"))
    train.run(make_config(), workdir)
    return workdir


@pytest.fixture(scope="module")
def result(trained):
    return evaluate.run(make_config(), trained)


@pytest.fixture(scope="module")
def test_set(trained):
    return RetrievalSet(trained.dir("build") / "synthetic", "test")


def test_every_caption_queries_every_image(result):
    metrics = result["metrics"]["synthetic/test"]
    assert list(metrics) == list(evaluate.SUMMARY)
    assert (metrics["queries"], metrics["gallery"], metrics["identities"]) == (20, 10, 5)
    assert metrics["chance_R1"] == pytest.approx(0.2)
    assert all(0 <= metrics[name] <= 1 for name in ("R1", "R5", "R10", "mAP", "mINP"))


def test_captions_that_the_model_reads_in_part_are_counted(trained, test_set, result, capsys):
    metrics = result["metrics"]["synthetic/test"]
    assert (metrics["captions_cut"], metrics["text_length"]) == (0, 24)
    loaded = evaluate.load(trained.dir("train"), batch_size=8, which=("last",))
    model = Clip(dataclasses.replace(loaded.embedder._config, text_length=8))
    params = init_params(model, jax.random.key(0))
    words = tokenizer.load(trained.dir("train") / "tokenizer.json")
    short = Embedder(model, words, meshes.make_mesh(), batch_size=8, resample="bicubic")
    detail = evaluate.evaluate_set(
        dataclasses.replace(loaded, embedder=short, params={"last": params}), test_set, examples=1
    )
    assert (detail["last"]["captions_cut"], detail["last"]["text_length"]) == (10, 8)
    told = "evaluate synthetic/test: 10 of 20 captions are cut at 8 tokens"
    assert told in capsys.readouterr().err


def test_the_file_shows_selected_last_and_best_on_test_side_by_side(trained, result):
    path = trained.dir("evaluate") / "synthetic__test.json"
    detail = files.read_json(path)
    written = (path, path.with_name("synthetic__test.queries.jsonl"))
    assert result["outputs"] == {one.name: files.sha256(one.read_bytes()) for one in written}
    rows = read_metrics(trained.dir("train") / "evals.jsonl")
    own = [row for row in rows if row["set"] == "synthetic/test"]
    assert detail["last"]["epoch"] == 3
    assert detail["last"]["mAP"] == pytest.approx(own[-1]["mAP"], abs=1e-9)
    assert detail["best_on_test"]["R1"] == max(row["R1"] for row in own)
    on_val = [row for row in rows if row["set"] == "synthetic/val"]
    best = max(on_val, key=lambda row: (row["R1"], row["mAP"], row["step"]))
    assert detail["selected"]["epoch"] == best["epoch"]
    assert detail["cmc"][0] == detail["selected"]["R1"]
    assert len(detail["cmc"]) == 50


def test_examples_show_the_ranking_behind_the_metrics(trained, result, test_set):
    examples = files.read_json(trained.dir("evaluate") / "synthetic__test.json")["examples"]
    assert len(examples) == 20
    identity = dict(zip(test_set.image_ids, test_set.identities.tolist(), strict=True))
    for example in examples:
        assert identity[example["query_image_id"]] == example["query_identity"]
        scores = [hit["score"] for hit in example["ranked"]]
        assert scores == sorted(scores, reverse=True)
        for hit in example["ranked"]:
            assert hit["right"] == (identity[hit["image_id"]] == example["query_identity"])
        first = [hit["right"] for hit in example["ranked"]].index(True) + 1
        assert first == example["first_match_rank"]


def test_the_rank_of_every_query_is_kept_by_the_user_s_names(trained, result, test_set):
    rows = read_metrics(trained.dir("evaluate") / "synthetic__test.queries.jsonl")
    detail = files.read_json(trained.dir("evaluate") / "synthetic__test.json")
    assert [row["caption"] for row in rows] == [c for cs in test_set.captions for c in cs]
    assert [row["image_id"] for row in rows] == np.repeat(test_set.image_ids, 2).tolist()
    assert [row["identity"] for row in rows] == np.repeat(test_set.identity_names, 2).tolist()
    assert not set(test_set.identity_names) & set(map(str, test_set.identities.tolist()))
    ranks = np.array([row["first_match_rank"] for row in rows])
    assert (ranks == 1).mean() == pytest.approx(detail["selected"]["R1"])
    assert np.mean([row["ap"] for row in rows]) == pytest.approx(detail["selected"]["mAP"])


def test_the_hardest_queries_are_kept_with_their_right_image(trained, result):
    detail = files.read_json(trained.dir("evaluate") / "synthetic__test.json")
    rows = read_metrics(trained.dir("evaluate") / "synthetic__test.queries.jsonl")
    ranks = sorted((row["first_match_rank"] for row in rows), reverse=True)
    hardest = [one["first_match_rank"] for one in detail["hardest"]]
    assert hardest == [rank for rank in ranks if rank > 1][:12]
    for one in detail["hardest"]:
        assert one["first_match"]["identity"] == one["query_identity"]
        assert one["first_match"]["identity_name"] == one["query_identity_name"]
        best = one["ranked"][one["first_match_rank"] - 1]
        assert one["first_match"]["image_id"] == best["image_id"]


def test_a_query_without_any_right_image_is_the_hardest():
    assert evaluate.hardest(np.array([3, 1, 0, 7, 3]), 9) == [2, 3, 0, 4]
    assert evaluate.hardest(np.array([3, 1, 0, 7, 3]), 2) == [2, 3]
    assert evaluate.hardest(np.array([1, 1]), 2) == []


def test_evaluating_again_writes_the_same_bytes(trained, result):
    assert evaluate.run(make_config(), trained)["outputs"] == result["outputs"]


def test_padded_rows_do_not_change_features_or_metrics(trained, test_set):
    words = tokenizer.load(trained.dir("train") / "tokenizer.json")
    model = Clip(setup.model_config(make_config(), words.get_vocab_size()))
    params = jax.jit(functools.partial(init_params, model))(jax.random.key(0))
    found = []
    # Made multiples of the 8 devices, and no more than the set has: a million would be refused
    # memory for its padding.
    for batch_size in (1, 16, 10**12):
        embedder = Embedder(
            model, words, meshes.make_mesh(), batch_size=batch_size, resample="bicubic"
        )
        features = embedder.features(params, test_set)
        assert features.images.shape == (10, 16)
        assert features.captions.shape == (20, 16)
        np.testing.assert_array_equal(features.image_of_caption, np.repeat(np.arange(10), 2))
        found.append(features)
    for other in found[1:]:
        np.testing.assert_allclose(other.images, found[0].images, atol=1e-6)
        np.testing.assert_allclose(other.captions, found[0].captions, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found[0].images, axis=1), 1, atol=1e-6)


def test_examples_are_right_and_wrong_ones_in_turn():
    ranks = np.array([1] * 50 + [0, 2, 3, 90] + [5] * 6)
    chosen = evaluate.choose_examples(ranks, 8)
    found = ranks[chosen]
    assert len(chosen) == len(set(chosen)) == 8
    assert (found == 1).tolist() == [True, False] * 4
    assert found[1] == 2  # from a near miss
    assert found[-1] == 0  # to one without any right image
    assert evaluate.choose_examples(ranks, 8) == chosen


@pytest.mark.parametrize(("ranks", "count"), [([1, 1, 1], 2), ([4, 7], 9), ([], 5), ([1, 2], 0)])
def test_examples_are_as_many_as_there_are(ranks, count):
    chosen = evaluate.choose_examples(np.array(ranks, np.int64), count)
    assert len(chosen) == len(set(chosen)) == min(count, len(ranks))


def test_the_best_on_test_is_by_recall_then_map():
    rows = [
        {"set": "a/test", "R1": r1, "mAP": ap, "epoch": n}
        for n, (r1, ap) in enumerate([(0.2, 0.9), (0.5, 0.3), (0.5, 0.4), (0.1, 1.0)])
    ]
    assert evaluate.best_on_test(rows, "a/test")["epoch"] == 2
    assert evaluate.best_on_test(rows, "b/test") is None


def test_an_untrained_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"neither a model trained here .model.json. nor"):
        evaluate.load(tmp_path, batch_size=8)


def test_the_last_and_the_best_checkpoint_are_kept(trained):
    rows = read_metrics(trained.dir("train") / "evals.jsonl")
    best = max(
        (row for row in rows if row["set"] == "synthetic/val"),
        key=lambda row: (row["R1"], row["mAP"], row["step"]),
    )
    with Checkpoints(trained.dir("train") / "checkpoints") as checkpoints:
        assert checkpoints.last_step() == 15
        assert checkpoints.selected_step() == best["step"]
    kept = {p.name for p in (trained.dir("train") / "checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {"15", str(best["step"])}


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "jaxtbpr.retrieval.evaluate", *map(str, words)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_command_evaluates_a_built_set(trained, result, tmp_path):
    done = command(
        "--checkpoint", trained.dir("train"), "--data", trained.dir("build") / "synthetic",
        "--batch_size", 8, "--output", tmp_path / "out.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "checkpoint.py" not in done.stderr  # nor any other log of libraries
    printed = json.loads(done.stdout.splitlines()[-1])
    for name, value in result["metrics"]["synthetic/test"].items():
        assert printed[name] == pytest.approx(value)
    assert files.read_json(tmp_path / "out.json")["cmc"][0] == printed["R1"]


def test_a_folder_of_a_known_format_is_built_and_evaluated(trained, tmp_path):
    folder = make_folder(tmp_path, "cuhk_pedes", people=9)
    one = evaluate.open_set(folder.path, "test", tmp_path / "scratch")
    model = evaluate.load(trained.dir("train"), batch_size=8, which=("last",))
    detail = evaluate.evaluate_set(model, one, examples=3)
    assert detail["last"]["gallery"] == len(one) > 0
    assert detail["best_on_test"] is None
    assert len(detail["examples"]) == 3


def test_images_of_a_folder_may_be_left_as_they_are_stored(tmp_path, test_set):
    folder = make_folder(tmp_path, "cuhk_pedes", people=9)
    photo = folder.image(folder.split("test")[0])
    photo.write_bytes(turned_bytes(1))
    sizes = []
    for exif in (True, False):
        place = tmp_path / f"scratch {exif}"
        one = evaluate.open_set(folder.path, "test", place, exif=exif)
        sizes.append(images.open_image(one.image_bytes(0)).size)
    assert sizes == [(24, 12), (12, 24)]
    with pytest.raises(
        UserError, match="--noexif works on data folders only, and .* is a built set"
    ):
        evaluate.open_set(test_set.directory, "test", tmp_path, exif=False)


def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path):
    done = command("--checkpoint", tmp_path, "--data", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_output_that_cannot_be_written_is_told_before_anything_is_read(tmp_path):
    done = command(
        "--checkpoint", tmp_path, "--data", tmp_path, "--output", tmp_path / "nope" / "x.json"
    )  # fmt: skip
    assert done.returncode == 1
    assert "--output=" in done.stderr
    assert "cannot be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_may_be_called_synthetic(tmp_path):
    folder = make_folder(tmp_path / "Synthetic", "cuhk_pedes", people=9)
    renamed = folder.path.rename(folder.path.parent / "Synthetic")
    one = evaluate.open_set(epath.Path(renamed), "test", tmp_path / "scratch")
    assert one.name == "synthetic_folder/test"
    assert len(one) > 0


def test_the_folder_of_a_run_stands_for_its_model(trained):
    models = [trained.root, trained.dir("train"), trained.dir("train") / "checkpoints"]
    found = {str(saved.trained_folder(place)) for place in models}
    assert found == {str(trained.dir("train"))}
    assert evaluate.load(trained.root, batch_size=8, which=("last",)).epochs == {"last": 3}
    assert scoring.fingerprint(trained.root) == scoring.fingerprint(trained.dir("train"))
    assert saved.trained_folder("tiny-clip") is None


def test_a_training_that_is_not_finished_is_told(trained, tmp_path, capsys):
    saved.open_saved(trained.root, "last")
    assert "training is not finished; using the last checkpoint so far" in capsys.readouterr().err
    shutil.copy(trained.dir("train") / "model.json", tmp_path)
    (tmp_path / "commit.json").write_text("{}")
    saved.open_saved(tmp_path)
    assert capsys.readouterr().err == ""
    described = json.loads((tmp_path / "model.json").read_text())
    described["model"]["a_field_of_tomorrow"] = 1
    (tmp_path / "model.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="model.json describes no model of this version"):
        saved.open_saved(tmp_path)


def test_the_folder_of_a_run_stands_for_its_only_set(trained, test_set, tmp_path):
    tfds_set = next(test_set.directory.glob("*/*/dataset_info.json")).parent
    for place in (trained.root, trained.dir("build"), test_set.directory, tfds_set):
        assert evaluate.open_set(place, "test", tmp_path).directory == test_set.directory


def test_a_run_of_several_sets_or_none_of_the_split_asks_for_one(trained, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(trained.dir("build") / "synthetic", tmp_path / "build" / name)
    run = epath.Path(tmp_path)
    with pytest.raises(InputError, match=r"several sets have split 'test': name one of .*/a, .*/b"):
        evaluate.find_built(run, "test")
    for name in ("a", "b"):
        (tmp_path / "build" / name / "test.jsonl").unlink()
    with pytest.raises(InputError, match=r"none of its sets has split 'test': name one of"):
        evaluate.find_built(run, "test")


def test_without_a_name_every_set_with_a_test_split_is_measured(trained):
    everything = make_config(**{"data.test_sets": ()})
    assert list(evaluate.run(everything, trained)["metrics"]) == ["synthetic/test"]


def test_without_any_test_split_nothing_is_measured(trained, tmp_path, capsys):
    root = tmp_path / "run"
    shutil.copytree(trained.root, root)
    (root / "build" / "synthetic" / "test.jsonl").unlink()
    everything = make_config(**{"data.test_sets": ()})
    assert evaluate.run(everything, Workdir(root, (), ()))["metrics"] == {}
    assert "no set has a test split, so nothing is evaluated" in capsys.readouterr().err
