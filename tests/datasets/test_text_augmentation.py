"""Changed captions: what is dropped, swapped, replaced and put in, and what stays."""

import numpy as np
import pytest

from jaxtbpr.datasets import text_augmentation

CAPTION = "a woman in a red coat with a black backpack and grey trousers"


@pytest.mark.parametrize("text", ["", " ", "coat", " coat "])
def test_word_deletion_leaves_short_texts_alone(text):
    assert text_augmentation.delete_words(text, np.random.default_rng(0), 1.0) == text


def test_word_deletion_keeps_at_least_one_word():
    kept = {
        text_augmentation.delete_words("a red coat", np.random.default_rng(seed), 1.0)
        for seed in range(50)
    }
    assert kept == {"a", "red", "coat"}


def test_words_are_deleted_with_their_probability_and_in_order():
    words = [str(k) for k in range(2000)]
    kept = text_augmentation.delete_words(" ".join(words), np.random.default_rng(0), 0.05).split()
    assert 0.03 < 1 - len(kept) / len(words) < 0.07
    assert kept == sorted(kept, key=int)
    assert text_augmentation.delete_words("a  b", np.random.default_rng(0), 0.0) == "a b"


def test_swapped_words_are_the_same_words():
    text = "a man in a red coat with a black bag"
    rng = np.random.default_rng(0)
    swapped = [text_augmentation.swap_words(text, rng, 0.2) for _ in range(50)]
    assert all(sorted(x.split()) == sorted(text.split()) for x in swapped)
    assert sum(x != text for x in swapped) > 40
    assert text_augmentation.swap_words(text, rng, 0.0) == text
    assert text_augmentation.swap_words("man", rng, 1.0) == "man"


def test_words_are_replaced_by_what_means_the_same():
    rng = np.random.default_rng(0)
    found = [text_augmentation.replace_words(CAPTION, rng, 0.5) for _ in range(50)]
    assert any("lady" in text for text in found)
    for text in found:
        assert "red coat" in text or "red overcoat" in text
        assert "black backpack" in text or "black rucksack" in text
        assert len(text.split()) == len(CAPTION.split())
    assert text_augmentation.replace_words(CAPTION, rng, 0.0) == CAPTION


def test_inserted_words_are_synonyms_of_the_captions_own():
    found = text_augmentation.insert_words(CAPTION, np.random.default_rng(0), 0.3).split()
    assert len(found) == len(CAPTION.split()) + round(0.3 * len(CAPTION.split()))
    left = list(found)
    for word in CAPTION.split():
        left.remove(word)
    allowed = {
        w
        for words in text_augmentation.SYNONYMS
        if set(words) & set(CAPTION.split())
        for w in words
    }
    assert set(left) <= allowed
    assert (
        text_augmentation.insert_words("nothing known", np.random.default_rng(0), 1.0)
        == "nothing known"
    )


def test_no_word_has_two_groups():
    words = [word for group in text_augmentation.SYNONYMS for word in group]
    assert len(words) == len(set(words))


def test_rates_of_zero_change_nothing():
    options = dict.fromkeys(("word_deletion", "word_swap", "word_replacement", "word_insertion"), 0)
    assert (
        text_augmentation.change_words("  Any  Text ", np.random.default_rng(0), options)
        == "  Any  Text "
    )
