"""Stage build: sets out of manifests and folders, what is rejected, and kills."""

import collections
import errno
import io
import json
import os
import pathlib
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from jaxtbpr.core import images
from jaxtbpr.core.errors import InputError, UserError
from jaxtbpr.core.manifest import Manifest
from jaxtbpr.datasets import build, builder, formats, rows
from jaxtbpr.datasets.source import RetrievalSet, list_splits
from tests.datasets.folders import FORMS, caption, deep_bytes, make_folder, turned_bytes
from tests.datasets.sets import (
    all_files,
    build_folder,
    commit_manifest,
    make_config,
    make_workdir,
    photo_bytes,
    write_manifest,
)

REPOSITORY = pathlib.Path(__file__).parents[2]


def by_id(directory: pathlib.Path) -> dict[str, tuple[RetrievalSet, int]]:
    """Returns {image id: (its split, its number there)}."""
    sets = [RetrievalSet(directory, split) for split in list_splits(directory)]
    return {name: (one, i) for one in sets for i, name in enumerate(one.image_ids)}


def reject_reasons(root: pathlib.Path) -> dict[str, str]:
    lines = (root / "build" / "rejected.jsonl").read_text().splitlines()
    return {row["id"]: row["reason"] for row in map(json.loads, lines)}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_of_folder_arrives_whole(tmp_path, form):
    folder, result = build_folder(tmp_path, form)
    found = by_id(tmp_path / "run" / "build" / "real")
    assert len(found) == len(folder.photos) == result["records_out"]
    names = {}
    for photo in folder.photos:
        one, i = next(found[name] for name in found if name.endswith(photo.name))
        assert one.image_bytes(i) == folder.image(photo).read_bytes()
        assert one.captions[i] == photo.captions
        assert one.record(i)["identity_name"] == photo.identity
        assert one.split == photo.split or (photo.split, one.split) == ("train", "val")
        names.setdefault(photo.identity, set()).add(int(one.identities[i]))
    assert all(len(numbers) == 1 for numbers in names.values())
    assert sorted(number for (number,) in names.values()) == list(range(len(names)))


def test_train_identities_are_numbered_first(tmp_path):
    build_folder(tmp_path)
    directory = tmp_path / "run" / "build" / "real"
    numbers = [set(RetrievalSet(directory, s).identities) for s in ("train", "val", "test")]
    assert numbers == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8}]


def test_a_manifest_becomes_the_set_synthetic(tmp_path):
    records = write_manifest(tmp_path)
    result = build.run(make_config(), make_workdir(tmp_path))
    found = by_id(tmp_path / "build" / "synthetic")
    assert set(found) == {record["id"] for record in records}
    for record in records:
        one, i = found[record["id"]]
        got = one.record(i)
        assert one.image_bytes(i) == (tmp_path / record["image"]["path"]).read_bytes()
        assert got["image"] == one.image_bytes(i)
        assert got["captions"] == list(one.captions[i]) == record["captions"]
        assert (one.split, got["source"]) == (record["split"], "render")
        assert got["identity"] == one.identities[i]
        assert got["identity_name"] == record["identity"]
        keys = ("prompt", "seed", "edits", "attributes")
        assert got["provenance"] == {key: record[key] for key in keys}
    counts = {split: n["images"] for split, n in result["sets"]["synthetic"].items()}
    assert counts == {"train": 8, "val": 2, "test": 2}
    assert (result["records_in"], result["records_out"], result["rejected"]) == (12, 12, 0)


def test_what_is_built_is_read_once_and_checked_rows_twice(tmp_path, monkeypatch):
    """Once to count them, which numbers the people, and once to write set and index."""
    monkeypatch.setattr(build, "_CHUNK", 5)
    write_manifest(tmp_path)
    folder = make_folder(tmp_path, "rstpreid")
    read = collections.Counter()
    one_shard, all_entries = Manifest._read, formats.read

    def counted_shard(manifest, name):
        read[manifest.directory.name, name] += 1
        return one_shard(manifest, name)

    def counted_entries(*args, **kwargs):
        read["folder"] += 1
        return all_entries(*args, **kwargs)

    monkeypatch.setattr(Manifest, "_read", counted_shard)
    monkeypatch.setattr(formats, "read", counted_entries)
    build.run(make_config(), make_workdir(tmp_path))
    checked = {("checked", f"records-{k:05d}.jsonl"): 2 for k in range(3)}
    assert read == {("caption", "records-00000-of-00001.jsonl"): 1} | checked
    read.clear()
    build.run(make_config(folders={"real": str(folder.path)}), make_workdir(tmp_path / "other"))
    assert read["folder"] == 1


