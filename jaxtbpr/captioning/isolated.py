"""The worker processes of a run: which Python runs them, starting, watching and ending them."""

import contextlib
import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtbpr.captioning import install
from jaxtbpr.captioning.worker.answering import exchange
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.progress import say

WORKER = pathlib.Path(__file__).parent / "worker"

# The config keys of whatever has workers.
OPTIONS: Options = {
    "python": Option("", "of the models' environment; '': the installed one", runtime=True),
    "install": Option(False, "install that environment where it is missing", runtime=True),
    "workers": Option(1, "workers started here; 0: all are started by hand", low=0, high=1024,
                      runtime=True),
    "claim_seconds": Option(60.0, "after which a silent worker's task is another's", low=0.1,
                            runtime=True),
}  # fmt: skip

_TOLD = 3  # exit status of a worker that says what is wrong in one sentence
_DEATHS = 3  # without an answer in between, after which a worker is not started again
# What would bring packages of this environment into the worker's.
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


@dataclasses.dataclass
class _Worker:
    """One process. name: that stands in its claims; log: what it writes; deaths: in a row."""

    number: int
    name: str
    log: pathlib.Path
    process: subprocess.Popen
    deaths: int = 0
    answers: int = 0


@contextlib.contextmanager
def workers(
    folder: pathlib.Path, options: Mapping[str, Any], section: str
) -> Iterator[Callable[[], None]]:
    """Starts `options["workers"]` workers on a folder; they end with the block or this process.

    Gives a function to be called now and then, which starts those anew that died, and raises
    UserError where one says that something is wrong or dies without having answered anything.
    """
    count = options["workers"]
    python = find_python(options, section) if count else "PYTHON"
    command = [python, str(WORKER), str(folder.resolve())]
    if not count:
        say(f"{section}: start workers by hand, on any machine: {shlex.join(command)}")
    several = options["engine"] in ("transformers", "fid") and count > 1
    started = [_start(command, folder, number, several) for number in range(count)]
    try:
        yield lambda: _watch(started, command, folder, several)
    finally:
        for worker in started:
            _end(worker)


def check(options: Mapping[str, Any], section: str) -> None:
    """Finds, or installs where that is wanted, what `workers` will need. Raises UserError."""
    if options["engine"] == "openai" and not options["url"].startswith(("http://", "https://")):
        raise UserError(
            f"config.{section}.url={options['url']!r} must begin with http:// or https://; it "
            "usually ends with /v1."
        )
    if options["workers"]:
        find_python(options, section)


def find_python(options: Mapping[str, Any], section: str) -> str:
    """Returns the Python that runs the workers of a section's engine.

    Engine `openai` needs nothing but Python, hence this one. Raises UserError where there is none.
    """
    if options["engine"] == "openai":
        return sys.executable
    if options["python"]:
        path = pathlib.Path(options["python"]).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise UserError(f"config.{section}.python={path} cannot be run; give a Python.")
        return str(path)
    engine = options["engine"]
    requirements = install.REQUIREMENTS[engine]
    if found := install.find(requirements):
        return str(found)
    if options["install"] or _is_wanted(engine):
        return str(install.install(requirements))
    raise UserError(
        f"config.{section} asks models of engine {engine!r}, which need an environment apart from "
        f"this one: run `python -m jaxtbpr.captioning.install {engine}`, set "
        f"config.{section}.install=True, or config.{section}.python to the Python of one."
    )


def _is_wanted(engine: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    place = install.place(install.REQUIREMENTS[engine])
    say(f"The models of engine {engine!r} need an environment of their own in {place}: gigabytes.")
    return input("Install it now? [y/N] ").strip().lower() in ("y", "yes")


def _start(command: list[str], folder: pathlib.Path, number: int, several: bool) -> _Worker:
    name = f"{os.uname().nodename}-{os.getpid()}-{number}"
    log = folder / f"worker-{number}.log"
    words = [*command, "--with-parent", "--name", name]
    if several:
        words += ["--device", f"gpu:{number}"]
    env = {key: value for key, value in os.environ.items() if key not in _OURS}
    with log.open("ab") as file:
        # The worker ends when its standard input does, that is with this process.
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=file, stderr=file, env=env)
    return _Worker(number, name, log, process)


def _watch(started: list[_Worker], command: list[str], folder: pathlib.Path, several: bool) -> None:
    for place, worker in enumerate(started):
        status = worker.process.poll()
        if status is None:
            continue
        exchange.release(folder, worker.name)
        answers = len(list((folder / "answers").glob("[!.]*.jsonl")))
        answers = answers * 10**6 + exchange.count_partial(folder)
        deaths = 1 if answers != worker.answers else worker.deaths + 1
        if status == _TOLD or deaths >= _DEATHS:
            raise UserError(_last_words(worker, status))
        say(f"a worker ended with status {status} and is started again; see {worker.log}")
        _end(worker)
        again = _start(command, folder, worker.number, several)
        started[place] = dataclasses.replace(again, deaths=deaths, answers=answers)


def _last_words(worker: _Worker, status: int) -> str:
    lines = worker.log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    if status == _TOLD:
        return lines[-1]
    return f"a worker ended {_DEATHS} times in a row ({lines[-1]}); see {worker.log}."


def _end(worker: _Worker) -> None:
    """Ends a worker, which gives up its claim."""
    worker.process.terminate()
    try:
        worker.process.wait(20)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        worker.process.wait()
    worker.process.stdin.close()
