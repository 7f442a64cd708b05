"""Image files of a stage: drawing, writing and reading them by their record."""

import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from jaxtbpr.core import files, images
from jaxtbpr.core.manifest import Record
from jaxtbpr.core.record import require
from jaxtbpr.render import png, render

Scenes = Callable[[Record], list[Record]]  # a record -> those of its edits, without images


@dataclasses.dataclass(frozen=True)
class Job:
    """One output record of a stage.

    is_made: whether its image is to be generated; else the record is passed on as it is. source:
    uint8 [H, W, 3], the image to edit; None: text-to-image. prompt: what the model is told, "" for
    the record's prompt. told: what the record's `generation` tells of this image alone.
    """

    record: Record
    is_made: bool = True
    source: np.ndarray | None = None
    prompt: str = ""
    told: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RenderEngine:
    """Draws the attributes of records as vector graphics (see `jaxtbpr.render`).

    root: the workdir; stage: the stage that the images belong to; seed: of small variations (exact
    limb angles, background layout); height, width: in pixels.
    """

    root: str
    stage: str
    seed: int
    height: int
    width: int

    def __call__(self, record: Record) -> Record:
        """Draws and writes the image of `record`; returns the record with its `image`."""
        require(record, "attributes", f"stage {self.stage!r} with engine 'render'")
        pixels = render(
            record["attributes"],
            seed=self.seed,
            record_id=record["id"],
            height=self.height,
            width=self.width,
        )
        image = write_image(self.root, self.stage, record, pixels)
        return record | {"source": "render", "edits": record.get("edits", []), "image": image}


def write_image(
    root: epath.PathLike, stage: str, record: Record, pixels: np.ndarray, quality: int = 0
) -> dict[str, str | int]:
    """Writes `pixels` (uint8 [H, W, 3]) to the folder of `stage`; returns a record's `image`.

    quality: of a JPEG, 1 to 100; 0: PNG, which is lossless.
    """
    ending = "jpg" if quality else "png"
    path = f"{stage}/images/{record['identity'][:-3]}/{record['id']}.{ending}"
    data = _jpeg(pixels, quality) if quality else png.encode(pixels)
    target = epath.Path(root) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes_atomic(target, data)
    height, width, _ = pixels.shape
    return {"path": path, "sha256": files.sha256(data), "height": height, "width": width}


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    data = io.BytesIO()
    # Without chroma subsampling: captions are about colours.
    Image.fromarray(pixels).save(data, "JPEG", quality=quality, subsampling=0)
    return data.getvalue()


def read_image(root: epath.PathLike, record: Record) -> np.ndarray:
    """Reads a record's image, uint8 [H, W, 3].

    Raises ImageError where it is missing, not an image, or not the file that its stage wrote;
    OSError where the disk fails.
    """
    image = record["image"]
    return np.asarray(images.open_file(epath.Path(root) / image["path"], image["sha256"]))


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns an image, uint8 [H, W, 3], in another size (height, width)."""
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def unreadable(error: images.ImageError) -> str:
    """Returns the message that follows the name of an unreadable image."""
    text = "cannot be read"
    return error.reason if error.reason.startswith(text) else f"{text}: {error.sentence}"
