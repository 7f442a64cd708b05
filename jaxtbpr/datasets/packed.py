"""Images inside other files: WebDataset .tar shards and parquet tables with image bytes.

Such an image has a path, as any other: "SHARD.tar::OFFSET+LENGTH::NAME" or
"TABLE.parquet::GROUP+ROW::COLUMN". `read_bytes` reads both kinds and plain files; nothing is
unpacked to the disk.
"""

import errno
import functools
import json
import os
import re
import tarfile
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow
import pyarrow.parquet
from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets.entry import PATH_KEYS, BadRecord
from jaxtbpr.datasets.image_paths import is_image

SUFFIXES = (".tar", ".parquet")
IMAGE = "__image__"  # the key of a row that holds the path of its packed image
_PATH = re.compile(r"(.+\.(tar|parquet))::(\d+)\+(\d+)::(.+)", re.I | re.S)
_TEXTS = ("txt", "text", "caption")  # endings of files
_CAPTIONS = ("caption", "captions", "text", "texts", "sentence", "sentences")  # keys of their JSON
_LABELS = {"cls": "label", "id": "identity"}
_READ = (*_TEXTS, *_LABELS, "json")
_LOCK = threading.Lock()


def is_packed(path: epath.PathLike) -> bool:
    """Whether `path` names an image inside another file."""
    return bool(_PATH.fullmatch(str(path)))


def read_bytes(path: epath.PathLike) -> bytes:
    """Returns the bytes of an image file, or of an image inside another file. Raises OSError."""
    match = _PATH.fullmatch(os.fspath(path))
    if not match:
        return files.read_bytes(path)
    file, form, first, second, name = match.groups()
    if form.lower() == "tar":
        return _slice(file, int(first), int(second))
    try:
        with _LOCK:  # else all threads would decode the same group
            column = _column(file, epath.Path(file).stat().mtime, int(first), name)
        data = column[int(second)].as_py()
        return (data["bytes"] if isinstance(data, Mapping) else data) or b""
    except (pyarrow.ArrowException, LookupError) as error:
        raise OSError(errno.EIO, f"The parquet file is damaged ({error})", file) from error


def _slice(file: str, offset: int, length: int) -> bytes:
    with epath.Path(file).open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


@functools.lru_cache(maxsize=2)
def _column(file: str, changed: float, group: int, name: str) -> pyarrow.ChunkedArray:
    with epath.Path(file).open("rb") as stream:
        table = pyarrow.parquet.ParquetFile(stream).read_row_group(group, columns=[name])
    return table.column(name)


def rows(file: epath.Path) -> Iterator[Any]:
    """Yields the samples of a .tar shard or the rows of a parquet table as mappings.

    A row whose image is inside of the file has its path under `IMAGE`. Raises InputError where the
    file is damaged.
    """
    read = _samples if file.suffix.lower() == ".tar" else _parquet_rows
    try:
        yield from read(file)
    except (tarfile.TarError, EOFError, pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{file} is not a complete {file.suffix[1:]} file ({error}); copy it again."
        ) from error


def _samples(file: epath.Path) -> Iterator[Any]:
    """Groups the members of a shard as WebDataset does: by their names up to the first dot."""
    key, parts = None, {}
    with file.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as shard:
        for member in shard:
            folder, _, base = member.name.rpartition("/")
            if not member.isfile() or base.startswith("."):  # as ._0001.jpg, which macOS adds
                continue
            stem, _, ending = base.partition(".")
            this = f"{folder}/{stem}" if folder else stem
            if parts and this != key:
                yield sample(parts)
                parts = {}
            key = this
            if is_image(member.name):
                where = f"{file}::{member.offset_data}+{member.size}::{member.name}"
                parts.setdefault("images", []).append((member.name, where))
            elif ending.lower() in _READ and (text := shard.extractfile(member)):
                parts[ending.lower()] = text.read()
            parts.setdefault("name", member.name)
        _check_end(stream, shard)
    if parts:
        yield sample(parts)


def _check_end(stream: IO[bytes], shard: tarfile.TarFile) -> None:
    """Raises ReadError where no block of zeros ends the shard; tarfile itself is silent there."""
    stream.seek(shard.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError("its end is missing")


def sample(parts: dict[str, Any]) -> Any:
    """Returns a sample as a row: its JSON's keys, its texts as captions, its image's path.

    parts: "images" ((name, path) pairs), "name" (of one of its files), and {ending: bytes} of what
    else it has. A sample that has not one image, or cannot be read, is a BadRecord.
    """
    images = parts.get("images", ())
    if len(images) != 1:
        return BadRecord(f"({parts['name']}) has {len(images)} images where one belongs")
    try:
        fields = json.loads(parts.get("json", b"{}"))
        texts = [parts[key].decode().strip() for key in _TEXTS if key in parts]
        labels = {_LABELS[key]: parts[key].decode().strip() for key in _LABELS if key in parts}
    except ValueError as error:  # not UTF-8, or not JSON
        return BadRecord(f"({parts['name']}) has a text or JSON that cannot be read ({error})")
    if not isinstance(fields, dict):
        return BadRecord(f"({parts['name']}) has a JSON that is no object")
    name, where = images[0]
    caption_texts = [text for key in _CAPTIONS for text in _listed(fields.get(key))]
    fields = {key: value for key, value in fields.items() if key not in (*PATH_KEYS, *_CAPTIONS)}
    captions = list(dict.fromkeys([*caption_texts, *texts]))
    row = labels | fields | {"file_path": name, IMAGE: where}
    return row | {"captions": captions} if captions else row


def _listed(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if one is not None]


def _parquet_rows(file: epath.Path) -> Iterator[Any]:
    with file.open("rb") as stream:
        table = pyarrow.parquet.ParquetFile(stream)
        image = _image_column(table.schema_arrow)
        columns = [field.name for field in table.schema_arrow if not _holds_bytes(field.type)]
        if image is not None and _has_path(table.schema_arrow, image):
            columns.append(f"{image}.path")
        first = 0
        for group in range(table.num_row_groups):
            read = table.read_row_group(group, columns=columns)
            named = read.to_pylist() if columns else [{}] * table.metadata.row_group(group).num_rows
            for row, values in enumerate(named):
                yield _row(values, file, image, f"{group}+{row}", first + row)
            first += len(named)


def _row(
    values: dict[str, Any], file: epath.Path, image: str | None, place: str, number: int
) -> dict[str, Any]:
    if image is None:
        return values
    inner = values.pop(image, None) or {}
    name = next((values[key] for key in PATH_KEYS if isinstance(values.get(key), str)), "")
    name = name or inner.get("path") or f"{file.stem}/{number:08d}"
    kept = {key: value for key, value in values.items() if key not in PATH_KEYS}
    return kept | {"file_path": name, IMAGE: f"{file}::{place}::{image}"}


def _image_column(schema: pyarrow.Schema) -> str | None:
    return next((field.name for field in schema if _holds_bytes(field.type)), None)


def _holds_bytes(data_type: pyarrow.DataType) -> bool:
    if pyarrow.types.is_struct(data_type):
        index = data_type.get_field_index("bytes")
        return index >= 0 and _holds_bytes(data_type.field(index).type)
    return pyarrow.types.is_binary(data_type) or pyarrow.types.is_large_binary(data_type)


def _has_path(schema: pyarrow.Schema, image: str) -> bool:
    column = schema.field(image).type
    return pyarrow.types.is_struct(column) and column.get_field_index("path") >= 0
