"""Stage photos: the people of a data set, with their splits and without its captions.

It replaces prompts and generate: later stages caption real photographs, filter them, or learn to
generate such (finetune). So sets with people and no captions, as Market-1501 and MSMT17, serve
text-based retrieval. Images stay where they are. Only of those that programs
show differently (more than 8 bits, an EXIF orientation) a plain copy is made in photos/images/, and
those inside of other files (.tar, .parquet) are copied out of them.
"""

import functools
from collections.abc import Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import files, images
from jaxtbpr.core.errors import UserError, of_key
from jaxtbpr.core.manifest import (
    Manifest,
    Record,
    count_records,
    map_records,
    reject,
    shard_digests,
    split_shards,
)
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.process_pool import process_map
from jaxtbpr.core.progress import say
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import formats, packed, rows
from jaxtbpr.datasets.entry import Entry, Notes
from jaxtbpr.datasets.fingerprint import changes, folder_fingerprint
from jaxtbpr.datasets.image_check import NOTES

_SHARD = 1024

OPTIONS: Options = {
    "folder": Option("", "folder of the data set, in any form that validate knows"),
    "prompt": Option("a photo of a person", "prompt of each image, for stages that need one"),
    "exif": rows.EXIF,
    "processes": Option(0, "worker processes; 0 = one per core", low=0, runtime=True),
}


def check(config: ConfigDict) -> None:
    """Raises UserError where the folder is no data set."""
    _folder(config)


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the state of the folder, see `fingerprint.py`."""
    folder, form = _folder(config)
    annotations = formats.annotation_files(folder, form)
    return {"folder": folder_fingerprint(annotations, formats.read(folder, form))}


def run(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
    """Makes a record of each image; one that cannot be used is rejected with the reason.

    A record has "id" (the image's name in the set), "identity", "split", "source", "prompt",
    "edits" and "image", whose path is absolute.
    """
    folder, form = _folder(config)
    for text in formats.remarks(folder, form):
        say(f"photos: warning: {text}")
    notes, records = Notes(), []
    for one in formats.read(folder, form):
        notes.add(one.name, one.notes)
        records.append(_record(one, form.title, config.photos.prompt))
    directory, shards = workdir.dir("photos"), split_shards(records, _SHARD)
    look_at = functools.partial(_looked_at, root=str(workdir.root), exif=config.photos.exif)
    with process_map(config.photos.processes) as mapped:

        def work(some: Iterator[Record]) -> Iterator[list[Record]]:
            return ([record] for record in mapped(look_at, some))

        map_records(shards, directory, work, label="photos", shard_count=len(shards))
    outputs = shard_digests(directory)
    made = Manifest(directory, outputs)
    for record in made:
        notes.add(record["id"], (NOTES[trait] for trait in record["image"]["traits"]))
    for text in notes.lines():
        say(f"photos: warning: {text}")
    counts = count_records(made)
    return {"outputs": outputs, "records_in": len(records)} | counts


def _folder(config: ConfigDict) -> tuple[epath.Path, formats.Format]:
    path = config.photos.folder
    if not path:
        raise UserError("config.photos.folder is empty; give the folder of a data set.")
    folder = epath.Path(path).expanduser().absolute()
    with of_key("photos.folder"):
        return folder, formats.detect(folder)


def _record(one: Entry, title: str, prompt: str) -> Record:
    record = {
        "id": str(one.extra["image_id"]),
        "identity": one.identity,
        "split": one.split,
        "source": title,
        "prompt": prompt,
        "edits": [],
        "image": {"path": one.path},
    }
    return reject(record, "photos", one.problem) if one.problem else record


def _looked_at(record: Record, root: str, *, exif: bool) -> Record:
    """Returns a record with its image's digest, size and traits (see `images`), or rejected."""
    if "rejected" in record:
        return record
    path = record["image"]["path"]
    try:
        data, traits = rows.check_image("", path, None)
    except images.ImageError as error:
        return reject(record, "photos", error.sentence)
    if packed.is_packed(path) or traits & {images.DEEP, images.TURNED}:
        digest, data = files.sha256(data), images.plain(data, turn=exif)
        path = f"photos/images/{digest}.{images.format_of(data).lower()}"
        target = epath.Path(root) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes_atomic(target, data)
    width, height = images.open_image(data).size
    facts = {"path": path, "sha256": files.sha256(data), "height": height, "width": width}
    return record | {"image": facts | {"traits": sorted(traits)}}


STAGE = Stage(
    "photos", "takes real people", OPTIONS, run,
    reads=(), is_usual=False, fingerprint=fingerprint, check=check,
    fingerprint_changes=functools.partial(changes, section="photos"),
)  # fmt: skip
