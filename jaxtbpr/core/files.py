"""Files that are either whole or not there: a name appears only when its bytes are complete."""

import functools
import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from jaxtbpr.core.errors import InputError


def sha256(data: bytes) -> str:
    """Returns the hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def read_bytes(path: epath.PathLike) -> bytes:
    """Returns the bytes of a file; one of this machine is opened without the cost of an epath."""
    if not is_local(path):
        return epath.Path(path).read_bytes()
    with open(path, "rb") as file:
        return file.read()


def sha256_of(paths: Iterable[epath.PathLike]) -> str:
    """Returns the SHA-256 of several files, their names and all their bytes, in the given order.

    They are read piece by piece, and once in a process as long as they do not change.
    """
    total = hashlib.sha256()
    for path in map(epath.Path, paths):
        status = path.stat()
        changed = os.stat(path).st_mtime_ns if is_local(path) else status.mtime
        total.update(f"{path.name} {_sha256_of(path, status.length, changed)}\n".encode())
    return total.hexdigest()


@functools.lru_cache
def _sha256_of(path: epath.Path, length: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes_atomic(path: epath.PathLike, data: bytes, *, durable: bool = False) -> None:
    """Writes `data` under a temporary name beside `path`, then renames it.

    durable: also waits until the disk has the bytes; for files that say "this is done".
    Raises OSError (disk full, read-only); the temporary file is then removed.
    """
    write_chunks_atomic(path, [data], durable=durable)


def write_chunks_atomic(
    path: epath.PathLike, chunks: Iterable[bytes], *, durable: bool = False
) -> None:
    """Writes `chunks` one after the other, for what is too large to be held twice; see above."""
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}.tmp"
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            if durable and is_local(path):
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_text_atomic(path: epath.PathLike, text: str, *, durable: bool = False) -> None:
    """Writes `text` as UTF-8; see `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode("utf-8"), durable=durable)


def write_json_atomic(path: epath.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, waiting for the disk; see `write_bytes_atomic`."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_text_atomic(path, text, durable=True)


def check_output(path: epath.PathLike, name: str, *, folder: bool = False) -> None:
    """Raises InputError where `path` cannot be written; called before hours of work, not after.

    name: of the flag that holds the path. folder: `path` is a folder, which may have to be made
    with those above it; else a file, whose folder must be there. Nothing is left behind. What is
    written takes the place of what has its name, so that devices (/dev/null) are refused.
    """
    kind = "folder" if folder else "file"
    if not os.fspath(path):
        raise InputError(f"{name} is empty; give the {kind} to write.")
    path = epath.Path(path).expanduser()
    if not is_local(path):
        return
    place = path if folder else path.parent
    while folder and not place.exists() and place != place.parent:
        place = place.parent
    fault = _fault_of(place)
    if not folder and path.is_dir():
        fault = "a folder has that name"
    elif os.path.realpath(place) == "/dev" or (not folder and _is_special(path)):
        fault = "it is not a regular file"
    if fault:
        raise InputError(f"{name}={path} cannot be written ({fault}); choose another {kind}.")


def _is_special(path: epath.Path) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)


def _fault_of(place: epath.Path) -> str:
    """Returns why no file can be written in folder `place`, or ""."""
    if not place.exists():
        return f"{place} does not exist"
    if not place.is_dir():
        return f"{place} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=os.fspath(place)):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def read_json(path: epath.PathLike) -> Any:
    """Reads a JSON file.

    Raises InputError where the file is missing or is not JSON.
    """
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path, or run the stage that writes it.")
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); restore or delete it.") from error


def read_json_object(path: epath.PathLike) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises InputError where the file is missing, is not JSON or holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object; restore or delete it.")
    return value


def read_json_lines(path: epath.PathLike) -> Iterator[Any]:
    """Yields the values of a file of JSON lines that this project wrote.

    Lines end at the newline byte alone: str.splitlines would also cut a value at U+2028 or U+0085,
    which JSON keeps as they are. Raises InputError at a line that is damaged.
    """
    with epath.Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InputError(
                    f"{path} line {number} is not valid JSON ({error}); rerun the stage that "
                    "writes it (--rerun)."
                ) from error


@epath.register_path_cls
class LiteralPath(type(epath.Path())):
    """A path whose name is taken literally, for libraries that call its `glob`.

    epath's glob reads the whole path as a pattern: with "[1]" in the name of a run it finds
    nothing, or the files of another run, and Orbax (0.12) writes checkpoints it cannot read.
    """

    def glob(self, pattern: str) -> Iterator[epath.Path]:
        """Yields the paths below this folder that match `pattern`."""
        yield from map(type(self), epath.Path(glob.escape(os.fspath(self))).glob(pattern))


def matches(folder: epath.PathLike, *patterns: str) -> list[epath.Path]:
    """Returns the paths in `folder` that match one of `patterns` (glob), sorted, each once.

    The folder's name is taken literally, whatever characters it has.
    """
    paths = {path for pattern in patterns for path in LiteralPath(folder).glob(pattern)}
    return sorted(map(epath.Path, map(os.fspath, paths)))


def is_local(path: epath.PathLike) -> bool:
    """Whether `path` is on a file system of this machine (not gs:// or s3://)."""
    return "://" not in os.fspath(path)
