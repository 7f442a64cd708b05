"""Pictures inside the page: small copies as data URIs, and a placeholder for a missing one."""

import base64
import dataclasses
import io
from collections.abc import Callable

from etils import epath

from jaxtbpr.core.images import ImageError, open_image, read

MAX_HEIGHT = 192  # pixels; shown at 128, so that it is sharp on a dense screen
QUALITY = 88


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image of the page.

    source: a data URI, or "" where the image could not be read. alt: alternative text.
    """

    source: str
    alt: str


def picture(reading: Callable[[], bytes], alt: str) -> Picture:
    """Returns the picture of the encoded image that `reading` returns; a bad image is no error.

    `reading` may raise ImageError, or OSError and ValueError where the set of the image is gone or
    damaged; `alt` then says so.
    """
    try:
        return Picture(thumbnail(reading()), alt)
    except ImageError as error:
        return Picture("", f"{alt} ({error.sentence})")
    except (OSError, ValueError):
        return Picture("", f"{alt} (the image could not be read)")


def thumbnail(data: bytes) -> str:
    """Returns a JPEG of at most `MAX_HEIGHT` pixels in height as a data URI.

    data: an encoded image. Raises core.images.ImageError where it is none.
    """
    image = open_image(data)
    image.thumbnail((2 * MAX_HEIGHT, MAX_HEIGHT))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def record_picture(root: epath.Path, record: dict, alt: str) -> Picture:
    """Returns the picture of a manifest's record; its image path is relative to `root`."""
    path = (record.get("image") or {}).get("path")
    return picture(lambda: read(root / path) if path else b"", alt)
