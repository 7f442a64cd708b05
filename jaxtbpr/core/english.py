"""English grammar for prompts and captions: articles, lists, capitals."""

import re
from collections.abc import Sequence

# Vowels that are not heard as such ("a university", "a one-piece"), and an h that is not heard.
_LIKE_A_CONSONANT = r"uni(?![nmd])|us[aeiu]|uti|ub[ie]|ur[aei]|ufo|eu|one\b|once"
_LIKE_A_VOWEL = r"[aeiou]|hour|heir|honest|honou?r"
_A_BEFORE_VOWEL = re.compile(rf"\b(a) (?!{_LIKE_A_CONSONANT})(?={_LIKE_A_VOWEL})", re.IGNORECASE)


def agree_articles(text: str) -> str:
    """Returns `text` with every "a" that stands before a vowel turned into "an".

    Goes by the letter, and by the beginnings of the usual exceptions ("a uniform", "an hour").
    """
    return _A_BEFORE_VOWEL.sub(r"\1n ", text)


def enumerate_phrases(phrases: Sequence[str]) -> str:
    """Returns "a", "a and b" or "a, b and c" for one or more phrases."""
    *head, last = phrases
    return f"{', '.join(head)} and {last}" if head else last


def capitalised(sentence: str) -> str:
    """Returns `sentence` with its first letter in upper case, the rest as it is."""
    return sentence[:1].upper() + sentence[1:]
