"""Images of requests.

A worker imports nothing of the program, so this repeats `core.images`: it accepts the same images
and returns the same pixels, except for more than 8 bits, of which the program sends plain copies
(`core.images.plain`). Change both together. Errors are Pillow's.
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

    Images of more than 8 bits are refused: Pillow would turn them white or black.
    """
    with Image.open(folder / path) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"its pixels have more than 8 bits ({image.mode}); save it with 8")
        image.load()
        with contextlib.suppress(Exception):  # of a broken EXIF block; the pixels are fine
            image = ImageOps.exif_transpose(image)
        return image.convert("RGB")
