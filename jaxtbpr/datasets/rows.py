"""Rows: what stage build knows of an image before it writes it, from a manifest or a folder.

A row is a record with the keys id, split, identity, captions, path (absolute, or below the
workdir), sha256 (or None), source, provenance (JSON text), problem (or "") and, if the manifest
has them, facts (see stage caption).
"""

import errno
import json

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.manifest import Record, set_aside
from jaxtbpr.datasets import transforms
from jaxtbpr.datasets.entry import Entry

_PROVENANCE = ("prompt", "seed", "edits", "attributes", "facts")
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
    } | ({"facts": record["facts"]} if "facts" in record else {})


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
    captions = [caption for caption in row["captions"] if caption.strip()]
    problem = row["problem"] or ("" if captions else "has no caption")
    data = b""
    if not problem:
        data, problem = _read(root, row["path"])
    if not problem:
        problem = _image_problem(data, row["sha256"])
    if problem:
        return set_aside(row, "build", problem)
    return row | {"captions": captions, "sha256": files.sha256(data)}


def read_image(row: Record, root: str) -> bytes:
    """Returns the encoded image of a row that was checked.

    Raises OSError, also where the file has changed since then.
    """
    path = epath.Path(root) / row["path"]
    data = path.read_bytes()
    if files.sha256(data) != row["sha256"]:
        raise OSError(errno.EIO, "The image was changed while its set was being built", str(path))
    return data


def _read(root: str, path: str) -> tuple[bytes, str]:
    try:
        return (epath.Path(root) / path).read_bytes(), ""
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        return b"", f"the image cannot be read ({error.strerror})"


def _image_problem(data: bytes, digest: str | None) -> str:
    if digest is not None and files.sha256(data) != digest:
        return "the image is not the file that the manifest names (another SHA-256)"
    try:
        transforms.open_image(data)
    except transforms.BadImage as error:
        return f"the image {error}"
    return ""
