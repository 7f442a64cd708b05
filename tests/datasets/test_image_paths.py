"""Images are found by the names that people write, and what no name leads to is told."""

import json
import os

import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import build, entry, formats
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import write_image
from tests.datasets.sets import make_config, make_workdir


def write_csv(file, names, identities=None):
    people = identities or range(len(names))
    rows = [f"{name},a caption,{who}" for name, who in zip(names, people, strict=True)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["image,caption,identity", *rows]) + "\n")


def images(folder, *names):
    for seed, name in enumerate(names):
        write_image(folder / name, seed)


def found(folder):
    return [os.path.relpath(one.path, folder) for one in formats.read(folder)]


def test_absolute_names_of_another_machine_stand_beside_relative_ones(tmp_path):
    images(tmp_path, "cam0/a.jpg", "cam0/b.jpg", "cam0/c.jpg")
    names = ["/home/me/set/cam0/a.jpg", "cam0/b.jpg", "/home/me/set/cam0/c.jpg"]
    write_csv(tmp_path / "captions.csv", names)
    assert found(tmp_path) == ["cam0/a.jpg", "cam0/b.jpg", "cam0/c.jpg"]


def test_the_place_of_most_images_is_taken_not_that_of_the_first(tmp_path):
    images(tmp_path, "a.jpg", "cam0/b.jpg", "cam0/c.jpg")
    write_csv(tmp_path / "captions.csv", ["cam0/a.jpg", "cam0/b.jpg", "cam0/c.jpg"])
    assert found(tmp_path) == ["cam0/a.jpg", "cam0/b.jpg", "cam0/c.jpg"]
    assert "images missing: 1 of 3 (cam0/a.jpg)" in survey(tmp_path).problems()[0]


@pytest.mark.parametrize(
    ("table", "place"),
    [("{}.csv", "{}"), ("{}.csv", "images/{}"), ("{}/labels.csv", "{}/images"), ("{}/m.csv", "{}")],
)
@pytest.mark.parametrize("word", ["val", "valid", "Test"])
def test_names_may_start_at_the_folder_of_the_split(tmp_path, table, place, word):
    for split, name in (("train", "a.jpg"), (word, "b.jpg")):
        images(tmp_path / place.format(split), name)
        write_csv(tmp_path / table.format(split), [name])
    assert not survey(tmp_path).images.missing


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        (["train/a.jpg"], "train and similar folders: write train/a.jpg in the annotation"),
        (["imgs.zip"], "imgs.zip was found: unpack it"),
        (["A.JPG"], "A.JPG exists, a.jpg does not"),
    ],
)
def test_images_that_are_missing_are_looked_for(tmp_path, files, hint):
    images(tmp_path, *files)
    write_csv(tmp_path / "captions.csv", ["a.jpg"])
    assert hint in survey(tmp_path).problems()[0]


def test_names_encoded_for_the_web_are_told(tmp_path):
    images(tmp_path, "my photo.jpg")
    write_csv(tmp_path / "captions.csv", ["my%20photo.jpg"])
    assert "my photo.jpg exists, my%20photo.jpg does not" in survey(tmp_path).problems()[0]


def test_an_archive_in_place_of_a_folder_is_to_be_unpacked(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"set\.zip is an archive; unpack it"):
        survey(tmp_path / "set.zip")


@pytest.mark.parametrize("identities", [[5, 5], [5, 6]])
def test_two_names_that_lead_to_one_file_are_told(tmp_path, identities):
    images(tmp_path, "images/0001.jpg")
    write_csv(tmp_path / "captions.csv", ["cam0/0001.jpg", "cam1/0001.jpg"], identities)
    result = survey(tmp_path)
    if identities == [5, 5]:
        assert result.notes.lines() == [f"{entry.SAME_FILE}: 1 (cam0/0001.jpg)."]
    else:
        assert "cam1/0001.jpg names the same file as cam0/0001.jpg" in result.problems()[0]


def test_images_that_no_record_names_are_told_by_validate_and_build(tmp_path, capsys):
    folder = tmp_path / "own"
    images(folder, "imgs/cam0/a.jpg", "imgs/cam0/b.jpg", "imgs/cam1/c.webp", "imgs/cam0/._a.jpg")
    images(folder, "thumbnails/a.jpg")
    (folder / "imgs" / "cam0" / "Thumbs.db").write_text("x")
    write_csv(folder / "captions.csv", ["cam0/a.jpg"])
    told = "image files that no usable record names: 2 (cam0/b.jpg, cam1/c.webp)."
    assert told in survey(folder).warnings()
    build.run(make_config(folders={"own": str(folder)}), make_workdir(tmp_path / "run"))
    assert f"build own: warning: {told}" in capsys.readouterr().err


def test_a_set_whose_images_are_all_named_has_no_such_warning(tmp_path):
    images(tmp_path, "cam0/a.jpg", "cam1/b.jpg")
    write_csv(tmp_path / "captions.csv", ["./cam0/a.jpg", "cam1//b.jpg"])
    assert not any("no usable record" in text for text in survey(tmp_path).warnings())


def test_images_with_rare_endings_are_a_part_of_the_state_of_a_folder(tmp_path):
    image = tmp_path / "a.photo"
    image.write_bytes(b"one")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"image": "a.photo", "caption": "x"}))
    config = make_config(folders={"own": str(tmp_path)})
    before = build.fingerprint(config)
    image.write_bytes(b"another")
    assert build.fingerprint_changes(before, build.fingerprint(config)) == [
        "config.build.folders.own: image files replaced or changed (1 of the same names)"
    ]


def test_a_link_to_itself_is_an_image_that_cannot_be_read(tmp_path):
    folder = tmp_path / "own"
    images(folder, "a.jpg")
    (folder / "b.jpg").symlink_to(folder / "b.jpg")
    write_csv(folder / "captions.csv", ["a.jpg", "b.jpg"])
    assert (
        "b.jpg cannot be read (Too many levels of symbolic links)" in survey(folder).problems()[0]
    )
    config = make_config(folders={"own": str(folder)})
    assert build.fingerprint(config)
    assert build.run(config, make_workdir(tmp_path / "run"))["rejected"] == 1
