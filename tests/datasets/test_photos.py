"""Stage photos: a folder's people as records, which the stages after it take as they are."""

import json

import pytest
from PIL import Image

from jaxtbpr import pipeline, stages
from jaxtbpr.core import images
from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets.image_check import NOTES
from tests.datasets.folders import deep_bytes, encoded_image, turned_bytes
from tests.datasets.sets import make_workdir
from tests.datasets.test_packed import write_tar
from tests.datasets.test_reid_sets import MARKET, NOBODY, write_market
from tests.workers import fault_server


def run(root, folder, *names, **changes):
    config = stages.default_config()
    config.stages = names or ("photos",)
    config.photos.update(folder=str(folder), processes=1)
    config.build.processes = 1
    config.update_from_flattened_dict(changes)
    return pipeline.run(config, root)


def records(root, stage="photos"):
    shards = sorted((root / stage).glob("records-*.jsonl"))
    return [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]


def test_people_come_with_identity_split_and_image(tmp_path, capsys):
    folder = write_market(tmp_path / "market")
    run(tmp_path / "run", folder)
    told = {one["id"]: (one["split"], one["identity"]) for one in records(tmp_path / "run")}
    assert sorted(told) == sorted(MARKET)
    assert told[MARKET[0]] == ("train", "0002")
    assert told[MARKET[-1]] == ("test", "0003")
    for one in records(tmp_path / "run"):
        with Image.open(folder / one["id"]) as image:
            assert (one["image"]["width"], one["image"]["height"]) == image.size
    assert "photos: warning: images of junk (-1), which show no known" in capsys.readouterr().err


def test_real_people_are_captioned_and_built(tmp_path):
    folder = write_market(tmp_path / "market")

    def answer(body):
        return f"The person wears a red coat and carries bag number {body['seed'] % 10_000} today."

    with fault_server.serving(answer) as server:
        asks = {"caption.engine": "openai", "caption.url": server.url}
        run(tmp_path / "run", folder, "photos", "caption", "build", **asks)
    made = json.loads((tmp_path / "run/build/commit.json").read_text())["sets"]["synthetic"]
    assert (made["train"]["images"] + made["val"]["images"], made["test"]["images"]) == (3, 2)
    assert made["test"]["identities"] == 1


def test_an_image_that_cannot_be_used_is_set_aside(tmp_path):
    folder = write_market(tmp_path / "market")
    (folder / MARKET[1]).write_bytes(b"no image")
    summary = run(tmp_path / "run", folder)
    assert summary["stages"]["photos"]["records_out"] == 4
    (rejected,) = [one for one in records(tmp_path / "run") if "rejected" in one]
    assert rejected["id"] == MARKET[1]
    assert rejected["rejected"]["reason"].startswith("the image ")


@pytest.mark.parametrize("exif", [True, False])
def test_images_that_programs_show_differently_are_copied_as_what_they_show(tmp_path, capsys, exif):
    folder = write_market(tmp_path / "market")
    (folder / MARKET[0]).write_bytes(turned_bytes(1))
    (folder / MARKET[1]).write_bytes(deep_bytes(1))
    run(tmp_path / "run", folder, **{"photos.exif": exif})
    made = {one["id"]: one["image"] for one in records(tmp_path / "run")}
    assert (made[MARKET[0]]["width"], made[MARKET[0]]["height"]) == ((24, 12) if exif else (12, 24))
    for name, data in ((MARKET[0], turned_bytes(1)), (MARKET[1], deep_bytes(1))):
        copy = (tmp_path / "run" / made[name]["path"]).read_bytes()
        assert not images.traits_of(copy)
        assert copy == images.plain(data, turn=exif)
    assert made[MARKET[2]]["path"] == str(folder / MARKET[2])
    said = capsys.readouterr().err
    assert f"photos: warning: {NOTES[images.TURNED]}: 1 ({MARKET[0]})." in said
    assert f"photos: warning: {NOTES[images.DEEP]}: 1 ({MARKET[1]})." in said


def test_images_inside_of_other_files_are_copied_out_of_them(tmp_path):
    write_tar(tmp_path / "tars" / "a.tar", [("a.jpg", encoded_image(0)), ("a.txt", b"someone")])
    run(tmp_path / "run", tmp_path / "tars")
    (one,) = records(tmp_path / "run")
    assert one["image"]["path"].endswith(".jpeg")
    assert (tmp_path / "run" / one["image"]["path"]).read_bytes() == encoded_image(0)


def test_an_image_that_was_added_makes_the_stage_out_of_date(tmp_path):
    folder = write_market(tmp_path / "market")
    run(tmp_path / "run", folder)
    (folder / NOBODY[0]).rename(folder / "query" / "0009_c1s1_000401_03.jpg")
    with pytest.raises(UserError, match=r"config\.photos\.folder: images renamed or replaced"):
        run(tmp_path / "run", folder)


def test_what_cannot_be_is_told_before_anything_is_made(tmp_path):
    with pytest.raises(UserError, match=r"config\.photos\.folder is empty"):
        run(tmp_path / "run", "")
    with pytest.raises(UserError, match=r"config\.photos\.folder: .* is not recognised"):
        run(tmp_path / "run", tmp_path)
    with pytest.raises(UserError, match="'photos' and 'prompts', which both make the people"):
        run(tmp_path / "run", write_market(tmp_path / "market"), "photos", "prompts")
    assert not make_workdir(tmp_path / "run").dir("photos").exists()
