"""Images in the forms that people have, as 8-bit RGB, upright."""

import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxtbpr.core import images

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (6, 5)).astype(np.uint16)
COLOURS = RNG.integers(0, 256, (6, 4, 3), np.uint8)
ORIENTATION = 0x0112
# The same photograph, kept with any orientation; JPEG would not give the pixels back.
LOSSLESS = [
    ("PNG", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]


def encode(pixels, kind="PNG", **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data) -> np.ndarray:
    image = images.open_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_keeps_its_levels(kind):
    data = encode(DEEP, kind)
    assert (opened(data) == np.round(DEEP / 257)[..., None]).all()
    assert images.traits_of(data) == {images.DEEP}


def test_grey_of_16_bits_in_the_other_byte_order_and_with_white_at_0_is_read():
    image = Image.frombytes("I;16B", (5, 6), DEEP.astype(">u2").tobytes())
    assert (opened(encode(image, "TIFF")) == np.round(DEEP / 257)[..., None]).all()
    data = encode(DEEP, "TIFF", tiffinfo={262: 0})
    assert Image.open(io.BytesIO(data)).tag_v2[262] == 0
    assert (opened(data) == np.round((65535 - DEEP.astype(int)) / 257)[..., None]).all()


@pytest.mark.parametrize("white", [1, 255])
def test_floating_point_grey_is_of_shares_or_of_levels(white):
    values = (DEEP / 65535).astype(np.float32)
    found = opened(encode(values * white, "TIFF"))
    assert (found == np.floor(values * 255 + 0.5)[..., None]).all()


@pytest.mark.parametrize(("low", "high"), [(-1, 0), (0, 1000), (0, np.nan), (0, np.inf)])
def test_floating_point_grey_without_a_known_white_is_refused(low, high):
    values = np.array([[low, high], [0, 1]], np.float32)
    with pytest.raises(images.ImageError, match="level is not known; save them from 0 to 1 or"):
        images.open_image(encode(values, "TIFF"))


def test_whole_numbers_of_32_bits_are_refused():
    with pytest.raises(images.ImageError, match=r"from \d+ to \d+, whose white level is not known"):
        images.open_image(encode(DEEP.astype(np.int32), "TIFF"))


ANY = [(mode, kind) for mode in ("1", "L", "LA", "P", "RGBA") for kind in ("PNG", "TIFF")]


@pytest.mark.parametrize(
    ("mode", "kind"), [*ANY, ("PA", "TIFF"), ("CMYK", "TIFF"), ("LAB", "TIFF")]
)
def test_other_colours_become_what_they_show(mode, kind):
    image = Image.fromarray(COLOURS).convert(mode)
    between = image.convert("RGBA") if mode == "PA" else image
    expected = COLOURS if mode == "LAB" else np.asarray(between.convert("RGB"))
    found = opened(encode(image, kind)).astype(int)
    assert np.abs(found - expected).max() <= (16 if mode == "LAB" else 0)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_kind_of_pixel_becomes_rgb_without_a_warning(mode):
    image = Image.new(mode, (7, 9))
    options = {"transparency": bytes([0, 9])} if mode == "P" else {}
    data = encode(image, "TIFF" if mode == "CMYK" else "PNG", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = images.open_image(data)
    assert (opened.mode, opened.size) == ("RGB", (7, 9))


def test_alpha_is_dropped_without_compositing():
    image = Image.new("RGBA", (2, 2), (10, 200, 30, 0))
    assert images.open_image(encode(image)).getpixel((0, 0)) == (10, 200, 30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_truncated_image_is_told(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(pixels), kind)
    images.open_image(data)
    with pytest.raises(images.ImageError, match="cannot be decoded|not in a known image format"):
        images.open_image(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"this is no image", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_no_image_are_told_in_the_same_words_each_time(data):
    told = set()
    for _ in range(2):
        with pytest.raises(images.ImageError, match="not in a known image format|cannot") as raised:
            images.open_image(data)
        told.add(str(raised.value))
    assert len(told) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), *LOSSLESS])
def test_a_photograph_is_turned_as_viewers_turn_it(kind, options, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(COLOURS, kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(opened(data), np.asarray(expected))
    assert images.traits_of(data) == ({images.TURNED} if orientation > 1 else set())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_a_plain_image_is_the_same_to_every_program(kind, options, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(COLOURS, kind, exif=exif, **options)
    np.testing.assert_array_equal(opened(images.plain(data)), opened(data))
    stored = images.plain(data, turn=False)
    np.testing.assert_array_equal(opened(stored), COLOURS)
    assert Image.open(io.BytesIO(stored)).getexif().get(ORIENTATION, 1) == 1
    assert (images.plain(data) == data) == (orientation == 1)


def test_broken_exif_leaves_the_image_as_it_is():
    data = encode(COLOURS, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(opened(data), COLOURS)


def test_a_png_whose_pixels_were_changed_is_refused():
    data = bytearray(encode(RNG.integers(0, 256, (32, 32, 3), np.uint8), "PNG"))
    data[len(data) // 2] ^= 255  # of the compressed pixels, whose checksums then do not fit
    with pytest.raises(images.ImageError, match="the image cannot be decoded"):
        images.open_image(bytes(data))


@pytest.mark.parametrize("path", ["", "a/b.png"])
def test_the_error_names_the_file_and_goes_through_process_pools(path):
    error = pickle.loads(pickle.dumps(images.ImageError("the image is torn", path)))
    assert (error.sentence, error.reason, error.path) == ("the image is torn", "is torn", path)
    assert str(error) == ("a/b.png is torn" if path else "the image is torn")


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """Returns uint16 [H, W, 3] as a PNG, which Pillow reads but does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    sums = (struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
    chunks = (struct.pack(">I", len(d)) + k + d + s for (k, d), s in zip(parts, sums, strict=True))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_colours_of_16_bits_keep_their_upper_8_and_are_told():
    pixels = RNG.integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    data = png_of_16_bits(pixels)
    np.testing.assert_array_equal(opened(data), pixels >> 8)
    assert images.traits_of(data) == {images.DEEP}
    assert Image.open(io.BytesIO(images.plain(data))).tile[0].args == "RGB"


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "PA"])
@pytest.mark.parametrize("lowest", [0, 254, 255])
def test_an_image_with_transparent_parts_is_told(mode, lowest):
    alpha = Image.new("L", (4, 6), 255)
    alpha.putpixel((1, 2), lowest)
    image = Image.fromarray(COLOURS)
    if mode == "P":  # a palette has the alpha of its colours
        image = image.convert("P", palette=Image.Palette.ADAPTIVE)
        options = {"transparency": bytes([lowest] * 256)}
    else:
        image = image.convert(mode)
        image.putalpha(alpha)
        options = {}
    found = images.traits_of(encode(image, "TIFF" if mode == "PA" else "PNG", **options))
    assert found == ({images.TRANSPARENT} if lowest < 255 else set())


def test_an_image_of_one_colour_is_told():
    assert images.traits_of(encode(np.full((4, 3, 3), 7, np.uint8), "JPEG")) == {images.BLANK}
    nearly = np.full((4, 3, 3), 7, np.uint8)
    nearly[3, 1, 2] = 8
    assert not images.traits_of(encode(nearly, "PNG"))
    assert images.traits_of(encode(np.zeros((4, 3), np.uint16), "PNG")) == {
        images.BLANK,
        images.DEEP,
    }
