"""A built set leaves in the forms that others read, and comes back the same."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets import build, export, formats, packed, validate
from jaxtbpr.datasets.source import RetrievalSet, list_splits
from tests.datasets import sets


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    sets.build_folder(root)
    return root / "run/build/real"


def contents(directory):
    """Returns {split: [(image, captions, identity)]} of a built set, in order."""
    return {
        split: [
            (one.image_bytes(i), one.captions[i], int(one.identities[i])) for i in range(len(one))
        ]
        for split in list_splits(directory)
        for one in [RetrievalSet(directory, split)]
    }


def test_reid_json_comes_back_with_the_same_images_captions_and_identities(built, tmp_path):
    counts = export.export(built, tmp_path / "out", "reid_json")
    config = sets.make_config(folders={"back": str(tmp_path / "out")})
    build.run(config, sets.make_workdir(tmp_path / "run"))
    before = contents(built)
    assert contents(tmp_path / "run/build/back") == before
    assert counts == {split: len(images) for split, images in before.items()}


def test_reid_json_is_as_the_loaders_of_cuhk_pedes_want_it(built, tmp_path):
    export.export(built, tmp_path / "out", "reid_json")
    records = json.loads((tmp_path / "out/reid_raw.json").read_text())
    train = {record["id"] for record in records if record["split"] == "train"}
    assert train == set(range(1, len(train) + 1))
    for record in records:
        assert set(record) == {"split", "captions", "file_path", "processed_tokens", "id"}
        assert (tmp_path / "out/imgs" / record["file_path"]).is_file()
        for caption, words in zip(record["captions"], record["processed_tokens"], strict=True):
            assert words
            assert all(word in caption.lower() for word in words)


@pytest.mark.parametrize("kind", sorted(export.WRITERS))
def test_a_second_export_has_the_same_bytes_and_a_killed_one_leaves_no_folder(
    built, tmp_path, monkeypatch, kind
):
    export.export(built, tmp_path / "one", kind)
    real, calls = export._portable, []

    def fail(data):
        calls.append(data)
        if len(calls) == 3:
            raise OSError("killed")
        return real(data)

    monkeypatch.setattr(export, "_portable", fail)
    with pytest.raises(OSError, match="killed"):
        export.export(built, tmp_path / "two", kind)
    assert not (tmp_path / "two").exists()
    export.export(built, tmp_path / "two", kind)
    assert read_all(tmp_path / "two") == read_all(tmp_path / "one")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", export.WRITERS)
def test_validate_warns_of_nothing_that_an_export_wrote(built, tmp_path, capsys, kind):
    export.export(built, tmp_path / "out", kind)
    assert validate.main([str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "no problems, no warnings" in out
    assert "an export of this program" in out
    assert "How to get" not in out


def read_all(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", export.WRITERS)
def test_images_that_other_tools_show_otherwise_become_png(tmp_path, capsys, kind):
    folder = tmp_path / "own"
    folder.mkdir()
    picture, turned = Image.new("RGB", (6, 4), "navy"), Image.Exif()
    picture.putpixel((0, 0), (255, 0, 0))
    turned[0x0112] = 6
    picture.save(folder / "turned.png", exif=turned)
    picture.save(folder / "new.jp2")
    picture.save(folder / "phone.jpg", "MPO", save_all=True, append_images=[picture])
    names = sorted(path.name for path in folder.iterdir())
    rows = "".join(f"{name},a man,{name}\n" for name in names)
    (folder / "captions.csv").write_text("image,caption,identity\n" + rows)
    config = sets.make_config(folders={"own": str(folder)}, val_fraction=0.0)
    build.run(config, sets.make_workdir(tmp_path / "run"))
    export.export(tmp_path / "run/build/own", tmp_path / "out", kind)
    told = "are written as PNG: 2 (new.jp2, turned.png)"
    assert told in capsys.readouterr().err
    back = {one.identity: packed.read_bytes(one.path) for one in formats.read(tmp_path / "out")}
    assert len(back) == 3
    for data in back.values():
        with Image.open(io.BytesIO(data)) as image:
            assert image.format in ("PNG", "JPEG", "MPO")
            assert image.getexif().get(0x0112, 1) == 1
    sizes = [Image.open(io.BytesIO(data)).size for data in back.values()]
    assert sorted(sizes) == [(4, 6), (6, 4), (6, 4)]
    assert all(Path(name).suffix in (".jpg", ".png") for name in image_names(tmp_path / "out"))


def image_names(folder):
    return [one.extra["image_id"] for one in formats.read(folder)]


def test_what_cannot_be_exported_is_told(built, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=r"there already exists; choose another folder"):
        export.export(built, tmp_path / "there", "reid_json")
    with pytest.raises(UserError, match=r"is not a built set; give WORKDIR/build/NAME"):
        export.export(tmp_path / "there", tmp_path / "out", "reid_json")


def test_the_command_takes_a_runs_folder_and_prints_the_counts(built, tmp_path):
    command = [sys.executable, "-m", "jaxtbpr.datasets.export", f"--data={built.parents[1]}"]
    done = subprocess.run(
        [*command, f"--out={tmp_path / 'out'}"], capture_output=True, text=True, check=True
    )
    images = {split: len(one) for split, one in contents(built).items()}
    assert f"train {images['train']:,}, " in done.stdout + done.stderr
    assert (tmp_path / "out/reid_raw.json").is_file()
