"""Our code gives the published numbers: every reference in tests/data, by tests/parity.py."""

import shutil

import pytest

from tests import parity
from tests.conftest import DATA

CHECKS, UNKNOWN = parity.find(DATA / "reference")


@pytest.mark.parametrize(("path", "module"), CHECKS, ids=[path.name for path, _ in CHECKS])
def test_every_quantity_is_within_its_tolerance(path, module):
    rows = parity.run(path, module)
    assert rows
    assert [row for row in rows if not row[1] <= row[2]] == []


def test_every_kind_of_reference_is_here():
    assert UNKNOWN == []
    assert {parity.KINDS[kind][0] for kind in parity.KINDS} == {module for _, module in CHECKS}


def test_other_suffixes_are_found_and_strangers_fail(reference, tmp_path, capsys):
    for name in ("lr_schedule.npz", "lr_schedule.json"):
        shutil.copy(reference / name, tmp_path / name.replace(".", "_seed7."))
    assert parity.main(tmp_path) == 0
    assert "lr_schedule_seed7.npz" in capsys.readouterr().out
    (tmp_path / "notes.txt").write_text("")
    assert parity.main(tmp_path) == 1
    assert "notes.txt: no check knows this file" in capsys.readouterr().out
    assert parity.main(tmp_path / ".") == 1


def test_an_empty_folder_is_no_success(tmp_path, capsys):
    assert parity.main(tmp_path) == 1
    capsys.readouterr()


def test_a_wrong_number_fails(reference, tmp_path, capsys):
    text = (reference / "text_errors.json").read_text()
    (tmp_path / "text_errors.json").write_text(text.replace("43893", "43894"))
    assert parity.main(tmp_path) == 1
    assert "FAIL" in capsys.readouterr().out
