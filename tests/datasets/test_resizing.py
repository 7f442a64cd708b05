"""Images brought to a model's size: the pixels are those of resizing, then cropping or padding."""

import numpy as np
import pytest
from PIL import Image

from jaxtbpr.datasets import transforms
from jaxtbpr.datasets.resizing import FILTERS, MODES, Resize, fit
from tests.datasets.test_transforms import OFF

TALL, WIDE = (64, 128), (101, 60)  # width, height


def picture(size):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))


def in_steps(image, whole, at, size, fill=0, resample="bicubic"):
    """Resizes to `whole` (w, h), then takes size (w, h) from `at`; beyond the image is `fill`."""
    resized = image.resize(whole, FILTERS[resample])
    out = Image.new("RGB", size, (fill,) * 3)
    out.paste(resized, (-at[0], -at[1]))
    return np.asarray(out)


@pytest.mark.parametrize(
    ("image", "size", "resize", "whole", "at"),
    [
        (TALL, (48, 48), Resize("squash"), (48, 48), (0, 0)),
        (TALL, (48, 48), Resize("shortest"), (48, 96), (0, 24)),
        (TALL, (48, 48), Resize("longest"), (24, 48), (-12, 0)),
        (TALL, (48, 48), Resize("longest", fill=7), (24, 48), (-12, 0)),
        (TALL, (48, 48), Resize("squash", larger=1.25), (60, 60), (6, 6)),
        (TALL, (48, 48), Resize("shortest", larger=1.25), (60, 120), (6, 36)),
        (TALL, (48, 48), Resize("shortest", larger=0.5), (24, 48), (-12, 0)),
        # 101 x 60 to 80.8 x 48, of which squares have 80 and others 81.
        (WIDE, (48, 48), Resize("shortest"), (80, 48), (16, 0)),
        (WIDE, (48, 40), Resize("shortest"), (81, 48), (20, 0)),  # 20.5: the even one
        (WIDE, (48, 38), Resize("shortest"), (81, 48), (22, 0)),  # 21.5
        (WIDE, (48, 38), Resize("shortest", half="floor"), (81, 48), (21, 0)),
        (WIDE, (48, 40), Resize("longest"), (40, 24), (0, -12)),
    ],
)
def test_the_middle_of_the_resized_image_is_kept(image, size, resize, whole, at):
    expected = in_steps(picture(image), whole, at, size[::-1], resize.fill)
    found = fit(picture(image), size, "bicubic", resize)
    assert found.size == size[::-1]
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("image", [(1, 300), (300, 1), (7, 7)])
def test_images_of_any_shape_come_to_the_size(mode, image):
    assert fit(picture(image), (40, 24), "bicubic", Resize(mode)).size == (24, 40)


@pytest.mark.parametrize("resize", [Resize("shortest"), Resize("longest"), Resize("squash", 1.25)])
def test_training_and_evaluation_resize_alike(resize):
    image, rng = picture(TALL), np.random.default_rng(0)
    plain = np.asarray(fit(image, (48, 48), "bilinear", resize))
    trained = transforms.augment_image(image, (48, 48), rng, OFF, "bilinear", resize)
    np.testing.assert_array_equal(trained, plain)
    for options in (OFF | {"crop": 1.0}, OFF | {"policy": "two_of_six"}):
        view = transforms.augment_image(image, (48, 48), rng, options, "bilinear", resize)
        assert view.shape == (48, 48, 3)


def test_what_is_padded_stays_black_in_every_view():
    white = Image.new("RGB", TALL, (255,) * 3)
    rng = np.random.default_rng(0)
    views = [
        transforms.augment_image(
            white, (48, 48), rng, OFF | {"crop": 1.0}, "box", Resize("longest")
        ),
        transforms.strong_view(white, (48, 48), rng, "box", Resize("longest")),
    ]
    for view in views:
        assert view[:, :4].max() < 128 < view[:, 24].max()
