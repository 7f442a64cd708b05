"""Rules that a finished text must follow, whatever vocabulary it was made from.

The other rules (which garments go together, who wears what, where) are data: see `descriptors`.
"""

import re
from collections.abc import Collection

# Words of four letters or more that a good text may have twice.
_MAY_REPEAT = frozenset(
    (
        "black", "white", "grey", "orange", "yellow", "green", "blue", "purple", "pink", "brown",
        "beige", "navy", "burgundy", "olive", "cream", "turquoise", "teal", "dark", "light",
        "pale", "long", "short", "large", "small", "with", "from", "over", "into", "under",
        "beside", "behind", "between", "front",
    )
)  # fmt: skip
_DOUBLED = re.compile(r"\b([\w'-]+)[\s,]+\1\b", re.IGNORECASE)
_CONTENT = re.compile(r"[^\W\d_]{4,}")


def problem(text: str, colours: Collection[str] = ()) -> str:
    """Returns what is wrong with `text`, or "".

    colours: of the vocabulary, which may be repeated as well.

    No word is doubled, and none but colours and the like is repeated at all: that would be one
    thing both worn and carried, or two that contradict each other.
    """
    if doubled := _DOUBLED.search(text):
        return f"{doubled[1]!r} is doubled"
    seen: set[str] = set()
    for word in _CONTENT.findall(text.lower()):
        if word in seen and word not in _MAY_REPEAT and word not in colours:
            return f"{word!r} is repeated"
        seen.add(word)
    return ""
