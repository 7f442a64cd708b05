"""The little grammar that prompts and captions share."""

from collections.abc import Sequence


def with_article(phrase: str) -> str:
    """Returns `phrase` after its indefinite article: "an orange coat", "a red coat".

    Goes by the first letter, which is right for every word of our vocabulary.
    """
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def enumerate_phrases(phrases: Sequence[str]) -> str:
    """Returns "a", "a and b" or "a, b and c"."""
    *head, last = phrases
    return f"{', '.join(head)} and {last}" if head else last


def capitalised(sentence: str) -> str:
    """Returns `sentence` with its first letter in upper case, the rest as it is."""
    return sentence[:1].upper() + sentence[1:]
