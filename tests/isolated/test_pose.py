"""The pose filter by real workers: MediaPipe on photographs, and .onnx files of each layout.

./tests/run.sh --isolated makes the environment, which JAXTBPR_POSE_PYTHON names.
"""

import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxtbpr.core import files, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.workers import pose_filter
from tests.isolated import environments

pytestmark = pytest.mark.isolated

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def python():
    return environments.find_python("pose")


def judge(root, python, **changes):
    """Runs the engine on the images of a folder; returns its reasons and its boxes."""
    paths = sorted((root / "images").iterdir())
    shard = [
        {"id": path.stem, "image": {"path": f"images/{path.name}", "sha256": files.sha256(b"")}}
        for path in paths
    ]
    section = options.default_config(pose_filter.OPTIONS)
    section.update({"python": python} | changes)
    config = ConfigDict({"filter": {"pose": section}})
    number = len(list(root.glob("measured-*")))
    given = (config, root, root / f"measured-{number}")
    rejected = pose_filter.reject([shard], *given)
    kept = [record for record in shard if record["id"] not in rejected]
    reasons = {name: why.partition(" ")[2] for name, why in rejected.items()}
    return reasons, pose_filter.boxes([kept], *given)


def test_mediapipe_on_real_photographs(tmp_path, python):
    environments.run(python, HERE / "photographs.py", tmp_path / "images")
    (tmp_path / "images" / "torn.png").write_bytes(b"no image")
    reasons, boxes = judge(tmp_path, python)
    assert reasons.pop("torn").startswith("cannot be judged: the image cannot be read")
    assert reasons == {
        "astronaut": "shows no sure joint of the legs",
        "coffee": "shows nobody",
        "bus": "shows more than one person: 2",  # there are four
        "bus_both": "shows more than one person: 2",
        "zidane": "shows no sure joint of the upper body and the legs",
        "zidane_right": "shows no sure joint of the upper body and the legs",
        "two_astronauts": "shows more than one person: 2",
    }
    assert set(boxes) == {"camera", "bus_left", "bus_middle"}
    left, top, right, bottom = boxes["bus_left"]
    # He stands from row 395 to 905, to the right of column 45 and to the left of 245.
    np.testing.assert_allclose([left, top, right, bottom], [45, 388, 245, 912], atol=15)


@pytest.mark.parametrize("batch", [[], [4]], ids=["open", "of four"])
@pytest.mark.parametrize("kind", ["yolo", "yolo_nms", "rtmo"])
def test_an_onnx_file_of_each_layout_and_batch(tmp_path, python, kind, batch):
    model = tmp_path / f"{kind}.onnx"
    environments.run(python, HERE / "tiny_pose.py", kind, model, *batch)
    (tmp_path / "images").mkdir()
    # The first channel is red to YOLO, of 1, and blue to RTMO, of 255. Scores: 0.8 and 0.4.
    colour = (51, 0, 204) if kind == "rtmo" else (204, 0, 51)
    Image.new("RGB", (128, 128), colour).save(tmp_path / "images" / "square.png")
    Image.new("RGB", (128, 64), colour).save(tmp_path / "images" / "wide.png")
    reasons, boxes = judge(tmp_path, python, model=str(model), min_score=0.41)
    assert reasons == {}
    # The box, 16 to 48 by 8 to 56 on the canvas, is twice as large in the image. The canvas of
    # the wide image has 16 rows of border above for YOLO, none for RTMO.
    shift = 0 if kind == "rtmo" else -32
    square, wide = (32, 16, 96, 112), (32, max(0, 16 + shift), 96, min(64, 112 + shift))
    assert boxes == {
        "square": pose_filter.crop_box(square, (128, 128)),
        "wide": pose_filter.crop_box(wide, (128, 64)),
    }
    reasons, _ = judge(tmp_path, python, model=str(model), nms_iou=0.95, min_score=0.3)
    assert set(reasons.values()) == {"shows more than one person: 2"}


def test_an_onnx_file_of_another_network_is_told_in_one_sentence(tmp_path, python):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    model = tmp_path / "no.onnx"
    model.write_bytes(b"no network")
    with pytest.raises(UserError, match=r"^model '.*no.onnx' cannot be loaded: "):
        judge(tmp_path, python, model=str(model))


def test_an_onnx_file_with_other_inputs_is_told_with_them(tmp_path, python):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    model = tmp_path / "mask.onnx"
    environments.run(python, HERE / "tiny_pose.py", "mask", model)
    told = r"takes input tensor\(float\) \['batch', 3, 64, 64\], mask .*; export one that takes an"
    with pytest.raises(UserError, match=told):
        judge(tmp_path, python, model=str(model))
