"""Filter engine `pose`: the rule, the crop, and the stage with a worker that knows the answers."""

import json
import pathlib
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxtbpr import stages
from jaxtbpr.core import files, manifest, options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.workdir import COMMIT, Workdir
from jaxtbpr.synthesis import filter
from jaxtbpr.workers import install, isolated, pose_filter

FAKE = pathlib.Path(__file__).parent / "fake_worker"
SIZE = (40, 80)
ALL = tuple(range(17))


def person(located=ALL, box=(10.0, 5.0, 30.0, 75.0)):
    joints = [[20.0, 4.0 + 4 * k, 0.9 if k in located else 0.2] for k in ALL]
    return {"box": list(box), "score": 0.8, "joints": joints}


def answer(*persons):
    return {"persons": list(persons), "size": list(SIZE)}


@pytest.mark.parametrize(
    ("located", "lacking"),
    [
        (ALL, ""),
        ((0, 5, 13), ""),
        ((4, 10, 16), ""),
        ((5, 11, 12, 13), "the head"),
        ((0, 1, 2, 11, 12, 15), "the upper body"),
        ((0, 5, 11, 12), "the legs"),
        ((8,), "the head and the legs"),
        ((), "the head, the upper body and the legs"),
    ],
)
def test_one_joint_of_each_group_is_enough(located, lacking):
    expected = f"shows no sure joint of {lacking}" if lacking else ""
    assert pose_filter.reason(answer(person(located)), 0.5) == expected


def test_the_rule_is_that_of_the_published_code():
    groups = ((0, 4), (5, 10), (13, 16))
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        joints = rng.uniform([-20, -20, 0], [40, 80, 0.62], (17, 3))
        is_good = all(
            any(
                joints[k, 0] > 1e-4 and joints[k, 1] > 1e-5 and joints[k, 2] >= 0.5
                for k in range(first, last + 1)
            )
            for first, last in groups
        )
        one = person() | {"joints": joints.tolist()}
        assert (pose_filter.reason(answer(one), 0.5) == "") == is_good
        seen.add(is_good)
    assert seen == {True, False}


def test_a_joint_outside_the_image_is_not_located():
    one = person()
    for joint in one["joints"][13:]:
        joint[1] = SIZE[1] + 1
    assert pose_filter.reason(answer(one), 0.5) == "shows no sure joint of the legs"


def test_other_numbers_of_persons_are_refused():
    assert pose_filter.reason(answer(), 0.5) == "shows nobody"
    three = answer(person(), person(()), person(()))
    assert pose_filter.reason(three, 0.5) == "shows more than one person: 3"


def test_a_crop_is_a_little_larger_than_the_person():
    # 40 x 1.02 + 10 = 50.8 wide around 30; 80 x 1.02 + 10 = 91.6 high around 60; whole pixels.
    assert pose_filter.crop_box((10, 20, 50, 100), (200, 300)) == (4, 14, 55, 105)
    assert pose_filter.crop_box((0, 20, 60, 128), (64, 128)) == (0, 13, 64, 128)


def make_run(root, answers, size=2):
    """A workdir with stage generate finished; answers: {id: of the pose worker}."""
    records = []
    for number, (name, found) in enumerate(answers.items()):
        ending = "jpg" if number == 1 else "png"
        path = root / f"generate/images/{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number % 5).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(path)
        path.with_suffix(".json").write_text(json.dumps(found))
        image = {"path": str(path.relative_to(root)), "sha256": files.sha256(path.read_bytes())}
        image |= {"height": SIZE[1], "width": SIZE[0]}
        records.append({"id": name, "identity": f"{name:0>8}", "split": "train", "image": image})
    shards, folder = manifest.split_shards(records, size), root / "generate"
    manifest.map_records(
        shards, folder, lambda rs: ([r] for r in rs), label="", shard_count=len(shards)
    )
    files.write_json_atomic(folder / COMMIT, {"outputs": manifest.shard_digests(folder)})
    return Workdir(root, order=("generate", "filter"), chosen=("filter",))


def run(workdir, engines=("pose",), **changes):
    stage = filter.stage({name: stages.FILTER_ENGINES[name] for name in ("pose", "quality")})
    config = ConfigDict({"seed": 0, "filter": options.default_config(stage.options)})
    config.filter.quality.processes = 1
    config.filter.pose.update({"python": sys.executable, "claim_seconds": 5.0} | changes)
    config.filter.engines = engines
    result = stage.run(config, workdir)
    made = manifest.Manifest(workdir.dir("filter"), result["outputs"])
    reasons = {r["id"]: r["rejected"]["reason"] for r in made.rejected()}
    return result, {r["id"]: r for r in made}, reasons


