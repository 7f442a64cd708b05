"""Easy data augmentation of captions: delete, swap, replace and insert words.

Wei and Zou, EMNLP 2019, arXiv:1901.11196. Words are replaced only by those that mean the same in a
description of a person; colours and garments that differ stay what they are.
"""

import numpy as np

SYNONYMS = (
    ("woman", "lady"),
    ("man", "gentleman"),
    ("person", "pedestrian", "individual"),
    ("trousers", "pants", "slacks"),
    ("trainers", "sneakers"),
    ("sweater", "jumper", "pullover"),
    ("t-shirt", "tee"),
    ("coat", "overcoat"),
    ("backpack", "rucksack"),
    ("handbag", "purse"),
    ("suitcase", "luggage"),
    ("glasses", "eyeglasses", "spectacles"),
    ("phone", "cellphone"),
    ("grey", "gray"),
    ("purple", "violet"),
    ("blond", "blonde"),
    ("checked", "checkered", "plaid"),
    ("wearing", "sporting"),
    ("wears", "sports"),
    ("carrying", "holding"),
    ("carries", "holds"),
    ("walking", "strolling"),
    ("running", "jogging"),
    ("old", "elderly"),
    ("slim", "thin"),
    ("road", "street"),
    ("shop", "store"),
)
_OTHERS = {word: [w for w in words if w != word] for words in SYNONYMS for word in words}


def delete_words(text: str, rng: np.random.Generator, probability: float) -> str:
    """Returns `text` without some words, each dropped with `probability`; never without all.

    As SynTBPR uses it with 0.05. A text of one word or none is returned as it is.
    """
    words = text.split()
    if len(words) < 2:
        return text
    draws = rng.random(len(words))
    kept = [word for word, draw in zip(words, draws, strict=True) if draw > probability]
    return " ".join(kept or [words[rng.integers(len(words))]])


def swap_words(text: str, rng: np.random.Generator, fraction: float) -> str:
    """Returns `text` with round(fraction * words) swaps of two random words."""
    words = text.split()
    if len(words) < 2:
        return text
    for _ in range(round(fraction * len(words))):
        one, other = rng.choice(len(words), 2, replace=False)
        words[one], words[other] = words[other], words[one]
    return " ".join(words)


def replace_words(text: str, rng: np.random.Generator, probability: float) -> str:
    """Returns `text` with each word that has a synonym replaced by one with `probability`."""
    words = text.split()
    draws = rng.random(len(words))
    return " ".join(
        _synonym(word, rng) if draw < probability and word in _OTHERS else word
        for word, draw in zip(words, draws, strict=True)
    )


def insert_words(text: str, rng: np.random.Generator, fraction: float) -> str:
    """Returns `text` with round(share * words) synonyms of its own words at random places."""
    words = text.split()
    known = [word for word in words if word in _OTHERS]
    for _ in range(round(fraction * len(words)) if known else 0):
        word = _synonym(known[rng.integers(len(known))], rng)
        words.insert(int(rng.integers(len(words) + 1)), word)
    return " ".join(words)


def change_words(text: str, rng: np.random.Generator, options: dict) -> str:
    """Returns `text` changed by the rates `word_*` of transforms.AUGMENT_OPTIONS, 0 for none."""
    for name, change in _CHANGES.items():
        if options[name] > 0:
            text = change(text, rng, options[name])
    return text


def _synonym(word: str, rng: np.random.Generator) -> str:
    others = _OTHERS[word]
    return others[rng.integers(len(others))]


_CHANGES = {
    "word_replacement": replace_words,
    "word_insertion": insert_words,
    "word_swap": swap_words,
    "word_deletion": delete_words,
}
