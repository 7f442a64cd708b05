"""Images of requests."""

import pathlib

from PIL import Image, ImageOps

UNREADABLE = (OSError, SyntaxError, ValueError)  # what Pillow raises


def open_image(folder: pathlib.Path, path: str) -> Image.Image:
    """Returns an upright image in RGB; path: from `folder`. Raises UNREADABLE.

    What the program sends is of 8 bits (`core.pictures.plain`).
    """
    with Image.open(folder / path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")