ANSWERS = {
    "a": answer(person()),
    "b": answer(person(box=(0.0, 0.0, 18.0, 60.0))),
    "c": answer(),
    "d": answer(person(), person()),
    "e": {"problem": "the image cannot be read: it is torn"},
}


@pytest.fixture
def fake_worker(monkeypatch):
    monkeypatch.setattr(isolated, "WORKER", FAKE)


def test_the_images_of_one_person_are_kept_and_cropped(tmp_path, fake_worker):
    result, kept, reasons = run(make_run(tmp_path, ANSWERS))
    assert (result["rejected_by"], result["cropped"], result["rejected"]) == ({"pose": 3}, 2, 3)
    assert reasons == {
        "c": "generate/images/c.png shows nobody",
        "d": "generate/images/d.png shows more than one person: 2",
        "e": "generate/images/e.png cannot be judged: the image cannot be read: it is torn",
    }
    image = kept["a"]["image"]
    assert image["path"] == "filter/images/00000/a.png"
    whole = np.asarray(Image.open(tmp_path / "generate/images/a.png"))
    crop = np.asarray(Image.open(tmp_path / image["path"]))
    left, top, right, bottom = pose_filter.crop_box(ANSWERS["a"]["persons"][0]["box"], SIZE)
    np.testing.assert_array_equal(crop, whole[top:bottom, left:right])
    assert (image["height"], image["width"]) == crop.shape[:2] == (80, 31)
    assert image["sha256"] == files.sha256((tmp_path / image["path"]).read_bytes())
    assert kept["b"]["image"]["path"] == "filter/images/00000/b.jpg"
    assert not (tmp_path / "filter" / "measured").exists()


def test_without_crop_the_whole_images_go_on(tmp_path, fake_worker):
    result, kept, _ = run(make_run(tmp_path, ANSWERS), crop=False)
    assert result["cropped"] == 0
    assert [r["image"]["path"] for r in kept.values()] == [
        "generate/images/a.png",
        "generate/images/b.jpg",
    ]
    assert not (tmp_path / "filter" / "images").exists()


def test_a_killed_worker_and_a_killed_run_end_with_the_same_bytes(
    tmp_path, fake_worker, monkeypatch
):
    run(make_run(tmp_path / "whole", ANSWERS, size=5))
    workdir = make_run(tmp_path / "killed", ANSWERS, size=5)
    folder = workdir.dir("filter") / "measured" / "pose" / "requests"
    folder.mkdir(parents=True)
    (folder / "die").write_text("2")
    real = filter.write_image
    monkeypatch.setattr(filter, "write_image", lambda *_: sys.exit("killed"))
    with pytest.raises(SystemExit):
        run(workdir)
    assert len((folder / "loaded.txt").read_text().splitlines()) == 2
    monkeypatch.setattr(filter, "write_image", real)
    monkeypatch.setattr(isolated, "WORKER", "no worker is needed any more")
    run(workdir)
    for path in (tmp_path / "whole" / "filter").rglob("*.*"):
        other = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes()


def test_an_engine_after_it_does_not_crop_what_it_refuses(tmp_path, fake_worker):
    workdir = make_run(tmp_path, ANSWERS | {"f": answer(person())})  # whose image is that of "a"
    result, kept, reasons = run(workdir, engines=("pose", "quality"))
    assert (set(kept), result["cropped"]) == ({"a", "b"}, 2)
    assert result["rejected_by"] == {"pose": 3, "quality": 1}
    assert "nearly the same" in reasons["f"]
    assert not list((tmp_path / "filter" / "images").rglob("f.*"))


def test_a_model_that_is_no_file_is_told_before_anything_is_done(tmp_path):
    config = ConfigDict({"filter": {"pose": {"model": "yolov8n-pose.pt"}}})
    with pytest.raises(UserError, match=r"yolov8n-pose.pt is neither 'mediapipe' nor an .onnx"):
        pose_filter.fingerprint(config)
    config.filter.pose.model = "mediapipe"
    assert pose_filter.fingerprint(config) == {}
    config.filter.pose.model = str(tmp_path / "pose.onnx")
    (tmp_path / "pose.onnx").write_bytes(b"one")
    one = pose_filter.fingerprint(config)
    (tmp_path / "pose.onnx").write_bytes(b"two")
    assert pose_filter.fingerprint(config) != one


def test_its_environment_is_asked_for_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"jaxtbpr.workers.install pose`, set config.filter.pose"):
        run(make_run(tmp_path / "w", ANSWERS), python="")
    places = {install.place(path) for path in install.REQUIREMENTS.values()}
    assert len(places) == len(install.REQUIREMENTS)
