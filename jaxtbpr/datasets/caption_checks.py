"""Finds captions that are likely wrong: known faults of the released sets, by simple rules.

RSTPReid's captions hold stray CJK characters, pieces of source code and captions copied to other
identities (RSTPReid-Dataset, thread 5); machine captions keep slots of their prompt's template.
"""

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator

from jaxtbpr.datasets.entry import Entry

EXAMPLES = 3

# Latin letters with accents, typographic punctuation, currency signs, fractions, ligatures.
_LATIN = (
    (0x00A0, 0x00AC), (0x00AE, 0x024F), (0x02B0, 0x036F), (0x1E00, 0x1EFF), (0x2000, 0x200A),
    (0x2010, 0x2027), (0x202F, 0x205E), (0x20A0, 0x20CF), (0x2100, 0x218F), (0x2212, 0x2212),
    (0xFB00, 0xFB06),
)  # fmt: skip

_TAG = r"</?(?:a|b|body|br|div|em|h\d|head|html|i|img|li|p|script|span|strong|table|td|tr|u|ul)\b"
_CODE = re.compile(
    "|".join(
        (
            _TAG + r"[^<>]*>",
            r"&(?:amp|lt|gt|quot|nbsp|#x?[0-9a-f]+);",  # HTML entities
            r"https?://",
            r"\\[nrtux]",  # an escape that was not undone
            r"\b\w+(?:\.\w+)*\([^()]*\)\s*[;{]",  # a call
            r"\b\w+\.\w+\(",
            r"\b(?:print|printf|alert|console\.log|len|def \w+|function\s*\w*)\(",
            r"(?:==|!=|=>|&&|\|\||\+=|-=|::)",
            r"\b\w+\s*=\s*[\w\"'\[{(]",  # an assignment
            r"^\s*(?:#include|#!|//|/\*)",
            r"\{[^{}]*[:;,=\"][^{}]*\}",  # JSON, CSS, a block
            r"Traceback \(most recent",
        )
    ),
    re.IGNORECASE,
)
# All of the above need one of these; hardly any caption has one, which makes the search fast.
_SIGN = re.compile(r"[<&\\({=|#]|//|/\*|::")
_CODE_WORD = re.compile(r"^\s*(?:import \w+\s*$|from \w+ import )|\b(?:undefined|NaN)\b")
_SLOT = re.compile(rf"\[[^\[\]]*\]?|\w+ description\]|(?!{_TAG})<[^<>]*>|\{{[\w -]*\}}|_{{3,}}")
_SLOT_SIGN = re.compile(r"[\[\]<{_]")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclasses.dataclass(frozen=True)
class Flag:
    """A caption that a rule flagged. detail: what is wrong; image: its image's name in the set."""

    rule: str
    detail: str
    text: str
    identity: str
    image: str


def foreign(caption: str) -> str:
    """Returns the characters that English does not use (CJK, Cyrillic, control, ...), or ""."""
    if caption.isascii() and caption.isprintable():
        return ""
    strange = dict.fromkeys(character for character in caption if _is_foreign(character))
    return ", ".join(f"U+{ord(c):04X} {unicodedata.name(c, 'unnamed')}" for c in strange)


def _is_foreign(character: str) -> bool:
    code = ord(character)
    if code < 0x80:
        return code == 0x7F or (code < 0x20 and character not in "\t\n\r")
    return not any(first <= code <= last for first, last in _LATIN)


def code(caption: str) -> str:
    """Returns the piece of source code or mark-up in a caption, or ""."""
    match = _CODE_WORD.search(caption) or (_SIGN.search(caption) and _CODE.search(caption))
    return match.group().strip() if match else ""


def slot(caption: str) -> str:
    """Returns the template slot that is left in a caption ("[hair description]"), or ""."""
    match = _SLOT_SIGN.search(caption) and _SLOT.search(caption)
    return match.group() if match else ""


def empty(caption: str) -> str:
    """Returns "no word" for a caption without any, else ""."""
    return "" if _WORD.search(caption) else "no word"


def one_word(caption: str) -> str:
    """Returns "one word" for a caption of one word, else ""."""
    return "one word" if len(_WORD.findall(caption)) == 1 else ""


RULES: dict[str, Callable[[str], str]] = {
    "foreign characters": foreign,
    "piece of code": code,
    "template slot": slot,
    "empty": empty,
    "one word": one_word,
}
SHARED = "same on other identities"


class CaptionChecker:
    """Counts flagged captions by rule and keeps the first examples of each.

    It remembers a hash of every caption, to find the same one (but for case and blanks) on several
    identities: about 200 bytes a caption.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys((*RULES, SHARED), 0)
        self.examples: dict[str, list[Flag]] = {rule: [] for rule in self.counts}
        self._first: dict[bytes, tuple[str, str] | None] = {}

    def add(self, entry: Entry) -> Iterator[Flag]:
        """Yields the flags of an entry's captions; must be run to its end."""
        image = entry.name
        for text in entry.captions:
            for rule, find in RULES.items():
                if detail := find(text):
                    yield self._keep(Flag(rule, detail, text, entry.identity, image))
            if _WORD.search(text):
                yield from self._shared(text, entry.identity, image)

    def _shared(self, text: str, identity: str, image: str) -> Iterator[Flag]:
        plain = " ".join(text.casefold().split()).encode("utf-8", "replace")
        key = hashlib.blake2b(plain, digest_size=12).digest()
        if key not in self._first:
            self._first[key] = (identity, image)
            return
        first = self._first[key]
        if first is not None and first[0] == identity:
            return
        if first is not None:  # the first one was not known to be shared until now
            self._first[key] = None
            detail = f"also on identity {identity}"
            yield self._keep(Flag(SHARED, detail, text, *first))
        detail = f"also on identity {first[0]}" if first else "also on other identities"
        yield self._keep(Flag(SHARED, detail, text, identity, image))

    def _keep(self, flag: Flag) -> Flag:
        self.counts[flag.rule] += 1
        if len(self.examples[flag.rule]) < EXAMPLES:
            self.examples[flag.rule].append(flag)
        return flag
