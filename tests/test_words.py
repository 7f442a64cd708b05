"""Words that must not come back: the code and its pages speak the field's language."""

import functools
import io
import pathlib
import re
import tokenize
from collections import Counter

import pytest

from jaxtbpr import stages
from jaxtbpr.core import options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.renamed import RENAMED

ROOT = pathlib.Path(__file__).parents[1]
# They name the old words on purpose.
ALLOWED = {"CHANGELOG.md", "renamed.py", "test_words.py"}
TOPS = ("jaxtbpr", "configs", "tests")  # and nothing of an environment or a run beside them
CODE = [
    path for top in TOPS for path in sorted(ROOT.glob(f"{top}/**/*.py")) if path.name not in ALLOWED
]
PAGES = [
    path
    for top in ("*.md", ".github/*.md", *(f"{top}/**/*.md" for top in TOPS))
    for path in sorted(ROOT.glob(top))
    if path.name not in ALLOWED and "data" not in path.relative_to(ROOT).parts
]
PAGES += sorted(ROOT.glob("jaxtbpr/**/*.html"))

# {a name of old: what it is called}
NAMES = {
    "set_aside": "rejected, reject",
    "Want": "Request",
    "Settled": "Result",
    "Deck": "BalancedSampler",
    "Dealer": "PersonSampler",
    "Words": "PromptTokenizer",
    "most_tokens": "max_tokens",
    "most_words": "max_words",
    "least_words": "min_words",
    "fewest_words": "min_words",
    "least_score": "min_score",
    "worst_share": "reject_fraction",
    "per_prompt": "images_per_prompt",
    "val_share": "val_fraction",
    "duplicate_bits": "duplicate_distance",
    "captions_refused": "rejected_captions",
    "mending": "what it does",
    "circumstances": "run_info",
    "first_right_rank": "first_match_rank",
    "first_right": "first_match",
    "Asker": "Client",
    "asker": "client",
    "NOT_SAID": "NOT_MENTIONED",
    "denoise_stage": "denoise; the mixture of losses is in training/mixture.py",
}
# {a phrase of old: what is said now}
PHRASES = {
    r"\bset[- ]aside\b|\bsets? \w+( \w+)? aside\b": "rejected",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bbears? (guidance|noise)\b": "works up to, copes with",
    r"makes images and captions alike": "no contrastive loss is enabled",
    r"was asked to stop and did": "stopped by SIGTERM after step ...",
    r"; 0: (any|none|all)\b": "0 = what it does",
    r"\b[Ff]irst right (image|at)\b": "first match",
}
# Names that say nothing; {word: how often the package may still use it}.
FILLERS = {"found": 4, "said": 2, "told": 14, "given": 2, "own": 8, "share": 2, "kind": 175}


@functools.cache
def texts() -> dict[pathlib.Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in [*CODE, *PAGES]}


def names(text: str) -> Counter:
    """How often each name stands in Python code."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return Counter(token.string for token in tokens if token.type == tokenize.NAME)


def test_files_are_looked_at():
    assert len(CODE) > 300
    assert {"README.md", "template.html"} <= {path.name for path in PAGES}


def test_names_of_old_do_not_come_back():
    back = {
        f"{path.relative_to(ROOT)}: {name}": f"is called {NAMES[name]}"
        for path in CODE
        if any(name in texts()[path] for name in NAMES)  # quicker than tokens
        for name in NAMES.keys() & names(texts()[path]).keys()
    }
    assert back == {}


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrases_of_old_do_not_come_back(phrase):
    back = {
        f"{path.relative_to(ROOT)}: {match[0]}": f"say: {PHRASES[phrase]}"
        for path, text in texts().items()
        for match in re.finditer(phrase, text)
    }
    assert back == {}


def test_no_page_and_no_message_names_a_config_key_of_old():
    keys = re.compile(rf"\b(?<![\w./])({'|'.join(map(re.escape, RENAMED))})(?![\w/(])")
    back = {
        f"{path.relative_to(ROOT)}: {match[0]}": f"is called {RENAMED[match[0]]}"
        for path, text in texts().items()
        for match in keys.finditer(text)
    }
    assert back == {}


def test_names_that_say_nothing_are_few():
    package = ROOT / "jaxtbpr"
    used = sum(
        (
            names(text)
            for path, text in texts().items()
            if path in CODE and path.is_relative_to(package)
        ),
        Counter(),
    )
    assert {word: used[word] for word, most in FILLERS.items() if used[word] > most} == {}


def test_a_config_key_of_old_is_told_the_new_one():
    with pytest.raises(UserError, match=r"train\.keep is .* mean config\.train\.small_loss_fract"):
        options.check_key("train.keep", stages.OPTIONS)
    known = options.flatten(stages.OPTIONS).keys()
    assert set(RENAMED.values()) <= known
    assert not known & RENAMED.keys()
