"""The lines that tell how far a stage is."""

import itertools
import time

from jaxtbpr.core.progress import progress


def test_the_time_that_is_left_does_not_count_what_was_compiled(monkeypatch, capsys):
    clock = itertools.chain([0.0, 300.0], itertools.count(320.0, 20.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert list(progress("abcd", total=9, label="generate", start=5)) == list("abcd")
    assert capsys.readouterr().err.splitlines() == [
        "generate: 6/9 records, the first after 300 s",
        "generate: 7/9 records, 0.1 a second, 40 s left",
        "generate: 8/9 records, 0.1 a second, 20 s left",
        "generate: 9/9 records, 0.1 a second, 0 s left",
    ]
