"""Where a model fails, and how sure its numbers are."""

import json

import numpy as np
import pytest

from jaxtbpr.report import failures, intervals


def queries(*ranks, caption="a coat"):
    return [
        {"image_id": f"{n}", "identity": "a", "caption": caption, "first_match_rank": rank}
        for n, rank in enumerate(ranks)
    ]


def told(rows):
    return {row["label"]: row["count"] for row in rows}


def test_ranks_are_counted_in_bins_that_hold_every_query():
    rows = failures.rank_rows(queries(1, 1, 1, 2, 3, 5, 6, 11, 77, 0))
    assert told(rows) == {
        "1": 3, "2": 1, "3 to 5": 2, "6 to 10": 1, "11 to 20": 1, "21 to 50": 0, "51 to 77": 1,
        "no right image": 1,
    }  # fmt: skip
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    far = failures.rank_rows(queries(1, 1000, 1001, 5000))
    assert told(far)["101 to 1,000"] == 1
    assert told(far)["1,001 to 5,000"] == 2


def test_the_shortest_to_the_longest_captions_hold_every_query():
    asked = [q for n in range(1, 21) for q in queries(1 + n % 2, caption="word " * n)]
    rows = failures.by_length(asked)
    assert [row["label"] for row in rows][0] == "1 to 4 words"
    assert [row["label"] for row in rows][-1].endswith("to 20 words")
    assert sum(row["count"] for row in rows) == 20
    same = failures.by_length(queries(1, 2))
    assert [(row["label"], row["share"], row["count"]) for row in same] == [("2 words", 0.5, 2)]


def test_the_attributes_found_worst_come_first_and_rare_ones_are_left_out():
    asked = queries(1, 2, 2, 2, 2, 1, 1, 1, 1, 1, 3)
    looks = {str(n): {"hair_colour": "red" if n < 5 else "black"} for n in range(10)}
    looks["10"] = {"hair_colour": "green"}
    rows = failures.by_attribute(asked, looks)
    assert [(row["label"], row["share"], row["count"]) for row in rows] == [
        ("hair colour: red", 0.2, 5),
        ("hair colour: black", 1.0, 5),
    ]


def test_queries_are_read_whatever_their_captions_hold(tmp_path):
    odd = queries(1, 2, caption="a coat\u2028and\x85a hat")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in odd)
    (tmp_path / "a__test.queries.jsonl").write_text(lines)
    assert failures.read(tmp_path, "a/test") == odd
    assert failures.read(tmp_path, "b/test") == []


def test_wilson_s_interval_is_that_of_its_paper_and_never_leaves_the_shares():
    # By the formula, by hand: 8 of 10, and the ends.
    assert intervals.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert intervals.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert intervals.wilson(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert intervals.wilson(0, 0) == (0, 1)


def test_the_bootstrap_draws_people_and_not_captions():
    values = np.repeat([0.0, 1.0] * 20, 50)
    people = [str(n // 50) for n in range(2000)]
    low, high = intervals.bootstrap(values, people)
    # 40 independent people: the standard error is 0.5 / sqrt(40) = 0.079.
    assert (low, high) == pytest.approx((0.5 - 0.155, 0.5 + 0.155), abs=0.03)
    assert intervals.bootstrap(values, people) == (low, high)
    alone = intervals.bootstrap(values, [str(n) for n in range(2000)])
    assert alone[1] - alone[0] < 0.06


def test_people_who_are_all_alike_have_wilson_s_interval_over_people():
    twelve = [str(n // 2) for n in range(24)]
    right = intervals.bootstrap(np.ones(24), twelve)
    assert right == pytest.approx((0.7575, 1), abs=1e-4)
    assert intervals.bootstrap(np.zeros(24), twelve) == pytest.approx((0, 0.2425), abs=1e-4)
    halves = intervals.bootstrap([0, 1] * 12, twelve)
    assert halves == pytest.approx(intervals.wilson(6, 12))
    gains = intervals.bootstrap(np.ones(24), twelve, (-1, 1))
    assert gains == pytest.approx((2 * 0.7575 - 1, 1), abs=1e-4)
