import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import json_stream

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def stream(path, text, monkeypatch, chunk):
    path.write_text(text, encoding="utf-8", newline="")
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    return list(json_stream.iterate_json(path))


@SAME_FOLDER
@given(
    records=st.lists(st.dictionaries(st.text(), VALUES), max_size=5),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
    chunk=st.integers(1, 40),
)
def test_an_array_is_streamed_as_json_loads_reads_it(
    tmp_path, monkeypatch, records, indent, ascii_only, chunk
):
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    assert stream(tmp_path / "a.json", f" {text}\n", monkeypatch, chunk) == json.loads(text)


@SAME_FOLDER
@given(pairs=st.dictionaries(st.text(), VALUES, max_size=5), chunk=st.integers(1, 40))
def test_an_object_is_streamed_as_its_pairs(tmp_path, monkeypatch, pairs, chunk):
    text = json.dumps(pairs)
    assert dict(stream(tmp_path / "a.json", text, monkeypatch, chunk)) == json.loads(text)


@pytest.mark.parametrize("chunk", range(1, 12))
def test_numbers_are_not_cut_at_the_end_of_a_chunk(tmp_path, monkeypatch, chunk):
    text = "[1234, 0.5, 12e+3, 1.25e-7, -4]"
    assert stream(tmp_path / "a.json", text, monkeypatch, chunk) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("12", "'1' where one of"),
        ('[{"a": 1}', "the end of the file where one of"),
        ('[{"a": 1} {"a": 2}]', "'{' where one of"),
        ('[{"a": 1}] x', "something follows"),
        ('{"a" 1}', "'1' where one of"),
        ('[\n{"a": 1},\n{"a": "un', "line 3: Unterminated string"),
    ],
)
def test_broken_json_is_an_error_that_names_the_place(tmp_path, text, reason):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=reason):
        list(json_stream.iterate_json(tmp_path / "a.json"))


def test_the_first_element_is_read_without_the_rest(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text('[{"a": 1}, ' + "x" * 4000)
    monkeypatch.setattr(json_stream, "CHUNK", 64)
    assert json_stream.first_element(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "b.json").write_text("[]")
    assert json_stream.first_element(tmp_path / "b.json") is None
