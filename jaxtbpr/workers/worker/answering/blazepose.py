"""The pose network in the package MediaPipe: BlazePose (Bazarevsky et al., arXiv:2006.10204).

It finds the joints of one person, the most certain one. Whether there are others is decided by its
detector of persons, which misses people beside a nearer one, and by one of faces.
"""

import mediapipe
import numpy as np
from mediapipe.python.solution_base import SolutionBase
from PIL import Image

from .decoding import JOINTS, Persons

# Which of MediaPipe's 33 landmarks are COCO's joints.
_COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
_HEAD = slice(0, 5)
_DETECTOR = """
    input_stream: "image"
    output_stream: "detections"
    node {
      calculator: "PoseDetectionCpu"
      input_stream: "IMAGE:image"
      output_stream: "DETECTIONS:detections"
    }
"""


class BlazePose:
    """Finds persons in images. The networks' thresholds, 0.5, apply in addition."""

    def __init__(self):
        self._bodies = SolutionBase(graph_config=_DETECTOR, outputs=["detections"])
        self._faces = mediapipe.solutions.face_detection.FaceDetection(model_selection=1)
        self._joints = mediapipe.solutions.pose.Pose(
            static_image_mode=True, enable_segmentation=True
        )

    def __call__(self, image: Image.Image, min_score: float, nms_iou: float) -> Persons:
        """Returns the persons of an image, the first with joints; `nms_iou` is ignored.

        The box of the first is that of its silhouette.
        """
        pixels, size = np.array(image), np.array(image.size)
        bodies = _boxes(self._bodies.process({"image": pixels}).detections, size)
        faces = _boxes(self._faces.process(pixels).detections, size)
        detection = self._joints.process(pixels)
        if not detection.pose_landmarks:
            persons = max(_bodies(bodies), _faces(faces), key=_count)
        else:
            marks = [detection.pose_landmarks.landmark[k] for k in _COCO]
            joints = np.array([(mark.x, mark.y, mark.visibility) for mark in marks])
            joints[:, :2] *= size
            others = [face for face in faces if not _is_at(joints[_HEAD, :2].mean(0), face)]
            others = max(_bodies(bodies[1:]), _faces(others), key=_count)
            box = _silhouette(detection.segmentation_mask, joints)
            score = bodies[0, 4] if len(bodies) else 1.0
            first = Persons(box[None], np.array([score]), joints[None])
            persons = Persons(*map(np.concatenate, zip(first, others, strict=True)))
        is_sure = persons.scores >= min_score
        return Persons(*(part[is_sure] for part in persons))


def _boxes(detections: list | None, size: np.ndarray) -> np.ndarray:
    """left, top, right, bottom in pixels and score of each detection: [N, 5], the surest first."""
    rows = np.zeros((0, 5))
    for one in detections or ():
        box = one.location_data.relative_bounding_box
        corner, sides = np.array([box.xmin, box.ymin]), np.array([box.width, box.height])
        row = np.concatenate([corner * size, (corner + sides) * size, one.score[:1]])
        rows = np.concatenate([rows, row[None]])
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def _bodies(boxes: np.ndarray | list[np.ndarray]) -> Persons:
    """Persons of whom no joints are known; boxes: see `_boxes`."""
    rows = np.reshape(boxes, (-1, 5))
    return Persons(rows[:, :4], rows[:, 4], np.zeros((len(rows), JOINTS, 3)))


def _faces(boxes: np.ndarray | list[np.ndarray]) -> Persons:
    """Persons of whom only a face is known, hence a nose in its middle."""
    persons = _bodies(boxes)
    persons.joints[:, 0, :2] = (persons.boxes[:, :2] + persons.boxes[:, 2:]) / 2
    persons.joints[:, 0, 2] = persons.scores
    return persons


def _count(persons: Persons) -> int:
    return len(persons.scores)


def _is_at(head: np.ndarray, face: np.ndarray) -> bool:
    """Whether the middle of a head is in a face's box, which ends at the brows, or near it."""
    middle, sides = (face[:2] + face[2:4]) / 2, face[2:4] - face[:2]
    return bool(np.all(np.abs(head - middle) <= sides))


def _silhouette(mask: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """The box of a mask [H, W] beyond 0.5 and of the joints that are seen."""
    rows, columns = np.nonzero(mask > 0.5)
    inside = np.stack([columns, rows], axis=1).astype(np.float64)
    size = np.array(mask.shape[::-1])
    points = np.concatenate([inside, inside + 1, joints[joints[:, 2] >= 0.5, :2], joints[:1, :2]])
    return np.clip(np.concatenate([points.min(0), points.max(0)]), 0, np.tile(size, 2))
