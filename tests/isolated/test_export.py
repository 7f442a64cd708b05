"""Exported sets are opened by `datasets` and `webdataset`, by the calls that users type."""

import hashlib
import io
import json
import pathlib

import pytest
from PIL import Image

from jaxtbpr.datasets import export
from jaxtbpr.datasets.source import RetrievalSet
from tests.datasets import sets
from tests.isolated import environments

pytestmark = pytest.mark.isolated


def test_datasets_and_webdataset_read_what_was_built(tmp_path):
    sets.build_folder(tmp_path)
    built = tmp_path / "run/build/real"
    export.export(built, tmp_path / "folder", "imagefolder")
    counts = export.export(built, tmp_path / "tars", "webdataset")
    reader = pathlib.Path(__file__).parent / "read_export.py"
    python = environments.find_python("newest")
    read = json.loads(
        environments.run(python, reader, tmp_path / "folder", tmp_path / "tars").splitlines()[-1]
    )
    for split in counts:
        one = RetrievalSet(built, split)
        known = [
            [name, list(captions), int(identity)]
            for name, captions, identity in zip(
                one.image_ids, one.captions, one.identities, strict=True
            )
        ]
        images = [one.image_bytes(i) for i in range(len(one))]
        rows = read["imagefolder"]["validation" if split == "val" else split]
        sizes = [list(Image.open(io.BytesIO(data)).size) for data in images]
        assert rows == [[*facts, size] for facts, size in zip(known, sizes, strict=True)]
        digests = [hashlib.sha256(data).hexdigest() for data in images]
        assert read["webdataset"][split] == [
            [*facts, facts[1][0], digest] for facts, digest in zip(known, digests, strict=True)
        ]
