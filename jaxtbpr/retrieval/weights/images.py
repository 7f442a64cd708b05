"""How a published model wants its images: the JSON of transformers and of open_clip, both ways."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets.transforms import FILTERS
from jaxtbpr.retrieval.model import PIXELS, ClipConfig, Pixels, pixel_moments

SQUASH, CROP, PAD = "resized straight to it", "cropped to a square", "padded to a square"

_MODES = {"squash": SQUASH, "shortest": CROP, "longest": PAD}  # open_clip's names
_FILTER_NAMES = {int(number): name for name, number in FILTERS.items()}
_OPEN_CLIP_FILTERS = ("bicubic", "bilinear")
# (file, key of the part that describes images); transformers 5 writes the second one.
_HUGGINGFACE = (("preprocessor_config.json", None), ("processor_config.json", "image_processor"))
_OPEN_CLIP = (("open_clip_config.json", "preprocess_cfg"),)


@dataclasses.dataclass(frozen=True)
class Images:
    """What a checkpoint says of its images.

    pixels: as in `ClipConfig`; resample: one of FILTERS; size: (H, W), None where not told; mode:
    SQUASH, CROP or PAD; source: the file that says so.
    """

    pixels: Pixels
    resample: str
    size: tuple[int, int] | None
    mode: str
    source: epath.Path


def read_images(folder: epath.Path, kind: str) -> Images | None:
    """Reads the settings beside a checkpoint of format `kind`, its own tool's first; None: none.

    Raises UserError where they are no settings of images.
    """
    places = _HUGGINGFACE + _OPEN_CLIP if kind == "huggingface" else _OPEN_CLIP + _HUGGINGFACE
    for name, key in places:
        path = folder / name
        given = files.read_json_object(path) if path.exists() else {}
        given = given if key is None else given.get(key)
        if not given:
            continue
        read = _open_clip if key == "preprocess_cfg" else _huggingface
        try:
            return read(given, path)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise UserError(
                f"{path} does not tell how images are prepared ({error!r}); restore it."
            ) from error
    return None


def _huggingface(given: Mapping[str, Any], path: epath.Path) -> Images:
    mean, std = PIXELS["clip"]
    mean, std = _triple(given.get("image_mean", mean)), _triple(given.get("image_std", std))
    if given.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    factor = 1.0 if given.get("do_rescale") is False else given.get("rescale_factor", 1 / 255)
    size, crop = given.get("size"), given.get("crop_size")
    is_cropped = given.get("do_center_crop", crop is not None)
    # Both sides given: nothing is left to be cropped where they are those of the crop.
    straight = isinstance(size, Mapping) and "height" in size
    mode = SQUASH if straight and (not is_cropped or crop == size) else CROP
    shown = crop if is_cropped and crop is not None else size
    number = given.get("resample", 3)
    if number not in _FILTER_NAMES:
        raise ValueError(f"resample {number!r}")
    # Ours divide by 255 and then normalise.
    scale = 255 * factor
    moments = tuple(x / scale for x in mean), tuple(x / scale for x in std)
    return Images(_named(moments), _FILTER_NAMES[number], _size(shown), mode, path)


def _open_clip(given: Mapping[str, Any], path: epath.Path) -> Images:
    mean, std = PIXELS["clip"]
    moments = _triple(given.get("mean") or mean), _triple(given.get("std") or std)
    # It knows two filters, and takes any other name for the first.
    name = given.get("interpolation")
    resample = name if name in _OPEN_CLIP_FILTERS else _OPEN_CLIP_FILTERS[0]
    mode = _MODES[given.get("resize_mode") or "shortest"]
    return Images(_named(moments), resample, _size(given.get("size")), mode, path)


def _triple(given: Any) -> tuple[float, ...]:
    values = tuple(map(float, given if isinstance(given, (list, tuple)) else [given] * 3))
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise ValueError(f"{given!r} is no value for each of three colours")
    return values


def _size(given: Any) -> tuple[int, int] | None:
    if isinstance(given, Mapping):
        given = [given["height"], given["width"]] if "height" in given else given["shortest_edge"]
    if given is None:
        return None
    sides = given if isinstance(given, (list, tuple)) else [given] * 2
    height, width = map(int, sides)
    return height, width


def _named(moments: tuple[tuple[float, ...], ...]) -> Pixels:
    """The name of the moments in PIXELS, or they themselves."""
    known = (name for name in PIXELS if _near(pixel_moments(name), moments))
    return next(known, moments)


def _near(a: Any, b: Any) -> bool:
    pairs = zip((*a[0], *a[1]), (*b[0], *b[1]), strict=True)
    return all(math.isclose(x, y, rel_tol=1e-7) for x, y in pairs)


# --- writing --------------------------------------------------------------------------------------


def to_huggingface(config: ClipConfig, resample: str) -> dict[str, Any]:
    """Returns preprocessor_config.json: straight to the model's size, as the loaders do."""
    height, width = config.image_size
    mean, std = pixel_moments(config.pixels)
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": int(FILTERS[resample]),
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def to_open_clip(config: ClipConfig, resample: str) -> dict[str, Any]:
    """Returns open_clip's preprocess_cfg. Raises UserError for a filter that it does not know."""
    if resample not in _OPEN_CLIP_FILTERS:
        raise UserError(
            f"open_clip resizes by {' or '.join(_OPEN_CLIP_FILTERS)}, and the model's images by "
            f"{resample}; write it with --format=huggingface."
        )
    mean, std = pixel_moments(config.pixels)
    return {
        "size": list(config.image_size),
        "mode": "RGB",
        "mean": list(mean),
        "std": list(std),
        "interpolation": resample,
        "resize_mode": "squash",
        "fill_color": 0,
    }
