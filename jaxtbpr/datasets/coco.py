"""Readers of COCO captions and of Karpathy's splits: one JSON object with a list of images.

COCO (2015): {"images": [{id, file_name}], "annotations": [{image_id, caption}]}, in
annotations/captions_<split><year>.json with the images in <split><year>/. Karpathy (CVPR 2015):
{"images": [{filepath, filename, split, sentences: [{raw}]}]}.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import entry, listed
from jaxtbpr.datasets.entry import BadRecord, Entry
from jaxtbpr.datasets.image_paths import PROBES, ImagePaths
from jaxtbpr.datasets.json_stream import iterate_json
from jaxtbpr.datasets.merging import merge_by_image
from jaxtbpr.datasets.reid_json import file_split
from jaxtbpr.datasets.roles import Roles

_KEYS = ("info", "licenses", "images", "annotations", "categories", "type", "dataset")
_REST = "restval"  # Karpathy's images of COCO's val that are trained on


def is_coco(file: epath.Path) -> bool:
    """Whether a JSON file holds images with captions in one of these forms."""
    has_images = has_captions = False
    try:
        for key, value in _pairs(file):
            if key not in _KEYS:
                return False
            if key in ("images", "annotations"):
                first = next(iter(value), None) if isinstance(value, list) else None
                is_record = isinstance(first, Mapping)
                has_images |= key == "images" and is_record
                has_captions |= is_record and ("caption" in first or "sentences" in first)
    except InputError:
        return False
    return has_images and has_captions


def read(folder: epath.Path, files: Iterable[epath.Path], paths: ImagePaths) -> Iterator[Entry]:
    """Yields one entry per image, with the captions of all its annotations.

    The split is that of the image, else of the file's name, else train. Without `identity`
    (`person_id`, `pid`) at the image or its annotations, each image is a separate person.
    Annotations without an image are rejected.
    """
    yield from merge_by_image((one for file in files for one in _entries(file, paths)), once=True)


def file_roles(files: Iterable[epath.Path]) -> dict[epath.Path, Roles]:
    """Returns which keys of each file's images and annotations hold the identity and the split."""
    return {file: _roles(dict(_pairs(file))) for file in files}


def _roles(held: Mapping[str, Any]) -> Roles:
    images = [one for one in _list(held.get("images")) if isinstance(one, Mapping)]
    annotations = [one for one in _list(held.get("annotations")) if isinstance(one, Mapping)]
    keys = (entry.identity_key(one, "") for one in (*images, *annotations))
    identity = next(filter(None, keys), None)
    return Roles(identity, "split" if any("split" in one for one in images) else None, ())


def _entries(file: epath.Path, paths: ImagePaths) -> Iterator[Entry]:
    held = dict(_pairs(file))
    annotations: dict[Any, list[Any]] = defaultdict(list)
    for number, one in enumerate(_list(held.get("annotations")), 1):
        if not isinstance(one, Mapping) or "image_id" not in one:
            where = f"annotation {number} of {file.name}"
            yield entry.reject(where, "names no image: it has no 'image_id'")
        else:
            annotations[str(one["image_id"])].append(one)
    images = [_named(one) for one in _list(held.get("images"))]
    names = [one["file_name"] for one in images if isinstance(one, Mapping) and "file_name" in one]
    tail = file.stem.rsplit("_", 1)[-1]  # train2017/ of captions_train2017.json
    prefix = "" if paths.settle(names[:PROBES]) else f"{tail}/"
    prefix = prefix if prefix and paths.settle(prefix + name for name in names[:PROBES]) else ""
    for number, one in enumerate(images, 1):
        where = f"image {number} of {file.name}"
        notes = annotations.pop(str(one.get("id")), []) if isinstance(one, Mapping) else []
        try:
            yield _entry(one, notes, lambda name: paths(prefix + name), file_split(file))
        except BadRecord as reason:
            yield entry.reject(where, reason)
    for image in annotations:
        yield entry.reject(f"image_id {image} of {file.name}", "has captions but no image")


def _entry(
    image: Any, annotations: list[Mapping[str, Any]], path: Callable[[str], str], named: str | None
) -> Entry:
    name = entry.image_name(image)
    captions = [one.get("caption") for one in annotations]
    captions += [one.get("raw") for one in _list(image.get("sentences")) if isinstance(one, dict)]
    split, word = named or "train", image.get("split")
    if word is not None:
        split = "train" if str(word).lower() == _REST else entry.split_name(word)
    values = [one.get(key) for one in (image, *annotations) for key in entry.PERSON_KEYS]
    identities = [
        entry.identity_or_unique(value, name) for value in values if value not in (None, "")
    ]
    names_of = {identity for identity, _ in identities}
    if len(names_of) > 1:
        raise BadRecord(f"({name}) shows several people: {', '.join(sorted(names_of))}")
    identity = next(iter(names_of), entry.unique_identity(name))
    notes = next((notes for _, notes in identities), ())
    captions, lists = listed.split_value(captions, "'caption'")
    texts = entry.caption_list(captions)
    return Entry(path(name), texts, identity, split, {"image_id": name}, notes=notes + lists)


def _named(image: Any) -> Any:
    """Returns a record of Karpathy's with its image's name where COCO has it."""
    if isinstance(image, Mapping) and "filename" in image and "file_name" not in image:
        place = str(image.get("filepath") or "").strip("/")
        return dict(image) | {"file_name": f"{place}/{image['filename']}".lstrip("/")}
    return image


def _pairs(file: epath.Path) -> Iterator[tuple[str, Any]]:
    for pair in iterate_json(file):
        if not isinstance(pair, tuple):
            return
        yield pair


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
