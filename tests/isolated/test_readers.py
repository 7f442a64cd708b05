"""What pandas, `datasets` and `webdataset` write is read here as they read it themselves."""

import hashlib
import json
import pathlib

import pytest

from jaxtbpr.datasets import formats, packed
from jaxtbpr.datasets.survey import survey
from tests.isolated import environments

pytestmark = pytest.mark.isolated

FORMS = ("csv", "jsonl", "parquet_table", "parquet", "webdataset", "csv_of_lists")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("written") / "sets"
    root.mkdir()
    writer = pathlib.Path(__file__).parent / "write_sets.py"
    told = environments.run(environments.find_python("newest"), writer, root)
    return root, json.loads(told.splitlines()[-1])


@pytest.mark.parametrize("form", FORMS)
def test_people_captions_splits_and_images_are_those_that_were_written(written, form):
    root, told = written
    read = []
    for one in formats.read(root / form):
        digest = hashlib.sha256(packed.read_bytes(one.path)).hexdigest()
        read.append([one.split, list(one.captions), one.identity, digest])
    assert len(read) == 6
    assert sorted(read) == sorted(told[form])
    found = survey(root / form)
    assert found.problems() == []
    assert any("is a list written as text" in one for one in found.warnings()) == ("csv" in form)
