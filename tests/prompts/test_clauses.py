"""Texts and their length: whole clauses go in a fixed order, nothing is cut."""

import json

import pytest

from jaxtbpr.core import tokenizer
from jaxtbpr.core.errors import InputError
from jaxtbpr.prompts.clauses import ASSETS, Clause, Ruler, estimate, join, tokenizer_digest

TEXT = [
    Clause("a red coat"),
    Clause("seen from behind", "camera", 1, ". "),
    Clause("in a park", "place", 2),
    Clause(".", joint=""),
]


def test_clauses_join_and_empty_ones_leave_nothing():
    assert join(TEXT) == "A red coat. Seen from behind, in a park."
    assert join([TEXT[0], Clause("", joint=". "), *TEXT[2:]]) == "A red coat. In a park."
    assert join([TEXT[0], Clause("", joint=". "), Clause(""), TEXT[3]]) == "A red coat."
    assert join([]) == ""


def test_clauses_are_dropped_whole_in_their_order():
    tokens = estimate(join(TEXT))
    assert Ruler("", tokens).fit(TEXT).dropped == ()
    fitted = Ruler("", tokens - 1).fit(TEXT)
    assert (fitted.text, fitted.dropped) == ("A red coat. In a park.", ("camera",))
    assert Ruler("", 8).fit(TEXT).text == "A red coat."


def test_what_never_fits_is_told_and_whole():
    fitted = Ruler("", 3).fit(TEXT)
    assert fitted.text == "A red coat."
    assert fitted.problem == "the prompt has about 8 tokens; the text encoder takes 3"
    assert Ruler("", 3, is_short=True).fit(TEXT).problem == ""


def test_with_a_tokenizer_every_token_is_counted():
    words = tokenizer.load(ASSETS / "tiny-clip")
    fitted = Ruler("tiny-clip", 77).fit(TEXT)
    assert fitted.tokens == tokenizer.count(words, join(TEXT))
    shorter = Ruler("tiny-clip", fitted.tokens - 1).fit(TEXT)
    assert shorter.dropped == ("camera",)
    assert shorter.tokens == tokenizer.count(words, "a red coat. in a park.")
    assert "has 2" not in Ruler("tiny-clip", fitted.tokens).fit(TEXT).problem


def test_a_learned_token_is_one_token():
    ruler = Ruler("tiny-clip", 77)
    without = ruler.fit([Clause("in the style of , a man")]).tokens
    assert ruler.fit([Clause("in the style of <s0><s1>, a man")]).tokens == without + 2
    assert estimate("<s0><s1> man") == estimate("man") + 2


def test_a_tokenizer_is_found_in_a_checkpoints_folder(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    data = (ASSETS / "tiny-clip" / "tokenizer.json").read_text()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(data)
    expected = Ruler("tiny-clip", 77).fit(TEXT)
    for path in ("", "/tokenizer", "/tokenizer/tokenizer.json"):
        assert Ruler(f"{tmp_path}{path}", 77).fit(TEXT) == expected
    before = tokenizer_digest(str(tmp_path))
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps(json.loads(data)))
    assert tokenizer_digest(str(tmp_path)) != before
    assert tokenizer_digest("") == ""
    with pytest.raises(InputError, match=r"^tokenizer='/none' does not exist; give"):
        Ruler("/none", 77)


def test_the_estimate_counts_words_digits_and_signs():
    assert estimate("") == 4
    assert estimate("a coat, 12.") == 4 + 2 + 1 + 2 + 1
    assert estimate("photograph") == 4 + 2
