"""Files are whole or not there."""

import errno
import json
import os
import pathlib
import re

import pytest
from etils import epath

from jaxtbpr.core import files, seeds
from jaxtbpr.core.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "commit.json"
    files.write_json_atomic(path, {"a": 1})

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(epath.Path(path)), "replace", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_json_atomic(path, {"a": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["commit.json"]
    assert files.read_json(path) == {"a": 1}


def test_a_missing_or_broken_json_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing.json does not exist"):
        files.read_json(tmp_path / "nothing.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(InputError, match="half.json is not valid JSON"):
        files.read_json(tmp_path / "half.json")


def test_random_numbers_depend_on_seed_and_names_alone():
    draw = [seeds.rng(0, "prompts", "00000001").integers(1 << 30) for _ in range(2)]
    assert draw[0] == draw[1]
    others = [seeds.rng(1, "prompts", "00000001"), seeds.rng(0, "prompt", "s00000001")]
    assert all(other.integers(1 << 30) != draw[0] for other in others)


def test_several_files_are_one_digest_that_any_change_changes(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(b"1")
    first = files.sha256_of(paths)
    assert files.sha256_of(iter(paths)) == first
    assert files.sha256_of(paths[:1]) != first
    paths[1].write_bytes(b"2")  # as long as before, and at once
    assert files.sha256_of(paths) != first
    paths[1].write_bytes(b"1")
    assert files.sha256_of(paths) == first


@pytest.mark.parametrize("below", ["x.json", "old.json"])
def test_an_output_that_can_be_written_passes_and_nothing_is_left_or_lost(tmp_path, below):
    (tmp_path / "old.json").write_text("kept")
    files.check_output(tmp_path / below, "--output")
    assert [p.name for p in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "kept"


@pytest.mark.parametrize(
    ("below", "said"),
    [
        ("nope/x.json", r"^--output=.*nope/x.json cannot be written \(.*nope does not exist\)"),
        ("file/x.json", r"file is not a folder\); choose another file"),
        ("folder", r"a folder has that name\); choose another file"),
        ("pipe", r"it is not a regular file\); choose another file"),
        ("/dev/null", r"it is not a regular file\)"),  # a file written would take its place
        ("/dev/stdout", r"it is not a regular file\)"),
    ],
)
def test_an_output_that_cannot_be_written_is_told(tmp_path, below, said):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=said):
        files.check_output(tmp_path / below, "--output")


def test_a_folder_to_write_may_have_to_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for below in (".", "a", "a/b/c"):
        files.check_output(tmp_path / below, "--out", folder=True)
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match=r"--out=.*file/a cannot be written \(.*is not a folder"):
        files.check_output(tmp_path / "file" / "a", "--out", folder=True)


@pytest.mark.parametrize("folder", [False, True])
def test_an_empty_output_is_not_the_folder_where_one_stands(folder):
    with pytest.raises(InputError, match="--out is empty; give the"):
        files.check_output("", "--out", folder=folder)


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?", "run[!a]"])
def test_a_folder_s_own_name_is_no_pattern(tmp_path, name):
    for folder in (name, "run1"):
        (tmp_path / folder / "below").mkdir(parents=True)
        for file in ("b.json", "a.json", "c.txt", "below/d.json"):
            (tmp_path / folder / file).touch()
    found = files.matches(tmp_path / name, "*.json", "a*", "*/*")
    assert [str(path.relative_to(tmp_path / name)) for path in found] == [
        "a.json", "b.json", "below/d.json",
    ]  # fmt: skip
    inner = files.LiteralPath(tmp_path / name) / "below"
    assert [path.name for path in inner.glob("*")] == ["d.json"]


def test_no_module_hands_a_folder_s_name_to_epath_s_glob():
    package = pathlib.Path(files.__file__).parents[1]
    uses = [
        (path.relative_to(package).as_posix(), line.strip())
        for path in package.rglob("*.py")
        for line in path.read_text().split("\n")
        if re.search(r"\.r?glob\(", line)
    ]
    # These hold paths of pathlib, whose glob takes the folder as it is.
    plain = ("cli.py", "workers/worker/answering/exchange.py", "workers/isolated.py")
    asked = ("workers/client.py", "core/files.py")
    assert [use for use in uses if use[0] not in plain + asked] == []


def test_json_lines_end_at_newlines_alone(tmp_path):
    values = [{"id": "a\u2028b\u0085c\u2029\x0b\x0c\x1c\r\n.jpg"}, {"id": "plain"}]
    lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    (tmp_path / "x.jsonl").write_bytes(lines.encode())
    assert list(files.read_json_lines(tmp_path / "x.jsonl")) == values


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": 1}\n{"id"')
    with pytest.raises(InputError, match="x.jsonl line 2 is not valid JSON"):
        list(files.read_json_lines(tmp_path / "x.jsonl"))
