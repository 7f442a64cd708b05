"""Filter engine `pose`: keeps images of exactly one person, sufficiently visible, and crops them.

SynTBPR's rule: at least one joint each of the head, the upper body and the legs must be located. An
isolated worker finds the joints (`worker/answering/pose.py`); this module decides by them.
`stages.py` passes this engine to stage filter, which is in another room.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import files
from jaxtbpr.core.english import enumerate_phrases
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import Shard
from jaxtbpr.core.options import Option, Options
from jaxtbpr.workers import client as clients
from jaxtbpr.workers import isolated
from jaxtbpr.workers.worker.answering.exchange import Row

PACKAGED = "mediapipe"

# The joints of COCO by number; the hips, 11 and 12, are of no group.
GROUPS = {"head": range(5), "upper body": range(5, 11), "legs": range(13, 17)}

OPTIONS: Options = {
    "model": Option(PACKAGED, "mediapipe (its package has the networks), or the .onnx file of a "
                    "YOLO-pose or RTMO"),
    "min_score": Option(0.25, "lowest confidence of a person", low=0.0, high=1.0),
    "nms_iou": Option(0.1, "IoU above which two boxes are the same person",
                      low=0.0, high=1.0),
    "min_joint_score": Option(0.5, "lowest confidence of a located joint", low=0.0,
                              high=1.0),
    "crop": Option(True, "crop the images to the person"),
    **isolated.OPTIONS,
}  # fmt: skip

# How much larger than the person's box a crop is, as in the published code: factor and pixels.
_GAIN, _PADDING = 1.02, 10.0


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the digest of the model file."""
    model = _model(config)
    return {} if model == PACKAGED else {"pose": files.sha256_of([epath.Path(model)])}


def check(config: ConfigDict) -> None:
    """Raises UserError where there is no environment for the model."""
    isolated.check(config.filter.pose.to_dict() | {"engine": "pose"}, "filter.pose")


def reject(
    shards: Sequence[Shard], config: ConfigDict, root: epath.Path, directory: epath.Path
) -> dict[str, str]:
    """Returns {id: why the image of this record is rejected}.

    config: holds section `filter`; root: the workdir; directory: for the answers. Raises
    UserError where there is no such model, or no environment for it.
    """
    records = {record["id"]: record for shard in shards for record in shard}
    reasons = {
        name: reason(answer, config.filter.pose.min_joint_score)
        for name, answer in _answers(shards, config, root, directory).items()
    }
    return {name: f"{records[name]['image']['path']} {why}" for name, why in reasons.items() if why}


def boxes(
    shards: Sequence[Shard], config: ConfigDict, root: epath.Path, directory: epath.Path
) -> dict[str, tuple[int, int, int, int]]:
    """Returns {id: the part of the image that shows the person}; {} where cropping is off.

    shards: of images with one person; the rest as for `reject`, which comes first.
    """
    if not config.filter.pose.crop:
        return {}
    answers = _answers(shards, config, root, directory)
    kept = {record["id"] for shard in shards for record in shard}
    return {
        name: crop_box(answer["persons"][0]["box"], answer["size"])
        for name, answer in answers.items()
        if name in kept
    }


def reason(answer: Row, min_joint_score: float) -> str:
    """Returns why an image is rejected, "" where it is not; answer: of a pose worker.

    A joint outside the image is not located.
    """
    if "problem" in answer:
        return f"cannot be judged: {answer['problem']}"
    persons = answer["persons"]
    if not persons:
        return "shows nobody"
    if len(persons) > 1:
        return f"shows more than one person: {len(persons)}"
    located = is_located(np.array(persons[0]["joints"]), answer["size"], min_joint_score)
    lacking = [f"the {name}" for name, joints in GROUPS.items() if not located[list(joints)].any()]
    return f"shows no sure joint of {enumerate_phrases(lacking)}" if lacking else ""


def is_located(joints: np.ndarray, size: Sequence[int], min_joint_score: float) -> np.ndarray:
    """Returns which joints [17, 3] are sure enough and within an image of (width, height)."""
    inside = np.all((joints[:, :2] > 0) & (joints[:, :2] < np.array(size)), axis=1)
    return inside & (joints[:, 2] >= min_joint_score)


def crop_box(box: Sequence[float], size: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns the part of an image that is cut out: left, top, right, bottom.

    box: of the person; size: of the image, (width, height).
    """
    low, high = np.array(box[:2]), np.array(box[2:])
    half = ((high - low) * _GAIN + _PADDING) / 2
    middle = (low + high) / 2
    corners = np.clip([middle - half, middle + half], 0, np.array(size)).astype(int)
    left, top, right, bottom = corners.ravel().tolist()
    return left, top, right, bottom


def _model(config: ConfigDict) -> str:
    """The model as workers get it. Raises UserError where the file does not exist."""
    model = config.filter.pose.model
    path = epath.Path(model).expanduser()
    if model == PACKAGED:
        return model
    if not (model.endswith(".onnx") and path.is_file()):
        raise UserError(
            f"config.filter.pose.model={model} is neither {PACKAGED!r} nor an .onnx file that "
            "exists; give one of a YOLO-pose or RTMO."
        )
    return str(path.resolve())


def _answers(
    shards: Sequence[Shard], config: ConfigDict, root: epath.Path, directory: epath.Path
) -> Mapping[str, Row]:
    """{id: the worker's answer}, read from disk where there is one."""
    options = config.filter.pose
    folder = directory / "requests"
    model = _model(config)
    tasks = {
        f"{number:05d}": [
            {
                "id": record["id"],
                "model": model,
                "image": os.path.relpath(root / record["image"]["path"], folder),
                "min_score": options.min_score,
                "nms_iou": options.nms_iou,
            }
            for record in shard
        ]
        for number, shard in enumerate(shards)
        if shard
    }
    settings = options.to_dict() | {"engine": "pose"}
    answers = clients.answer_all(root, folder, tasks, settings, "filter.pose")
    return {answer["id"]: answer for answer in answers}
