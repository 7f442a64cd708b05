"""Person images as files of a stage: drawn, written once, and named by their record."""

import dataclasses
import io

import numpy as np
from etils import epath
from PIL import Image

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import Record
from jaxtbpr.synthesis.render import png, render


@dataclasses.dataclass(frozen=True)
class RenderEngine:
    """Draws the attributes of records as vector graphics (see `jaxtbpr.synthesis.render`).

    root: the workdir; stage: the stage that owns the images; seed: of the small accidents of a
    picture (exact limb angles, background layout); height, width: in pixels.
    """

    root: str
    stage: str
    seed: int
    height: int
    width: int

    def __call__(self, record: Record) -> Record:
        """Draws and writes the image of `record`; returns the record with its `image`."""
        pixels = render(
            record["attributes"],
            seed=self.seed,
            record_id=record["id"],
            height=self.height,
            width=self.width,
        )
        path = f"{self.stage}/images/{record['identity'][:-3]}/{record['id']}.png"
        image = write_image(self.root, path, pixels)
        return record | {"source": "render", "edits": record.get("edits", []), "image": image}


def write_image(root: epath.PathLike, path: str, pixels: np.ndarray) -> dict[str, str | int]:
    """Writes `pixels` (uint8 [H, W, 3]) as PNG to `root/path`; returns a record's `image`."""
    data = png.encode(pixels)
    target = epath.Path(root) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes_atomic(target, data)
    height, width, _ = pixels.shape
    return {"path": path, "sha256": files.sha256(data), "height": height, "width": width}


def require_image(record: Record, stage: str) -> None:
    """Raises UserError where `stage` is given a record that has no image."""
    if "image" not in record:
        raise UserError(
            f"stage {stage!r} needs images, but record {record['id']} has none; add stage "
            "'generate' to config.stages."
        )


def read_image(root: epath.PathLike, record: Record) -> np.ndarray:
    """Reads a record's image, uint8 [H, W, 3].

    Raises OSError where it is missing, is no image, or is not the file that its stage wrote.
    """
    data = (epath.Path(root) / record["image"]["path"]).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGB"))
    if files.sha256(data) != record["image"]["sha256"]:
        raise OSError("it is not the file that its stage wrote (another SHA-256)")
    return pixels
