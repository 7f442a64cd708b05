"""The little grammar that prompts and captions share."""

import re
from collections.abc import Sequence

_A_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")


def agree_articles(text: str) -> str:
    """Returns `text` with every "a" that stands before a vowel turned into "an".

    Goes by the letter, which is right for every word of our vocabulary.
    """
    return _A_BEFORE_VOWEL.sub(r"\1n ", text)


def enumerate_phrases(phrases: Sequence[str]) -> str:
    """Returns "a", "a and b" or "a, b and c" for one or more phrases."""
    *head, last = phrases
    return f"{', '.join(head)} and {last}" if head else last


def capitalised(sentence: str) -> str:
    """Returns `sentence` with its first letter in upper case, the rest as it is."""
    return sentence[:1].upper() + sentence[1:]
