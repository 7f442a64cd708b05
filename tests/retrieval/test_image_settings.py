"""How a checkpoint's images are resized: what it says, what was asked for, what is written."""

import dataclasses
import io
import json

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.core.errors import InputError, UserError
from jaxtbpr.datasets.resizing import SQUASH, Resize
from jaxtbpr.retrieval import evaluate, export, saved, train
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.weights.images import read_images
from jaxtbpr.retrieval.judging import scoring
from jaxtbpr.retrieval.saved import MODEL
from jaxtbpr.retrieval.training import setup
from tests.retrieval.runs import build_set, make_config
from tests.retrieval.test_weights import PLAIN, describe, params_of, write

HF, OPEN_CLIP = ("preprocessor_config.json", None), ("open_clip_config.json", "preprocess_cfg")
CROPPED = Resize("shortest", half="floor")
SIDES = {"height": 32, "width": 32}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": {"shortest_edge": 32}, "crop_size": SIDES}, CROPPED),
        ({"size": 32, "crop_size": 32, "do_center_crop": True}, CROPPED),
        ({"do_resize": True}, CROPPED),  # CLIP's own defaults
        ({"size": {"shortest_edge": 40}, "crop_size": SIDES},
         dataclasses.replace(CROPPED, larger=1.25)),
        ({"size": SIDES, "do_center_crop": False}, SQUASH),
        ({"size": SIDES, "crop_size": SIDES}, SQUASH),
        ({"size": {"height": 40, "width": 40}, "crop_size": SIDES},
         Resize("squash", larger=1.25, half="floor")),
        ({"size": 32, "image_processor_type": "SiglipImageProcessor"}, SQUASH),
        # Images of many shapes, or ways that no model here has.
        ({"size": {"shortest_edge": 32}, "do_center_crop": False}, None),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}, "crop_size": SIDES}, None),
        ({"size": {"longest_edge": 32}}, None),
        ({"size": SIDES, "do_center_crop": False, "do_resize": False}, None),
        ({"size": SIDES, "do_center_crop": False, "do_pad": True}, None),
        ({"size": {"height": 64, "width": 32}, "crop_size": SIDES}, None),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.9}, None),
    ],
)  # fmt: skip
def test_the_settings_of_transformers_are_read(tmp_path, values, expected):
    describe(tmp_path, *HF, values)
    assert read_images(epath.Path(tmp_path), "huggingface", (32, 32)).resize == expected


@pytest.mark.parametrize(
    ("values", "size", "expected", "resample"),
    [
        ({"size": 32}, (32, 32), Resize("shortest"), "bicubic"),
        ({"resize_mode": "shortest", "interpolation": "bilinear"}, (32, 32), Resize("shortest"),
         "bilinear"),
        ({"resize_mode": "shortest", "interpolation": "bilinear"}, (48, 16), Resize("shortest"),
         "bicubic"),  # where the model is no square, open_clip's own way there has one filter
        ({"resize_mode": "longest", "fill_color": 9}, (32, 32), Resize("longest", fill=9),
         "bicubic"),
        ({"resize_mode": "squash", "fill_color": 9}, (32, 32), SQUASH, "bicubic"),
    ],
)  # fmt: skip
def test_the_settings_of_open_clip_are_read(tmp_path, values, size, expected, resample):
    describe(tmp_path, *OPEN_CLIP, values)
    found = read_images(epath.Path(tmp_path), "openai", size)
    assert (found.resize, found.resample) == (expected, resample)


def test_an_unknown_way_to_resize_is_a_sentence(tmp_path):
    describe(tmp_path, *OPEN_CLIP, {"resize_mode": "fold"})
    with pytest.raises(InputError, match="does not tell how images are prepared .*'fold'"):
        read_images(epath.Path(tmp_path), "openai", (32, 32))


def test_a_crop_of_no_size_is_a_sentence(tmp_path):
    describe(tmp_path, *HF, {"size": {"shortest_edge": 32}, "crop_size": {"shortest_edge": None}})
    with pytest.raises(InputError, match="does not tell how images are prepared .*crop_size"):
        read_images(epath.Path(tmp_path), "huggingface", (32, 32))


def test_a_published_model_s_images_are_squashed_unless_it_is_asked_for_otherwise(tmp_path, capsys):
    write(tmp_path, PLAIN, "huggingface")
    describe(tmp_path, *HF, {"size": {"shortest_edge": 32}, "crop_size": SIDES})
    assert saved.open_saved(tmp_path).resize == SQUASH
    assert (
        "images are cropped to a square; here they are resized straight to the "
        "model's size, so that a person is seen from head to foot (resize='model' follows the "
        "file)."
    ) in capsys.readouterr().err
    for asked in ("model", "shortest"):  # of one name, it is the model's own
        assert saved.open_saved(tmp_path, resize=asked).resize == CROPPED
        assert capsys.readouterr().err == ""
    assert saved.open_saved(tmp_path, resize="longest").resize == Resize("longest")
    assert "here they are padded to a square (resize" in capsys.readouterr().err
    saved.open_saved(tmp_path, resample="box")
    assert "resized with filter box as configured, not with bicubic" in capsys.readouterr().err


def test_what_the_model_says_is_refused_where_it_says_nothing_or_what_is_not_here(tmp_path):
    write(tmp_path, PLAIN, "huggingface")
    describe(tmp_path, *HF, {"size": SIDES, "do_center_crop": False, "do_resize": False})
    with pytest.raises(
        InputError, match=r"preprocessor_config.json resizes images in a way that is not"
    ):
        saved.open_saved(tmp_path, resize="model")
    assert saved.open_saved(tmp_path).resize == SQUASH
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="has no file that says .*; choose squash, shortest or"):
        saved.open_saved(tmp_path, resize="model")


