"""What a run sees of a data set's folder that has changed since it was built."""

import json
import os
import pathlib

import pytest

from jaxtbpr import pipeline, stages
from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets import build
from tests.datasets.folders import make_folder
from tests.datasets.sets import make_config, photo_bytes


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path, "cuhk_pedes", people=4)


def state(folder) -> dict:
    return build.fingerprint(make_config(folders={"real": str(folder.path)}))


def edit_annotation(folder):
    with (folder.path / "reid_raw.json").open("a") as file:
        file.write(" ")


def remove_two(folder):
    for photo in folder.photos[:2]:
        folder.image(photo).unlink()


def replace(folder):
    folder.image(folder.photos[0]).write_bytes(photo_bytes(5))


def touch(folder):
    os.utime(folder.image(folder.photos[0]), (0, 0))


def rename(folder):
    path = folder.image(folder.photos[0])
    path.rename(path.with_stem("other"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit_annotation, "reid_raw.json has changed"),
        (remove_two, "2 images removed, 22 are there"),
        (replace, "image files replaced or changed (24 of the same names)"),
        (touch, "image files replaced or changed (24 of the same names)"),
        (rename, "images renamed or replaced by others (24 as before)"),
    ],
)
def test_each_change_of_a_folder_is_seen_and_told(folder, change, said):
    before = state(folder)
    assert build.fingerprint_changes(before, state(folder)) == []
    change(folder)
    after = json.loads(json.dumps(state(folder)))
    assert before != after
    assert build.fingerprint_changes(before, after) == [f"config.build.folders.real: {said}"]


def test_other_files_of_the_folder_do_not_matter(folder):
    before = state(folder)
    (folder.path / "runs").mkdir()
    (folder.path / "runs" / "0.png").write_bytes(photo_bytes(1))
    (folder.images / "Thumbs.db").write_text("x")
    assert state(folder) == before


def test_a_fingerprint_of_before_images_were_looked_at_differs(folder):
    old = {"real": {"reid_raw.json": [1, 2.0]}}
    told = build.fingerprint_changes(old, state(folder))
    assert "config.build.folders.real: its images were not recorded before" in told


def test_images_that_were_put_back_are_built_by_a_rerun(folder, tmp_path, capsys):
    photo = folder.photos[0]
    away = pathlib.Path(folder.image(photo).rename(tmp_path / "away"))
    config = stages.default_config()
    config.stages = ("build",)
    config.build.folders = {"real": str(folder.path)}
    config.build.processes = 1
    made = pipeline.run(config, tmp_path / "run")["stages"]["build"]
    assert (made["records_out"], made["rejected"]) == (23, 1)
    away.rename(folder.image(photo))
    changed = "config.build.folders.real: 1 images added, 24 are there"
    with pytest.raises(UserError, match=changed):
        pipeline.run(config, tmp_path / "run")
    made = pipeline.run(config, tmp_path / "run", rerun=True)["stages"]["build"]
    assert (made["records_out"], made["rejected"]) == (24, 0)
    assert f"build: run again: {changed}" in capsys.readouterr().err
    pipeline.run(config, tmp_path / "run", rerun=True)
    assert "build: already done, skipped" in capsys.readouterr().err
