"""What is said while a program is compiled."""

import time

from jaxtbpr.core import compilation


def test_a_program_says_once_that_it_is_compiled_and_only_where_that_takes_long(
    monkeypatch, capsys
):
    monkeypatch.setattr(compilation, "_SILENT", 0.02)
    slow = compilation.announced(lambda seconds: time.sleep(seconds) or seconds, "generate")
    assert slow(0.1) == 0.1
    said = capsys.readouterr().err
    assert said.startswith("generate: compiling, which takes minutes the first time")
    slow(0.1)
    compilation.announced(lambda: None, "generate")()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""
