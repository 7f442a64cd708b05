"""Stage filter: what engine quality refuses and why, and how engines work together."""

import io

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image, ImageFilter

from jaxtbpr import stages
from jaxtbpr.core import attributes, files, manifest, options, seeds
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.workdir import COMMIT, Workdir
from jaxtbpr.render import png, render
from jaxtbpr.synthesis import filter, quality
from jaxtbpr.synthesis.filter import FilterEngine

RENDERS = 120
QUALITY = stages.FILTER_ENGINES["quality"]


def draw(number):
    """A person of the default config."""
    rng = seeds.rng(0, "filter test", number)
    looks = attributes.sample_person(rng) | attributes.sample_scene(rng)
    return render(looks, seed=0, record_id=f"{number}", height=128, width=64)


@pytest.fixture(scope="module")
def people():
    return [draw(number) for number in range(RENDERS)]


def changed(pixels, change):
    image, data = Image.fromarray(pixels), io.BytesIO()
    change(image).save(data, "JPEG", quality=75)
    return data.getvalue()


def make_run(root, images, size=50):
    """A workdir with stage generate finished; images: {id: encoded}."""
    records = []
    for name, data in images.items():
        path = f"generate/images/{name}.png"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        image = {"path": path, "sha256": files.sha256(data)}
        records.append({"id": name, "identity": name, "split": "train", "image": image})
    shards, folder = manifest.split_shards(records, size), root / "generate"
    manifest.map_records(
        shards, folder, lambda rs: ([r] for r in rs), label="", shard_count=len(shards)
    )
    files.write_json_atomic(folder / COMMIT, {"outputs": manifest.shard_digests(folder)})
    return Workdir(root, order=("generate", "filter"), chosen=("filter",))


def run(workdir, stage=None, **values):
    stage = stage or filter.stage({"quality": QUALITY})
    config = ConfigDict({"seed": 0, "filter": options.default_config(stage.options)})
    config.filter.quality.processes = 1
    config.update_from_flattened_dict(values)
    result = stage.run(config, workdir)
    made = manifest.Manifest(workdir.dir("filter"), result["outputs"])
    return result, {r["id"]: r["rejected"]["reason"] for r in made.rejected()}


def test_people_of_the_default_config_all_pass(people, tmp_path):
    images = {f"{k:08d}": png.encode(pixels) for k, pixels in enumerate(people)}
    result, rejected = run(make_run(tmp_path, images))
    assert rejected == {}
    assert (result["records_out"], result["rejected_by"]) == (RENDERS, {"quality": 0})


def test_each_kind_of_bad_image_is_refused_with_its_reason(people, tmp_path):
    whole, other = (png.encode(pixels) for pixels in people[:2])
    blurred = changed(people[2], lambda image: image.filter(ImageFilter.GaussianBlur(4)))
    smaller = changed(people[0], lambda image: image.resize((58, 115)))
    images = {
        "1": whole, "2": other, "3": whole[:-200], "4": blurred,
        "5": png.encode(np.full((128, 64, 3), 90, np.uint8)),
        "6": whole, "7": changed(people[0], lambda image: image), "8": smaller, "9": b"",
    }  # fmt: skip
    _, rejected = run(make_run(tmp_path, images, size=4))
    assert set(rejected) == set("3456789")
    assert "3.png cannot be read" in rejected["3"]
    assert "9.png cannot be read" in rejected["9"]
    assert "4.png is blurred: sharpness " in rejected["4"]
    assert rejected["5"] == "generate/images/5.png is blank: contrast 0.0"
    same = "is nearly the same as generate/images/1.png"
    assert rejected["6"] == f"generate/images/6.png {same}: 0 bits differ"
    assert all(f"generate/images/{name}.png {same}" in rejected[name] for name in "78")


def test_a_bad_image_is_nobodys_first(people, tmp_path):
    whole = png.encode(people[0])
    images = {"1": whole[:-200], "2": whole, "3": whole}
    _, rejected = run(make_run(tmp_path, images))
    assert "nearly the same as generate/images/2.png" in rejected.pop("3")
    assert set(rejected) == {"1"}


