"""A built set leaves in the forms that others read, and comes back the same."""

import json
import subprocess
import sys

import pytest

from jaxtbpr.core.errors import UserError
from jaxtbpr.datasets import build, export
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
    real, calls = export._suffix, []

    def fail(data):
        calls.append(data)
        if len(calls) == 3:
            raise OSError("killed")
        return real(data)

    monkeypatch.setattr(export, "_suffix", fail)
    with pytest.raises(OSError, match="killed"):
        export.export(built, tmp_path / "two", kind)
    assert not (tmp_path / "two").exists()
    export.export(built, tmp_path / "two", kind)
    assert read_all(tmp_path / "two") == read_all(tmp_path / "one")
    assert not list(tmp_path.glob(".*"))


def read_all(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_cannot_be_exported_is_told(built, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=r"there is there already; choose a new folder"):
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
