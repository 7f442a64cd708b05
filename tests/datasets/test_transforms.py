"""Image preprocessing and caption cleaning against the reference, and the random changes."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxtbpr.core import images, options, tokenizer
from jaxtbpr.datasets import transforms
from tests.datasets.sets import photo_bytes

AUGMENT = options.default_config(transforms.AUGMENT_OPTIONS).to_dict()
OFF = AUGMENT | {"flip": 0, "crop": 0, "jitter": 0, "erase": 0}


@pytest.fixture
def photo() -> Image.Image:
    return images.open_image(photo_bytes(3))


@pytest.mark.parametrize("size", [(224, 224), (384, 128)])
def test_images_are_resized_as_the_reference_does_byte_for_byte(reference, size):
    arrays = np.load(reference / "image_preprocess.npz")
    for name, expected in zip(arrays["files"], arrays[f"u8_{size[0]}x{size[1]}"], strict=True):
        data = (reference / str(name)).read_bytes()
        np.testing.assert_array_equal(transforms.decode_image(data, size), expected)


def test_the_bilinear_filter_is_another_one():
    data = photo_bytes(0)
    by_filter = [transforms.decode_image(data, (40, 30), name) for name in transforms.FILTERS]
    assert by_filter[0].shape == (40, 30, 3)
    assert (by_filter[0] != by_filter[1]).any()


@pytest.mark.parametrize("max_words", [77, 50])
def test_captions_are_cleaned_as_the_reference_does(reference, max_words):
    rows = json.loads((reference / "text.json").read_text())
    assert len(rows) == 150
    for row in rows:
        cleaned = tokenizer.clean_caption(row["caption"], max_words)
        assert cleaned == row[f"pre_caption_{max_words}"], row["index"]


def test_no_augmentation_is_the_evaluation_transform(photo):
    got = transforms.augment_image(photo, (40, 30), np.random.default_rng(0), OFF)
    np.testing.assert_array_equal(got, transforms.decode_image(photo_bytes(3), (40, 30)))


def test_default_options_of_no_augmentation_switch_everything_off(photo):
    got = transforms.augment_image(photo, (32, 16), np.random.default_rng(0), transforms.NO_AUGMENT)
    np.testing.assert_array_equal(got, np.asarray(photo))


def test_a_flip_mirrors_left_and_right(photo):
    got = transforms.augment_image(photo, (32, 16), np.random.default_rng(0), OFF | {"flip": 1})
    np.testing.assert_array_equal(got, np.asarray(photo)[:, ::-1])


def test_jitter_stays_within_its_strength(photo):
    options = OFF | {"jitter": 1, "jitter_strength": 0.1}
    before = np.asarray(photo).astype(int)
    changed = 0
    for seed in range(50):
        got = transforms.augment_image(photo, (32, 16), np.random.default_rng(seed), options)
        # 255 * 1.1 = 280.5, and (280.5 - 128) * 1.1 + 128 - 255 is the largest change there is.
        assert np.abs(got.astype(int) - before).max() <= 41
        changed += (got != before).any()
    assert changed > 45


def test_erasing_covers_one_rectangle_of_at_most_its_share(photo):
    options = OFF | {"erase": 1, "erase_area": 0.2}
    covered = []
    for seed in range(100):
        got = transforms.augment_image(photo, (32, 16), np.random.default_rng(seed), options)
        rows, columns = np.nonzero((got != np.asarray(photo)).any(-1))
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert area >= len(rows) > 0.9 * area - 1  # noise may equal the picture here and there
        covered.append(area / (32 * 16))
    assert 0.19 < max(covered) < 0.22
    assert min(covered) < 0.05


@pytest.mark.parametrize("least", [0.3, 0.8, 1.0])
def test_a_crop_keeps_its_share_of_the_image(least):
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(300):
        left, upper, right, lower = transforms._crop_box((60, 120), rng.random(4), least)
        assert 0 <= left < right <= 60
        assert 0 <= upper < lower <= 120
        areas.append((right - left) * (lower - upper) / 7200)
        assert 0.85 < (right - left) / (lower - upper) * 2 < 1.15
    assert min(areas) > 0.9 * least
    assert min(areas) < least + 0.1


def test_a_crop_is_a_part_of_the_image_made_larger():
    gradient = np.zeros((64, 32, 3), np.uint8)
    gradient[..., 0] = np.arange(64)[:, None] * 4
    image = Image.fromarray(gradient)
    options = OFF | {"crop": 1, "crop_area": 0.5}
    got = transforms.augment_image(image, (64, 32), np.random.default_rng(1), options)
    column = got[:, 0, 0].astype(int)
    assert (np.diff(column) >= 0).all()
    assert np.ptp(column) < np.ptp(gradient[..., 0])


def test_each_change_happens_with_its_probability(photo):
    shares = dict.fromkeys(("flip", "crop", "jitter", "erase"), 0)
    for name in shares:
        options = OFF | {name: 0.3}
        for seed in range(300):
            got = transforms.augment_image(photo, (32, 16), np.random.default_rng(seed), options)
            shares[name] += (got != np.asarray(photo)).any() / 300
    assert all(0.2 < share < 0.4 for share in shares.values()), shares


def test_the_same_generator_gives_the_same_picture(photo):
    everything = AUGMENT | {"flip": 1, "crop": 1, "jitter": 1, "erase": 1}
    pictures = [
        transforms.augment_image(photo, (48, 24), np.random.default_rng(seed), everything)
        for seed in (5, 5, 6)
    ]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


def test_the_published_changes_are_two_of_six_and_seeded(photo):
    options = transforms.NO_AUGMENT | {"policy": "two_of_six"}

    def view(seed):
        return transforms.augment_image(photo, (64, 32), np.random.default_rng(seed), options)

    views = [view(seed) for seed in range(300)]
    assert {(x.shape, x.dtype.name) for x in views} == {((64, 32, 3), "uint8")}
    np.testing.assert_array_equal(views[3], view(3))
    plain = np.asarray(photo.resize((32, 64), transforms.FILTERS["bilinear"]))
    unchanged = np.mean([(x == plain).all() for x in views])
    mirrored = np.mean([(x == plain[:, ::-1]).all() for x in views])
    # Of two changes, each grey (0.9 of the time), mirror (0.5) or erasing (0.5) may do nothing.
    assert 0.04 < unchanged < 0.19
    assert 0.02 < mirrored < 0.18
    erased = [x for x in views if 0.08 < (x == 0).all(axis=2).mean() < 0.25]
    assert 20 < len(erased) < 120


def test_a_strong_view_differs_each_time_and_follows_its_generator(photo):
    views = [transforms.strong_view(photo, (32, 16), np.random.default_rng(n)) for n in range(60)]
    assert {x.shape for x in views} == {(32, 16, 3)}
    assert len({x.tobytes() for x in views}) == 60
    again = transforms.strong_view(photo, (32, 16), np.random.default_rng(7))
    np.testing.assert_array_equal(views[7], again)
    grey = np.mean([(np.ptp(x.astype(int), axis=2) <= 1).all() for x in views])
    assert 0.05 < grey < 0.4
