"""Images resized to a model's input: without keeping the aspect ratio, or cropped or padded."""

import dataclasses

from PIL import Image

FILTERS = {
    name: Image.Resampling[name.upper()]
    for name in ("bicubic", "bilinear", "lanczos", "hamming", "box", "nearest")
}
MODES = ("squash", "shortest", "longest")  # open_clip's names

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Resize:
    """How an image is brought to a size (H, W).

    mode: "squash", straight to it; "shortest", until it covers it, and its middle is kept;
    "longest", until it lies within it, and what is left is filled.
    larger: the size that it is brought to so, over that which is kept of its middle (256/224).
    fill: the level, of 0..255, where there is no image.
    half: of a middle that is half a pixel off, "even" takes the even pixel, as torchvision does
    and so open_clip, "floor" the one before, as transformers does.
    """

    mode: str = "squash"
    larger: float = 1.0
    fill: int = 0
    half: str = "even"


SQUASH = Resize()


def fit(
    image: Image.Image,
    size: tuple[int, int],
    resample: str = "bicubic",
    resize: Resize = SQUASH,
    box: Box | None = None,
) -> Image.Image:
    """Returns the image, or what `box` (left, upper, right, lower) has of it, at `size` (H, W).

    resample: one of FILTERS, antialiased. The only place where a model's images are resized: the
    pixels of open_clip 3.3 (`image_transform`) and of transformers' CLIPImageProcessor on Pillow.
    """
    pillow_size = size[1], size[0]
    if resize == SQUASH:
        return image.resize(pillow_size, FILTERS[resample], box=box)
    left, upper, right, lower = box or (0, 0, *image.size)
    height, width = _whole((lower - upper, right - left), size, resize)
    resized = image.resize((width, height), FILTERS[resample], box=box)
    # Not by `box` of the middle: Pillow then takes rows and columns in another order, and rounds.
    upper, left = (
        _first(whole - wanted, resize.half)
        for whole, wanted in zip((height, width), size, strict=True)
    )
    middle = Image.new(image.mode, pillow_size, (resize.fill,) * len(image.getbands()))
    middle.paste(resized, (-left, -upper))
    return middle


def _whole(sides: tuple[float, float], size: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """The (H, W) to which an image of these sides is resized before its middle is taken."""
    height, width = sides
    wanted = [round(side * resize.larger) for side in size]
    if resize.mode == "squash":
        return wanted[0], wanted[1]
    if resize.mode == "shortest" and wanted[0] == wanted[1]:  # torchvision cuts here, not rounds
        scaled = wanted[0] * height / min(sides), wanted[0] * width / min(sides)
        return max(1, int(scaled[0])), max(1, int(scaled[1]))
    ratios = [side / to for side, to in zip(sides, wanted, strict=True)]
    ratio = min(ratios) if resize.mode == "shortest" else max(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _first(spare: int, half: str) -> int:
    """The place of the middle's first pixel, where `spare` are left out; below 0, filled in."""
    if spare < 0:
        return -(-spare // 2)
    return spare // 2 if half == "floor" else round(spare / 2)
