"""Decodes the outputs of pose networks, in NumPy: persons with 17 joints in the order of COCO.

Three layouts are distinguished by their shapes, each without the batch axis of 1:

    [56, N]                   YOLOv8-pose, YOLO11-pose: centre x, y, width, height, score, joints
    [N, 57]                   YOLO26-pose and exports with NMS: left, top, right, bottom, score,
                              class, joints
    [N, 5] and [N, 17, 3]     RTMO: left, top, right, bottom, score; joints

A joint is x, y and a confidence of 0 to 1; all positions are pixels of the network's input.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

JOINTS = 17
_GREY = 114  # of the border, in both families


class Persons(NamedTuple):
    """boxes: [N, 4], left, top, right, bottom; scores: [N]; joints: [N, 17, 3]."""

    boxes: np.ndarray
    scores: np.ndarray
    joints: np.ndarray


class Letterbox(NamedTuple):
    """An image in the middle or the corner of a grey canvas of the network's size.

    pixels: uint8 [H, W, 3]; a point of the image is at scale * (x, y) + offset.
    """

    pixels: np.ndarray
    scale: float
    offset: tuple[int, int]


def letterbox(image: Image.Image, size: tuple[int, int], *, is_centred: bool) -> Letterbox:
    """Puts an image on a canvas of `size` (height, width), as large as it fits.

    YOLO has it in the middle and rounds; RTMO has it at the top left and cuts off.
    """
    height, width = size
    scale = min(height / image.height, width / image.width)
    to_pixels = round if is_centred else int
    inner = max(1, to_pixels(scale * image.width)), max(1, to_pixels(scale * image.height))
    left, top = ((round((width - inner[0]) / 2 - 0.1), round((height - inner[1]) / 2 - 0.1))
                 if is_centred else (0, 0))  # fmt: skip
    canvas = Image.new("RGB", (width, height), (_GREY,) * 3)
    # Bilinear, as in both families; when shrinking, Pillow's is smoother than OpenCV's.
    canvas.paste(image.resize(inner, Image.Resampling.BILINEAR), (left, top))
    return Letterbox(np.asarray(canvas), scale, (left, top))


def decode(outputs: Sequence[np.ndarray]) -> Persons:
    """Returns all candidates. Raises ValueError for outputs of another layout."""
    shapes = [output.shape for output in outputs]
    match outputs:
        case [one] if one.ndim == 3 and one.shape[:2] == (1, 5 + 3 * JOINTS):
            rows = one[0].T
            middle, half = rows[:, :2], rows[:, 2:4] / 2
            boxes = np.concatenate([middle - half, middle + half], axis=1)
            return Persons(boxes, rows[:, 4], rows[:, 5:].reshape(-1, JOINTS, 3))
        case [one] if one.ndim == 3 and (len(one), one.shape[2]) == (1, 6 + 3 * JOINTS):
            rows = one[0]
            return Persons(rows[:, :4], rows[:, 4], rows[:, 6:].reshape(-1, JOINTS, 3))
        case [boxes, joints] if _are_rtmo(boxes, joints):
            return Persons(boxes[0, :, :4], boxes[0, :, 4], joints[0])
    raise ValueError(
        f"its outputs are {shapes}, neither those of a YOLO-pose (1, 56, N) or (1, N, 57), nor of "
        f"an RTMO (1, N, 5), (1, N, 17, 3)"
    )


def select(persons: Persons, *, min_score: float, nms_iou: float) -> Persons:
    """Keeps the candidates of at least `min_score`, of those that overlap the best one.

    nms_iou: intersection over union beyond which two boxes are one person.
    """
    order = np.argsort(-persons.scores, kind="stable")
    order = order[persons.scores[order] >= min_score]
    kept: list[int] = []
    for row in order:
        if all(iou(persons.boxes[row], persons.boxes[other]) <= nms_iou for other in kept):
            kept.append(row)
    return Persons(*(part[kept] for part in persons))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the intersection over union of two boxes [4]."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = np.prod(np.maximum(sides, 0))
    whole = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared
    return float(shared / whole) if whole > 0 else 0.0


def in_image(persons: Persons, placed: Letterbox, size: tuple[int, int]) -> Persons:
    """Moves persons from the canvas to the image; size: its (width, height), which cuts boxes."""
    offset = np.array(placed.offset, np.float64)
    corners = (persons.boxes.reshape(-1, 2, 2) - offset) / placed.scale
    boxes = np.clip(corners, 0, np.array(size)).reshape(-1, 4)
    positions = (persons.joints[..., :2] - offset) / placed.scale
    joints = np.concatenate([positions, persons.joints[..., 2:]], axis=-1)
    return Persons(boxes, persons.scores, joints)


def _are_rtmo(boxes: np.ndarray, joints: np.ndarray) -> bool:
    count = boxes.shape[1] if boxes.ndim == 3 else -1
    return boxes.shape == (1, count, 5) and joints.shape == (1, count, JOINTS, 3)
