"""Filter engine `quality`: checks of an image that need no model.

An image must decode, have contrast, be sharp enough, and not be a near-duplicate of another one.
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from jaxtbpr.core.duplicates import BITS, duplicates_by_id, perceptual_hash
from jaxtbpr.core.images import ImageError
from jaxtbpr.core.manifest import Record, Shard
from jaxtbpr.core.measured import Arrays, measure_shards
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.process_pool import process_map
from jaxtbpr.synthesis.images import read_image, unreadable

OPTIONS: Options = {
    "min_contrast": Option(
        8.0, "standard deviation of the grey values (0 to 255) below which an image is blank",
        low=0.0, high=128.0,
    ),
    "min_sharpness": Option(
        20.0, "variance of the Laplacian of the grey values below which an image is blurred",
        low=0.0,
    ),
    "duplicate_distance": Option(
        24, f"largest Hamming distance of near-duplicates' hashes of {BITS} bits; -1 = keep "
            f"duplicates",
        low=-1, high=BITS - 1,
    ),
    "processes": Option(0, "worker processes; 0 = one per core", low=0, runtime=True),
}  # fmt: skip


def reject(
    shards: Sequence[Shard], config: ConfigDict, root: epath.Path, directory: epath.Path
) -> dict[str, str]:
    """Returns {id: why the image of this record is rejected}.

    config: holds section `filter`; root: the workdir; directory: for what is measured. Of
    near-duplicates the one with the smallest id stays, among the images that pass the other checks.
    """
    options = config.filter.quality
    with process_map(options.processes) as mapped:
        look = functools.partial(_look, root=str(root))
        measured = measure_shards(
            shards, directory, lambda shard: _stack(mapped(look, shard)), label="filter quality"
        )
    records = [record for shard in shards for record in shard]
    seen = {key: np.concatenate([one[key] for one in measured]) for key in measured[0]}
    rejected = _poor(records, seen, options)
    if options.duplicate_distance >= 0:
        good = [row for row, record in enumerate(records) if record["id"] not in rejected]
        rejected |= _duplicates([records[k] for k in good], seen["hash"][good], options)
    return rejected


def contrast(grey: np.ndarray) -> float:
    """Returns the standard deviation of an image's grey values [H, W]."""
    return float(np.std(grey))


def sharpness(grey: np.ndarray) -> float:
    """Returns the variance of the Laplacian of an image's grey values [H, W], borders left out.

    Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000. An image with
    fewer than three rows or columns has none, 0.
    """
    if min(grey.shape) < 3:
        return 0.0
    grey = grey.astype(np.float64)
    across, down = grey[1:-1, 2:] + grey[1:-1, :-2], grey[2:, 1:-1] + grey[:-2, 1:-1]
    return float(np.var(across + down - 4 * grey[1:-1, 1:-1]))


def _look(record: Record, *, root: str) -> tuple[str, float, float, np.ndarray]:
    """(why the image cannot be read or "", contrast, sharpness, hash)."""
    try:
        image = Image.fromarray(read_image(root, record)).convert("L")
    except ImageError as error:
        return unreadable(error), 0.0, 0.0, np.zeros(BITS // 8, np.uint8)
    grey = np.asarray(image)
    return "", contrast(grey), sharpness(grey), perceptual_hash(image)


def _stack(rows: Iterable[tuple[str, float, float, np.ndarray]]) -> Arrays:
    rows = list(rows)
    return {
        "problem": np.array([row[0] for row in rows], str),
        "contrast": np.array([row[1] for row in rows], float),
        "sharpness": np.array([row[2] for row in rows], float),
        "hash": np.array([row[3] for row in rows], np.uint8).reshape(-1, BITS // 8),
    }


def _poor(records: list[Record], seen: Arrays, options: ConfigDict) -> dict[str, str]:
    """{id: why} of the images that fail by themselves."""
    rejected = {}
    for row, record in enumerate(records):
        problem, contrast, sharpness = (seen[k][row] for k in ("problem", "contrast", "sharpness"))
        if reason := _reason(problem, contrast, sharpness, options):
            rejected[record["id"]] = f"{record['image']['path']} {reason}"
    return rejected


def _reason(problem: str, contrast: float, sharpness: float, options: ConfigDict) -> str:
    if problem:
        return str(problem)
    if contrast < options.min_contrast:
        return f"is blank: contrast {contrast:.1f}"
    if sharpness < options.min_sharpness:
        return f"is blurred: sharpness {sharpness:.1f}"
    return ""


def _duplicates(records: list[Record], hashes: np.ndarray, options: ConfigDict) -> dict[str, str]:
    first_of = duplicates_by_id([r["id"] for r in records], hashes, options.duplicate_distance)
    paths = {record["id"]: record["image"]["path"] for record in records}
    return {
        name: f"{paths[name]} is nearly the same as {paths[first]}: {bits} bits differ"
        for name, (first, bits) in first_of.items()
    }
