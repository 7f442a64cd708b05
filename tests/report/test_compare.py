"""Comparing runs: one page, results with intervals, and queries that one run alone gets right."""

import re
import shutil
import subprocess
import sys

import pytest

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.report import compare, failures
from tests.report import fixture
from tests.report.test_page import Reader


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Two runs: in the second every second query has another rank, and a key is another."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("one", "other"):
        fixture.write(folder / name)
    changed = fixture.workdir(folder / "other")
    path = changed.dir("evaluate") / "synthetic__test.queries.jsonl"
    rows = failures.read(changed.dir("evaluate"), "synthetic/test")
    for row in rows[::2]:
        row["first_match_rank"] = 9 if row["first_match_rank"] == 1 else 1
    fixture._write_lines(path, rows)
    commit = changed.commit("train")
    commit["recipe"]["config"]["train.learning_rate"] = 3e-4
    files.write_json_atomic(changed.dir("train") / "commit.json", commit)
    return [str(folder / "one"), str(folder / "other")]


@pytest.fixture(scope="module")
def runs(roots):
    return compare.open_runs(roots)


@pytest.fixture(scope="module")
def text(runs):
    return compare.compare(runs)


def ranks(run):
    return [q["first_match_rank"] for q in run.results["synthetic/test"]["asked"]]


def test_the_page_is_whole_and_loads_nothing(text):
    read = Reader(text)
    assert read.wrong == []
    assert {a["id"] for a in read.all("section")} == {"results", "curves", "keys", "queries"}
    assert "<script" not in text
    assert fixture.HOSTILE in " ".join(read.words)
    for attrs in (attrs for _, attrs in read.elements):
        assert attrs.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)


def test_the_page_of_the_same_runs_is_the_same(runs, text):
    assert compare.compare(runs) == text


def test_only_keys_that_differ_are_shown(runs):
    (row,) = compare.differing_keys(runs)
    assert row == {"key": "train.learning_rate", "values": ["0.001", "0.0003"]}
    assert compare.differing_keys([runs[0], runs[0]]) == []


def test_queries_that_one_run_alone_gets_right_are_counted_and_shown(runs, text):
    first, second = map(ranks, runs)
    gained = sum(a != 1 and b == 1 for a, b in zip(first, second, strict=True))
    lost = sum(a == 1 and b != 1 for a, b in zip(first, second, strict=True))
    assert min(gained, lost) > 0
    asked = [run.results["synthetic/test"]["asked"] for run in runs]
    found = compare.difference(compare.matched(*asked))
    assert (found["only_second"], found["only_first"]) == (gained, lost)
    assert found["mean"] == pytest.approx((gained - lost) / len(first))
    assert found["interval"][0] <= found["mean"] <= found["interval"][1]
    assert f"{gained} right in other, wrong in one" in text
    assert f"{lost} right in one, wrong in other" in text


def test_queries_are_matched_by_image_and_caption_not_by_their_place():
    one = [{"image_id": "a", "caption": c, "n": n} for n, c in enumerate(("x", "y", "x", "z"))]
    other = [one[3], one[2], one[0]]
    pairs = [(a["n"], b["n"]) for a, b in compare.matched(one, other)]
    assert pairs == [(0, 2), (2, 0), (3, 3)]  # equal captions in their order
    assert compare.difference([]) is None


def test_runs_without_a_query_that_differs_are_told_so_and_not_given_an_interval(runs):
    asked = runs[0].results["synthetic/test"]["asked"]
    assert compare.difference(compare.matched(asked, asked))["interval"] is None
    text = compare.compare([runs[0], runs[0]])
    assert "<td>no query differs</td>" in text
    assert "+0.0 to" not in text


def test_what_cannot_be_compared_is_told(roots, tmp_path):
    with pytest.raises(UserError, match="two or more runs"):
        compare.open_runs(roots[:1])
    with pytest.raises(UserError, match="each once"):
        compare.open_runs([roots[0], roots[0]])
    with pytest.raises(UserError, match="is not the WORKDIR of a run with results"):
        compare.open_runs([roots[0], str(tmp_path)])


