"""One image with its captions: what every reader of a data set yields."""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

PATH_KEYS = ("file_path", "img_path", "image_path", "file_name", "image", "path")
# Other spellings, without spaces and underscores.
PATH_NAMES = {key.replace("_", ""): key for key in PATH_KEYS}
PATH_NAMES |= dict.fromkeys(("imagename", "imgname", "imagefile", "img", "file"), "file_name")
PERSON_KEYS = ("identity", "person_id", "pid")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
PARTS_OF_A_TEST = {"query", "gallery", "probe"}  # names of other sets, without captions
UNKNOWN = {"", "nan", "none", "null", "<na>", "n/a", "#n/a", "unknown", "-1", "-1.0"}
_WHOLE = re.compile(r"-?\d+\.0+")  # as a table writes numbers beside an empty cell
EXAMPLES = 3
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image of a data set.

    path: the image file, absolute or below the folder that was given; it may be missing.
    captions: unchanged, empty ones included. identity: the person, as text.
    split: "train", "val" or "test". extra: what else the record holds: "image_id" (the name in
    the annotation), "seed", "prompt", "edits", "attributes", "captions_bt", ...
    problem: why the record cannot be used, or "". Such an entry must be rejected and counted.
    notes: what was joined, replaced or guessed, as one of the phrases below; see `Notes`.
    """

    path: str
    captions: tuple[str, ...]
    identity: str
    split: str
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the annotation calls the image."""
        return str(self.extra.get("image_id", self.path))


NO_SPLIT = "records without a split, read as train"
SAME_NAME = "images inside a file with the name of an earlier one, kept as separate images"
JOINED = "images with several records, whose captions are joined"
NOBODY = "images whose identity is empty, -1 or unknown, each read as a separate person"
OTHER_SPLIT = "records whose split differs from their file's name or folder, and is used"
SAME_FILE = "images with several names, whose captions are joined"
REPEATED = "images with a record that is repeated word for word, counted once"


NO_CAPTION = "images without a caption, which will be rejected unless they get one"
ONLY_EMPTY = "images whose captions are all empty, which will be rejected unless they get one"
EMPTY = "empty captions beside good ones, which are left out"


class Notes:
    """Counts the images of each note, with the first few names."""

    def __init__(self):
        self._names: dict[str, dict[str, None]] = {}
        self._counts: collections.Counter[str] = collections.Counter()

    def add(self, name: str, notes: Iterable[str]) -> None:
        """Counts the notes on the image `name`; one that comes twice counts twice."""
        for note in notes:
            self._counts[note] += 1
            names = self._names.setdefault(note, {})
            if len(names) <= EXAMPLES:
                names[name] = None

    def lines(self) -> list[str]:
        """Returns one sentence per note."""
        return [f"{note}: {count:,} ({self._such(note)})." for note, count in self._counts.items()]

    def _such(self, note: str) -> str:
        names = list(self._names[note])
        return ", ".join(names[:EXAMPLES] + ["..."] * (len(names) > EXAMPLES))


class BadRecord(ValueError):
    """A record that a reader cannot use; the message ends the sentence "record N of FILE ..."."""


def reject(where: str, reason: object, split: str = "train") -> Entry:
    """Returns the entry that stands for a record that cannot be used."""
    return Entry("", (), "", split, {"image_id": where}, problem=f"{where} {reason}")


def clean_text(text: str) -> str:
    """Returns `text` with half surrogate pairs, which UTF-8 cannot hold, replaced by U+FFFD."""
    if not text.isascii() and _SURROGATE.search(text):
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def image_name(record: Any, keys: tuple[str, ...] = PATH_KEYS) -> str:
    """Returns the image's name as the annotation gives it, with forward slashes.

    Raises BadRecord where none of `keys` holds a usable name.
    """
    if not isinstance(record, Mapping):
        raise BadRecord(f"is a {type(record).__name__}, not an object with keys")
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) and value.strip():
            if "\0" in value:
                raise BadRecord(f"has a NUL character in {key!r}")
            return clean_text(value.strip().replace("\\", "/"))
    raise BadRecord(f"names no image: none of {', '.join(keys)} holds a path")


def caption_list(value: Any) -> tuple[str, ...]:
    """Returns the captions of a string, or of a list, in which null and NaN are empty captions.

    Raises BadRecord for any other kind of value.
    """
    if isinstance(value, str):
        return (clean_text(value),)
    if not isinstance(value, list | tuple):
        raise BadRecord(f"has a {type(value).__name__} where captions belong")
    if any(isinstance(one, Mapping) for one in value):
        raise BadRecord("has an object where a caption belongs")
    return tuple("" if one is None or one != one else clean_text(str(one)) for one in value)


def caption_problem(captions: Iterable[str]) -> str:
    """Returns why no caption can be used, as stage build says it, or ""."""
    captions = list(captions)
    if any(text.strip() for text in captions):
        return ""
    return "has only empty captions" if captions else "has no caption"


def captions_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the captions under `captions` or `caption`. Raises BadRecord where both lack."""
    for key in ("captions", "caption"):
        if key in record:
            return caption_list(record[key])
    raise BadRecord("has neither 'captions' nor 'caption'")


def identity_text(value: Any) -> str:
    """Returns an identity of any type as text: 17, 17.0, "17" and "17.0" are the same person.

    Raises BadRecord for a value that names nobody.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = value.strip().partition(".")[0]
    if isinstance(value, int | str) and str(value).strip():
        return unicodedata.normalize("NFC", clean_text(str(value).strip()))
    raise BadRecord(f"has the identity {value!r}")


def identity_key(record: Mapping[str, Any], key: str = "id") -> str:
    """Returns the key of the identity: one of PERSON_KEYS, else `key`, which may count rows."""
    return next((one for one in PERSON_KEYS if record.get(one) not in (None, "")), key)


def identity_of(
    record: Mapping[str, Any], name: str, key: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Returns (the identity of the image `name`, notes), see `identity_key`.

    Raises BadRecord where there is none.
    """
    key = identity_key(record, key or "id")
    if key not in record:
        raise BadRecord(f"has no {key!r}")
    if record[key] in (None, ""):
        raise BadRecord(f"has the identity {record[key]!r}")
    return identity_or_unique(record[key], name)


def identity_or_unique(value: Any, name: str) -> tuple[str, tuple[str, ...]]:
    """Returns (identity, notes); a value of `UNKNOWN` makes the image `name` a separate person.

    Raises BadRecord for a value that is no identity.
    """
    if value is None or str(value).strip().lower() in UNKNOWN:
        return unique_identity(name), (NOBODY,)
    return identity_text(value), ()


def unique_identity(name: str) -> str:
    """Returns the identity of an image whose person is unknown, which no other image has."""
    return f"image:{name}"


def split_of(
    record: Mapping[str, Any], key: str | None, named: str | None
) -> tuple[str, tuple[str, ...]]:
    """Returns (split of a JSON record, notes): from the record, else its file's name, else train.

    key: that holds it in the file's records; named: the split in the file's name. Raises BadRecord.
    """
    if (split_key := key or "split") in record:
        split = split_name(record[split_key])
        return split, (OTHER_SPLIT,) if named not in (None, split) else ()
    return named or "train", (NO_SPLIT,) if key and named is None else ()


def split_name(value: Any) -> str:
    """Returns "train", "val" or "test". Raises BadRecord for a word that is none of them."""
    split = SPLITS.get(str(value).strip().lower())
    if split is None:
        raise BadRecord(f"has the split {value!r}; it must be train, val or test")
    return split