def test_images_are_written_as_tfds_itself_writes_them(tmp_path):
    records = write_manifest(tmp_path)
    for record in records:
        record["caption_weights"] = [0.25, 1.0]
    commit_manifest(tmp_path, records)
    build.run(make_config(), make_workdir(tmp_path))
    source = RetrievalSet(tmp_path / "build" / "synthetic", "train").images
    features = source._builder.info.features
    serializer = ExampleSerializer(features.get_serialized_info())
    for k in range(len(source)):
        record = source.record(k) | {"image": io.BytesIO(source[k])}
        example = serializer.get_tf_example(features.encode_example(record))
        assert source._example(k) == example.SerializeToString(deterministic=True)


def test_manifest_and_folders_are_built_side_by_side(tmp_path):
    write_manifest(tmp_path / "run")
    folder = make_folder(tmp_path, "rstpreid")
    config = make_config(folders={"real": str(folder.path), "other": ""})
    result = build.run(config, make_workdir(tmp_path / "run"))
    assert list(result["sets"]) == ["synthetic", "real"]
    assert result["records_out"] == 12 + len(folder.photos)


def test_sets_that_may_share_people_are_told(tmp_path, capsys):
    sets = {name: make_folder(tmp_path / name, name) for name in ("rstpreid", "icfg_pedes")}
    config = make_config(folders={name: str(folder.path) for name, folder in sets.items()})
    build.run(config, make_workdir(tmp_path / "run"))
    said = capsys.readouterr().err
    assert "build: warning: ICFG-PEDES and RSTPReid both come from MSMT17" in said


def test_known_sets_get_builders_of_their_own(tmp_path):
    for form, name in (("cuhk_pedes", "cuhk_pedes"), ("rstpreid", "rstp_reid"), ("csv", None)):
        build_folder(tmp_path / form, form)
        made = tmp_path / form / "run" / "build" / "real" / (name or "person_set") / "1.0.0"
        info = tfds.builder_from_directory(made).info
        assert info.name == (name or "person_set")
        assert info.file_format == tfds.core.FileFormat.ARRAY_RECORD


def test_tfds_reads_a_set_without_this_project(tmp_path):
    folder, _ = build_folder(tmp_path)
    directory = tmp_path / "run" / "build" / "real" / "cuhk_pedes" / "1.0.0"
    source = tfds.builder_from_directory(directory).as_data_source("test")
    assert len(source) == len(folder.split("test"))
    assert source[0]["image"].shape == (24, 12, 3)
    assert [text.decode() for text in source[0]["captions"]] == list(
        folder.split("test")[0].captions
    )


def test_what_build_returns_is_what_lies_there(tmp_path):
    _, result = build_folder(tmp_path)
    written = all_files(tmp_path / "run" / "build")
    assert set(written) == {*result["outputs"], "rejected.jsonl", "real/done.json"}
    assert not (tmp_path / "run" / "build" / "real" / "checked").exists()


def test_faulty_images_are_set_aside_with_their_reason(tmp_path):
    folder, result = build_folder(tmp_path, faults=True, people=4)
    reasons = reject_reasons(tmp_path / "run")
    bad = [photo for photo in folder.photos if photo.fault]
    assert [reasons[photo.name] for photo in bad] == [
        "the image cannot be read (No such file or directory)",
        "the image is not in a known image format (16 bytes)",
        reasons[bad[2].name],
    ]
    assert "cannot be decoded" in reasons[bad[2].name]
    assert (result["rejected"], result["records_in"]) == (3, len(folder.photos))
    found = by_id(tmp_path / "run" / "build" / "real")
    assert set(found) == {photo.name for photo in folder.photos if not photo.fault}


