import collections

import pytest

from jaxtbpr.report import facts, page
from jaxtbpr.report.people import PersonImage, survey


def image(identity, split="train", **changed):
    given = {"prompt": "", "edits": (), "captions": ("one two",), "read": lambda: b""} | changed
    return PersonImage(identity=identity, split=split, **given)


def test_a_survey_counts_each_split():
    noise = ([["hat", "cap", "beanie"]], [["hat", "cap", None]], [])
    images = [image("a", noise=noise, captions=("x",) * 3), image("a"), image("b", "test")]
    found = survey(images[::-1], seed=0, people=5)
    assert list(found.images.items()) == [("train", 2), ("test", 1)]
    assert found.identities == {"train": 1, "test": 1}
    assert found.captions == {"train": 4, "test": 1}
    assert found.lengths == {1: 3, 2: 2}
    assert (found.wrong["train"], found.lacking["train"]) == (1, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_the_sample_is_whole_people_whatever_the_order(order):
    images = [image(str(n % 40), edits=("view",) if n < 40 else ()) for n in range(120)]
    sample = survey(images[::order], seed=0, people=4).sample
    assert [len(person) for person in sample] == [3, 3, 3, 3]
    assert all(person[0].edits == () and person[-1].edits for person in sample)
    names = [person[0].identity for person in sample]
    forward = survey(images, seed=0, people=4).sample
    assert names == [person[0].identity for person in forward]


def test_the_sample_is_spread_over_the_identities():
    images = [image(str(n)) for n in range(50)]
    drawn = collections.Counter(
        person[0].identity
        for seed in range(100)
        for person in survey(images, seed=seed, people=5).sample
    )
    assert len(drawn) == 50
    assert max(drawn.values()) < 30


def test_reasons_lose_what_is_special_to_one_record():
    reasons = [
        "a/b 1.png is blank: contrast 3.2",
        "a/c 22.png is blank: contrast 0.1",
    ]
    assert len({facts.general_reason(reason) for reason in reasons}) == 1
    assert facts.general_reason("value 'red' is not one") == "value … is not one"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.949, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (3599.9, "1 h 0 min")],
)
def test_durations_are_said_as_people_do(seconds, said):
    assert page.duration(seconds) == said