def test_the_command_writes_the_page_or_says_what_is_wrong(roots, tmp_path):
    words = [sys.executable, "-m", "jaxtbpr.report.compare"]
    lost = subprocess.run(
        [*words, *roots, f"--out={tmp_path}/no/page.html"], capture_output=True, text=True
    )
    assert lost.returncode == 1
    assert len(lost.stderr.splitlines()) == 1
    done = subprocess.run(
        [*words, *roots, f"--out={tmp_path}/page.html"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "runs compared" in (tmp_path / "page.html").read_text()


@pytest.fixture
def changed(roots, tmp_path):
    """A copy of the second run, to be changed, and what the page says of both."""
    copy = tmp_path / "changed"
    shutil.copytree(roots[1], copy)
    return fixture.workdir(copy), lambda: compare.compare(compare.open_runs([roots[0], str(copy)]))


def test_the_same_task_is_not_doubted(text):
    assert "Another gallery" not in text
    assert "Other queries" not in text


def test_queries_of_other_images_under_the_same_names_are_not_compared(changed):
    run, page = changed
    index = run.dir("build") / "synthetic" / "test.jsonl"
    rows = list(files.read_json_lines(index))
    fixture._write_lines(index, rows)
    text = page()
    assert "query by query" in text
    assert "Another gallery" not in text
    rows[0]["image_id"], rows[1]["image_id"] = rows[1]["image_id"], rows[0]["image_id"]
    fixture._write_lines(index, rows)
    text = page()
    assert "Another gallery: changed searched other images under this name than one" in text
    assert '<th scope="col">Against one' not in text
    assert "wrong in changed" not in text
    assert f"jaxtbpr.retrieval.evaluate --checkpoint={run.root} --data=" in text


def test_a_set_with_damaged_images_is_told_and_counted(changed):
    run, page = changed
    folder = run.dir("build") / "synthetic"
    (shard,) = files.matches(folder, "*/*/*test*array_record*")
    count = len(list(files.read_json_lines(folder / "test.jsonl")))
    shard.write_bytes(shard.read_bytes()[:-40])
    told = f"Damaged images: {count} of the {count} images of synthetic/test in {run.dir('build')}"
    text = page()
    assert f"{told} cannot be read, so changed is compared without checking" in text
    shard.unlink()
    assert f"{told} cannot be read" in page()


def test_a_set_that_is_gone_is_no_fault(changed):
    run, page = changed
    (run.dir("build") / "synthetic").rmtree()
    text = page()
    assert "Damaged images" not in text
    assert "Another gallery" not in text
    assert '<th scope="col">Against one' in text


def test_runs_without_a_common_test_set_are_told_how_to_measure_one_on_the_other(changed):
    run, page = changed
    commit = run.commit("evaluate")
    commit["metrics"] = {"market/test": commit["metrics"]["synthetic/test"]}
    files.write_json_atomic(run.dir("evaluate") / "commit.json", commit)
    with pytest.raises(UserError, match="share no test set") as error:
        page()
    command = f"python -m jaxtbpr.retrieval.evaluate --checkpoint={run.root} --data="
    assert command in str(error.value)
    assert str(error.value).endswith("one/build/synthetic")


def test_other_queries_under_the_same_name_are_told(changed):
    run, page = changed
    rows = failures.read(run.dir("evaluate"), "synthetic/test")
    rows[0]["caption"] = "somebody else"
    fixture._write_lines(run.dir("evaluate") / "synthetic__test.queries.jsonl", rows)
    assert "Other queries: changed had other queries under this name than one" in page()


def test_a_run_whose_queries_are_not_kept_and_a_set_of_one_run_alone_are_named(changed):
    run, page = changed
    (run.dir("evaluate") / "synthetic__test.queries.jsonl").unlink()
    commit = run.commit("evaluate")
    commit["metrics"]["market/test"] = commit["metrics"]["synthetic/test"]
    files.write_json_atomic(run.dir("evaluate") / "commit.json", commit)
    text = page()
    assert "No query of changed matches one of one" in text
    assert "market/test is not compared: of these runs only changed was evaluated on it" in text
    assert "Other queries" not in text