def test_records_without_captions_or_with_a_problem_are_set_aside(tmp_path):
    records = write_manifest(tmp_path)
    records[0]["captions"] = []
    records[1]["captions"] = ["", " \n"]
    records[2]["captions"] = ["", "a man"]
    (tmp_path / records[3]["image"]["path"]).write_bytes(photo_bytes(999))
    del records[4]["image"]
    commit_manifest(tmp_path, records)
    result = build.run(make_config(), make_workdir(tmp_path))
    assert reject_reasons(tmp_path) == {
        records[0]["id"]: "has no caption",
        records[1]["id"]: "has only empty captions",
        records[3]["id"]: ("the image is not the file that the manifest names (another SHA-256)"),
        records[4]["id"]: "has no image yet: add stage 'generate'",
    }
    assert result["rejected"] == 4
    one, i = by_id(tmp_path / "build" / "synthetic")[records[2]["id"]]
    assert one.captions[i] == ("a man",)


def test_a_set_without_val_lends_it_train_identities(tmp_path):
    folder = make_folder(tmp_path, "icfg_pedes", people=20)
    chosen = []
    for seed in (0, 0, 1):
        root = tmp_path / f"run{len(chosen)}"
        config = make_config(seed, folders={"real": str(folder.path)}, val_fraction=0.2)
        result = build.run(config, make_workdir(root))
        counts = {split: n["identities"] for split, n in result["sets"]["real"].items()}
        assert counts == {"train": 16, "val": 4, "test": 20}
        val = RetrievalSet(root / "build" / "real", "val")
        train = RetrievalSet(root / "build" / "real", "train")
        assert set(val.identities).isdisjoint(train.identities)
        chosen.append({val.record(i)["identity_name"] for i in range(len(val))})
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_val_share_of_zero_leaves_train_alone(tmp_path):
    folder = make_folder(tmp_path, "icfg_pedes")
    config = make_config(folders={"real": str(folder.path)}, val_fraction=0.0)
    build.run(config, make_workdir(tmp_path / "run"))
    assert list_splits(tmp_path / "run" / "build" / "real") == ["train", "test"]


def test_worker_processes_build_the_same_bytes(tmp_path):
    folder = make_folder(tmp_path, "cuhk_pedes", faults=True)
    for count in (1, 2):
        config = make_config(folders={"real": str(folder.path)}, processes=count)
        build.run(config, make_workdir(tmp_path / str(count)))
    assert all_files(tmp_path / "1") == all_files(tmp_path / "2")


