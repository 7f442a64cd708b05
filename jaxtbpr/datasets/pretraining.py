"""Readers of the large machine-captioned sets: MALS, APTM's own files, LUPerson-MLLM, SDA.

Only APTM's fine-tuning files have identities; in the others each image is a separate person.
"""

import dataclasses
import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from jaxtbpr.datasets import entry
from jaxtbpr.datasets.entry import BadRecord, Entry
from jaxtbpr.datasets.image_paths import PROBES, ImagePaths
from jaxtbpr.datasets.json_stream import iterate_json
from jaxtbpr.datasets.merging import merge_by_image, reject_repeats
from jaxtbpr.datasets.reid_json import file_split, make_entries
from jaxtbpr.datasets.roles import Roles, json_roles

APTM_PERSON = "image_id"


def read_one_identity_each(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields MALS (91 arrays; APTM, ACM MM 2023) or SDA (MRA, 2025): each image its own identity.

    `caption` is a string or a list; `label` holds MALS's 27 attributes as 1, 0 or -1 (unknown),
    `phrases` and `boxes` SDA's parts of the caption with [cx, cy, w, h].
    """
    yield from reject_repeats(_made(files, paths, _unlabelled))


def _made(files: Iterable[epath.Path], paths: ImagePaths, make: Callable) -> Iterator[Entry]:
    for file in files:
        records = paths.peek(iterate_json(file))
        yield from make_entries(records, lambda record: make(record, paths), file)


def _unlabelled(record: Mapping[str, Any], paths: ImagePaths) -> Entry:
    name = entry.image_name(record, ("image", *entry.PATH_KEYS))
    captions = entry.captions_of(record)
    extra = {key: record[key] for key in ("label", "phrases", "boxes") if key in record}
    return Entry(
        paths(name), captions, entry.unique_identity(name), "train", {"image_id": name} | extra
    )


def read_aptm_finetune(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields APTM's fine-tuning files, `<set>_{train,val,test}.json`.

    `image_id` is the person, unless it counts the records and `label` names people. Train has one
    record per caption, joined here by image; val and test have one per image with a list of
    captions. A record's split takes precedence over that of the file's name.
    """
    yield from merge_by_image(_people(files, paths))


def _people(files: Iterable[epath.Path], paths: ImagePaths) -> Iterator[Entry]:
    files = list(files)
    roles = json_roles(files, APTM_PERSON)
    for file in files:
        records = paths.peek(iterate_json(file))
        make = functools.partial(_person, paths=paths, named=file_split(file), roles=roles[file])
        yield from make_entries(records, make, file)


def _person(record: Mapping[str, Any], paths: ImagePaths, named: str | None, roles: Roles) -> Entry:
    name = entry.image_name(record, ("image", *entry.PATH_KEYS))
    identity, unknown = entry.identity_of(record, name, roles.identity)
    split, notes = entry.split_of(record, roles.split, named)
    captions, extra = entry.captions_of(record), {"image_id": name}
    return Entry(paths(name), captions, identity, split, extra, notes=notes + unknown)


SAME_BASE = "images that files name in different folders, joined by their base name"


class _Caption(NamedTuple):
    text: str
    static: bool


def read_dictionaries(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields a user's dictionaries {image name: caption or captions}: each image its own identity.

    The split is that of the file's name, else train. Names that differ are images that differ.
    """
    yield from merge_by_image(_dictionary_entries(files, paths), once=True)


def _dictionary_entries(files: Iterable[epath.Path], paths: ImagePaths) -> Iterator[Entry]:
    for file in files:
        make = functools.partial(_named_captions, paths=paths, split=file_split(file) or "train")
        yield from make_entries(paths.peek(iterate_json(file)), make, file)


def _named_captions(pair: tuple[str, Any], paths: ImagePaths, split: str) -> Entry:
    if not (isinstance(pair, tuple) and pair[0].strip()):
        raise BadRecord("is no image name with captions")
    name = entry.image_name({"image": pair[0]})
    captions = entry.caption_list(pair[1])
    return Entry(paths(name), captions, entry.unique_identity(name), split, {"image_id": name})


def read_luperson_mllm(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields LUPerson-MLLM (CVPR 2024): dictionaries image name -> caption, joined by base name.

    By the whole name where a file has two images of one base name. Files of static prompts are
    called Ts-... (or carry "static"), of dynamic ones Td-...; a caption that still holds a template
    slot becomes a clean static caption of that image, if there is one.
    """
    captions: dict[str, list[_Caption]] = defaultdict(list)
    is_unique = True
    for file in files:
        bases: dict[str, str] = {}
        static = file.stem.lower().startswith("ts") or "static" in file.stem.lower()
        for number, pair in enumerate(iterate_json(file), 1):
            if not (isinstance(pair, tuple) and isinstance(pair[1], str) and pair[0].strip()):
                where = f"record {number} of {file.name}"
                yield entry.reject(where, "is no image name with one caption")
                continue
            name = entry.image_name({"image": pair[0]})
            is_unique = is_unique and bases.setdefault(_base(name), name) == name
            captions[name].append(_Caption(entry.clean_text(pair[1]), static))
    paths.settle(itertools.islice(captions, PROBES))
    yield from _joined(captions, paths, _base if is_unique else str)


def _joined(
    captions: dict[str, list[_Caption]], paths: ImagePaths, key: Callable[[str], str]
) -> Iterator[Entry]:
    """Yields an image for each `key` of a name, with the captions of all names that have it."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in captions:
        names[key(name)].append(name)
    for image, same in names.items():
        texts = [text for name in same for text in captions[name]]
        one = _repaired(image, paths(same[0]), texts)
        yield dataclasses.replace(one, notes=(SAME_BASE,)) if len(same) > 1 else one


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _repaired(base: str, path: str, captions: list[_Caption]) -> Entry:
    clean = [one.text for one in captions if one.static and not holds_slot(one.text)]
    texts = tuple(clean[0] if clean and holds_slot(one.text) else one.text for one in captions)
    changed = sum(old.text != new for old, new in zip(captions, texts, strict=True))
    extra = {"image_id": base} | ({"captions_repaired": changed} if changed else {})
    return Entry(path, texts, entry.unique_identity(base), "train", extra)


def holds_slot(caption: str) -> bool:
    """Whether a slot of the prompt's template is left, by the rule of MLLM4Text-ReID's loader."""
    return "description]" in caption or "<" in caption


def read_synth_pedes(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields SYNTH-PEDES (PLIP, NeurIPS 2024): identities, attributes and 2 or 3 captions an image.

    `prompt_caption` and `attributes` are kept beside the captions, as the counts of the paper do.
    """
    yield from reject_repeats(_made(files, paths, _synth))


def _synth(record: Mapping[str, Any], paths: ImagePaths) -> Entry:
    name = entry.image_name(record)
    extra = {key: record[key] for key in ("attributes", "prompt_caption") if key in record}
    split = entry.split_name(record.get("split", "train"))
    identity, notes = entry.identity_of(record, name)
    captions = entry.captions_of(record)
    return Entry(paths(name), captions, identity, split, {"image_id": name} | extra, notes=notes)
