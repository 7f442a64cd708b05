"""Images of requests.

A worker imports nothing of the program. What this takes and refuses, and the pixels that it gives,
are those of `core.images`, but for images of more than 8 bits, of which the program sends plain
copies (`core.images.plain`); a change there is made here, too. A refusal has Pillow's own words.
"""

import contextlib
import pathlib

from PIL import Image, ImageOps

# What Pillow's decoders raise; the last one for images of very many pixels.
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, Image.DecompressionBombError,
)  # fmt: skip


def open_image(folder: pathlib.Path, path: str) -> Image.Image:
    """Returns an upright image in RGB; path: from `folder`. Raises UNREADABLE.

    Images of more than 8 bits, of which Pillow alone would make white or black ones, are refused.
    """
    with Image.open(folder / path) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"its pixels have more than 8 bits ({image.mode}); save it with 8")
        image.load()
        with contextlib.suppress(Exception):  # of a broken EXIF block; the pixels are sound
            image = ImageOps.exif_transpose(image)
        return image.convert("RGB")
