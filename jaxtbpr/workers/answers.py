"""Answers of language models: cleaned, then checked; what is wrong is said in one sentence.

The published code keeps every answer; here refusals, empty, truncated, short, long, foreign,
repeated and unfilled answers, remarks and lists are detected, so that they can be requested again.
"""

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Collection

from jaxtbpr.core.english import capitalised

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
# A thought whose opening tag is the end of the prompt, and the role name, both from the chat
# template.
_BEFORE = re.compile(r"\A.*</think>|\A\s*assistant\s*\n", re.DOTALL | re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[^|>]*\|>|</?s>")
_MARKUP = re.compile(r"```\w*|\*\*|__(?=\w)|(?<=\w)__|^#+ ", re.MULTILINE)
_OPENINGS = (  # what models say before the caption
    re.compile(r"(?:sure|certainly|of course|okay|ok)\s*[,!.]\s*", re.IGNORECASE),
    re.compile(r"here(?: is|'s)[^:.\n]{0,80}:\s*", re.IGNORECASE),
    re.compile(r"(?:the )?(?:caption|description|answer|prompt|sentence)s?\s*:\s*", re.IGNORECASE),
    re.compile(
        r"(?:in )?(?:the|this) (?:image|photo|picture|photograph)(?: (?:shows|depicts|features|"
        r"captures|displays|portrays)|, there is|, we (?:can )?see)\s+(?=\w)",
        re.IGNORECASE,
    ),
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}
_BEFORE_SIGN = re.compile(r"\s+([.,;:!?])")

_APOSTROPHES = str.maketrans("’ʼ", "''")
_REFUSALS = re.compile(
    r"\b(?:i'?m|i am) (?:very |really )?sorry\b|\bsorry, but\b|\bi apologi[sz]e\b|\bas an ai\b|"
    r"\blanguage model\b|\bi(?:'?m| am) (?:not able|unable)\b|"
    r"\bi (?:can ?not|can'?t|do not|don'?t|won'?t) |"
    r"\bunable to (?:see|view|describe|identify|provide|determine|assist)\b|"
    # "with no people around" is a good caption's
    r"\bno (?:person|image)\b|(?:\bnot|n't) contain any (?:person|people|humans?)\b|"
    r"\b(?:no|without any) (?:person|people|image|human)s?\b.{0,30}"
    r"\b(?:visible|provided|seen|shown|image|photo|picture)\b|"
    r"\bplease (?:provide|upload|share)\b",
    re.IGNORECASE,
)
_NOT_ALONE = re.compile(  # remarks, turns of a dialogue, lists
    r"\b(?:note|human|user|assistant):|(?:\A|[.:] )(?:[-–*•]|\d+[.)]) ", re.IGNORECASE
)
_UNFILLED = re.compile(r"\[[^\]]*\]|\{[^}]*\}|<[a-z_ ]+>|_{3,}|\bplaceholders?\b", re.IGNORECASE)
_UNSEEN = re.compile(
    r"\bn/a\b|\b(?:unspecified|unknown|undefined|unidentified|indiscernible)\b|"
    r"\bnot (?:visible|specified|mentioned|applicable|shown|discernible|clear(?:ly)?)\b",
    re.IGNORECASE,
)
# Usual words; "a" is in neither, since it is a word of several languages.
_ENGLISH = re.compile(
    r"an|and|are|at|has|her|his|in|is|of|on|she|he|the|their|to|wearing|with",
)
_FOREIGN = re.compile(
    r"avec|che|com|con|das|dem|den|der|des|die|ein|eine|einen|einem|el|em|en|est|et|het|ist|la|le|"
    r"les|lleva|los|med|met|mit|och|per|porte|trägt|um|uma|un|una|und|une|uno|van|y",
)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# (words of a piece, times in a row that are too many)
_RUNS = ((1, 3), (2, 3), (3, 3), *((size, 2) for size in range(4, 16)))
_ECHO = 9  # words in a row that are those of the instruction


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why an answer is rejected. kind: a word to count by; reason: a sentence."""

    kind: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Limits:
    """How many words an answer may have."""

    min_words: int
    max_words: int


def clean(text: str) -> str:
    """Returns the sentence in an answer: without thoughts, markup, quotes, opening words.

    Blanks and line ends become single blanks; it begins with a capital. Idempotent.
    """
    text = text.encode("utf-8", "ignore").decode()  # half an emoji cannot be written to a file
    text = _BEFORE.sub("", _SPECIAL.sub(" ", _THOUGHT.sub(" ", text)))
    text = _MARKUP.sub("", text)
    text = _BEFORE_SIGN.sub(r"\1", " ".join(text.split()))
    before = None
    while text != before:
        before = text
        text = _unquoted(text)
        for opening in _OPENINGS:
            if (match := opening.match(text)) and match.end() < len(text):
                text = text[match.end() :].strip()
    return capitalised(text)


def words(text: str) -> list[str]:
    """Returns the words of `text` in lower case, without signs and numbers."""
    return _WORD.findall(text.lower())


def check(
    text: str,
    limits: Limits,
    *,
    instruction: str = "",
    finish: str = "stop",
    earlier: Collection[str] = (),
) -> Refusal | None:
    """Returns why a cleaned answer is rejected, None where it is accepted.

    instruction: what was asked; finish: "length" where max_tokens was reached; earlier: answers
    that this one must differ from.
    """
    words_of_text = words(text)
    if not words_of_text:
        cut = "; the model was cut off before any: raise max_tokens" if finish == "length" else ""
        return Refusal("empty", f"the answer has no words{cut}")
    if match := _REFUSALS.search(text.translate(_APOSTROPHES)):
        return Refusal("refusal", f"the model refuses: {match[0]!r}")
    if match := _NOT_ALONE.search(text):
        return Refusal("not alone", f"it is not only a description: {match[0]!r}")
    if match := _UNFILLED.search(text):
        return Refusal("unfilled", f"a slot of the pattern was not filled: {match[0]!r}")
    if match := _UNSEEN.search(text):
        return Refusal("unseen", f"it mentions what cannot be seen: {match[0]!r}")
    if instruction and _echoes(words_of_text, words(instruction)):
        return Refusal("echo", "it repeats the instruction")
    if refusal := _script(text):
        return refusal
    if (
        len(words_of_text) < limits.min_words
    ):  # before the language, which too few words do not show
        return Refusal(
            "short", f"it has {len(words_of_text)} words; at least {limits.min_words} are required"
        )
    if refusal := _language(words_of_text) or _repetition(text, words_of_text):
        return refusal
    return _end(text, words_of_text, limits, finish) or _again(text, earlier)


def _end(text: str, words: list[str], limits: Limits, finish: str) -> Refusal | None:
    count = len(words)
    if count > limits.max_words:
        return Refusal("long", f"it has {count} words; at most {limits.max_words} are allowed")
    if finish == "length" and text[-1] not in ".!?":
        return Refusal("cut off", "the model was cut off before the end of its sentence")
    return None


def _again(text: str, earlier: Collection[str]) -> Refusal | None:
    if text.lower() in {other.lower() for other in earlier}:
        return Refusal("same", "it is the same as another answer")
    return None


def _script(text: str) -> Refusal | None:
    # Letters of any language in Latin script pass, since "café" is English: `_language` decides.
    odd = [s for s in text if s.isalpha() and "LATIN" not in unicodedata.name(s, "")]
    if odd:
        return Refusal("language", f"it has letters of another script: {''.join(odd[:9])!r}")
    return None


def _language(words: list[str]) -> Refusal | None:
    english = sum(bool(_ENGLISH.fullmatch(word)) for word in words)
    foreign = sum(bool(_FOREIGN.fullmatch(word)) for word in words)
    if english <= foreign or english < 0.08 * len(words):
        return Refusal(
            "language", f"only {english} of its {len(words)} words are common English words"
        )
    return None


def _repetition(text: str, answer: list[str]) -> Refusal | None:
    pieces = [" ".join(words(part)) for part in re.split(r"[.!?]", text)]
    sentence, times = Counter(filter(None, pieces)).most_common(1)[0]
    if times > 1:
        return Refusal("repeated", f"it says {sentence!r} {times} times")
    for size, most in _RUNS:
        for start in range(len(answer) - size * most + 1):
            piece = answer[start : start + size]
            if answer[start : start + size * most] == piece * most:
                return Refusal("repeated", f"it says {' '.join(piece)!r} {most} times in a row")
    return None


def _echoes(answer: list[str], instruction: list[str]) -> bool:
    runs = {tuple(instruction[k : k + _ECHO]) for k in range(len(instruction) - _ECHO + 1)}
    return any(tuple(answer[k : k + _ECHO]) in runs for k in range(len(answer) - _ECHO + 1))


def _unquoted(text: str) -> str:
    """Removes a pair of quotes round all of `text`."""
    is_pair = len(text) > 1 and _QUOTES.get(text[0]) == text[-1]
    if is_pair and text[0] not in text[1:-1]:
        return text[1:-1].strip()
    return text
