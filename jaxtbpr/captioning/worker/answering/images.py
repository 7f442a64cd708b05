"""Images of requests."""

import pathlib

from PIL import Image

UNREADABLE = (OSError, SyntaxError, ValueError)  # what Pillow raises


def open_image(folder: pathlib.Path, path: str) -> Image.Image:
    """Returns an image in RGB; path: from `folder`. Raises UNREADABLE."""
    with Image.open(folder / path) as image:
        return image.convert("RGB")