def test_duplicates_are_kept_where_they_may_be(people, tmp_path):
    workdir = make_run(tmp_path, dict.fromkeys("12", png.encode(people[0])))
    _, rejected = run(workdir, **{"filter.quality.duplicate_distance": -1})
    assert rejected == {}


@pytest.mark.parametrize("dies", ["measuring", "writing"])
def test_a_killed_filter_ends_with_the_same_bytes(people, tmp_path, dies, monkeypatch):
    images = {f"{k}": png.encode(people[k % 7]) for k in range(10)}
    whole, killed = (make_run(tmp_path / name, images, size=3) for name in ("whole", "killed"))
    run(whole)
    place, name = (quality, "sharpness") if dies == "measuring" else (filter, "reject")
    real, left = getattr(place, name), [2]

    def die(*given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(place, name, die)
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    monkeypatch.setattr(place, name, real)
    run(killed)
    for path in sorted((tmp_path / "whole" / "filter").iterdir()):
        assert (tmp_path / "killed" / "filter" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "killed" / "filter" / "measured").exists()


def only(*rejected):
    """(ids that it is given, an engine that refuses these ids)."""
    seen = []

    def reject(shards, config, root, directory):
        seen.extend(record["id"] for shard in shards for record in shard)
        return {name: f"{name} is out" for name in rejected}

    return seen, FilterEngine({}, reject, fingerprint=lambda c: {f"model of {rejected}": "digest"})


def test_an_engine_sees_what_those_before_it_have_kept(people, tmp_path):
    (seen_by_one, one), (seen_by_other, other) = only("a"), only("c")
    stage = filter.stage({"quality": QUALITY, "one": one, "other": other})
    images = {name: png.encode(people[k]) for k, name in enumerate("abcd")}
    result, rejected = run(
        make_run(tmp_path, images), stage, **{"filter.engines": ("other", "quality", "one")}
    )
    assert (seen_by_other, seen_by_one) == (list("abcd"), list("abd"))
    assert rejected == {"a": "a is out", "c": "c is out"}
    assert result["rejected_by"] == {"other": 1, "quality": 0, "one": 1}


def test_only_the_models_of_the_chosen_engines_are_part_of_the_recipe():
    stage = filter.stage({"quality": QUALITY, "one": only("a")[1], "other": only("b")[1]})
    config = ConfigDict({"filter": options.default_config(stage.options)})
    assert stage.fingerprint(config) == {}
    config.filter.engines = ("quality", "other")
    assert stage.fingerprint(config) == {"model of ('b',)": "digest"}


def test_an_engine_named_twice_is_refused_and_those_named_are_asked():
    checked = []
    judge = FilterEngine({}, lambda *_: {}, check=checked.append)
    stage = filter.stage({"quality": QUALITY, "one": judge})
    config = ConfigDict({"filter": options.default_config(stage.options)})
    stage.check(config)
    assert checked == []
    config.filter.engines = ("quality", "one")
    stage.check(config)
    assert checked == [config]
    config.filter.engines = ("quality", "quality")
    with pytest.raises(UserError, match="names an engine twice"):
        stage.check(config)


def test_the_pipeline_knows_every_engine():
    assert stages.OPTIONS["filter"]["engines"].choices == ("quality", "clip", "pose")
    assert stages.default_config().filter.engines == ("quality",)


def test_sharpness_is_the_variance_of_the_laplacian():
    grey = np.random.default_rng(0).integers(0, 256, (7, 5)).astype(float)
    values = [
        grey[y, x + 1] + grey[y, x - 1] + grey[y + 1, x] + grey[y - 1, x] - 4.0 * grey[y, x]
        for y in range(1, 6)
        for x in range(1, 4)
    ]
    np.testing.assert_allclose(quality.sharpness(grey), np.var(values))
    assert quality.sharpness(grey[:2]) == 0
