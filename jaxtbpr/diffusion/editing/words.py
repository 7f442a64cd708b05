"""Which tokens of a prompt a word has, by two rules.

match="tokens": every run of tokens that spells it, so that phrases and words before a comma are
found. match="words", the rule of prompt-to-prompt's authors: those of a word between two spaces
that equals it, where tokens are counted off by the lengths of their text. It never finds "van gogh
style", nor "anime" in "anime, a man", which then change nothing.
"""

import itertools
from collections.abc import Collection

import numpy as np

from jaxtbpr.core.errors import InputError
from jaxtbpr.core.tokenizer import special_ids
from jaxtbpr.diffusion.prompt_tokenizer import PromptTokenizer

MATCHES = ("tokens", "words")


def find_tokens(
    tokenizer: PromptTokenizer, prompt: str, word: str, *, match: str = "tokens"
) -> list[int]:
    """Returns the places of the tokens of a word or phrase in `prompt`, of every occurrence.

    match: see the module. Raises InputError where the prompt does not have it (but with "words",
    which then returns [], as published), or has more tokens than the text encoder takes.
    """
    check_choice("match", match, MATCHES)
    if match == "words":
        pairs = zip(prompt.split(" "), word_tokens(tokenizer, prompt, match), strict=True)
        return [place for other, places in pairs if other == word for place in places]
    ids, wanted = all_tokens(tokenizer, prompt), all_tokens(tokenizer, word)[1:-1]
    places = [
        place
        for place in range(1, len(ids) - len(wanted))
        if ids[place : place + len(wanted)] == wanted
        and (place == 1 or _ends_word(tokenizer, ids[place - 1]))
    ]
    if not wanted or not places:
        raise InputError(
            f"the prompt {prompt!r} does not contain {word!r}; choose words that it contains."
        )
    return sorted({place + n for place in places for n in range(len(wanted))})


def word_tokens(tokenizer: PromptTokenizer, prompt: str, match: str) -> list[list[int]]:
    """Returns the places of the tokens of each word between blanks ("words": between two spaces).

    Raises InputError where the prompt has more tokens than the text encoder takes.
    """
    check_choice("match", match, MATCHES)
    ids = all_tokens(tokenizer, prompt)[1:-1]
    if match == "words":
        return _counted_off(prompt.split(" "), [_text(tokenizer, token) for token in ids])
    of_words = [row[1:-1] for row in _without_pads(tokenizer, prompt.split())]
    if list(itertools.chain(*of_words)) != ids:
        raise InputError(f"the tokens of the prompt {prompt!r} span several words; reword it.")
    ends = np.cumsum([1, *map(len, of_words)]).tolist()
    return [list(range(*span)) for span in itertools.pairwise(ends)]


def all_tokens(tokenizer: PromptTokenizer, prompt: str) -> list[int]:
    """Returns the ids of a prompt, start and end included, without pads.

    Raises InputError where it has more tokens than the text encoder takes, or unknown ones.
    """
    if problem := tokenizer.problem(prompt):
        raise InputError(f"the prompt {prompt!r} {problem}.")
    return _without_pads(tokenizer, [prompt])[0]


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises InputError where the value of an argument is none of its choices."""
    if value not in choices:
        raise InputError(f"{name}={value!r} is none of {', '.join(choices)}; choose one.")


def _without_pads(tokenizer, texts):
    """The ids of each text to the end token."""
    _, end = special_ids(tokenizer.tokenizer)
    return [row[: row.index(end) + 1] for row in tokenizer.encode(texts).tolist()]


def _ends_word(tokenizer, token):
    """Whether a word begins after a token: so "man" is not found in "businessman"."""
    text = tokenizer.tokenizer.id_to_token(token) or ""
    return text.endswith("</w>") or token in tokenizer.learned.values()


def _counted_off(words, texts):
    """Gives each word tokens until their texts are as long as it."""
    places, number, letters = [[] for _ in words], 0, 0
    for place, text in enumerate(texts, start=1):
        if number == len(words):
            break
        places[number].append(place)
        letters += len(text)
        if letters >= len(words[number]):
            number, letters = number + 1, 0
    return places


def _text(tokenizer, token):
    """The text of one token; its # at the ends do not count, as published."""
    for name, number in tokenizer.learned.items():
        if number == token:
            return name
    text = tokenizer.tokenizer.decode([token], skip_special_tokens=False)
    return text.replace("</w>", " ").strip().strip("#")