def test_a_killed_build_ends_with_the_same_bytes(tmp_path):
    folder = make_folder(tmp_path, "cuhk_pedes", faults=True, people=6, images=3)
    killed = []
    for seed, most in ((0, 0), (1, 20), (2, 20)):
        root = tmp_path / f"run{seed}"
        arguments = (str(root), str(folder.path), str(seed), str(most))
        done = subprocess.run(
            [sys.executable, "-m", "tests.datasets.build_and_die", *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        killed.append(int(done.stdout))
        assert all_files(root) == all_files(tmp_path / "run0")
    assert min(killed[1:]) >= 1


@pytest.mark.parametrize("first_failure", [1, 4, 9, 14])
def test_a_build_goes_on_at_the_shard_where_it_stopped(tmp_path, monkeypatch, first_failure):
    monkeypatch.setattr(builder, "SHARD_ROWS", 3)
    folder = make_folder(tmp_path, "cuhk_pedes")  # 6 images in each of 3 splits
    config = make_config(folders={"real": str(folder.path)})
    read, calls = rows.read_image, []

    def failing(row, root):
        calls.append(row["id"])
        if len(calls) == first_failure:
            raise OSError(errno.ENOSPC, "No space left on device")
        return read(row, root)

    monkeypatch.setattr(rows, "read_image", failing)
    with pytest.raises(OSError, match="No space left on device"):
        build.run(config, make_workdir(tmp_path / "run"))
    build.run(config, make_workdir(tmp_path / "run"))
    finished = (first_failure - 1) // 3 * 3
    assert len(calls) == first_failure + 18 - finished
    build.run(config, make_workdir(tmp_path / "unbroken"))
    assert all_files(tmp_path / "run") == all_files(tmp_path / "unbroken")


def test_a_finished_set_is_not_made_again(tmp_path, monkeypatch):
    folder, result = build_folder(tmp_path)
    monkeypatch.setattr(build, "_check", None)
    config = make_config(folders={"real": str(folder.path)})
    assert build.run(config, make_workdir(tmp_path / "run")) == result


def test_an_image_that_changes_while_it_is_built_is_an_error(tmp_path):
    row = {"path": "a.png", "sha256": "0" * 64}
    (tmp_path / "a.png").write_bytes(photo_bytes(0))
    with pytest.raises(OSError, match="changed while its set was being built"):
        rows.read_image(row, str(tmp_path))


def test_the_build_prints_nothing_on_standard_output(tmp_path, capfd):
    build_folder(tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Dataset" not in err
    assert "Downloading" not in err


def test_tensorflow_and_jax_are_not_needed(tmp_path):
    program = (
        "import sys, pathlib; from tests.datasets.sets import build_folder;"
        f"build_folder(pathlib.Path({str(tmp_path)!r}));"
        "print([m for m in ('tensorflow', 'torch', 'jax', 'apache_beam') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_sets_are_built_without_docstrings_which_python_oo_leaves_out(tmp_path, monkeypatch):
    for one in (builder.PersonSet, *builder.BUILDERS.values()):
        monkeypatch.setattr(one, "__doc__", None)
    build_folder(tmp_path)


def test_a_set_named_with_no_folder_is_none(tmp_path):
    folder = make_folder(tmp_path, "cuhk_pedes")
    assert list(build.fingerprint(make_config(folders={"real": str(folder.path), "none": ""}))) == [
        "real"
    ]


def test_a_set_with_no_usable_image_is_an_error(tmp_path):
    folder = make_folder(tmp_path, "cuhk_pedes")
    for photo in folder.photos:
        folder.image(photo).unlink()
    config = make_config(folders={"real": str(folder.path)})
    with pytest.raises(
        UserError, match=r"'real' has no usable image \(18 were rejected, the first is "
    ):
        build.run(config, make_workdir(tmp_path / "run"))


def test_nothing_to_build_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nothing to build in .*config.build.folders"):
        build.run(make_config(), make_workdir(tmp_path))


@pytest.mark.parametrize("name", ["synthetic", "a/b", "-x", "a b", ""])
def test_a_set_name_that_cannot_be_a_folder_is_an_error(name):
    with pytest.raises(UserError, match=f"config.build.folders has the set name {name!r}"):
        build.fingerprint(make_config(folders={name: "/data"}))


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        build.fingerprint(make_config(folders={"real": str(tmp_path / "nowhere")}))


def test_a_missing_set_or_split_is_an_error(tmp_path):
    with pytest.raises(InputError, match="is not a built set; run stage 'build'"):
        RetrievalSet(tmp_path, "test")
    build_folder(tmp_path, "icfg_pedes", people=1)
    with pytest.raises(InputError, match=r"has no split 'val', only \['train', 'test'\]"):
        RetrievalSet(tmp_path / "run" / "build" / "real", "val")
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(InputError, match="holds 0 finished TFDS sets"):
        RetrievalSet(tmp_path, "test").image_bytes(0)


def test_relative_folders_are_taken_from_where_the_command_runs(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, "cuhk_pedes")
    monkeypatch.chdir(tmp_path)
    config = make_config(folders={"real": folder.path.name})
    result = build.run(config, make_workdir(tmp_path / "run"))
    assert result["rejected"] == 0
    assert caption(0, 1) in RetrievalSet(tmp_path / "run" / "build" / "real", "train").captions[0]


def test_a_run_s_folder_with_brackets_is_read_and_no_other(tmp_path):
    build_folder(tmp_path / "x1", "cuhk_pedes", people=2)
    folder, result = build_folder(tmp_path / "x[1]", "cuhk_pedes")
    found = by_id(tmp_path / "x[1]" / "run" / "build" / "real")
    assert len(found) == len(folder.photos)
    assert all(one.image_bytes(i) for one, i in found.values())
    written = all_files(tmp_path / "x[1]" / "run" / "build")
    assert set(written) == {*result["outputs"], "rejected.jsonl", "real/done.json"}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_of_images_that_was_cut_short_is_one_sentence(tmp_path, share):
    build_folder(tmp_path)
    directory = tmp_path / "run" / "build" / "real"
    (path,) = directory.rglob("*-test.array_record*")
    os.truncate(path, int(share * path.stat().st_size))
    source = RetrievalSet(directory, "test").images
    with pytest.raises(
        InputError, match=r"real, split 'test', cannot be read .*; delete .*/build "
    ):
        source[0]


def test_the_end_of_the_images_is_still_the_end_of_a_loop(tmp_path):
    folder, _ = build_folder(tmp_path)
    built = RetrievalSet(tmp_path / "run" / "build" / "real", "test").images
    assert len(list(built)) == len(built) == len(folder.split("test"))


def test_images_and_form_can_be_named_in_the_config(tmp_path):
    folder = make_folder(tmp_path, "cuhk_pedes")
    away = folder.images.rename(tmp_path / "away")
    named = {"folders": {"real": str(folder.path)}, "images": {"real": str(away), "no": ""}}
    config = make_config(**named, formats={"real": "cuhk_pedes"})
    before = build.fingerprint(config)
    result = build.run(config, make_workdir(tmp_path / "run"))
    assert (result["records_out"], result["rejected"]) == (len(folder.photos), 0)
    (away / folder.photos[0].name).unlink()
    assert build.fingerprint(config) != before


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"images": {"rael": "/x"}}, "build.images.rael='/x' must be .* \\(real"),
        ({"images": {"real": 3}}, "build.images.real=3 must be a string"),
        ({"images": {"real": "/nowhere"}}, "build.images.real=/nowhere is not a folder"),
        ({"formats": {"real": "cuhk"}}, "build.formats.real: format='cuhk' is not known"),
    ],
)
def test_a_wrong_place_of_images_or_a_wrong_form_is_an_error(tmp_path, named, said):
    folder = make_folder(tmp_path, "cuhk_pedes")
    with pytest.raises(UserError, match=f"config.{said}"):
        build.fingerprint(make_config(folders={"real": str(folder.path)}, **named))


