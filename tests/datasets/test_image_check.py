import pytest

from jaxtbpr.core import images
from jaxtbpr.datasets import image_check
from jaxtbpr.datasets.entry import Entry
from jaxtbpr.datasets.image_paths import ImagePaths
from tests.datasets.folders import (
    FAULTS,
    FOLDER,
    MISSING,
    TRUNCATED,
    blank_bytes,
    deep_bytes,
    transparent_bytes,
    turned_bytes,
    write_image,
)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_images_are_told(tmp_path, suffix, fault):
    path = tmp_path / f"a{suffix}"
    write_image(path, 0, fault)
    found = image_check.examine(path).fault
    assert found.reason.startswith(FAULTS[fault])
    assert found.is_missing == (fault in (MISSING, FOLDER))
    assert "0x" not in found.reason  # the same words on every run


def test_without_decoding_only_missing_images_are_told(tmp_path):
    write_image(tmp_path / "a.jpg", 0, TRUNCATED)
    assert image_check.examine(tmp_path / "a.jpg", decode=False).fault is None
    assert image_check.examine(tmp_path / "b.jpg", decode=False).fault.is_missing


def test_faults_come_in_the_order_of_the_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(image_check, "BATCH", 4)
    entries = []
    for k in range(11):
        write_image(tmp_path / f"{k}.jpg", k, MISSING if k % 3 == 0 else "")
        entries.append(Entry(str(tmp_path / f"{k}.jpg"), ("x",), str(k), "train"))
    found = list(image_check.examine_all(entries))
    assert [entry for entry, _ in found] == entries
    assert [bool(image.fault) for _, image in found] == [k % 3 == 0 for k in range(11)]


@pytest.mark.parametrize(
    ("data", "trait"),
    [
        (turned_bytes(0), images.TURNED),
        (deep_bytes(0), images.DEEP),
        (blank_bytes(), images.BLANK),
        (transparent_bytes(0), images.TRANSPARENT),
    ],
)
def test_what_is_special_about_a_good_image_is_told_where_it_is_decoded(tmp_path, data, trait):
    (tmp_path / "a.png").write_bytes(data)
    assert image_check.examine(tmp_path / "a.png") == image_check.ImageResult(
        None, frozenset({trait})
    )
    assert trait in image_check.NOTES
    assert not image_check.examine(tmp_path / "a.png", decode=False).traits


def hint(folder, names, *roots):
    paths = ImagePaths(folder, roots or ("imgs",))
    paths.settle(names)
    return image_check.where_missing_images_are(paths, names)


def test_images_in_a_folder_of_another_name_are_found(tmp_path):
    write_image(tmp_path / "img" / "cam_a" / "1.jpg", 0)
    text = hint(tmp_path, ["cam_a/1.jpg"])
    assert text.startswith(f"imgs/ does not exist, but images are in {tmp_path / 'img'}: rename it")


def test_images_one_level_too_deep_are_found(tmp_path):
    write_image(tmp_path / "imgs" / "imgs" / "1.jpg", 0)
    text = hint(tmp_path, ["1.jpg"])
    assert text.startswith(f"they are in {tmp_path / 'imgs' / 'imgs'}, not in {tmp_path / 'imgs'}")


@pytest.mark.parametrize("other", ["1.JPG", "1.png", "1.jpeg"])
def test_images_of_another_ending_are_found(tmp_path, other):
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / other).touch()
    assert hint(tmp_path, ["1.jpg"]) == f"{other} exists, 1.jpg does not: names must match exactly."


def test_another_unicode_form_of_a_name_is_found(tmp_path):
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "Zoe\u0308.jpg").touch()
    assert hint(tmp_path, ["Zo\u00eb.jpg"]).startswith("Zoe\u0308.jpg exists")


def test_an_image_folder_that_is_nowhere_is_told(tmp_path):
    told = f"the folder {tmp_path / 'imgs'} does not exist: unpack the images into it."
    assert hint(tmp_path, ["1.jpg"]) == told


def test_no_hint_is_given_without_a_trace(tmp_path):
    (tmp_path / "imgs").mkdir()
    assert hint(tmp_path, ["1.jpg"]) == ""


def test_no_hint_points_into_the_folder_of_another_set(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jpg").touch()
    paths = ImagePaths(tmp_path / "mine", ["imgs"])
    assert "other" not in image_check.where_missing_images_are(paths, ["a.jpg"])
