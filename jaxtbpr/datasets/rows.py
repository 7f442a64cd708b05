"""Rows: what stage build knows of an image before it writes it, from a manifest or a folder.

A row is a record with the keys id, split, identity, captions, path (absolute, or below the
workdir), sha256 (or None), source, provenance (JSON text), problem (or "") and, if the manifest
has them, facts (see stage caption) and caption_weights (see stage denoise). One of a folder has
the notes of its entry.
"""

import errno
import json
import os

from etils import epath

from jaxtbpr.core import files, images
from jaxtbpr.core import record as records
from jaxtbpr.core.manifest import Record, reject
from jaxtbpr.core.options import Option
from jaxtbpr.datasets import packed
from jaxtbpr.datasets.entry import Entry, caption_problem

EXIF = Option(
    True, "turn photographs by their EXIF orientation, as viewers do; False = pixels as stored"
)

CHECKED = ("id", "captions", "caption_weights", "path", "sha256", "problem")  # what `check` reads


def from_record(record: Record) -> Record:
    """Returns the row of a manifest's record."""
    image = record.get("image") or {"path": record["id"], "sha256": None}
    return {
        "id": record["id"],
        "split": record["split"],
        "identity": record["identity"],
        "captions": list(record.get("captions", ())),
        "path": image["path"],
        "sha256": image["sha256"],
        "source": record.get("source", ""),
        "provenance": records.provenance(record),
        "problem": "" if "image" in record else "has no image yet: add stage 'generate'",
    } | records.set_fields(record)


def from_entry(entry: Entry, source: str) -> Record:
    """Returns the row of an image in a folder. source: the title, if it has none."""
    extra = dict(entry.extra)
    return {
        "id": str(extra.pop("image_id", entry.path)),
        "split": entry.split,
        "identity": entry.identity,
        "captions": list(entry.captions),
        "path": entry.path,
        "sha256": None,
        "source": str(extra.pop("source", source)),
        "provenance": json.dumps(extra, ensure_ascii=False),
        "problem": entry.problem,
        "notes": list(entry.notes),
    }


def check(row: Record, root: str, *, exif: bool = True) -> Record:
    """Returns `row` with its image's digest and without empty captions, or rejected.

    The image is decoded in full; "traits" is what is special about it (`images.traits_of`).
    root: the workdir. exif: whether its EXIF orientation counts. Raises OSError where the disk
    fails.
    """
    if problem := row["problem"] or caption_problem(row["captions"]):
        return reject(row, "build", problem)
    try:
        data, traits = check_image(root, row["path"], row["sha256"])
    except images.ImageError as error:
        return reject(row, "build", error.sentence)
    indices = [k for k, caption in enumerate(row["captions"]) if caption.strip()]
    more = {
        "empty_captions": len(row["captions"]) - len(indices),
        "traits": sorted(traits),
        "as_stored": images.TURNED in traits and not exif,
    }
    if "caption_weights" in row:
        more["caption_weights"] = [row["caption_weights"][k] for k in indices]
    captions = [row["captions"][k] for k in indices]
    return row | {"captions": captions, "sha256": files.sha256(data)} | more


def check_image(
    root: epath.PathLike, path: str, sha256: str | None
) -> tuple[bytes, frozenset[str]]:
    """Returns (the encoded image, what is special about it); it is decoded in full.

    path: absolute or below `root`, also inside another file; sha256: the expected one. Raises
    ImageError where it cannot be used, OSError where the disk fails.
    """
    return images.check(_join(root, path), sha256, read_bytes=packed.read_bytes)


def read_file(root: epath.PathLike, path: str, sha256: str | None) -> bytes:
    """Returns the bytes of an image, which is not decoded; see `check_image`."""
    return images.read(_join(root, path), sha256, read_bytes=packed.read_bytes)


def _join(root: epath.PathLike, path: str) -> str:
    # As text: an epath costs as much as the reading of a small image.
    return os.path.join(root, path)


def read_image(row: Record, root: str) -> bytes:
    """Returns the encoded image of a row that was checked.

    Without turning (`exif=False`) it has its pixels as stored, and no EXIF. Raises OSError,
    also where the file has changed since then.
    """
    path = _join(root, row["path"])
    data = packed.read_bytes(path)
    if files.sha256(data) != row["sha256"]:
        raise OSError(errno.EIO, "The image was changed while its set was being built", path)
    return images.plain(data, turn=False) if row.get("as_stored") else data
