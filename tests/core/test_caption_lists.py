import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtbpr.core.caption_lists import is_nearly_list, items

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4)


@given(TEXTS)
def test_lists_that_python_and_json_write_are_read_back(texts):
    for written in (repr(texts), repr(tuple(texts)), json.dumps(texts), f" {texts!r}\n"):
        assert items(written) == texts


@given(TEXTS)
def test_arrays_that_numpy_prints_are_read_back(texts):
    # pandas writes a cell by str: items stand side by side, a long line is broken.
    assert items(str(np.array(texts, object))) == texts
    assert items(repr([np.array(texts, object)])) == texts
    assert items(repr([np.str_(text) for text in texts])) == [str(np.str_(one)) for one in texts]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("['a man', None, nan]", ["a man", None, None]),
        ('["a man", null, NaN]', ["a man", None, None]),
        ("[['a', 'b'], ('c',)]", ["a", "b", "c"]),
        ('[["a"], [["b"]]]', ["a", "b"]),
        (["a", ["b", float("nan")], "['c', 'd']"], ["a", "b", None, "c", "d"]),
        ("{'a man', 'a woman'}", ["a man", "a woman"]),
        ("[]", []),
    ],
)
def test_nested_lists_are_flat_and_what_is_missing_is_none(value, found):
    assert items(value) == found


@pytest.mark.parametrize(
    "caption",
    [
        "[blurry] a man in a [red] hat",
        "[a man] with [a hat]",
        "(a man)",
        "[1, 2]",
        '[{"text": "a man"}]',
        '{"a": "b"}',
        "[",
        "",
    ],
)
def test_a_caption_that_only_looks_like_a_list_is_none(caption):
    assert items(caption) is None
    assert not is_nearly_list(caption)


@pytest.mark.parametrize(
    "text",
    ["['the man's hat', 'b']", "['a' ... 'b']", "['a' + 'b']", "['a'] ['b']", "[‘a man’, ‘b’]"],
)
def test_a_list_that_is_damaged_is_told_from_a_caption(text):
    assert items(text) is None
    assert is_nearly_list(text)
