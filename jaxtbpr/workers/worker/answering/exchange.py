"""The folder shared by the main program and the workers: all communication between them.

    settings.json         engine and options, written by the main program
    tasks/NAME.jsonl      one request a line; appears complete
    claims/NAME.G         the task's claim number G: the name of its worker, alive by its mtime
    answers/NAME.G.part   what that worker has answered so far, a line at a time
    answers/NAME.jsonl    the answers to all requests, in their order; appears complete, never
    changes closed                no more tasks will come

A request is {"id", "model", "messages": [{"role", "text"}], "image": path from this folder or
null, "seed", "temperature", "top_p", "max_tokens"}, the same model for all of a task. An answer is
{"id", "text", "finish": "stop" or "length"}, or {"id", "problem"} where a retry would not help.
To a pose model a request is {"id", "model", "image", "min_score", "nms_iou"} and the answer
{"id", "size": [width, height], "persons": [{"box", "score", "joints"}]}, see `decoding`; to the
network of FID it is {"id", "model", "image"} and the answer {"id", "features": base64 of float32}.

A claim that is not refreshed has expired; who creates the next number first has the task. Numbers
only grow, so no takeover can hit a claim that has just been made, and each holder has a file of
its own, in which a line cut off by a kill is never followed by another.
"""

import contextlib
import json
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

Row = dict[str, Any]
RELEASED = 0.0  # the mtime of a claim that its worker gave up
NOTE = "note: "  # begins a line of a worker's log that the main program prints


def prepare(folder: pathlib.Path, settings: Row) -> None:
    """Makes the folder's parts and opens it for workers."""
    for part in ("tasks", "claims", "answers"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_whole(folder / "settings.json", [settings])
    (folder / "closed").unlink(missing_ok=True)


def close(folder: pathlib.Path) -> None:
    """Marks that no more tasks will come, which stops the workers."""
    (folder / "closed").touch()


def is_closed(folder: pathlib.Path) -> bool:
    """Whether no more tasks will come."""
    return (folder / "closed").exists()


def write_task(folder: pathlib.Path, task: str, requests: Iterable[Row]) -> None:
    """Writes a task, unless it is there already."""
    path = folder / "tasks" / f"{task}.jsonl"
    if not path.exists():
        write_whole(path, requests)


def read_task(folder: pathlib.Path, task: str) -> list[Row]:
    """Returns the requests of a task."""
    return read_lines(folder / "tasks" / f"{task}.jsonl")


def is_answered(folder: pathlib.Path, task: str) -> bool:
    """Whether all requests of a task are answered."""
    return (folder / "answers" / f"{task}.jsonl").exists()


def read_answers(folder: pathlib.Path, task: str) -> list[Row]:
    """Returns the answers of an answered task, in the order of its requests."""
    return read_lines(folder / "answers" / f"{task}.jsonl")


def open_tasks(folder: pathlib.Path) -> list[str]:
    """Returns the names of the tasks that are not answered, in order."""
    done = set(os.listdir(folder / "answers"))  # one look, since there may be thousands
    names = (path.name for path in (folder / "tasks").glob("[!.]*.jsonl"))
    return sorted(name.removesuffix(".jsonl") for name in names if name not in done)


def partial_answers(folder: pathlib.Path, task: str) -> dict[str, Row]:
    """Returns {id: answer} of all that any holder of the task has answered; the first counts."""
    answers: dict[str, Row] = {}
    parts = (folder / "answers").glob(f"{task}.*.part")
    for path in sorted(parts, key=lambda path: int(path.suffixes[-2][1:])):
        with contextlib.suppress(FileNotFoundError):  # another worker has just finished the task
            for answer in read_lines(path):
                answers.setdefault(answer["id"], answer)
    return answers


def count_answers(folder: pathlib.Path, whole: dict[str, int]) -> int:
    """Returns how many answers there are, of finished tasks and of others.

    whole: {finished task: its answers} of earlier counts, which is added to: they never change.
    """
    total = 0
    for path in sorted((folder / "answers").glob("[!.]*.jsonl")):
        if path.stem not in whole:
            whole[path.stem] = path.read_bytes().count(b"\n")
        total += whole[path.stem]
    for path in (folder / "answers").glob("*.part"):
        if path.name.rsplit(".", 2)[0] not in whole:
            with contextlib.suppress(FileNotFoundError):  # the task has just been finished
                total += path.read_bytes().count(b"\n")
    return total


def finish(folder: pathlib.Path, task: str) -> bool:
    """Puts the answers of a task together if they are all there; returns whether they are.

    Of several workers that finish the same task the first one's file stays.
    """
    answers, names = partial_answers(folder, task), [row["id"] for row in read_task(folder, task)]
    path = folder / "answers" / f"{task}.jsonl"
    if answers.keys() >= set(names):
        mine = path.with_name(f".{task}.{_own_name()}")
        mine.write_bytes(b"".join(_line(answers[name]) for name in names))
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)
        mine.unlink()
        for part in (folder / "answers").glob(f"{task}.*.part"):
            part.unlink(missing_ok=True)
    return path.exists()


