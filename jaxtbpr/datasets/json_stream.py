"""JSON files read one element at a time: an annotation of gigabytes takes megabytes of memory."""

import io
import json
from collections.abc import Iterator
from typing import IO, Any

from etils import epath

from jaxtbpr.core.errors import InputError

CHUNK = 1 << 20
_DISGUISES = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the file; fetch it with git lfs pull",
    b"<!DOCTYPE": "is a web page, not the file; download it again",
    b"<html": "is a web page, not the file; download it again",
    b"\x1f\x8b": "is compressed; unpack it",
    b"PK\x03\x04": "is a zip archive or a spreadsheet; unpack it, or save it as CSV UTF-8",
}


def open_text(
    path: epath.PathLike, newline: str | None = None, errors: str = "strict"
) -> io.TextIOWrapper:
    """Opens a UTF-8 text file, with or without a byte order mark. errors: as of `open`.

    Raises InputError where it cannot be opened.
    """
    file = _open(path)
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors=errors, newline=newline)


def _open(path: epath.PathLike) -> IO[bytes]:
    try:
        return epath.Path(path).open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{path} is a link to a file that is not there.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror or error}).") from error


def iterate_json(path: epath.PathLike) -> Iterator[Any]:
    """Yields the elements of a JSON array, or the (key, value) pairs of a JSON object.

    Raises InputError, naming the line, where the file is not UTF-8, not JSON or not complete.
    """
    with open_text(path) as file:
        text = _Text(file)
        try:
            yield from _elements(text)
        except UnicodeDecodeError as error:
            fault = disguise(path) or not_utf8(error, text.line)
            raise InputError(f"{path} {fault}.") from error
        except ValueError as error:
            fault = disguise(path) or (
                f"is not complete, valid JSON (line {text.line}: {error}); unpack or copy it again"
            )
            raise InputError(f"{path} {fault}.") from error


def not_utf8(error: UnicodeDecodeError, line: int) -> str:
    """Returns the end of the sentence "FILE ..." on a file with a byte that is not UTF-8."""
    byte = error.object[error.start]
    where = f"after line {line}" if line else "in its first line"
    return (
        f"is not UTF-8 {where} (byte 0x{byte:02x}, {error.reason}), but perhaps "
        "Windows-1252, as spreadsheets write it; save it as UTF-8"
    )


def disguise(path: epath.PathLike) -> str:
    """Returns what a file is that cannot be UTF-8 text of its own ("is empty", ...), or ""."""
    with _open(path) as file:
        head = file.read(4096)
    if not head.strip():
        return "is empty"
    for start, fault in _DISGUISES.items():
        if head.lstrip().startswith(start):
            return fault
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        return "is not UTF-8 but UTF-16, as spreadsheets write 'Unicode text'; save it as UTF-8"
    return ""


def is_json_lines(path: epath.PathLike) -> bool:
    """Whether a file called .json holds one JSON object per line."""
    try:
        with open_text(path) as file:
            first, second = file.readline(CHUNK), file.readline(CHUNK).strip()
        return second.startswith("{") and isinstance(json.loads(first), dict)
    except ValueError:  # not UTF-8, or not JSON
        return False


def first_element(path: epath.PathLike) -> Any:
    """Returns the first element (or pair) of a JSON file, or None where there is none."""
    return next(iterate_json(path), None)


def _elements(text: "_Text") -> Iterator[Any]:
    opening = text.take("[{")
    closing = "]" if opening == "[" else "}"
    if text.peek() == closing:
        text.take(closing)
    else:
        yield _element(text, opening)
        while text.take("," + closing) == ",":
            yield _element(text, opening)
    if text.peek():
        raise ValueError(f"something follows the last {closing!r}")


def _element(text: "_Text", opening: str) -> Any:
    value = text.value()
    if opening == "[":
        return value
    text.take(":")
    return value, text.value()


class _Text:
    """The unread text of a file; reads on when a value is not complete yet."""

    def __init__(self, file: io.TextIOBase):
        self._file, self._text, self._at = file, "", 0
        self._decode = json.JSONDecoder().raw_decode
        self._lines_before = 1

    @property
    def line(self) -> int:
        return self._lines_before + self._text.count("\n", 0, self._at)

    def _read_on(self) -> bool:
        # Reading as much again as is held keeps the repeated decoding of one value linear.
        more = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._lines_before = self.line
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def peek(self) -> str:
        """Returns the next character that is not blank, or "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or not self._read_on():
                return self._text[self._at : self._at + 1]

    def take(self, expected: str) -> str:
        """Takes the next character, which must be one of `expected`."""
        character = self.peek()
        if not character or character not in expected:
            actual = repr(character) if character else "the end of the file"
            raise ValueError(f"{actual} where one of {' '.join(expected)} belongs")
        self._at += 1
        return character

    def value(self) -> Any:
        """Takes the next JSON value."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError as error:
                if not self._read_on():
                    message = getattr(error, "msg", str(error))
                    raise ValueError(message) from error
                continue
            # A number near the end of what is held may go on ("1" before ".5" or "e+3").
            length = end - self._at
            if end + 3 < len(self._text) or not self._read_on():
                self._at += length
                return value
