import csv
import io
import json
import tarfile

import pyarrow
import pyarrow.parquet
import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import build, formats, packed
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import encoded_image
from tests.datasets.sets import make_config, make_workdir

SAID = {"a": ("a woman in red", "ann", "train"), "b": ("a man in blue", "bob", "test")}


def write_tar(path, samples):
    path.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(path, "w") as shard:
        for name, data in samples:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))


def write_parquet(path, images, **columns):
    path.parent.mkdir(exist_ok=True, parents=True)
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array(images, kind), **columns})
    pyarrow.parquet.write_table(table, path, row_group_size=2)


def write_metadata(path, key, rows):
    path.parent.mkdir(exist_ok=True, parents=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", key])
        table.writerows(rows)


def write_photo(path, seed):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(encoded_image(seed))


def shards(folder):
    for seed, (name, (text, who, split)) in enumerate(SAID.items()):
        told = json.dumps({"caption": text, "identity": who}).encode()
        samples = [(f"x/{name}.jpg", encoded_image(seed)), (f"x/{name}.json", told)]
        write_tar(folder / f"{split}-00000.tar", samples)


def tables(folder):
    for seed, (name, (text, who, split)) in enumerate(SAID.items()):
        image = {"bytes": encoded_image(seed), "path": f"{name}.jpg"}
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        write_parquet(path, [image], text=[text], identity=[who])


def imagefolder(folder):
    for seed, (name, (text, _, split)) in enumerate(SAID.items()):
        write_photo(folder / split / f"{name}.jpg", seed)
        write_metadata(folder / split / "metadata.csv", "text", [[f"{name}.jpg", text]])


def root_table(folder):
    for seed, (name, (_, _, split)) in enumerate(SAID.items()):
        write_photo(folder / split / f"{name}.jpg", seed)
    rows = [[f"{split}/{name}.jpg", text] for name, (text, _, split) in SAID.items()]
    write_metadata(folder / "metadata.csv", "text", rows)


@pytest.mark.parametrize("write", [shards, tables, imagefolder, root_table])
def test_captions_splits_and_images_come_out_as_they_were_written(tmp_path, write):
    write(tmp_path)
    entries = {one.captions[0]: one for one in formats.read(tmp_path)}
    assert {text: one.split for text, one in entries.items()} == {t: s for t, _, s in SAID.values()}
    for seed, (text, who, _) in enumerate(SAID.values()):
        assert packed.read_bytes(entries[text].path) == encoded_image(seed)
        if write in (shards, tables):
            assert entries[text].identity == who
    found = survey(tmp_path)
    assert found.problems() == []
    told = any("split is read from the folders" in text for text in found.warnings())
    assert told == (write is root_table)


@pytest.mark.parametrize("write", [shards, tables, imagefolder])
def test_such_a_folder_is_built(tmp_path, write):
    write(tmp_path / "in")
    config = make_config(folders={"real": str(tmp_path / "in")})
    counts = build.run(config, make_workdir(tmp_path / "run"))
    assert (counts["records_out"], counts["rejected"]) == (2, 0)
    prints = build.fingerprint(config)["real"]["annotation"]
    assert len(prints) == 2  # both splits' files


def test_a_folder_of_captions_and_shards_of_img2dataset_is_read_without_its_lists(tmp_path):
    told = json.dumps({"caption": "someone", "key": "000000000", "status": "success"}).encode()
    photo = ("000000000.jpg", encoded_image(0))
    write_tar(
        tmp_path / "00000.tar", [photo, ("000000000.json", told), ("000000000.txt", b"someone")]
    )
    write_tar(
        tmp_path / "00001.tar", [("000010000.jpg", encoded_image(1)), ("000010000.txt", b"two")]
    )
    table = pyarrow.table({"url": ["u"], "caption": ["someone"], "key": ["000000000"]})
    pyarrow.parquet.write_table(table, tmp_path / "00000.parquet")
    (tmp_path / "00000_stats.json").write_text('{"count": 1}')
    assert [one.captions for one in formats.read(tmp_path)] == [("someone",), ("two",)]
    assert survey(tmp_path).problems() == []


def test_samples_that_cannot_be_used_are_set_aside_with_their_names(tmp_path):
    good = [("c.jpg", encoded_image(0)), ("c.txt", b"someone")]
    write_tar(
        tmp_path / "a.tar",
        [*good, ("d.txt", b"alone"), ("e.jpg", encoded_image(1)), ("e.txt", b"\xff")],
    )
    one, *bad = sorted(formats.read(tmp_path), key=lambda one: one.problem)
    assert one.captions == ("someone",)
    assert "(d.txt) has 0 images" in bad[0].problem
    assert "(e.jpg) has a text" in bad[1].problem


def test_rows_of_one_name_inside_of_a_file_are_kept_apart_and_told(tmp_path):
    images = [{"bytes": encoded_image(k), "path": "0001.jpg"} for k in range(3)]
    write_parquet(tmp_path / "all.parquet", images, text=["one", "two", "three"])
    read = [packed.read_bytes(one.path) for one in formats.read(tmp_path)]
    assert read == [encoded_image(k) for k in range(3)]
    found = survey(tmp_path)
    assert any("with the name of an earlier one" in text for text in found.warnings())


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_a_shard_that_is_cut_short_is_told(tmp_path, name):
    photo = encoded_image(0)
    if name == "a.tar":
        write_tar(tmp_path / name, [("c.jpg", photo), ("c.txt", b"x"), ("d.jpg", photo)])
    else:
        write_parquet(tmp_path / name, [{"bytes": photo, "path": "c.jpg"}], text=["x"])
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:700] if name == "a.tar" else data[:-20])
    with pytest.raises(InputError, match="is not a complete .*; copy it again"):
        list(formats.read(tmp_path))