@pytest.mark.parametrize(
    ("kind", "resize"),
    [
        ("huggingface", SQUASH),
        ("huggingface", dataclasses.replace(CROPPED, larger=1.25)),
        ("huggingface", Resize("squash", larger=1.25, half="floor")),
        ("openai", SQUASH),
        ("openai", Resize("shortest")),
        ("openai", Resize("longest", fill=9)),
    ],
)
def test_what_is_used_is_exported_and_read_again(tmp_path, kind, resize):
    words = tokens.learn(["a red coat"] * 3, 300)
    config = dataclasses.replace(PLAIN, vocab_size=words.get_vocab_size())
    first, again = tmp_path / "first", tmp_path / "again"
    weights.save_folder(first, params_of(config), config, words, kind=kind, resize=resize)
    assert saved.open_saved(first, resize="model").resize == resize
    export.export(str(first), str(again), which="last", kind=kind, dtype="float32", resize="model")
    for name in ("preprocessor_config.json", "open_clip_config.json"):
        assert (first / name).exists() == (again / name).exists()
        if (first / name).exists():
            assert (first / name).read_text() == (again / name).read_text()
    # No file that says another thing than what is used.
    assert (first / "preprocessor_config.json").exists() == (resize.mode != "longest")


def test_a_format_that_cannot_say_how_images_are_resized_is_refused(tmp_path):
    tall = dataclasses.replace(PLAIN, image_size=(48, 16))

    def save(config, kind, **how):
        weights.save_folder(tmp_path, params_of(config), config, None, kind=kind, **how)

    with pytest.raises(InputError, match="CLIPImageProcessor cannot resize images by 'longest'"):
        save(PLAIN, "huggingface", resize=Resize("longest"))
    with pytest.raises(InputError, match=r"1\.25 times as large before they are cropped"):
        save(PLAIN, "openai", resize=Resize("shortest", larger=1.25))
    with pytest.raises(InputError, match="open_clip resizes by bicubic, .* by bilinear"):
        save(tall, "openai", resize=Resize("shortest"), resample="bilinear")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A built set, opened as training opens it, and its folder."""
    workdir = build_set(tmp_path_factory.mktemp("set"))
    return setup.open_sets(make_config().data, workdir.dir("build")), workdir


def test_a_run_remembers_how_its_images_are_resized(sets, tmp_path, capsys):
    config = make_config(**{"data.resize": "longest"})
    trained, folder = sets[0], epath.Path(tmp_path)
    words = tokens.learn(["a red coat"] * 3, 300)
    trainer = setup.build_trainer(config, trained, words, folder)
    assert trainer.batches.pairs.resize == Resize("longest")
    assert trainer.embedder._resize == Resize("longest")
    how = {"resize": setup.resize_of(config.data, None)}
    train.write_model(trainer.step_config.model.config, "bicubic", folder, **how)
    (folder / "commit.json").write_text("{}")  # else it is told that the training is not finished
    assert saved.open_saved(folder).resize == Resize("longest")
    assert capsys.readouterr().err == ""
    assert saved.open_saved(folder, resize="squash").resize == SQUASH
    assert "by model.json images are padded to the model's shape" in (capsys.readouterr().err)
    old = json.loads((tmp_path / MODEL).read_text())
    (tmp_path / MODEL).write_text(json.dumps({k: old[k] for k in ("model", "resample")}))
    assert saved.open_saved(folder).resize == SQUASH  # runs of before


def test_training_from_weights_resizes_as_they_say_if_asked_to(sets, tmp_path):
    write(tmp_path / "published", PLAIN, "huggingface")
    describe(tmp_path / "published", *HF, {"size": {"shortest_edge": 32}, "crop_size": SIDES})
    config = make_config(
        **{"model.weights": str(tmp_path / "published"), "data.resize": "model",
           "data.image_size": (32, 32), "data.text_length": 12}
    )  # fmt: skip
    start = setup.open_start(config)
    words = setup.open_tokenizer(config.data, sets[0].train, start)
    trainer = setup.build_trainer(config, sets[0], words, epath.Path(tmp_path), start)
    assert trainer.batches.pairs.resize == CROPPED
    assert trainer.embedder._resize == CROPPED
    with pytest.raises(
        UserError, match="config.data.resize='model' follows the checkpoint of config.model.weights"
    ):
        train.check(make_config(**{"data.resize": "model"}))
    train.check(config)


def test_a_judge_sees_what_is_asked_for(tmp_path):
    write(tmp_path, PLAIN, "huggingface")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8))
    middle = image.crop((0, 16, 32, 48))
    data = [io.BytesIO(), io.BytesIO()]
    for one, file in zip((image, middle), data, strict=True):
        one.save(file, "png")

    def see(resize):
        scorer = scoring.Scorer(saved.open_saved(tmp_path, resize=resize), 2)
        return scorer.images([file.getvalue() for file in data])

    evaluated = evaluate.load(epath.Path(tmp_path), batch_size=2, resize="shortest")
    assert evaluated.embedder._resize == Resize("shortest")
    cropped, squashed = see("shortest"), see("squash")
    np.testing.assert_array_equal(cropped[0], cropped[1])
    assert np.abs(squashed[0] - squashed[1]).max() > 1e-3
