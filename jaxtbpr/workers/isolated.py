"""The worker processes of a run: finding their Python, starting, watching and stopping them."""

import contextlib
import dataclasses
import http.client
import os
import pathlib
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.progress import say
from jaxtbpr.workers import install
from jaxtbpr.workers.worker.answering import exchange
from jaxtbpr.workers.worker.answering.engines import ENGINES

WORKER = pathlib.Path(__file__).parent / "worker"

# The config keys of everything that has workers.
OPTIONS: Options = {
    "python": Option("", "Python of the models' environment; '' = the installed one", runtime=True),
    "install": Option(False, "install that environment if it is missing", runtime=True),
    "workers": Option(1, "workers to start; 0 = start them by hand", low=0, high=1024,
                      runtime=True),
    "claim_seconds": Option(60.0, "seconds after which a silent worker's task is reassigned",
                            low=0.1, runtime=True),
}  # fmt: skip

_STOPPED = 3  # exit status of a worker that says what is wrong in one sentence (serve.STOPPED)
_CONNECT_TIMEOUT = 5.0  # seconds
_DEATHS = 3  # without an answer in between, after which a worker is not started again
# Variables that would bring packages of this environment into the worker's.
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


@dataclasses.dataclass
class _Worker:
    """One process. name: in its claims; log: its output, of which `bytes_read` were shown;
    deaths: in a row."""

    number: int
    name: str
    log: pathlib.Path
    process: subprocess.Popen
    bytes_read: int
    deaths: int = 0
    answers: int = 0


@contextlib.contextmanager
def workers(
    folder: pathlib.Path, options: Mapping[str, Any], section: str
) -> Iterator[Callable[[], None]]:
    """Starts `options["workers"]` workers on a folder; they end with the block or this process.

    Yields a function to be called now and then, which restarts workers that died, and raises
    UserError where one reports an error, or keeps dying without an answer.
    """
    count = options["workers"]
    python = find_python(options, section) if count else "PYTHON"
    command = [python, str(WORKER), str(folder.resolve())]
    if not count:
        say(f"{section}: start workers by hand, on any machine: {shlex.join(command)}")
    several = ENGINES[options["engine"]].one_per_gpu and count > 1
    started = [_start(command, folder, number, several) for number in range(count)]
    try:
        yield lambda: _watch(started, command, folder, several)
    finally:
        for worker in started:
            _end(worker)
            _print_notes(worker)  # those since the last look


def first_answer(folder: pathlib.Path, count: int) -> str:
    """Returns what is waited for while none of `count` workers started here has answered."""
    if not count:
        return "the first answer of a worker started by hand"
    if count == 1:
        return f"the worker's first answer; its log is {_log(folder, 0)}"
    return f"the workers' first answer; their logs are {_log(folder, '*')}"


def check(options: Mapping[str, Any], section: str) -> None:
    """Finds, or installs where the options say so, what `workers` will need.

    Raises UserError where there is no such Python, it lacks a package, or no server is at the url.
    Nothing is checked for workers started by hand: they may run on another machine.
    """
    is_server = ENGINES[options["engine"]].is_server
    if is_server and not options["url"].startswith(("http://", "https://")):
        raise UserError(
            f"config.{section}.url={options['url']!r} must begin with http:// or https://; it "
            "usually ends with /v1."
        )
    if not options["workers"]:
        return
    if is_server:
        _require_server(options["url"], section)
    else:
        _check_packages(find_python(options, section), options, section)


def find_python(options: Mapping[str, Any], section: str) -> str:
    """Returns the Python that runs the workers of a section's engine.

    For a server it is this Python, since only the standard library is used. Raises UserError where
    there is none.
    """
    if ENGINES[options["engine"]].is_server:
        return sys.executable
    if options["python"]:
        path = pathlib.Path(options["python"]).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise UserError(
                f"config.{section}.python={path} cannot be run; give the path of a Python."
            )
        return str(path)
    engine = options["engine"]
    requirements = install.REQUIREMENTS[engine]
    if python := install.find(requirements):
        return str(python)
    if options["install"] or _is_wanted(engine):
        return str(install.install(requirements))
    raise UserError(
        f"config.{section} uses models of engine {engine!r}, which need a separate environment: "
        f"run `python -m jaxtbpr.workers.install {engine}`, set config.{section}.install=True, or "
        f"set config.{section}.python to the Python of an existing environment."
    )


