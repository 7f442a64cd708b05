"""Readers of the large machine-captioned sets: MALS, APTM's own files, LUPerson-MLLM, SDA.

All but APTM's fine-tuning files know no identities: each image is a person of its own.
"""

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from jaxtbpr.datasets import entry
from jaxtbpr.datasets.entry import Entry
from jaxtbpr.datasets.image_paths import PROBES, ImagePaths
from jaxtbpr.datasets.json_stream import iterate_json
from jaxtbpr.datasets.merging import merge_by_image, set_repeats_aside
from jaxtbpr.datasets.reid_json import file_split, make_entries


def read_one_identity_each(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields MALS (91 arrays; APTM, ACM MM 2023) or SDA (MRA, 2025): each image its own identity.

    `caption` is a string or a list; `label` holds MALS's 27 attributes as 1, 0 or -1 (unknown),
    `phrases` and `boxes` SDA's parts of the caption with [cx, cy, w, h].
    """
    yield from set_repeats_aside(_made(files, paths, _own))


def _made(files: Iterable[epath.Path], paths: ImagePaths, make: Callable) -> Iterator[Entry]:
    for file in files:
        records = paths.peek(iterate_json(file))
        yield from make_entries(records, lambda record: make(record, paths), file)


def _own(record: Mapping[str, Any], paths: ImagePaths) -> Entry:
    name = entry.image_name(record, ("image", *entry.PATH_KEYS))
    captions = entry.captions_of(record)
    extra = {key: record[key] for key in ("label", "phrases", "boxes") if key in record}
    return Entry(
        paths(name), captions, entry.own_identity(name), "train", {"image_id": name} | extra
    )


def read_aptm_finetune(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields APTM's fine-tuning files, `<set>_{train,val,test}.json`.

    `image_id` is the person. Train has one record per caption, joined here by image; val and test
    have one per image with a list of captions.
    """
    yield from merge_by_image(_people(files, paths))


def _people(files: Iterable[epath.Path], paths: ImagePaths) -> Iterator[Entry]:
    for file in files:
        split = file_split(file) or "train"
        records = paths.peek(iterate_json(file))
        make = functools.partial(_person, paths=paths, split=split)
        yield from make_entries(records, make, file)


def _person(record: Mapping[str, Any], paths: ImagePaths, split: str) -> Entry:
    name = entry.image_name(record, ("image", *entry.PATH_KEYS))
    identity = entry.identity_of(record, "image_id")
    return Entry(paths(name), entry.captions_of(record), identity, split, {"image_id": name})


class _Caption(NamedTuple):
    text: str
    static: bool


def read_luperson_mllm(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields LUPerson-MLLM (CVPR 2024): dictionaries image name -> caption, joined by base name.

    Files of static prompts are called Ts-... (or carry "static"), of dynamic ones Td-...; a caption
    that still holds a template slot becomes a clean static caption of that image, if there is one.
    """
    captions: dict[str, list[_Caption]] = defaultdict(list)
    names: dict[str, str] = {}
    for file in files:
        static = file.stem.lower().startswith("ts") or "static" in file.stem.lower()
        for number, pair in enumerate(iterate_json(file), 1):
            if not (isinstance(pair, tuple) and isinstance(pair[1], str) and pair[0].strip()):
                where = f"record {number} of {file.name}"
                yield entry.set_aside(where, "is no image name with one caption")
                continue
            name = entry.image_name({"image": pair[0]})
            base = name.rsplit("/", 1)[-1]
            names.setdefault(base, name)
            captions[base].append(_Caption(entry.clean_text(pair[1]), static))
    paths.settle(itertools.islice(names.values(), PROBES))
    for base, name in names.items():
        yield _repaired(base, paths(name), captions.pop(base))


def _repaired(base: str, path: str, captions: list[_Caption]) -> Entry:
    clean = [one.text for one in captions if one.static and not holds_slot(one.text)]
    texts = tuple(clean[0] if clean and holds_slot(one.text) else one.text for one in captions)
    changed = sum(old.text != new for old, new in zip(captions, texts, strict=True))
    extra = {"image_id": base} | ({"captions_repaired": changed} if changed else {})
    return Entry(path, texts, entry.own_identity(base), "train", extra)


def holds_slot(caption: str) -> bool:
    """Whether a slot of the prompt's template is left, by the rule of MLLM4Text-ReID's loader."""
    return "description]" in caption or "<" in caption


def read_synth_pedes(
    folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths
) -> Iterator[Entry]:
    """Yields SYNTH-PEDES (PLIP, NeurIPS 2024): identities, attributes and 2 or 3 captions an image.

    `prompt_caption` and `attributes` are kept beside the captions, as the counts of the paper do.
    """
    yield from set_repeats_aside(_made(files, paths, _synth))


def _synth(record: Mapping[str, Any], paths: ImagePaths) -> Entry:
    name = entry.image_name(record)
    extra = {key: record[key] for key in ("attributes", "prompt_caption") if key in record}
    split = entry.split_name(record.get("split", "train"))
    identity = entry.identity_of(record)
    return Entry(
        paths(name), entry.captions_of(record), identity, split, {"image_id": name} | extra
    )
