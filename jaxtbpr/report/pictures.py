"""Pictures inside the page: small copies as data URIs, and a placeholder for a missing one."""

import base64
import dataclasses
import io
from collections.abc import Callable

from etils import epath

from jaxtbpr.core.images import open_image

MAX_HEIGHT = 192  # pixels; shown at 128, so that it is sharp on a dense screen
QUALITY = 88


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image of the page.

    source: a data URI, or "" where the image could not be read. alt: what it shows, for those who
    do not see it.
    """

    source: str
    alt: str


def picture(read: Callable[[], bytes], alt: str) -> Picture:
    """Returns the picture of the encoded image that `read` gives; never fails on a bad image.

    `read` may raise OSError, KeyError or IndexError where there is no such image.
    """
    try:
        return Picture(thumbnail(read()), alt)
    except (OSError, ValueError, SyntaxError, LookupError):
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
    return picture(lambda: (root / path).read_bytes() if path else b"", alt)