@pytest.mark.parametrize("exif", [True, False])
def test_photographs_are_turned_or_left_as_stored_wherever_the_set_is_read(tmp_path, exif):
    folder = make_folder(tmp_path, "icfg_pedes")
    turned, other, deep = folder.split("test")[:3]
    folder.image(turned).write_bytes(turned_bytes(1))
    folder.image(deep).write_bytes(deep_bytes(1))
    config = make_config(folders={"real": str(folder.path)}, exif=exif)
    build.run(config, make_workdir(tmp_path / "run"))
    found = by_id(tmp_path / "run" / "build" / "real")
    one, i = found[turned.name]
    height, width = (12, 24) if exif else (24, 12)
    assert images.open_image(one.image_bytes(i)).size == (width, height)
    if not exif:  # whoever reads the set, knowing of EXIF or not, sees the same
        stored = Image.open(folder.image(turned))
        np.testing.assert_array_equal(Image.open(io.BytesIO(one.image_bytes(i))), stored)
        assert not images.traits_of(one.image_bytes(i))
    for photo in (other, deep):
        one, i = found[photo.name]
        assert one.image_bytes(i) == folder.image(photo).read_bytes()


@pytest.mark.parametrize(("told", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_composed_in_the_file_and_decomposed_on_disk_are_found(tmp_path, told, there):
    name = "Zoë/José é.png"
    path = tmp_path / "set" / unicodedata.normalize(there, name)
    path.parent.mkdir(parents=True)
    path.write_bytes(photo_bytes(1))
    row = f"file_path,caption,split\n{unicodedata.normalize(told, name)},a man,test\n"
    (tmp_path / "set" / "captions.csv").write_text(row)
    config = make_config(folders={"real": str(tmp_path / "set")})
    result = build.run(config, make_workdir(tmp_path / "run"))
    assert (result["records_out"], result["rejected"]) == (1, 0)


def test_empty_places_and_forms_are_the_usual_ones(tmp_path):
    # As configs/real.py has them for every set.
    folder = make_folder(tmp_path, "csv")
    empty = {"own": "", "rstpreid": ""}
    config = make_config(
        folders={"own": str(folder.path), "rstpreid": ""}, images=empty, formats=empty
    )
    assert build.fingerprint(config)["own"]
    assert build.run(config, make_workdir(tmp_path / "run"))["records_out"] == len(folder.photos)
