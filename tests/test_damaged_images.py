"""An image that cannot be used is told in the same words wherever it is met."""

import types

import numpy as np
import pytest
from etils import epath

from jaxtbpr.core import files, images
from jaxtbpr.datasets import build, image_check, photos, rows
from jaxtbpr.datasets.survey import survey
from jaxtbpr.report import pictures
from jaxtbpr.retrieval import evaluate, measure
from jaxtbpr.retrieval.judging import reference, scoring
from jaxtbpr.synthesis.images import read_image, unreadable
from tests.datasets.folders import FAULTS, Folder, make_folder, write_image
from tests.datasets.sets import make_config, make_workdir

SCORER = types.SimpleNamespace(width=2, images=lambda some: np.ones((len(list(some)), 2)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Folder:
    """A data set whose train images have each of the faults."""
    made = make_folder(tmp_path_factory.mktemp("sets"), "cuhk_pedes")
    for photo, fault in zip(made.split("train"), FAULTS, strict=True):
        made.image(photo).unlink()
        write_image(made.image(photo), 0, fault)
        photo.fault = fault
    return made


@pytest.fixture(scope="module")
def said(folder) -> dict[str, str]:
    """What is said of each of them, by its name."""
    found = {}
    for photo in folder.split("train"):
        with pytest.raises(images.ImageError) as raised:
            images.check(folder.image(photo))
        found[photo.name] = raised.value.sentence
        assert raised.value.path == str(folder.image(photo))
        assert str(raised.value) == f"{folder.image(photo)} {raised.value.reason}"
    return found


def test_each_fault_has_its_words(folder, said):
    for photo in folder.split("train"):
        assert said[photo.name].startswith(f"the image {FAULTS[photo.fault]}")


def test_stages_that_change_images_say_the_same(folder, said):
    for name, sentence in said.items():
        path = folder.images / name
        digest = files.sha256(path.read_bytes()) if path.is_file() else ""
        record = {"id": name, "image": {"path": name, "sha256": digest}}
        with pytest.raises(images.ImageError) as raised:
            read_image(folder.images, record)
        assert raised.value.sentence == sentence
        assert unreadable(raised.value) in (raised.value.reason, f"cannot be read: {sentence}")
        record["image"]["path"] = str(path)
        rejected = photos._looked_at(record, str(folder.path), exif=True)
        assert rejected["rejected"]["reason"] == sentence


def test_what_measures_images_says_the_same(folder, said):
    some = [
        reference.Image(name, lambda name=name: rows.check_image(folder.images, name, None)[0])
        for name in said
    ]
    assert measure._embed_shard(SCORER, some)["problem"].tolist() == list(said.values())
    records = [{"image": {"path": name, "sha256": None}} for name in said]
    _, problems = scoring.image_features(SCORER, records, folder.images)
    assert problems.tolist() == list(said.values())
    of_folder = reference.images(folder.path, "train", ())
    assert {one.name: images.attempt(one.open).sentence for one in of_folder} == said


def test_build_evaluate_and_validate_say_the_same(folder, said, tmp_path, capsys):
    build.run(make_config(folders={"real": str(folder.path)}), make_workdir(tmp_path / "run"))
    lines = files.read_json_lines(epath.Path(tmp_path / "run/build/rejected.jsonl"))
    assert {line["id"]: line["reason"] for line in lines} == said
    gallery = evaluate.open_set(epath.Path(folder.path), "test", epath.Path(tmp_path / "scratch"))
    first = next(iter(said))
    assert len(gallery) == len(folder.split("test"))
    told = f"6 images of {folder.path} are left out; the first: {first} {said[first]}"
    assert told in capsys.readouterr().err
    found = survey(folder.path).images
    assert (found.missing, found.broken) == (2, 4)
    for name, reason in [one for some in found.examples.values() for one in some]:
        assert f"the image {reason}" == said[name]


def test_the_run_counts_missing_and_broken_images_as_validate_does(folder):
    counts = image_check.ImageReport()
    for photo in folder.split("train"):
        row = {
            "id": photo.name,
            "path": photo.name,
            "sha256": None,
            "problem": "",
            "captions": ["x"],
        }
        counts.add(photo.name, image_check.result_of_row(rows.check(row, str(folder.images))))
    assert (counts.missing, counts.broken) == (2, 4)


def test_the_report_says_the_same_in_place_of_the_picture(folder, said):
    for name, sentence in said.items():
        shown = pictures.record_picture(
            epath.Path(folder.images), {"image": {"path": name}}, "A man"
        )
        assert shown == pictures.Picture("", f"A man ({sentence})")


def test_a_disk_that_fails_is_no_fault_of_an_image(monkeypatch, tmp_path):
    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    with pytest.raises(OSError, match="Input/output error"):
        images.read(tmp_path / "a.png", read_bytes=fail)


def test_a_path_that_no_file_can_have_is_a_fault_of_its_image():
    row = {"path": "a\0.png", "sha256": None, "problem": "", "captions": ["x"]}
    reason = rows.check(row, "/tmp")["rejected"]["reason"]
    assert reason == "the image cannot be read (embedded null byte)"
