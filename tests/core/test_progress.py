"""The lines that tell how far a stage is."""

import itertools
import time

from jaxtbpr.core import progress as progress_module
from jaxtbpr.core.progress import progress


def test_the_time_that_is_left_does_not_count_what_was_compiled(monkeypatch, capsys):
    clock = itertools.chain([0.0, 300.0], itertools.count(320.0, 20.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert list(progress("abcd", total=9, label="generate", start=5)) == list("abcd")
    assert capsys.readouterr().err.splitlines() == [
        "generate: 6/9 records, the first after 300 s",
        "generate: 7/9 records, 20.0 s each, 40 s left",
        "generate: 8/9 records, 20.0 s each, 20 s left",
        "generate: 9/9 records, 20.0 s each, 0 s left",
    ]


def test_a_fast_pace_is_told_by_the_second(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    clock = itertools.count(0.0, 0.25)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    list(progress("ab", total=4, label="train", unit="steps"))
    assert capsys.readouterr().err.splitlines()[-1] == "train: 2/4 steps, 4.0 a second, 0 s left"
