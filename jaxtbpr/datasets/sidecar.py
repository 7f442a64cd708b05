"""Folders with a text file beside each image, of the same name: 0001.jpg and 0001.txt.

img2dataset's `files` (00000/000000000.jpg, .txt and .json, beside 00000.parquet) and the folders
that trainers of generators take. A .json beside an image may hold its identity and split.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from etils import epath

from jaxtbpr.datasets import entry, packed
from jaxtbpr.datasets.entry import BadRecord
from jaxtbpr.datasets.image_paths import is_image

SUFFIXES = (".txt", ".text", ".caption", ".json")
_PROBES = 64  # images of a folder whose texts are looked for
_ABOUT = {"readme", "license", "licence", "notice", "classes"}  # texts of no image
_PLACES = {"imgs", "images", *entry.SPLITS}
_SHARD = re.compile(r"\d{3,}")  # img2dataset's folders
_STATS = re.compile(r"\d+_stats\.json")
_LETTER = re.compile(r"[^\W\d_]")


def find(folder: epath.Path) -> list[epath.Path]:
    """Finds the folders with such images: itself, img2dataset's, those of splits and imgs/."""
    if not folder.is_dir():
        return []
    places = []
    inside = _inside(folder, _is_place)
    nested = [one for place in inside for one in _inside(place, _is_place)]
    for place in (folder, *inside, *nested):
        places += [place] if _has_pairs(place) else []
        shards = _inside(place, _SHARD.fullmatch)
        places += shards if any(map(_has_pairs, shards)) else []  # there may be thousands
    return places


def rows(place: epath.Path) -> Iterator[Any]:
    """Yields a row for each image of one folder, as `packed.rows` does of a shard.

    A text without its image is a BadRecord.
    """
    named = [path for path in place.iterdir() if _is_part(path)]
    named.sort(key=lambda path: (path.stem, path.suffix))
    for stem, some in itertools.groupby(named, key=lambda path: path.stem):
        parts: dict[str, Any] = {}
        for path in some:
            parts.setdefault("name", path.name)
            if is_image(path.name):
                parts.setdefault("images", []).append((path.name, str(path)))
            else:
                parts[path.suffix.lower()[1:]] = path.read_bytes()
        if "images" in parts or stem.lower() not in _ABOUT:
            row = packed.sample(parts)
            if not isinstance(row, BadRecord):
                del row[packed.IMAGE]  # an image like any other
            yield row


def state(place: epath.Path) -> tuple[int, float]:
    """Returns the state of a folder's texts: their bytes and the latest change."""
    stats = [path.stat() for path in place.iterdir() if path.suffix.lower() in SUFFIXES]
    return sum(one.length for one in stats), max((one.mtime for one in stats), default=0)


def remarks(folder: epath.Path) -> list[str]:
    """Returns how many images img2dataset could not download, by its *_stats.json."""
    requested = got = 0
    for path in folder.iterdir():
        if _STATS.fullmatch(path.name):
            try:
                stats = json.loads(path.read_bytes())
                requested, got = requested + stats["count"], got + stats["successes"]
            except (ValueError, KeyError, TypeError):
                continue  # of something else
    lost = requested - got
    return (
        [f"img2dataset could not download {lost:,} of {requested:,} images (*_stats.json)."]
        if lost
        else []
    )


def _is_place(name: str) -> bool:
    return name.lower() in _PLACES


def _inside(folder: epath.Path, is_meant: Callable[[str], Any]) -> list[epath.Path]:
    return sorted(p for p in folder.iterdir() if is_meant(p.name) and p.is_dir())


def _is_part(path: epath.Path) -> bool:
    is_named = is_image(path.name) or path.suffix.lower() in SUFFIXES
    return is_named and not path.name.startswith(".") and not _STATS.fullmatch(path.name)


def _has_pairs(place: epath.Path) -> bool:
    images = (path for path in place.iterdir() if is_image(path.name))
    return any(map(_is_described, itertools.islice(images, _PROBES)))


def _is_described(image: epath.Path) -> bool:
    """Whether a text beside an image is a sentence, or JSON with a caption; boxes are numbers."""
    files: Iterable[epath.Path] = (image.with_suffix(suffix) for suffix in SUFFIXES)
    for file in files:
        if not file.is_file():
            continue
        text = file.read_bytes().decode("utf-8", "replace")
        if file.suffix != ".json" and _LETTER.search(text):
            return True
        if file.suffix == ".json" and re.search(r'"(captions?|text)"\s*:\s*["\[]', text):
            return True
    return False
