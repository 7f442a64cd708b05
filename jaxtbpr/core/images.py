"""Images: the one place where image files are read, checked and decoded.

An image that cannot be used raises `ImageError`, with the same words wherever they are shown.
Deep colour, palettes, CMYK and transparency become 8-bit RGB, and a photograph is turned upright by
its EXIF orientation, as viewers show it.
"""

import contextlib
import dataclasses
import errno
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from etils import epath
from PIL import Image

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError

T = TypeVar("T")

# What `traits_of` reports of an image.
TURNED, DEEP, BLANK, TRANSPARENT = "turned", "deep", "blank", "transparent"

_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF
_UPRIGHT = 1
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
# Modes that Pillow turns into RGB by way of another one only.
_BETWEEN = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
_DEEP_COLOUR = re.compile(r";16[BLN]\b")  # in the decoder's name for the pixels of a file


# No file, or none that may be read; other faults are of the disk.
_NO_FILE = {
    FileNotFoundError: errno.ENOENT,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
}
_NOT_READ = {*_NO_FILE.values(), errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP}


class ImageError(InputError):
    """An image that cannot be used.

    sentence: why, "the image ..."; path: of its file, "" where only its bytes were given.
    """

    def __init__(self, sentence: str, path: epath.PathLike = ""):
        super().__init__(sentence, str(path))
        self.sentence, self.path = sentence, str(path)

    def __str__(self) -> str:
        return f"{self.path} {self.reason}" if self.path else self.sentence

    @property
    def reason(self) -> str:
        """The message without its subject: "cannot be decoded (...)"."""
        return self.sentence.removeprefix("the image ")

    @property
    def is_missing(self) -> bool:
        """Whether there is no such file."""
        return self.reason in {_unread(os.strerror(number)) for number in _NO_FILE.values()}


def read(
    path: epath.PathLike,
    sha256: str | None = None,
    *,
    read_bytes: Callable[[epath.PathLike], bytes] | None = None,
) -> bytes:
    """Returns the bytes of an image file; they are not decoded, see `check`.

    sha256: what the file should have. read_bytes: gives the bytes at a path, where images may lie
    inside of other files. Raises ImageError where there is no such file, it may not be read, or it
    is another file; OSError where the disk fails.
    """
    try:
        data = (read_bytes or files.read_bytes)(path)
    except OSError as error:
        number = _NO_FILE.get(type(error), error.errno)
        if number not in _NOT_READ:
            raise
        raise unread(os.strerror(number), path) from error
    except ValueError as error:  # a path that no file can have, as one with a null byte
        raise unread(str(error), path) from error
    if sha256 is not None and files.sha256(data) != sha256:
        raise ImageError(
            "the image is not the file that the manifest names (another SHA-256)", path
        )
    return data


def check(
    path: epath.PathLike,
    sha256: str | None = None,
    *,
    read_bytes: Callable[[epath.PathLike], bytes] | None = None,
) -> tuple[bytes, frozenset[str]]:
    """Reads an image file and decodes it in full; returns (its bytes, what `traits_of` reports).

    Arguments and errors are those of `read`; ImageError also where it is not a whole image.
    """
    data = read(path, sha256, read_bytes=read_bytes)
    with at(path):
        return data, traits_of(data)


def open_file(path: epath.PathLike, sha256: str | None = None) -> Image.Image:
    """Reads an image file and decodes it: see `read` and `open_image`."""
    data = read(path, sha256)
    with at(path):
        return open_image(data)


@contextlib.contextmanager
def at(path: epath.PathLike) -> Iterator[None]:
    """Adds to the ImageError of some bytes the path, or place in a set, that they come from."""
    try:
        yield
    except ImageError as error:
        raise ImageError(error.sentence, path) from error


def attempt(reading: Callable[[], T]) -> T | ImageError:
    """Returns what `reading` gives, or the ImageError that it raises."""
    try:
        return reading()
    except ImageError as error:
        return error


def unread(why: str, path: epath.PathLike) -> ImageError:
    """Returns the error of a file that could not be read. why: as the operating system says."""
    return ImageError(f"the image {_unread(why)}", path)


def format_of(data: bytes) -> str:
    """Returns how a good image is encoded, by Pillow's name: "PNG", "JPEG", ..."""
    with Image.open(io.BytesIO(data)) as image:
        return cast(str, image.format)  # None only of an image that was made in memory


def open_image(data: bytes) -> Image.Image:
    """Decodes `data` to an upright RGB image: alpha is dropped, of several frames one is read.

    data: an encoded image in any format that Pillow knows. Grey of 16 bits is divided by 257. Of
    floating-point numbers those from 0 to 1 are taken for fractions of white, those from 0 to 255
    for levels; other floats and 32-bit integers have no known white level. Raises ImageError for
    these, and for bytes that are no image or a truncated one.
    """
    return _rgb(_decode(data))


