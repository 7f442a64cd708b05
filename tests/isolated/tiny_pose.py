"""Makes an .onnx file of the layout of a pose network: PYTHON tiny_pose.py KIND FILE [BATCH].

KIND: yolo, yolo_nms or rtmo; or `mask`, which takes a second input. BATCH: a fixed number of
images; otherwise it is open. Its two candidates are always at the same places, 48 of 64 pixels of
each other; their scores are the mean of the first colour channel of the input, so that they tell
what was put in, and half of it.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
BOXES = np.array([[[16.0, 8.0, 48.0, 56.0], [18.0, 8.0, 50.0, 56.0]]])
JOINTS = np.zeros((1, 2, 17, 3))
JOINTS[..., 0], JOINTS[..., 2] = 32, 0.9
JOINTS[..., 1] = np.linspace(18, 30, 17)


def main(kind: str, path: str, batch: str = "") -> None:
    images = int(batch or 1)
    boxes, joints = BOXES.repeat(images, axis=0), JOINTS.repeat(images, axis=0)
    low, high = boxes[..., :2], boxes[..., 2:]
    rows = joints.reshape(images, 2, 51)
    if kind == "yolo":
        before, after = np.concatenate([(low + high) / 2, high - low], axis=-1), rows
    elif kind == "yolo_nms":
        before, after = boxes, np.concatenate([np.zeros((images, 2, 1)), rows], axis=-1)
    else:
        before, after = boxes, None
    weights = np.array([[[1.0], [0.5]]]) / (255 if kind == "rtmo" else 1)
    constants = {"before": before, "weights": weights, "first": np.array(0)}
    nodes = [
        helper.make_node("Gather", ["input", "first"], ["channel"], axis=1),
        helper.make_node("ReduceMean", ["channel"], ["mean"], axes=[1, 2], keepdims=1),
        helper.make_node("Mul", ["mean", "weights"], ["score"]),
    ]
    parts = ["before", "score"]
    if after is not None:
        constants["after"] = after
        parts.append("after")
    nodes.append(helper.make_node("Concat", parts, ["rows"], axis=-1))
    outputs = {"rows": [images, 2, 57 if kind == "yolo_nms" else 5]}
    if kind == "yolo":
        nodes.append(helper.make_node("Transpose", ["rows"], ["output0"], perm=[0, 2, 1]))
        outputs = {"output0": [images, 56, 2]}
    if kind == "rtmo":
        constants["joints"] = joints
        nodes.append(helper.make_node("Identity", ["joints"], ["keypoints"]))
        outputs["keypoints"] = [images, 2, 17, 3]
    graph = helper.make_graph(
        nodes,
        kind,
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [images if batch else "batch", 3, SIDE, SIDE]
            )
            for name in ("input", *(["mask"] if kind == "mask" else []))
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
        ],
        [
            numpy_helper.from_array(value.astype(np.int64 if name == "first" else np.float32), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
