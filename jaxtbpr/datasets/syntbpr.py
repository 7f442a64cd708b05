"""Readers of the three forms that SynTBPR's synthesis scripts write (arXiv:2503.22171).

Base images are called images_<number>_<seed>_base.png, their edits images_<number>_<seed>_<k>.jpg
or <name of the base>_<k>.jpg; edits of one base image are the same person.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from etils import epath

from jaxtbpr.datasets import entry
from jaxtbpr.datasets.entry import BadRecord, Entry
from jaxtbpr.datasets.image_paths import ImagePaths
from jaxtbpr.datasets.json_stream import iterate_json
from jaxtbpr.datasets.merging import merge_by_image, reject_repeats
from jaxtbpr.datasets.reid_json import file_split, make_entries
from jaxtbpr.datasets.roles import Roles, json_roles

_GENERATED = re.compile(r"images_(?P<number>\d+)_(?P<seed>\d+)_?(?P<edit>base|\d+)?$")
_EDIT = re.compile(r"(?P<base>.+)_(?P<edit>\d+)$")


class ImageName(NamedTuple):
    """The parts of a file name: identity, seed of the image, number of the edit (or "")."""

    identity: str
    seed: int | None
    edit: str


def parse_image_name(name: str, stems: set[str] | frozenset[str] = frozenset()) -> ImageName:
    """Reads SynTBPR's file names.

    stems: the stems (without "_base") of all images: <name>_<k> counts as an edit only beside its
    base <name>, since "person_1" and "person_2" may as well be two people.
    """
    stem = PurePosixPath(name).stem
    if match := _GENERATED.match(stem):
        edit = match["edit"] or "base"
        return ImageName(match["number"], int(match["seed"]), "" if edit == "base" else edit)
    stem = stem.removesuffix("_base")
    match = _EDIT.match(stem)
    if match and match["base"] in stems:
        return ImageName(entry.unique_identity(match["base"]), None, match["edit"])
    return ImageName(entry.unique_identity(stem), None, "")


def read_images(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields the text-to-image output `{"id", "image_path", "caption"}`; the prompt is the caption.

    `id` counts images, so each base image is a person. Two base images of one number come from two
    runs of the script; the second is rejected.
    """
    seeds: dict[str, int | None] = {}

    def make(record: Mapping[str, Any]) -> Entry:
        name = entry.image_name(record)
        parsed = parse_image_name(name)
        if not parsed.edit and seeds.setdefault(parsed.identity, parsed.seed) != parsed.seed:
            raise BadRecord(f"has the number {parsed.identity} of another run's base image")
        captions = entry.captions_of(record)
        return _entry(name, parsed, captions, paths, {"prompt": captions[0]} if captions else {})

    made = (one for f in files for one in make_entries(paths.peek(iterate_json(f)), make, f))
    yield from reject_repeats(made)


def read_edit_input(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields the editing input `{"id", "file_path", "captions"}`; `id` is the person.

    SynTBPR's is all train; other files of these keys may have a split, by a key or by their name.
    """
    yield from merge_by_image(_edit_inputs(files, paths), is_noted=True, once=True)


def _edit_inputs(files: Iterable[epath.Path], paths: ImagePaths) -> Iterator[Entry]:
    files = list(files)
    roles = json_roles(files)
    for file in files:
        named = file_split(file)
        make = functools.partial(_edit_input, paths=paths, named=named, roles=roles[file])
        yield from make_entries(paths.peek(iterate_json(file)), make, file)


def _edit_input(
    record: Mapping[str, Any], paths: ImagePaths, named: str | None, roles: Roles
) -> Entry:
    name = entry.image_name(record)
    identity, unknown = entry.identity_of(record, name, roles.identity)
    parsed = parse_image_name(name)._replace(identity=identity)
    split, notes = entry.split_of(record, roles.split, named)
    one = _entry(name, parsed, entry.captions_of(record), paths, {}, split)
    return dataclasses.replace(one, notes=notes + unknown)


def read_captions(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields the captioning output `{"image_path", "captions", "split", "<Model>_question"}`.

    Captions that several models gave an image are joined. The identity is the record's `id` where
    the user added one, else from the file name (`parse_image_name`).
    """
    records = [(file, list(iterate_json(file))) for file in files]
    stems = frozenset(_stem(record) for _, some in records for record in some)

    def make(record: Mapping[str, Any]) -> Entry:
        name = entry.image_name(record)
        parsed, notes = parse_image_name(name, stems), ()
        if "id" in record:
            identity, notes = entry.identity_of(record, name)
            parsed = parsed._replace(identity=identity)
        questions = {key: record[key] for key in record if key.endswith("_question")}
        split = entry.split_name(record.get("split", "train"))
        one = _entry(name, parsed, entry.captions_of(record), paths, questions, split)
        return dataclasses.replace(one, notes=notes)

    made = (one for file, some in records for one in make_entries(paths.peek(some), make, file))
    yield from merge_by_image(made)


def _stem(record: Any) -> str:
    try:
        return PurePosixPath(entry.image_name(record)).stem.removesuffix("_base")
    except BadRecord:
        return ""


def _entry(
    name: str,
    parsed: ImageName,
    captions: tuple[str, ...],
    paths: ImagePaths,
    extra: dict[str, Any],
    split: str = "train",
) -> Entry:
    extra_fields: dict[str, Any] = {"image_id": name, "edits": [parsed.edit] if parsed.edit else []}
    if parsed.seed is not None:
        extra_fields["seed"] = parsed.seed
    return Entry(paths(name), captions, parsed.identity, split, extra_fields | extra)