def traits_of(data: bytes) -> frozenset[str]:
    """Returns what is special about an encoded image; it is decoded in full. Raises ImageError.

    TURNED: EXIF says that it must be turned; DEEP: it has more than 8 bits per channel; BLANK: all
    its pixels have one colour; TRANSPARENT: some of them are not opaque.
    """
    one = _decode(data)
    is_transparent, rgb = _is_transparent(one.image), _rgb(one)
    top = rgb.crop((0, 0, rgb.width, 1))  # enough for most images, and fast
    is_blank = all(low == high for part in (top, rgb) for low, high in _extrema(part))
    traits = {TRANSPARENT: is_transparent, BLANK: is_blank}
    return one.traits | {name for name, is_so in traits.items() if is_so}


def plain(data: bytes, *, turn: bool = True) -> bytes:
    """Returns the image as any program shows it: PNG of 8 bits if it was turned or deep.

    Other images are returned as they are. turn: False leaves the pixels as they are stored, without
    the EXIF that would turn them. Raises ImageError.
    """
    one = _decode(data)
    rgb = _rgb(one, turn=turn)
    if not one.traits:
        return data
    out = io.BytesIO()
    rgb.save(out, "PNG")
    return out.getvalue()


def _unread(why: str) -> str:
    return f"cannot be read ({why})"


@dataclasses.dataclass(frozen=True)
class _Decoded:
    """An image as Pillow decodes it.

    upright: the turn that EXIF asks for; is_upright: whether Pillow has turned it, as it does TIFF.
    """

    image: Image.Image
    upright: Image.Transpose | None
    is_upright: bool
    is_deep: bool

    @property
    def traits(self) -> frozenset[str]:
        traits = {TURNED: self.upright is not None, DEEP: self.is_deep}
        return frozenset(name for name, is_so in traits.items() if is_so)


def _rgb(one: _Decoded, *, turn: bool = True) -> Image.Image:
    is_grey = one.image.mode[0] in "IF"
    rgb = _grey(one.image).convert("RGB") if is_grey else _convert(one.image)
    if one.upright is None or turn == one.is_upright:
        return rgb
    return rgb.transpose(one.upright if turn else _BACK.get(one.upright, one.upright))


def _decode(data: bytes) -> _Decoded:
    try:
        image = Image.open(io.BytesIO(data))
        # 16-bit colours become 8 bits while they are decoded; only the tile's name says so.
        is_deep = image.mode[0] in "IF" or any(_DEEP_COLOUR.search(str(t)) for t in image.tile)
        if image.format != "TIFF":
            image.load()  # not left to `_turn`, for which a PNG is decoded, faults and all
        upright = _turn(image)
        image.load()  # turns a TIFF
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"the image is not in a known image format ({len(data)} bytes)") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image is too large ({error})") from error
    # What Pillow's decoders raise for bytes that make no sense to them.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        raise ImageError(f"the image cannot be decoded ({error})") from error
    return _Decoded(image, upright, upright is not None and _turn(image) is None, is_deep)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How EXIF says that the image must be turned; None for upright, or EXIF that is broken."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, _UPRIGHT))
    except Exception:  # whatever a broken block makes the parser raise; the pixels are sound
        return None


def _convert(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    image.info.pop("transparency", None)  # Pillow warns of it, though the alpha is dropped
    try:
        if image.mode in _BETWEEN:
            image = image.convert(_BETWEEN[image.mode])
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(
            f"the image has Pillow's mode {image.mode}, which cannot be read; save it as RGB"
        ) from error


def _is_transparent(image: Image.Image) -> bool:
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        image = image.convert("RGBA")
    if image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return False
    [(lowest, _)] = _extrema(image.getchannel(image.getbands()[-1]))
    return lowest < 255


def _extrema(image: Image.Image) -> Sequence[tuple[float, float]]:
    """(lowest, highest) of each channel; of a single one Pillow gives the pair alone."""
    extrema: Any = image.getextrema()
    return extrema if len(image.getbands()) > 1 else [extrema]


def _grey(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits or of floating-point numbers as 8 bits."""
    values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})
    values = values * (255 / _white(image, values, tags))
    if tags.get(_PHOTOMETRIC) == 0:  # of such depth Pillow leaves white at 0
        values = 255 - values
    return Image.fromarray(np.floor(values + 0.5).astype(np.uint8))


def _white(image: Image.Image, values: np.ndarray, tags) -> float:
    if image.mode.startswith("I;16"):
        return 2.0 ** tags.get(_BITS, (16,))[0] - 1
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # Pillow scales these to 16 bits
        return 65535.0
    low, high = float(values.min()), float(values.max())
    if image.mode == "I":
        raise ImageError(
            f"the image has integers from {low:g} to {high:g}, whose white level is not known; "
            "save it with 8 bits or unsigned 16 bits"
        )
    if not (low >= 0 and high <= 255):  # False for what is not a number, too
        raise ImageError(
            f"the image has floating-point numbers from {low:g} to {high:g}, whose white "
            "level is not known; save them from 0 to 1 or from 0 to 255"
        )
    return 1.0 if high <= 1 else 255.0
