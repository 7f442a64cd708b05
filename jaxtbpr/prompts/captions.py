"""Engine `captions`: prompts are the captions of a real training set, after learned style tokens.

SynTBPR's scenario with much real data (arXiv:2503.22171): a generator fine-tuned to the style of a
benchmark has learned two tokens; a prompt is "in the style of <s0><s1>, " followed by the first
caption of a real training image.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core import caption_lists, files
from jaxtbpr.core.errors import InputError
from jaxtbpr.prompts.clauses import Clause, Ruler
from jaxtbpr.prompts.drawing import Prompt


def read(path: str) -> dict[str, list[dict[str, str]]]:
    """Reads the captions of a file: {split: [{"caption", "image" if the file has it}]}.

    path: a text file with one caption per line; JSON lines (.jsonl) or a JSON list (.json) of
    objects with "captions" (the first is used) or "caption", and optionally "split" and "file_path"
    or "image". Without a split they are training captions. A repeated caption is left out, also of
    another split. Raises InputError naming the file and the line.
    """
    place = _find(path)
    captions: dict[str, list[dict[str, str]]] = {}
    seen = set()
    for where, row in _rows(place):
        caption = _caption(row, where)
        if caption and caption.lower() not in seen:
            seen.add(caption.lower())
            image = row.get("file_path") or row.get("image")
            split = str(row.get("split") or "train")
            extra = {"image": image} if isinstance(image, str) else {}
            captions.setdefault(split, []).append({"caption": caption} | extra)
    return captions


def digest(path: str) -> str:
    """Returns the SHA-256 of the file."""
    return files.sha256(_find(path).read_bytes())


def wrap(
    captions: Mapping[str, list[dict[str, str]]],
    ruler: Ruler,
    prefix: str,
    path: str,
    split: str,
    count: int,
) -> Iterator[Prompt]:
    """Yields the prompts of the first `count` captions of a split, in the file's order.

    prefix: words before each caption, "" for none. Raises InputError where there are too few.
    """
    rows = captions.get(split, [])
    if len(rows) < count:
        limit = f"{len(rows)} or less" if rows else "0"
        raise InputError(
            f"{split}={count} asks for more captions than {path} has: {len(rows)} "
            f"different ones of split {split!r}; set {split} to {limit}"
            + ("." if rows or split != "train" else ", or give another file.")
        )
    for row in rows[:count]:
        text = ruler.fit([Clause(f"{prefix}, {row['caption']}" if prefix else row["caption"])])
        fields: dict[str, Any] = {"prompt_kind": "caption", "source_caption": row["caption"]}
        yield Prompt(text, fields | ({"source_image": row["image"]} if "image" in row else {}))


def _find(path: str) -> epath.Path:
    place = epath.Path(path).expanduser()
    if not path or not place.is_file():
        raise InputError(
            f"captions={path!r} is not a file; engine 'captions' needs a text file "
            "with one caption per line, JSON lines (.jsonl) or a JSON list (.json)."
        )
    return place


def _rows(place: epath.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (file and line, row) of each caption; rows of a text file have a caption only."""
    if place.suffix == ".json":
        table = files.read_json(place)
        if not isinstance(table, list):
            raise InputError(f"{place} must hold a JSON list of objects with captions.")
        for number, row in enumerate(table, 1):
            yield f"{place} entry {number}", _object(row, f"{place} entry {number}")
        return
    for number, line in enumerate(_text(place).split("\n"), 1):
        where = f"{place} line {number}"
        if not line.strip():
            continue
        yield (
            where,
            _object(_json(line, where), where) if place.suffix == ".jsonl" else {"caption": line},
        )


def _text(place: epath.Path) -> str:
    try:
        return place.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is not UTF-8 text ({error}); save it as UTF-8.") from error


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not valid JSON ({error}); fix it.") from error


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"{where} is {row!r}; it must be an object with 'captions' or 'caption'.")
    return row


def _caption(row: Mapping[str, Any], where: str) -> str:
    """The first caption of a row with single blanks, "" for none."""
    value = row.get("captions", row.get("caption"))
    listed = caption_lists.items(value)  # of text that is a list, too
    if listed is not None:
        value = (listed or [""])[0]
    if not isinstance(value, str):
        raise InputError(f"{where} has no 'captions' or 'caption' that is text; fix or remove it.")
    return " ".join(value.split())
