"""The processor of a multimodal model, set up as its files say, and its number of image tokens."""

import contextlib
import importlib
import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import torch
import transformers

from .errors import Stop, note
from .exchange import Row

PROBE = (64, 128)  # width and height of the image whose tokens are counted at the start


class _NoVideos(transformers.utils.PushToHubMixin):  # as all parts of a processor are
    """Stands in for the part of a processor that reads videos, which needs torchvision.

    It is never called, since there are no videos.
    """

    model_input_names: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> "_NoVideos":
        return cls()

    def to_dict(self) -> Row:
        """Returns what a printed processor says of it."""
        return {}


def _skip_videos() -> None:
    """Lets processors be made without their part for videos, in transformers 4 and 5."""
    # Where 4 and 5 look for what makes that part, then for the class that it must have.
    auto = importlib.import_module("transformers.models.auto.video_processing_auto")
    library = transformers.processing_utils.transformers_module
    auto.AutoVideoProcessor = library.AutoVideoProcessor = _NoVideos
    library.BaseVideoProcessor = library.VideoProcessorMixin = _NoVideos


def load_processor(name: str, where: Row) -> Any:
    """Returns the processor of a folder or hub id; where: "revision", "trust_remote_code"."""
    if not transformers.utils.is_torchvision_available():
        _skip_videos()
    processor = transformers.AutoProcessor.from_pretrained(name, **where)
    size = _size_asked(processor, _settings(name, where))
    images = getattr(processor, "image_processor", None)
    if size and images is not None and _plain(getattr(images, "size", None)) != size:
        # transformers 4.57's Qwen2VLImageProcessor, which is taken where there is no torchvision,
        # reads `size` and then overwrites it by its default.
        images.size = size
        for key, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            if hasattr(images, key):
                setattr(images, key, size[edge])
    return processor


def require_known(config: Any, model: str) -> None:
    """Raises Stop for a model whose positions transformers 4 would silently misread.

    transformers 5 writes them as `rope_parameters`, which 4 does not know: it takes its default.
    """
    parts = [config, *(part for part in vars(config).values() if hasattr(part, "to_dict"))]
    if _major(transformers.__version__) < 5 and any(
        getattr(part, "rope_parameters", None) for part in parts
    ):
        raise Stop(
            f"model {model!r} cannot be loaded by transformers {transformers.__version__}, which "
            f"would misread its positions (rope_parameters){advice(model)}"
        )


def advice(model: str, message: str = "") -> str:
    """Returns what to do about a model that cannot be loaded; "" where that is not known.

    message: by the library.
    """
    if "torchvision" in message:
        return (
            f"; it needs torchvision: `{sys.executable} -m pip install torchvision`, in the "
            f"version for torch {torch.__version__}."
        )
    name, _, revision = model.partition("@")
    where = {"revision": revision} if revision else {}
    saved = "0"
    with contextlib.suppress(OSError, ValueError):
        known, _ = transformers.PretrainedConfig.get_config_dict(name, **where)
        saved = str(known.get("transformers_version") or saved)
    if _major(saved) > _major(transformers.__version__):
        return (
            f"; it was saved by transformers {saved}: set the config key `python` of this stage "
            "to the Python of an environment with that version."
        )
    return ""


def _major(version: str) -> int:
    return int("0" + re.match(r"\d*", version)[0])


def check_tokens(processor: Any, config: Any, inputs: Any, model: str, where: Row) -> None:
    """Warns where an image of PROBE's size has another number of tokens than the files ask for.

    config: of the network; inputs: what the processor makes of a question with that image.
    """
    asked = tokens_asked(processor, config, inputs, _settings(model, where), PROBE)
    token = getattr(config, "image_token_id", None) or getattr(processor, "image_token_id", None)
    seen = int((inputs["input_ids"] == token).sum()) if token is not None else None
    if None not in (asked, seen) and asked != seen:
        width, height = PROBE
        note(
            f"model {model!r} gets {seen} tokens for an image of {width} x {height} pixels, but "
            f"its preprocessor_config.json asks for {asked}, so its captions may be worse: use the "
            "environment of `python -m jaxtbpr.workers.install transformers`."
        )


def tokens_asked(
    processor: Any, config: Any, inputs: Any, settings: Row, shape: tuple[int, int]
) -> int | None:
    """Returns the tokens of an image of (width, height); None for families not known here.

    Qwen-VL: sides rounded to whole tokens, of `size` in all; others: tokens of a tile of a fixed
    side, times the tiles.
    """
    vision = getattr(config, "vision_config", None)
    patch = getattr(vision, "patch_size", None)
    merge = getattr(vision, "spatial_merge_size", None)
    images = getattr(processor, "image_processor", None)
    size = _size_asked(processor, settings) or _plain(getattr(images, "size", None)) or {}
    if merge and patch and {"shortest_edge", "longest_edge"} <= size.keys():
        return _tokens_of_any_side(*shape, patch * merge, *map(size.get, _EDGES))
    if getattr(images, "do_center_crop", False):
        size = settings.get("crop_size", {})
    patch = max(patch) if isinstance(patch, list | tuple) else patch
    if not (patch and isinstance(size, Mapping) and {"height", "width"} <= size.keys()):
        return None
    tile = (size["height"] // patch) * (size["width"] // patch)
    if config.model_type == "internvl":
        return int(tile * config.downsample_ratio**2) * len(inputs["pixel_values"])
    if config.model_type == "llava":
        return tile + (config.vision_feature_select_strategy == "full")
    return None


_EDGES = ("shortest_edge", "longest_edge")  # of Qwen-VL: the least and most pixels of an image


def _tokens_of_any_side(width: int, height: int, side: int, least: int, most: int) -> int:
    """Tokens of side x side pixels: the shape is kept, the pixels are least to most in number."""
    sides = [max(1, round(length / side)) for length in (width, height)]
    area, pixels = math.prod(sides) * side**2, width * height
    if area > most:
        shrink = math.sqrt(pixels / most)
        sides = [max(1, math.floor(length / shrink / side)) for length in (width, height)]
    elif area < least:
        grow = math.sqrt(least / pixels)
        sides = [math.ceil(length * grow / side) for length in (width, height)]
    return math.prod(sides)


def _size_asked(processor: Any, settings: Row) -> Row | None:
    """`size` as the files have it, for processors that go by a number of pixels; else None."""
    size = _plain(settings.get("size"))
    images = getattr(processor, "image_processor", None)
    if not (
        isinstance(size, dict) and size.keys() == set(_EDGES) and hasattr(images, "merge_size")
    ):
        return None
    limits = (settings.get("min_pixels"), settings.get("max_pixels"))
    return size | {edge: n for edge, n in zip(_EDGES, limits, strict=True) if n is not None}


def _settings(name: str, where: Row) -> Row:
    """What a model's files say of its images, in the old form (a file) or the new one (a part)."""
    where = {key: where[key] for key in ("revision",) if key in where}
    for file, part in (("processor_config.json", True), ("preprocessor_config.json", False)):
        path = transformers.utils.cached_file(
            name,
            file,
            **where,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is None:
            continue
        with open(path, encoding="utf-8") as lines:
            settings = json.load(lines)
        settings = settings.get("image_processor") if part else settings
        if settings:
            return settings
    return {}


def _plain(size: Any) -> Any:
    """A size without what it leaves open; transformers 5 has a class for it."""
    if size is None or isinstance(size, int):
        return size
    return {key: value for key, value in dict(size).items() if value is not None}
