"""A text beside each image: img2dataset's files, and folders of generators' trainers."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import build, formats
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import encoded_image
from tests.datasets.sets import make_config, make_workdir
from tests.datasets.test_packed import write_tar


def write(folder, name, seed=0, **texts):
    """Writes an image and files of its name: ending -> what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jpg").write_bytes(encoded_image(seed))
    for ending, text in texts.items():
        (folder / f"{name}.{ending}").write_text(text, encoding="utf-8")
    return folder


def write_img2dataset(folder):
    """What img2dataset 1.47 leaves for three addresses, of which one could not be reached."""
    facts = [
        {"caption": f"a man no. {k}", "url": f"http://a/{k}.jpg", "key": f"00000{k:04d}",
         "status": "failed_to_download" if k == 1 else "success", "width": 12, "pid": 7}
        for k in range(3)
    ]  # fmt: skip
    for k in (0, 2):
        told = json.dumps(facts[k], indent=4)
        write(folder / "00000", facts[k]["key"], k, txt=facts[k]["caption"], json=told)
    columns = {key: [one[key] for one in facts] for key in facts[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "00000.parquet")
    counts = {"count": 3, "successes": 2, "failed_to_download": 1, "failed_to_resize": 0}
    (folder / "00000_stats.json").write_text(json.dumps(counts))
    return folder


def told(folder):
    return [
        (one.extra["image_id"], one.captions, one.identity, one.split)
        for one in formats.read(folder)
    ]


def test_files_of_img2dataset_are_read_and_what_it_did_not_get_is_told(tmp_path):
    assert told(write_img2dataset(tmp_path)) == [
        ("00000/000000000.jpg", ("a man no. 0",), "7", "train"),
        ("00000/000000002.jpg", ("a man no. 2",), "7", "train"),
    ]
    found = survey(tmp_path)
    assert (found.problems(), found.images.missing) == ([], 0)
    assert "img2dataset could not download 1 of 3 images (*_stats.json)." in found.warnings()


def test_its_shards_tell_the_same(tmp_path):
    photo = ("000000000.jpg", encoded_image(0))
    write_tar(tmp_path / "00000.tar", [photo, ("000000000.json", b'{"text": "a man"}')])
    (tmp_path / "00000_stats.json").write_text('{"count": 5, "successes": 1}')
    assert [one.captions for one in formats.read(tmp_path)] == [("a man",)]
    assert (
        "img2dataset could not download 4 of 5 images (*_stats.json)."
        in survey(tmp_path).warnings()
    )


@pytest.mark.parametrize("place", ["{}", "images/{}", "{}/00001"])
def test_texts_in_folders_of_splits_are_read_with_their_split(tmp_path, place):
    for split in ("train", "test"):
        write(tmp_path / place.format(split), "0001", txt=f"someone in {split}")
    found = sorted((captions, split) for _, captions, _, split in told(tmp_path))
    assert found == [(("someone in test",), "test"), (("someone in train",), "train")]
    assert len({name for name, *_ in told(tmp_path)}) == 2
    assert survey(tmp_path).problems() == []


def test_a_json_beside_an_image_tells_person_split_and_captions(tmp_path):
    facts = {"captions": ["a man", "a boy"], "person_id": 3, "split": "test"}
    write(tmp_path, "a.b", json=json.dumps(facts))
    assert told(tmp_path) == [("a.b.jpg", ("a man", "a boy"), "3", "test")]
    assert survey(tmp_path).problems() == []


def test_texts_without_image_are_set_aside_and_images_without_text_are_kept(tmp_path):
    write(tmp_path, "a", txt="a man")
    write(tmp_path, "b")
    (tmp_path / "c.txt").write_text("a lost man")
    (tmp_path / "README.txt").write_text("about this folder")
    problems = [one.problem for one in formats.read(tmp_path) if one.problem]
    assert problems == [f"row 3 of {tmp_path.name} (c.txt) has 0 images where one belongs"]
    assert [captions for name, captions, *_ in told(tmp_path) if name == "b.jpg"] == [()]


def test_boxes_beside_images_are_no_captions(tmp_path):
    write(tmp_path, "a", txt="0 0.5 0.5 0.1 0.2\n", json='{"shapes": [], "imagePath": "a.jpg"}')
    with pytest.raises(InputError, match="is not recognised"):
        formats.detect(tmp_path)


def test_such_a_folder_is_built_and_a_changed_text_makes_it_out_of_date(tmp_path):
    folder = write_img2dataset(tmp_path / "in")
    config = make_config(folders={"own": str(folder)})
    counts = build.run(config, make_workdir(tmp_path / "run"))
    assert (counts["records_out"], counts["rejected"]) == (2, 0)
    before = build.fingerprint(config)
    (folder / "00000" / "000000002.txt").write_text("a man whom I describe anew")
    after = build.fingerprint(config)
    assert build.fingerprint_changes(before, after) == [
        "config.build.folders.own: 00000 has changed"
    ]
