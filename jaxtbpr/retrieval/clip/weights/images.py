"""Image preprocessing of published models, read and written as transformers and open_clip do."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets.resizing import FILTERS, MODES, SQUASH, Resize
from jaxtbpr.retrieval.clip.model import PIXELS, ClipConfig, Moments, Pixels, pixel_moments

_FILTER_NAMES = {int(number): name for name, number in FILTERS.items()}
_SIDES = {"height", "width", "shortest_edge"}
_OPEN_CLIP_FILTERS = ("bicubic", "bilinear")
# (file, key of the part that describes images); transformers 5 writes the second one.
_HUGGINGFACE = (("preprocessor_config.json", None), ("processor_config.json", "image_processor"))
_OPEN_CLIP = (("open_clip_config.json", "preprocess_cfg"),)


@dataclasses.dataclass(frozen=True)
class Images:
    """What a checkpoint says of its images.

    pixels: as in `ClipConfig`; resample: one of FILTERS; size: (H, W), None where not told;
    resize: None where it cannot be done here; source: the file that says so.
    """

    pixels: Pixels
    resample: str
    size: tuple[int, int] | None
    resize: Resize | None
    source: epath.Path


def read_images(folder: epath.Path, kind: str, size: tuple[int, int]) -> Images | None:
    """Reads the settings beside a checkpoint of format `kind`, its own tool's first; None: none.

    size: (H, W) of the model's images. Raises InputError where they are no settings of images.
    """
    places = _HUGGINGFACE + _OPEN_CLIP if kind == "huggingface" else _OPEN_CLIP + _HUGGINGFACE
    for name, key in places:
        path = folder / name
        settings = files.read_json_object(path) if path.exists() else {}
        settings = settings if key is None else settings.get(key)
        if not settings:
            continue
        read = _open_clip if key == "preprocess_cfg" else _huggingface
        try:
            return read(settings, path, size)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise InputError(
                f"{path} does not tell how images are prepared ({error!r}); restore it."
            ) from error
    return None


def _huggingface(
    settings: Mapping[str, Any], path: epath.Path, model_size: tuple[int, int]
) -> Images:
    mean, std = PIXELS["clip"]
    mean, std = _triple(settings.get("image_mean", mean)), _triple(settings.get("image_std", std))
    if settings.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    factor = 1.0 if settings.get("do_rescale") is False else settings.get("rescale_factor", 1 / 255)
    size, resize = _huggingface_resize(settings, model_size)
    number = settings.get("resample", 3)
    if number not in _FILTER_NAMES:
        raise ValueError(f"resample {number!r}")
    # Ours divide by 255 and then normalise.
    scale = 255 * factor
    moments = tuple(x / scale for x in mean), tuple(x / scale for x in std)
    return Images(_named(moments), _FILTER_NAMES[number], size, resize, path)


def _huggingface_resize(
    settings: Mapping[str, Any], model_size: tuple[int, int]
) -> tuple[tuple[int, int] | None, Resize | None]:
    """The size (H, W) that is told, and how images come to it; None for what is not here."""
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type") or "CLIP"
    is_clip = name.startswith("CLIP")
    size, crop, is_cropped = (settings.get(key) for key in ("size", "crop_size", "do_center_crop"))
    if size is None or isinstance(size, int):
        # One number is the shorter side to CLIP's processor, and both sides to most others.
        sides = ("shortest_edge",) if is_clip else ("height", "width")
        size = dict.fromkeys(sides, model_size[0] if size is None else size)
    first = _size(size) if not isinstance(size, Mapping) or set(size) <= _SIDES else None
    if is_cropped is None:
        is_cropped = is_clip or crop is not None
    kept = first if not is_cropped else model_size if crop is None else _size(crop)
    is_short = isinstance(size, Mapping) and "shortest_edge" in size
    is_done = settings.get("do_resize") is not False and not settings.get("do_pad")
    if first is None or not is_done or "crop_pct" in settings:
        return kept, None
    if kept is None:
        raise ValueError(f"crop_size {crop!r}")
    # A shorter side that is not cropped, or not to a square, leaves images of many shapes.
    if is_short and (not is_cropped or kept[0] != kept[1]):
        return kept, None
    if first[0] * kept[1] != first[1] * kept[0]:
        return kept, None
    if not is_short and first == kept:
        return kept, SQUASH
    return kept, Resize("shortest" if is_short else "squash", first[0] / kept[0], half="floor")


def _open_clip(
    settings: Mapping[str, Any], path: epath.Path, model_size: tuple[int, int]
) -> Images:
    mean, std = PIXELS["clip"]
    moments = _triple(settings.get("mean") or mean), _triple(settings.get("std") or std)
    # It knows two filters, and takes any other name for the first.
    name = settings.get("interpolation")
    resample = name if name in _OPEN_CLIP_FILTERS else _OPEN_CLIP_FILTERS[0]
    mode = settings.get("resize_mode") or "shortest"
    if mode not in MODES:
        raise ValueError(f"resize_mode {mode!r}")
    if mode == "shortest" and model_size[0] != model_size[1]:
        resample = _OPEN_CLIP_FILTERS[0]  # its way there takes no filter
    fill = int(settings.get("fill_color") or 0) if mode == "longest" else 0
    return Images(
        _named(moments), resample, _size(settings.get("size")), Resize(mode, fill=fill), path
    )


def _triple(triple: Any) -> tuple[float, ...]:
    values = tuple(map(float, triple if isinstance(triple, (list, tuple)) else [triple] * 3))
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise ValueError(f"{triple!r} is no value for each of three colours")
    return values


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, Mapping):
        value = [value["height"], value["width"]] if "height" in value else value["shortest_edge"]
    if value is None:
        return None
    sides = value if isinstance(value, (list, tuple)) else [value] * 2
    height, width = map(int, sides)
    return height, width


def _named(moments: Moments) -> Pixels:
    """The name of the moments in PIXELS, or they themselves."""
    known = (name for name in PIXELS if _near(pixel_moments(name), moments))
    return next(known, moments)


def _near(a: Any, b: Any) -> bool:
    pairs = zip((*a[0], *a[1]), (*b[0], *b[1]), strict=True)
    return all(math.isclose(x, y, rel_tol=1e-7) for x, y in pairs)


# --- writing --------------------------------------------------------------------------------------


def fits_huggingface(config: ClipConfig, resize: Resize) -> bool:
    """Whether CLIPImageProcessor can bring images to the model's size so."""
    height, width = config.image_size
    return resize.mode == "squash" or (resize.mode == "shortest" and height == width)


