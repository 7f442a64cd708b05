"""What pose networks give out: each layout is read, and positions come back to the image."""

import numpy as np
import pytest
from PIL import Image

from jaxtbpr.workers.worker.answering import decoding
from jaxtbpr.workers.worker.answering.decoding import Persons

RNG = np.random.default_rng(0)
BOXES = np.array([[10.0, 20.0, 30.0, 60.0], [11.0, 21.0, 31.0, 61.0], [40.0, 5.0, 60.0, 64.0]])
SCORES = np.array([0.6, 0.9, 0.3])
JOINTS = RNG.uniform(0, 60, (3, 17, 3))


def yolo():
    middle, sides = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
    rows = np.concatenate([middle, sides, SCORES[:, None], JOINTS.reshape(3, -1)], axis=1)
    return [rows.T[None]]


def yolo_without_nms():
    classes = np.zeros((3, 1))
    parts = [BOXES, SCORES[:, None], classes, JOINTS.reshape(3, -1)]
    return [np.concatenate(parts, axis=1)[None]]


def rtmo():
    return [np.concatenate([BOXES, SCORES[:, None]], axis=1)[None], JOINTS[None]]


@pytest.mark.parametrize("layout", [yolo, yolo_without_nms, rtmo])
def test_every_layout_gives_the_same_persons(layout):
    found = decoding.decode(layout())
    for part, expected in zip(found, (BOXES, SCORES, JOINTS), strict=True):
        np.testing.assert_allclose(part, expected)


def test_nobody_is_found_where_there_are_no_candidates():
    for outputs in ([np.zeros((1, 56, 0))], [np.zeros((1, 0, 5)), np.zeros((1, 0, 17, 3))]):
        chosen = decoding.select(decoding.decode(outputs), min_score=0.1, nms_iou=0.5)
        assert [part.shape for part in chosen] == [(0, 4), (0,), (0, 17, 3)]


@pytest.mark.parametrize(
    "shapes", [[(1, 84, 8400)], [(1, 300, 6)], [(1, 5, 5), (1, 4, 17, 3)], [(1, 5, 5)], []]
)
def test_another_network_is_told_by_its_shapes(shapes):
    with pytest.raises(ValueError, match="its outputs are .* neither those of a YOLO-pose"):
        decoding.decode([np.zeros(shape) for shape in shapes])


def test_the_surest_of_overlapping_candidates_stays():
    chosen = decoding.select(Persons(BOXES, SCORES, JOINTS), min_score=0.25, nms_iou=0.1)
    np.testing.assert_array_equal(chosen.scores, [0.9, 0.3])
    np.testing.assert_array_equal(chosen.joints, JOINTS[[1, 2]])
    chosen = decoding.select(Persons(BOXES, SCORES, JOINTS), min_score=0.31, nms_iou=0.99)
    np.testing.assert_array_equal(chosen.scores, [0.9, 0.6])


def test_the_overlap_is_the_intersection_over_the_union():
    assert decoding.iou(np.array([0, 0, 4, 2]), np.array([2, 1, 6, 3])) == 2 / (8 + 8 - 2)
    assert decoding.iou(np.array([0, 0, 1, 1]), np.array([2, 2, 3, 3])) == 0
    assert decoding.iou(np.zeros(4), np.zeros(4)) == 0


@pytest.mark.parametrize("is_centred", [True, False])
@pytest.mark.parametrize("shape", [(80, 40), (33, 91), (640, 640), (1, 7)])
def test_a_point_of_the_canvas_comes_back_to_its_place(is_centred, shape):
    image = Image.new("RGB", shape[::-1], (200, 10, 60))
    placed = decoding.letterbox(image, (64, 96), is_centred=is_centred)
    assert placed.pixels.shape == (64, 96, 3)
    rows, columns = np.nonzero(np.all(placed.pixels == (200, 10, 60), axis=-1))
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
    if not is_centred:
        assert (columns.min(), rows.min()) == (0, 0)
    else:
        assert abs(columns.min() + columns.max() + 1 - 96) <= 1
        assert abs(rows.min() + rows.max() + 1 - 64) <= 1
    border = np.delete(placed.pixels.reshape(-1, 3), rows * 96 + columns, axis=0)
    assert np.all(border == 114)
    joints = np.concatenate([np.tile(box[2:], (17, 1)), np.full((17, 1), 0.7)], axis=1)
    found = decoding.in_image(
        Persons(box[None], np.ones(1), joints[None]), placed, (shape[1], shape[0])
    )
    close = 1.0 / placed.scale  # a pixel of the canvas
    np.testing.assert_allclose(found.boxes[0], [0, 0, shape[1], shape[0]], atol=close)
    np.testing.assert_allclose(found.joints[0, :, :2], [[shape[1], shape[0]]] * 17, atol=close)
    np.testing.assert_array_equal(found.joints[0, :, 2], 0.7)
