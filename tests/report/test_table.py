import numpy as np
import pytest

from jaxtbpr.report import table


def metrics(**changed):
    given = {"R1": 0.5, "R5": 0.75, "R10": 0.9, "mAP": 0.45, "mINP": 0.2, "chance_R1": 0.005}
    return given | {"queries": 800, "gallery": 800, "identities": 200} | changed


def test_each_test_set_stands_above_its_chance_in_percent():
    text = table.results_table({"evaluate": {"synthetic/test": metrics(), "mine": metrics(R1=1.0)}})
    rows = [line.split() for line in text.splitlines()]
    assert rows[0][2:7] == ["R@1", "R@5", "R@10", "mAP", "mINP"]
    scores = ["50.0", "75.0", "90.0", "45.0", "20.0"]
    assert rows[1] == ["synthetic/test", *scores, "800", "800", "200"]
    assert rows[2][:3] == ["by", "chance", "0.5"]
    assert rows[3][:2] == ["mine", "100.0"]


def test_captions_that_the_model_read_in_part_are_told_under_their_set():
    cut = {"captions_cut": 54, "text_length": 48}
    shown = {"a/test": metrics(**cut), "b/test": metrics(**cut | {"captions_cut": 0})}
    lines = table.results_table({"evaluate": shown}).splitlines()
    assert lines[3] == "  54 of 800 captions are cut at 48 tokens"
    assert lines[4].startswith("b/test")
    assert len(lines) == 6


def test_a_run_without_evaluation_has_no_table():
    assert table.results_table({"stages": {}}) == ""


@pytest.mark.parametrize(("size", "right"), [(12, 1), (12, 3), (7, 7), (1, 1)])
def test_chance_is_what_shuffling_gives(size, right):
    got = table.chance({"gallery": size, "chance_R1": right / size})
    order = np.argsort(np.random.default_rng(0).random((20000, size)), axis=1)
    is_right = order < right
    last = size - np.argmax(is_right[:, ::-1], axis=1)
    precision = np.cumsum(is_right, axis=1) / np.arange(1, size + 1)
    expected = {
        "R1": is_right[:, 0].mean(),
        "R5": is_right[:, :5].any(axis=1).mean(),
        "R10": is_right[:, :10].any(axis=1).mean(),
        "mAP": ((precision * is_right).sum(axis=1) / right).mean(),
        "mINP": (right / last).mean(),
    }
    assert got == pytest.approx(expected, abs=0.01)


def test_the_chance_curve_starts_at_chance_and_ends_at_one():
    curve = table.chance_curve({"gallery": 12, "chance_R1": 0.25}, ranks=12)
    assert curve[0] == pytest.approx(0.25)
    assert curve[-1] == pytest.approx(1.0)
    assert curve == sorted(curve)


def test_a_gallery_of_a_million_is_no_effort():
    assert table.chance(metrics(gallery=10**6, chance_R1=4e-6))["mAP"] < 1e-4
