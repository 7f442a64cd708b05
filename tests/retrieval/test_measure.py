"""Stage measure: its numbers, whatever the reference is, and that it goes on where it stopped."""

import json
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxtbpr.core import images, options
from jaxtbpr.core.errors import InputError, UserError
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import build
from jaxtbpr.retrieval import measure
from jaxtbpr.retrieval.judging import reference, scoring
from tests.datasets.folders import make_folder
from tests.datasets.sets import make_config as build_config
from tests.retrieval.colours import Colours, make_run, record

ORDER = ("generate", "filter", "caption")


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr(scoring, "open_scorer", lambda options: Colours())
    monkeypatch.setattr(measure, "_SHARD", 2)


def people(shown=("red", "green", "blue", "red")):
    """As many people, the first with a wrong caption, and one of another split."""
    made = [record(f"{k}", colour, [colour]) for k, colour in enumerate(shown)]
    made[0]["captions"].append("Somebody's blue-green coat, a blue-green coat")
    return [*made, record("9", "green", ["green"], split="test")]


def run(workdir, **values):
    config = ConfigDict({"seed": 0, "measure": options.default_config(measure.OPTIONS)})
    config.measure.update(values)
    workdir.dir("measure").mkdir(exist_ok=True)
    result = measure.run(config, workdir, ORDER)
    return result, json.loads((workdir.dir("measure") / "measures.json").read_text())


def test_the_numbers_of_a_small_set(tmp_path):
    result, found = run(make_run(tmp_path, people(), after="measure"))
    numbers = result["measures"]
    assert numbers == found["measures"]
    assert (numbers["images"], numbers["captions"]) == (4, 5)
    assert numbers["clip_score"] == pytest.approx(2.5 * 4 / 5)
    assert (numbers["cmmd"], numbers["reference_images"]) == (None, None)
    mean = np.array([2, 1, 1]) / 4
    assert numbers["feature_variance"] == pytest.approx(1 - mean @ mean)
    assert (numbers["exact_duplicates"], numbers["near_duplicates"]) == (0.25, 0.75)
    assert found["attributes"]["upper_colour"]["max"] == 2
    assert numbers["evenness_from"] == "records"
    assert found["words"] == {"6": 5}
    assert numbers["vocabulary"] == len(
        ["a", "person", "in", "red", "green", "blue", "coat", "somebody's", "blue-green"]
    )
    assert numbers["distinct_captions"] == 0.8
    assert [one["score"] for one in found["examples"]["lowest"]][:2] == [0.0, 1.0]
    assert len({one["id"] for one in found["examples"]["highest"]}) == 4
    assert sum(found["scores"]["believed"]) == 5


def folder_of(kind, root):
    """A reference of this kind, of green images but for the folder."""
    made = [record(f"{k}", "green", ["green"]) for k in range(6)]
    workdir = make_run(root, made, after="build")
    if kind == "a run":
        return root
    if kind == "a built set":
        build.run(build_config(val_fraction=0.0), workdir)
        return root / "build" / "synthetic"
    return make_folder(root / "folder", "cuhk_pedes").path


@pytest.mark.parametrize("kind", ["a run", "a built set", "a published folder"])
def test_a_reference_may_be_of_any_kind(tmp_path, kind):
    given = str(folder_of(kind, tmp_path / "other"))
    workdir = make_run(tmp_path / "own", people(), after="measure")
    result, _ = run(workdir, reference=given)
    numbers = result["measures"]
    assert numbers["cmmd"] > 0
    assert numbers["reference_images"] > 0
    if kind != "a published folder":
        own = Colours().images(
            [(tmp_path / f"own/generate/images/{k}.png").read_bytes() for k in range(4)]
        )
        green = np.tile([0, 1, 0], (6, 1))
        assert numbers["cmmd"] == pytest.approx(scoring.cmmd(own, green), rel=1e-3)
        assert numbers["reference_feature_variance"] == pytest.approx(0, abs=1e-6)
    assert reference.fingerprint(given, ORDER) == reference.fingerprint(given, ORDER)


def test_an_image_is_decoded_once(tmp_path, monkeypatch):
    decoded, decode = [], images._decode
    monkeypatch.setattr(images, "_decode", lambda data: decoded.append(data) or decode(data))
    other = make_run(tmp_path / "other", people(("blue", "green")), after="measure").root
    run(make_run(tmp_path / "own", people(), after="measure"), reference=str(other))
    assert len(decoded) == 4 + 2


