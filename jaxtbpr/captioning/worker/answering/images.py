"""Images of requests."""

import pathlib

from PIL import Image, ImageOps

# What Pillow raises; the last one for images of very many pixels.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def open_image(folder: pathlib.Path, path: str) -> Image.Image:
    """Returns an upright image in RGB; path: from `folder`. Raises UNREADABLE.

    Images of more than 8 bits, of which Pillow alone would make white or black ones, are refused:
    what the program sends has 8 (`core.images.plain`).
    """
    with Image.open(folder / path) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"its pixels have more than 8 bits ({image.mode}); save it with 8")
        return ImageOps.exif_transpose(image).convert("RGB")
