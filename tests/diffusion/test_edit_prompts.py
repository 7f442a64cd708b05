"""What prompt-to-prompt needs of the prompts; the published arrays are in tests/oracles."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.editing import prompts
from jaxtbpr.diffusion.editing.prompts import Target
from jaxtbpr.diffusion.editing.words import MATCHES, find_tokens
from jaxtbpr.diffusion.prompt_tokenizer import open_prompt_tokenizer
from tests.conftest import DATA

TOKENIZER = open_prompt_tokenizer(DATA / "reference/diffusion/sd1_tiny/tokenizer", 77)
VAN_GOGH = "van gogh style, a man walking in the street"  # gogh is the four tokens g o g h
HAT, SUNGLASSES = "a man wearing a hat and pants", "a man wearing a sunglasses and pants"
GLASSES = range(5, 12)  # the seven tokens of sunglasses
WORDS = st.sampled_from(["a", "man", "street", "sunglasses", "gogh", "snowy,", "in", "Café", "x"])
LISTS = st.lists(WORDS, max_size=9)


def ids(prompt):
    return TOKENIZER.encode([prompt])[0][: TOKENIZER.count(prompt)].tolist()


def spelled(prompt, places):
    return [TOKENIZER.tokenizer.id_to_token(ids(prompt)[n]).replace("</w>", "") for n in places]


# Tokens of a word.


@pytest.mark.parametrize(
    ("word", "tokens"),
    [
        ("van gogh style", ["van", "g", "o", "g", "h", "style"]),
        ("style", ["style"]),  # before a comma
        ("Style,", ["style", ","]),
        ("man  walking", ["man", "walking"]),
        ("street", ["street"]),  # before the end
    ],
)
def test_a_word_or_phrase_has_its_run_of_tokens(word, tokens):
    assert spelled(VAN_GOGH, find_tokens(TOKENIZER, VAN_GOGH, word)) == tokens


def test_every_occurrence_is_found_but_no_part_of_a_longer_word():
    assert find_tokens(TOKENIZER, "a man, a man", "man") == [2, 5]
    assert spelled("sunglasses", range(1, 8)) == ["s", "un", "g", "la", "s", "s", "es"]
    for part in ("es", "s", "sun"):
        with pytest.raises(InputError, match=f"does not contain '{part}'"):
            find_tokens(TOKENIZER, "sunglasses", part)


def test_the_published_rule_finds_only_what_stands_between_two_spaces():
    def find(word):
        return find_tokens(TOKENIZER, VAN_GOGH, word, match="words")

    assert find("gogh") == [2, 3, 4, 5]
    assert find("style,") == [6, 7]
    assert find("style") == find("van gogh style") == find("Van") == []
    # The sign # has no length, so "#1" takes the token of the word after it as well.
    assert find_tokens(TOKENIZER, "bus #1 street", "#1", match="words") == [2, 3, 4]
    assert find_tokens(TOKENIZER, "bus #1 street", "street", match="words") == []


def test_a_learned_token_is_a_word_of_all_its_vectors():
    learned = {"<s0>": 1000, "<s1>": 1001, "<s1>_1": 1002}
    tokenizer = dataclasses.replace(TOKENIZER, learned=learned)
    prompt = "a <s1>, a man by <s0>"
    assert find_tokens(tokenizer, prompt, "<s1>") == [2, 3]
    assert find_tokens(tokenizer, "<s0>man", "man") == [2]
    assert find_tokens(tokenizer, "a <s0> man", "man", match="words") == [3]
    mapper = prompts.replace_mapper(tokenizer, "a man in <s1>", "a man in <s0>")
    assert mapper[4:6, 4].tolist() == [1, 1]


@settings(max_examples=30)
@given(LISTS, LISTS)
def test_both_rules_agree_on_plain_words(before, after):
    prompt = " ".join([*(w.strip(",é") for w in before), "hat", *(w.strip(",é") for w in after)])
    found = [find_tokens(TOKENIZER, prompt, "hat", match=m) for m in MATCHES]
    assert found[0] == found[1] != []


# Replace: word for word.


def test_as_many_tokens_are_paired_one_to_one_and_the_rest_with_themselves():
    mapper = prompts.replace_mapper(TOKENIZER, "a man in the street", "a man in the forest")
    np.testing.assert_array_equal(mapper, np.eye(77))


def test_a_token_is_shared_by_the_tokens_of_its_word():
    mapper = prompts.replace_mapper(TOKENIZER, HAT, SUNGLASSES)
    np.testing.assert_allclose(mapper[5, GLASSES], 1 / 7)
    back = prompts.replace_mapper(TOKENIZER, SUNGLASSES, HAT)
    np.testing.assert_array_equal(back[GLASSES, 5], 1)


def test_the_words_after_a_longer_one_are_paired_with_themselves():
    mapper = prompts.replace_mapper(TOKENIZER, HAT, SUNGLASSES)
    assert spelled(HAT, [6, 7]) == spelled(SUNGLASSES, [12, 13]) == ["and", "pants"]
    assert mapper[6, 12] == mapper[7, 13] == mapper[70, 76] == 1


def test_the_published_tail_gives_them_what_is_at_the_same_place():
    mapper = prompts.replace_mapper(TOKENIZER, HAT, SUNGLASSES, tail="published")
    np.testing.assert_array_equal(mapper[12:, 12:], np.eye(65))
    assert not mapper[6:12].any()  # so "and pants" of the source is nowhere
    # Between two words that differ, the original pairs words with themselves, too.
    source, target = "a hat and red pants", "a sunglasses and pink pants"
    mapper = prompts.replace_mapper(TOKENIZER, source, target, tail="published")
    red, pink = (find_tokens(TOKENIZER, *pair) for pair in ((source, "red"), (target, "pink")))
    assert mapper[red[0] - 1, pink[0] - 1] == 1
    assert mapper[np.ix_(red, pink)].sum() == len(red)


@settings(max_examples=40)
@given(st.lists(st.tuples(WORDS, WORDS), max_size=9))
def test_a_token_of_the_source_gives_all_that_it_has_or_fell_off_the_end(pairs):
    source, target = (" ".join(side) for side in zip(*pairs, strict=True)) if pairs else ("", "")
    mapper = prompts.replace_mapper(TOKENIZER, source, target)
    used = 77 - max(0, len(ids(target)) - len(ids(source)))
    np.testing.assert_allclose(mapper[:used].sum(axis=1), 1, rtol=1e-6)
    assert not mapper[used:].any()


# Refine: words are added.


def aligned(source, target):
    """The alignment as it is defined: gap 0, match 1, mismatch -1; a tie goes left, then up."""
    score = np.zeros((len(source) + 1, len(target) + 1))
    for i, s in enumerate(source, 1):
        for j, t in enumerate(target, 1):
            diagonal = score[i - 1, j - 1] + (1 if s == t else -1)
            score[i, j] = max(score[i, j - 1], score[i - 1, j], diagonal)
    partners, i, j = {}, len(source), len(target)
    while i > 0 and j > 0:
        if score[i, j] == score[i, j - 1]:
            j -= 1
        elif score[i, j] == score[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            partners[j] = i
    return partners


@settings(max_examples=30)
@given(LISTS, LISTS)
def test_tokens_are_paired_as_the_alignment_is_defined(source, target):
    source, target = " ".join(source), " ".join(target)
    mapper = prompts.refine_mapper(TOKENIZER, source, target)
    expected = np.zeros((77, 77))
    for j, i in aligned(ids(source), ids(target)).items():
        expected[i, j] = 1
    end = len(ids(target))
    np.testing.assert_array_equal(mapper[:, :end], expected[:, :end])
    assert (mapper.sum(axis=0) <= 1).all()
    # The pads follow, by distance from the end, or at the same places.
    moved = len(ids(source)) - end
    np.testing.assert_array_equal(mapper[:, end:], np.eye(77, k=-moved)[:, end:])
    mapper = prompts.refine_mapper(TOKENIZER, source, target, tail="published")
    np.testing.assert_array_equal(mapper[:, :end], expected[:, :end])
    np.testing.assert_array_equal(mapper[:, end:], np.eye(77)[:, end:])


def test_added_words_keep_their_own_map():
    edit = prompts.prompt_edit(
        TOKENIZER, "a man in the street", [Target("a young man in the street", "refine")], 4
    )
    assert edit.keep[0].nonzero()[0].tolist() == [2]
    assert edit.mapper[0, :, 2].sum() == 0
    assert edit.mapper[0, 2, 3] == 1


# The schedule, weights and masks.


@pytest.mark.parametrize(
    ("schedule", "rows"),
    [(0.8, range(8)), ((0.2, 0.7), range(2, 7)), (0, []), (1.0, range(11)), ({}, range(11))],
)
def test_a_part_of_the_steps_is_a_part_of_the_rows_of_which_there_is_one_more(schedule, rows):
    table = prompts.cross_schedule(TOKENIZER, "a man", schedule, 10)
    assert table.shape == (11, 77)
    np.testing.assert_array_equal(table, np.isin(np.arange(11), rows)[:, None] * np.ones(77))


def test_a_word_has_a_schedule_of_its_own():
    table = prompts.cross_schedule(
        TOKENIZER, SUNGLASSES, {"default_": 0.5, "sunglasses": (0.5, 1)}, 9
    )
    of_word = np.isin(np.arange(77), GLASSES)
    np.testing.assert_array_equal(table, (np.arange(10)[:, None] < 5) ^ of_word)


def test_self_attention_counts_steps_without_the_one_more():
    edit = prompts.prompt_edit(TOKENIZER, "a man", [Target("a man", self_replace=(0.1, 0.99))], 50)
    assert edit.self_steps.tolist() == [[5, 49]]
    edit = prompts.prompt_edit(TOKENIZER, "a man", [Target("a man", self_replace=0.58)], 50)
    assert edit.self_steps.tolist() == [[0, 28]]  # 50 * 0.58 is a little under 29, as published


def test_phrases_are_weighed_unless_as_published():
    weights = {"van gogh style": 3.0, "street": 0.5}
    values = prompts.equalizer(TOKENIZER, VAN_GOGH, weights)
    np.testing.assert_array_equal(values[:15], [1, *[3] * 6, *[1] * 6, 0.5, 1])
    values = prompts.equalizer(TOKENIZER, VAN_GOGH, weights, match="words")
    np.testing.assert_array_equal(values[:15], [*[1] * 13, 0.5, 1])


def test_masks_have_the_tokens_of_each_prompt_s_words():
    masks = prompts.word_masks(
        TOKENIZER, ["a man", VAN_GOGH, SUNGLASSES], [["man"], ["a man", "street"], []]
    )
    assert [mask.nonzero()[0].tolist() for mask in masks] == [[2], [8, 9, 13], []]


# One program for all.


@settings(max_examples=40)
@given(LISTS, st.sampled_from(prompts.METHODS), st.sampled_from(prompts.TAILS))
def test_the_same_prompt_takes_the_map_of_the_source_as_it_is(words, method, tail):
    prompt = " ".join(words)
    edit = prompts.prompt_edit(TOKENIZER, prompt, [Target(prompt, method)], 3, tail=tail)
    np.testing.assert_array_equal(edit.mapper[0], np.eye(77))
    assert not edit.keep.any()
    assert (edit.equalizer == 1).all()


def test_edits_of_different_methods_have_the_same_shapes():
    targets = [
        Target(SUNGLASSES, "replace", 0.4, weights={"sunglasses": 2.0}),
        Target("anime, " + HAT, "refine", {"anime": (0, 0.2)}, weights={"anime": 3.0}),
        Target(HAT, "reweight", 1.0, weights={"hat": -1.0}),
    ]
    edit = prompts.prompt_edit(TOKENIZER, HAT, targets, 6)
    shapes = {name: array.shape for name, array in edit._asdict().items()}
    assert shapes == {"mapper": (3, 77, 77), "keep": (3, 77), "equalizer": (3, 77),
                      "cross": (7, 3, 77), "self_steps": (3, 2)}  # fmt: skip
    assert {array.dtype.name for array in edit} == {"float32", "int32"}
    for k, target in enumerate(targets):
        alone = prompts.prompt_edit(TOKENIZER, HAT, [target], 6)
        for together, single in zip(edit[:3], alone[:3], strict=True):
            np.testing.assert_array_equal(together[k], single[0])
        np.testing.assert_array_equal(edit.cross[:, k], alone.cross[:, 0])


def test_each_column_of_the_new_map_has_a_source():
    """What the target does not take of the source it keeps: no column is empty."""
    for target in (SUNGLASSES, "a man wearing a x and pants"):
        for source, other in ((HAT, target), (target, HAT)):
            edit = prompts.prompt_edit(TOKENIZER, source, [Target(other, "replace")], 3)
            assert (edit.mapper[0].any(axis=0) ^ (edit.keep[0] == 1)).all()
    edit = prompts.prompt_edit(TOKENIZER, SUNGLASSES, [Target(HAT)], 3, tail="published")
    assert not edit.keep.any()


# What cannot be done is told in one sentence.


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target("a man in a wide street"), "the source prompt 'a man' has 2 words and the target"),
        (Target("a man " * 40, "refine"), "has 82 tokens, but the text encoder takes 77: shorten"),
        (Target("a man", cross=1.2), "cross=1.2 must be a number of 0 to 1"),
        (Target("a man", cross=(0.5, 0.2)), "cross=(0.5, 0.2) must be a number of 0 to 1"),
        (Target("a man", cross={"man": "all"}), "cross['man']='all' must be a number of 0 to 1"),
        (Target("a man", cross={"woman": 0.5}), "the prompt 'a man' does not contain 'woman'"),
        (Target("a man", weights={"anime": 3}), "the prompt 'a man' does not contain 'anime'"),
        (Target("a man", weights={" ": 3}), "the prompt 'a man' does not contain ' '"),
        (Target("a man", "swap"), "method='swap' is none of replace, refine, reweight"),
    ],
)
def test_an_edit_that_cannot_be_made_is_an_error(target, said):
    with pytest.raises(InputError, match=re.escape(said)) as error:
        prompts.prompt_edit(TOKENIZER, "a man", [target], 5)
    assert str(error.value).endswith(".")


def test_other_arguments_that_cannot_be_are_errors():
    with pytest.raises(InputError, match="self_replace=nan must be a number of 0 to 1"):
        prompts.prompt_edit(TOKENIZER, "a man", [Target("a man", self_replace=float("nan"))], 5)
    with pytest.raises(InputError, match="tail='last' is none of aligned, published"):
        prompts.prompt_edit(TOKENIZER, "a man", [Target("a man")], 5, tail="last")
    with pytest.raises(InputError, match="match='letters' is none of tokens, words"):
        find_tokens(TOKENIZER, "a man", "man", match="letters")
    with pytest.raises(InputError, match="words has lists for 1 prompts, but there are 2"):
        prompts.word_masks(TOKENIZER, ["a man", "a hat"], [["man"]])
    with pytest.raises(InputError, match="'hat' or 'man' has no token of its own"):
        prompts.replace_mapper(TOKENIZER, "a  hat", "a  man", match="words")
    with pytest.raises(InputError, match="targets is empty"):
        prompts.prompt_edit(TOKENIZER, "a man", [], 5)