def to_huggingface(config: ClipConfig, resample: str, resize: Resize = SQUASH) -> dict[str, Any]:
    """Returns preprocessor_config.json. Raises InputError for what `fits_huggingface` is not.

    Of a middle that is half a pixel off it takes the pixel before, whatever `resize.half` says.
    """
    if not fits_huggingface(config, resize):
        raise InputError(
            f"Hugging Face's CLIPImageProcessor cannot resize images by {resize.mode!r} to "
            f"{config.image_size}; write them with --format=openai or --resize=squash."
        )
    height, width = (round(side * resize.larger) for side in config.image_size)
    first = {"height": height, "width": width}
    mean, std = pixel_moments(config.pixels)
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": first if resize.mode == "squash" else {"shortest_edge": height},
        "resample": int(FILTERS[resample]),
        **_crop(config, resize),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def _crop(config: ClipConfig, resize: Resize) -> dict[str, Any]:
    if resize == SQUASH:
        return {"do_center_crop": False}
    height, width = config.image_size
    return {"do_center_crop": True, "crop_size": {"height": height, "width": width}}


def to_open_clip(config: ClipConfig, resample: str, resize: Resize = SQUASH) -> dict[str, Any]:
    """Returns open_clip's preprocess_cfg. Raises InputError for what it does not know."""
    height, width = config.image_size
    known = _OPEN_CLIP_FILTERS
    if resize.mode == "shortest" and height != width:
        known = _OPEN_CLIP_FILTERS[:1]
    if resample not in known:
        raise InputError(
            f"open_clip resizes by {' or '.join(known)}, and the model's images by "
            f"{resample}; write it with --format=huggingface."
        )
    if resize.larger != 1:
        raise InputError(
            f"open_clip resizes to the model's size, and its images are {resize.larger:g} times as "
            "large before they are cropped; write it with --format=huggingface."
        )
    mean, std = pixel_moments(config.pixels)
    return {
        "size": list(config.image_size),
        "mode": "RGB",
        "mean": list(mean),
        "std": list(std),
        "interpolation": resample,
        "resize_mode": resize.mode,
        "fill_color": resize.fill,
    }
