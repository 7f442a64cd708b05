"""Rows: what stage build knows of an image before it writes it, from a manifest or a folder.

A row is a record with the keys id, split, identity, captions, path (absolute, or below the
workdir), sha256 (or None), source, provenance (JSON text), problem (or "") and, if the manifest
has them, facts (see stage caption) and caption_weights (see stage denoise).
"""

import errno
import json

from etils import epath

from jaxtbpr.core import files, pictures
from jaxtbpr.core.manifest import Record, set_aside
from jaxtbpr.datasets import packed
from jaxtbpr.datasets.entry import Entry

_PROVENANCE = ("prompt", "seed", "edits", "attributes", "facts")
CARRIED = ("facts", "caption_weights")  # keys of a manifest's record that the set has, too
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ENAMETOOLONG}


def from_record(record: Record) -> Record:
    """Returns the row of a manifest's record."""
    provenance = {key: record[key] for key in _PROVENANCE if key in record}
    image = record.get("image") or {"path": record["id"], "sha256": None}
    return {
        "id": record["id"],
        "split": record["split"],
        "identity": record["identity"],
        "captions": list(record.get("captions", ())),
        "path": image["path"],
        "sha256": image["sha256"],
        "source": record.get("source", ""),
        "provenance": json.dumps(provenance, ensure_ascii=False),
        "problem": "" if "image" in record else "has no image yet: add stage 'generate'",
    } | {key: record[key] for key in CARRIED if key in record}


def from_entry(entry: Entry, source: str) -> Record:
    """Returns the row of an image in a folder. source: the set's title, unless it tells its own."""
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
    }


def check(row: Record, root: str) -> Record:
    """Returns `row` with its image's digest and without empty captions, or set aside.

    The image is decoded in full. root: the workdir. Raises OSError where the disk fails.
    """
    said = [k for k, caption in enumerate(row["captions"]) if caption.strip()]
    captions = [row["captions"][k] for k in said]
    problem = row["problem"] or ("" if captions else "has no caption")
    data = b""
    if not problem:
        data, problem = usable_image(root, row["path"], row["sha256"])
    if problem:
        return set_aside(row, "build", problem)
    if "caption_weights" in row:
        row = row | {"caption_weights": [row["caption_weights"][k] for k in said]}
    return row | {"captions": captions, "sha256": files.sha256(data)}


def usable_image(root: epath.PathLike, path: str, sha256: str | None) -> tuple[bytes, str]:
    """Returns (the encoded image, why it cannot be used or ""); it is decoded in full.

    path: absolute or below `root`; sha256: what it should have. Raises OSError where the disk
    fails.
    """
    data, problem = _read(root, path)
    return data, problem or _image_problem(data, sha256)


def read_image(row: Record, root: str) -> bytes:
    """Returns the encoded image of a row that was checked.

    Raises OSError, also where the file has changed since then.
    """
    path = epath.Path(root) / row["path"]
    data = packed.read_bytes(path)
    if files.sha256(data) != row["sha256"]:
        raise OSError(errno.EIO, "The image was changed while its set was being built", str(path))
    return data


def _read(root: epath.PathLike, path: str) -> tuple[bytes, str]:
    try:
        return packed.read_bytes(epath.Path(root) / path), ""
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        return b"", f"the image cannot be read ({error.strerror})"


def _image_problem(data: bytes, digest: str | None) -> str:
    if digest is not None and files.sha256(data) != digest:
        return "the image is not the file that the manifest names (another SHA-256)"
    try:
        pictures.open_image(data)
    except pictures.BadImage as error:
        return f"the image {error}"
    return ""