def test_fid_is_of_the_usable_images_of_both_sides(tmp_path):
    asked = {}

    def features(images, config, directory):
        asked[directory.name] = rows = Colours().images(list(images))
        return rows

    fid = types.SimpleNamespace(
        OPTIONS={"weights": options.Option("", "of the network")},
        fingerprint=lambda config: {"fid": config.measure.fid.weights},
        check=lambda config: None,
        features=features,
    )
    stage = measure.stage(fid, ORDER)
    config = ConfigDict({"seed": 0, "measure": options.default_config(stage.options)})
    config.measure.reference = str(folder_of("a run", tmp_path / "other"))
    config.measure.fid.weights = "some"
    assert stage.fingerprint(config)["fid"] == "some"
    workdir = make_run(tmp_path / "own", people(), after="measure")
    (tmp_path / "own/generate/images/0.png").unlink()
    numbers = stage.run(config, workdir)["measures"]
    assert {name: len(rows) for name, rows in asked.items()} == {"own": 3, "reference": 6}
    assert numbers["fid"] == scoring.frechet_distance(asked["own"], asked["reference"])
    config.measure.fid.weights = ""
    assert "fid" not in stage.run(config, workdir)["measures"]


def test_a_reference_that_is_none_or_has_no_such_split_is_told(tmp_path):
    workdir = make_run(tmp_path / "own", people(), after="measure")
    with pytest.raises(UserError, match=r"^config\.measure\.reference: .*nowhere"):
        run(workdir, reference=str(tmp_path / "nowhere"))
    built = folder_of("a built set", tmp_path / "built")
    with pytest.raises(InputError, match=rf"is none of the WORKDIR .*; did you mean {built}\?"):
        reference.fingerprint(built.parent, ORDER)
    with pytest.raises(InputError, match="is none of the WORKDIR .* published folder: .* not reco"):
        reference.fingerprint(workdir.root / "generate", ORDER)
    other = folder_of("a run", tmp_path / "other")
    with pytest.raises(UserError, match="has no usable image of split 'val'"):
        run(workdir, reference=str(other), reference_split="val")


def test_images_that_cannot_be_used_are_left_out_and_counted(tmp_path):
    workdir = make_run(tmp_path, people(), after="measure")
    (tmp_path / "generate/images/0.png").unlink()
    result, found = run(workdir)
    assert (result["records_out"], result["rejected"]) == (3, 1)
    assert found["problems"] == {"0": "the image cannot be read (No such file or directory)"}
    assert result["measures"]["clip_score"] == pytest.approx(2.5)


def test_without_attributes_the_model_is_asked_and_without_captions_nothing_is_said(tmp_path):
    made = people()
    for one in made:
        del one["attributes"], one["captions"]
    result, found = run(make_run(tmp_path, made, after="measure"))
    assert result["measures"]["evenness_from"] == "model"
    assert found["attributes"]["upper_colour"]["values"] == 3
    assert result["measures"]["clip_score"] is result["measures"]["words_mean"] is None
    assert found["scores"] is None


def test_some_of_many_are_the_same_ones_whatever_the_order():
    names = [f"{k}" for k in range(50)]
    some = reference.sample(names, 10, 0, str)
    assert len(some) == 10
    assert some == sorted(some, key=names.index)
    assert set(reference.sample(names[::-1], 10, 0, str)) == set(some)
    assert set(reference.sample(names, 10, 1, str)) != set(some)
    assert reference.sample(names, 0, 0, str) == names


def test_a_killed_stage_goes_on_at_its_shard(tmp_path, monkeypatch):
    workdir = make_run(tmp_path / "killed", people(), after="measure")
    real, seen = measure._embed_shard, []

    def die(scorer, images):
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append([image.name for image in images])
        return real(scorer, images)

    monkeypatch.setattr(measure, "_embed_shard", die)
    with pytest.raises(KeyboardInterrupt):
        run(workdir)
    monkeypatch.setattr(
        measure, "_embed_shard", lambda *given: seen.append("again") or real(*given)
    )
    _, found = run(workdir)
    assert seen == [["0", "1"], "again"]
    _, whole = run(make_run(tmp_path / "whole", people(), after="measure"))
    assert found == whole


def test_a_split_without_images_is_told(tmp_path):
    workdir = Workdir(tmp_path, order=("caption",), chosen=("measure",))
    make_run(tmp_path, people(), after="measure")
    with pytest.raises(UserError, match="finds no image of split 'val'"):
        run(workdir, split="val")