def _require_server(url: str, section: str) -> None:
    """Raises UserError where no server accepts a connection; its answer does not matter here.

    A server may list no models, require a key, be loading, or be busy.
    """
    fault = None
    try:
        urllib.request.urlopen(url.rstrip("/") + "/models", timeout=_CONNECT_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        error.close()
    except urllib.error.URLError as error:  # what urllib raises where no request could be sent
        fault = error.reason
    except (http.client.InvalidURL, ValueError) as error:
        fault = error
    except (OSError, http.client.HTTPException):
        pass
    if fault is not None:
        raise UserError(
            f"config.{section}.url={url!r}: no server can be reached there ({fault}); start it "
            f"first, give the url of a running one, or set config.{section}.workers=0 and start "
            "workers where it can be reached."
        )


def _check_packages(python: str, options: Mapping[str, Any], section: str) -> None:
    """Raises UserError where a Python cannot run or does not find what the engine imports."""
    engine = options["engine"]
    names = ENGINES[engine].packages
    if engine == "pose":
        names += ("onnxruntime" if options["model"].endswith(".onnx") else "mediapipe",)
    program = (
        "import sys, importlib.util as u; "
        "print('lacks', *(name for name in sys.argv[1:] if u.find_spec(name) is None))"
    )
    try:
        done = subprocess.run(
            [python, "-c", program, *names], capture_output=True, text=True, env=_environment()
        )
    except OSError as error:
        raise UserError(f"config.{section}.python={python} cannot be run: {error}.") from error
    output = done.stdout.split()
    if done.returncode or output[:1] != ["lacks"]:
        raise UserError(f"config.{section}.python={python} is not a Python; give the path of one.")
    if lacking := output[1:]:
        raise UserError(
            f"engine {engine!r} of config.{section} needs packages that {python} does not have "
            f"({', '.join(lacking)}); `python -m jaxtbpr.workers.install {engine}` installs its "
            "environment."
        )


def _is_wanted(engine: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    place = install.place(install.REQUIREMENTS[engine])
    say(f"The models of engine {engine!r} need a separate environment in {place}, of several GB.")
    return input("Install it now? [y/N] ").strip().lower() in ("y", "yes")


def _start(command: list[str], folder: pathlib.Path, number: int, several: bool) -> _Worker:
    name = f"{os.uname().nodename}-{os.getpid()}-{number}"
    log = _log(folder, number)
    command_line = [*command, "--with-parent", "--name", name]
    if several:
        command_line += ["--device", f"gpu:{number}"]
    env = _environment()
    with log.open("ab") as file:
        # The worker ends when its standard input does, that is with this process.
        process = subprocess.Popen(
            command_line, stdin=subprocess.PIPE, stdout=file, stderr=file, env=env
        )
        return _Worker(number, name, log, process, bytes_read=file.tell())


def _log(folder: pathlib.Path, number: int | str) -> pathlib.Path:
    return folder / f"worker-{number}.log"


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in _OURS}


def _watch(started: list[_Worker], command: list[str], folder: pathlib.Path, several: bool) -> None:
    for place, worker in enumerate(started):
        _print_notes(worker)
        status = worker.process.poll()
        if status is None:
            continue
        exchange.release(folder, worker.name)
        answers = exchange.count_answers(folder, {})
        deaths = 1 if answers != worker.answers else worker.deaths + 1
        if status == _STOPPED or deaths >= _DEATHS:
            raise UserError(_last_words(worker, status))
        say(f"a worker ended with status {status} and is restarted; see {worker.log}")
        _end(worker)
        again = _start(command, folder, worker.number, several)
        started[place] = dataclasses.replace(again, deaths=deaths, answers=answers)


def _print_notes(worker: _Worker) -> None:
    """Prints the worker's notes since the last call, line by line."""
    with worker.log.open("rb") as file:
        file.seek(worker.bytes_read)
        new, end, _ = file.read().rpartition(b"\n")
    worker.bytes_read += len(new + end)
    for line in new.decode("utf-8", "replace").split("\n"):
        if line.startswith(exchange.NOTE):
            say(line.removeprefix(exchange.NOTE))


def _last_words(worker: _Worker, status: int) -> str:
    lines = worker.log.read_text("utf-8", "replace").strip().splitlines() or ["no output"]
    if status == _STOPPED:
        return lines[-1]
    return f"a worker ended {_DEATHS} times in a row ({lines[-1]}); see {worker.log}."


def _end(worker: _Worker) -> None:
    """Stops a worker, which gives up its claim."""
    with worker.process as process:  # which closes its standard input
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