def test_json_lines_in_a_file_called_json_are_read(tmp_path):
    lines = [{"file_path": f"{k}.jpg", "caption": f"no. {k}", "split": "test"} for k in range(2)]
    (tmp_path / "all.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [one.captions for one in formats.read(tmp_path)] == [("no. 0",), ("no. 1",)]


def test_an_archive_of_the_images_beside_a_table_is_no_annotation(tmp_path):
    write_photo(tmp_path / "a.jpg", 0)
    write_metadata(tmp_path / "captions.csv", "caption", [["a.jpg", "someone"]])
    write_tar(tmp_path / "imgs.tar", [("a.jpg", encoded_image(0))])
    assert [one.captions for one in formats.read(tmp_path)] == [("someone",)]
    assert survey(tmp_path).problems() == []


@pytest.mark.parametrize("length", [1024, 1536, 2048])
def test_a_shard_that_is_cut_between_its_files_is_told(tmp_path, length):
    # There tarfile itself ends in silence.
    write_tar(tmp_path / "whole.tar", [("a.jpg", b"x"), ("a.txt", b"x"), ("b.jpg", b"x")])
    (tmp_path / "test.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:length])
    with pytest.raises(InputError, match=r"test\.tar is not a complete tar file"):
        list(packed.rows(tmp_path / "test.tar"))


def test_files_that_macos_adds_to_a_shard_are_passed_over(tmp_path):
    samples = [("._a.jpg", b"x"), ("a.jpg", encoded_image(0)), ("._a.txt", b"x"), ("a.txt", b"red")]
    write_tar(tmp_path / "train.tar", samples)
    assert [one.captions for one in formats.read(tmp_path)] == [("red",)]


@pytest.mark.parametrize("name", ["test.tar.gz", "test.tgz"])
def test_a_compressed_shard_is_not_lost_in_silence(tmp_path, name):
    write_tar(tmp_path / "train.tar", [("a.jpg", encoded_image(0)), ("a.txt", b"red")])
    (tmp_path / name).write_bytes(b"x")
    (problem,) = survey(tmp_path).problems()
    assert problem.startswith(f"{name} is not read: it is compressed; unpack it")
