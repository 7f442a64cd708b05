"""Evaluation images, byte for byte: image_preprocess*.npz with the preproc_*.png it names."""

import pathlib
import re

import numpy as np

from jaxtbpr.datasets import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance) for every size that the file holds."""
    path = pathlib.Path(path)
    arrays = np.load(path)
    files = [path.parent / str(name) for name in arrays["files"]]
    table = ((np.arange(256) / 255)[None] - np.array(MEAN)[:, None]) / np.array(STD)[:, None]
    rows = [("normalisation", _largest(table, arrays["norm_lut"]), 1e-6)]
    for key in arrays.files:
        if found := re.fullmatch(r"u8_(\d+)x(\d+)", key):
            size = int(found[1]), int(found[2])
            ours = np.stack([transforms.decode_image(file.read_bytes(), size) for file in files])
            rows.append((f"bytes {size[0]}x{size[1]}", _largest(ours, arrays[key]), 0.0))
            rows += _check_tensors(f"{size[0]}x{size[1]}", ours, arrays)
    return rows


def _check_tensors(size, pixels, arrays):
    """The normalised tensors and their moments, by the file's own table."""
    channels = np.arange(3)[:, None, None]
    tensors = [arrays["norm_lut"][channels, image.transpose(2, 0, 1)] for image in pixels]
    rows = []
    for key in arrays.files:
        if found := re.fullmatch(rf"f32_{size}_image(\d+)", key):
            rows.append((key, _largest(tensors[int(found[1])], arrays[key]), 0.0))
    for key, moment in (("mean", np.mean), ("std", np.std)):
        ours = [moment(tensor.astype(np.float64), axis=(1, 2)) for tensor in tensors]
        rows.append((f"{key} {size}", _largest(ours, arrays[f"{key}_{size}"]), 1e-6))
    return rows


def _largest(found, expected) -> float:
    difference = np.asarray(found, np.float64) - np.asarray(expected, np.float64)
    return float(np.abs(difference).max())