class Claim:
    """A task that this worker has. number: of the claim."""

    def __init__(self, folder: pathlib.Path, task: str, number: int):
        self._folder, self.task, self._number = folder, task, number
        self._path = folder / "claims" / f"{task}.{number}"

    def is_lost(self) -> bool:
        """Whether another worker has taken the task over."""
        return (self._folder / "claims" / f"{self.task}.{self._number + 1}").exists()

    def append(self, answer: Row) -> None:
        """Adds an answer to this claim's own file, in one write."""
        path = self._folder / "answers" / f"{self.task}.{self._number}.part"
        with path.open("ab", buffering=0) as file:
            file.write(_line(answer))

    @contextlib.contextmanager
    def kept_fresh(self, seconds: float) -> Iterator[None]:
        """Refreshes the claim several times in `seconds` until the block ends; then gives it up."""
        stop = threading.Event()

        def refresh() -> None:
            while not stop.wait(seconds / 5):
                os.utime(self._path)

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            os.utime(self._path, (RELEASED, RELEASED))


def claim(folder: pathlib.Path, task: str, worker: str, seconds: float) -> Claim | None:
    """Claims a task for `worker`; returns None where another worker has it.

    seconds: after which a claim that was not refreshed has expired, by the clock of the file
    server, since those of several hosts differ.
    """
    held = [int(path.suffix[1:]) for path in (folder / "claims").glob(f"{task}.*")]
    number = max(held, default=-1)
    if number >= 0:
        touched = (folder / "claims" / f"{task}.{number}").stat().st_mtime
        if _now(folder) - touched <= seconds:
            return None
    path = folder / "claims" / f"{task}.{number + 1}"
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return None
    with open(handle, "w") as file:
        file.write(worker)
    return Claim(folder, task, number + 1)


def release(folder: pathlib.Path, worker: str) -> None:
    """Gives up all claims of `worker`, which is known to be dead."""
    for path in (folder / "claims").glob("[!.]*"):
        if path.read_text() == worker:
            os.utime(path, (RELEASED, RELEASED))


def read_lines(path: pathlib.Path) -> list[Row]:
    """Returns the objects of a file of JSON lines, except an incomplete last line."""
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def write_whole(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Writes a file of JSON lines, whose name appears when it is complete."""
    temporary = path.with_name(f".{path.name}.{_own_name()}")
    temporary.write_bytes(b"".join(map(_line, rows)))
    temporary.replace(path)


def _line(row: Row) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _now(folder: pathlib.Path) -> float:
    clock = folder / "claims" / f".clock.{_own_name()}"
    clock.touch()
    return clock.stat().st_mtime


def _own_name() -> str:
    return f"{os.uname().nodename}.{os.getpid()}.{threading.get_ident()}"
