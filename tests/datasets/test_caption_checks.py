import pytest

from jaxtbpr.datasets import caption_checks
from jaxtbpr.datasets.entry import Entry

PLAIN = (
    "A woman with a ponytail wears a blue down jacket, dark jeans and white trainers.",
    "The man (about 30) wears a T-shirt; it says “Just do it” – and he's got a café's bag.",
    "A person in a naïve-art shirt with no. 23/10, 50% off & a £5 tag #1: size 7½.",
    "She carries a floral print handbag. Its function is to return the import papers.",
    "He looks at his phone... is it from a friend? A black/white coat, knee-length!",
)

FOREIGN = {
    "A woman in a red 外套.": "U+5916",
    "A man，in a coat": "U+FF0C FULLWIDTH COMMA",
    "А man in a coat": "CYRILLIC CAPITAL LETTER A",
    "A man\u200b in a coat": "ZERO WIDTH SPACE",
    "A man\x07 in a coat": "U+0007 unnamed",
    "A m\ufffdn": "REPLACEMENT CHARACTER",
    "A man 😀": "GRINNING FACE",
}
CODE = {
    "A man <br/> in a coat": "<br/>",
    "A man &amp; a dog": "&amp;",
    "A man in a coat\\n and hat": "\\n",
    "A man print(caption) in a coat": "print(",
    "self.caption = 'a man'": "caption = '",
    "if x == 1 a man": "==",
    "see https://example.org": "https://",
    '{"caption": "a man"}': '{"caption": "a man"}',
    "function getColour() {": "function getColour(",
    "a man undefined in a coat": "undefined",
    "for (i = 0; i < n; i++) a man": "i = 0",
    "import numpy": "import numpy",
}
SLOTS = {
    "With [hair description], the man walks.": "[hair description]",
    "With hair description], the man walks.": "hair description]",
    "The [person/woman/man] walks.": "[person/woman/man]",
    "A man in a <colour> coat.": "<colour>",
    "A man in a {upper colour} coat.": "{upper colour}",
    "A man in a ____ coat.": "____",
    "A man in a [": "[",
}


@pytest.mark.parametrize("text", PLAIN)
@pytest.mark.parametrize("rule", sorted(caption_checks.RULES))
def test_a_plain_caption_is_not_flagged(rule, text):
    assert caption_checks.RULES[rule](text) == ""


@pytest.mark.parametrize("text", sorted(FOREIGN))
def test_foreign_characters_are_named(text):
    assert FOREIGN[text] in caption_checks.foreign(text)


@pytest.mark.parametrize("text", sorted(CODE))
def test_pieces_of_code_are_found(text):
    assert caption_checks.code(text) == CODE[text]


@pytest.mark.parametrize("text", sorted(SLOTS))
def test_template_slots_are_found(text):
    assert caption_checks.slot(text) == SLOTS[text]


@pytest.mark.parametrize("text", ["A man <br> sits", "<p>A man</p>"])
def test_markup_is_code_and_no_slot(text):
    assert caption_checks.code(text)
    assert not caption_checks.slot(text)


@pytest.mark.parametrize("text", ["", "   ", "...", "\n", "-"])
def test_captions_without_a_word_are_empty(text):
    assert caption_checks.empty(text)
    assert not caption_checks.one_word(text)


@pytest.mark.parametrize("text", ["man", " T-shirt. ", "man's", "42"])
def test_captions_of_one_word_are_found(text):
    assert caption_checks.one_word(text)
    assert not caption_checks.empty(text)


def entry(identity, *captions, image="a.jpg"):
    return Entry(f"/x/{image}", captions, identity, "train", {"image_id": image})


def flags(*entries):
    caption_checker = caption_checks.CaptionChecker()
    return caption_checker, [flag for one in entries for flag in caption_checker.add(one)]


def test_the_same_caption_on_other_identities_flags_each_of_them():
    caption_checker, found = flags(
        entry("1", "A man in red.", image="1.jpg"),
        entry("2", "a man  in RED.", image="2.jpg"),
        entry("3", "A man in red.", image="3.jpg"),
        entry("4", "A man in blue.", image="4.jpg"),
    )
    assert [(flag.identity, flag.image) for flag in found] == [
        ("1", "1.jpg"),
        ("2", "2.jpg"),
        ("3", "3.jpg"),
    ]
    assert {flag.rule for flag in found} == {caption_checks.SHARED}
    assert found[0].detail == "also on identity 2"
    assert found[1].detail == "also on identity 1"
    assert caption_checker.counts[caption_checks.SHARED] == 3


def test_the_same_caption_on_one_identity_is_fine():
    _, found = flags(entry("1", "A man in red.", "A man in red."), entry("1", "A man in red."))
    assert found == []


def test_empty_captions_are_not_the_same_caption():
    _, found = flags(entry("1", ""), entry("2", ""))
    assert [flag.rule for flag in found] == ["empty", "empty"]


def test_three_examples_are_kept_and_all_are_counted():
    caption_checker, found = flags(*(entry(str(k), f"<br> the man {k}") for k in range(5)))
    assert len(found) == 5
    assert caption_checker.counts["piece of code"] == 5
    assert [flag.identity for flag in caption_checker.examples["piece of code"]] == ["0", "1", "2"]
