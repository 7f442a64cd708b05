"""The worker's loop: claim a task, answer it, until the folder is closed."""

import argparse
import contextlib
import functools
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

from . import exchange
from .engines import ENGINES, Engine
from .errors import Stop
from .exchange import Claim, Row

OpenEngine = Callable[[str], Engine]  # of a model

STOPPED = 3  # exit status of a worker that has printed the reason


def main() -> None:
    """The command line; see `--help`."""
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="WORKDIR/caption/requests of a run")
    parser.add_argument("--device", default="", help="cpu, cuda:1, ...; default: the first GPU")
    parser.add_argument("--url", default="", help="server, instead of the run's")
    parser.add_argument(
        "--name", default="", help="unique name of this worker; default: host and process id"
    )
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args()
    if arguments.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the claim is given up
    name = arguments.name or f"{os.uname().nodename}-{os.getpid()}"
    # At once: a normal exit would wait for running requests to a server.
    os._exit(_run(arguments, name))


def _run(arguments: argparse.Namespace, name: str) -> int:
    """Serves; prints the reason where it stops, and returns the exit status."""
    try:
        settings = _settings(arguments.folder)
        settings |= {"device": arguments.device} | ({"url": arguments.url} if arguments.url else {})
        serve(
            arguments.folder,
            name,
            functools.partial(_open_engine, arguments.folder, settings),
            settings,
        )
    except Stop as stop:
        # In one line, which the main program reads; libraries' messages have several.
        print(" ".join(str(stop).split()), file=sys.stderr, flush=True)
        return STOPPED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def serve(
    folder: pathlib.Path, name: str, open_engine: OpenEngine, settings: Row, wait: float = 0.5
) -> None:
    """Answers tasks until the folder is closed.

    name: of this worker; settings: with "claim_seconds"; wait: seconds between looks for a task.
    Raises Stop.
    """
    model, engine = None, None
    while not exchange.is_closed(folder):
        claim = _next_claim(folder, name, settings["claim_seconds"], model)
        if claim is None:
            time.sleep(wait)
            continue
        with claim.kept_fresh(settings["claim_seconds"]):
            requests = exchange.read_task(folder, claim.task)
            if engine is None or requests[0]["model"] != model:
                engine = None  # frees the memory of the one before
                model = requests[0]["model"]
                engine = open_engine(model)
            _answer(folder, claim, requests, engine)


def _answer(folder: pathlib.Path, claim: Claim, requests: list[Row], engine: Engine) -> None:
    done = exchange.partial_answers(folder, claim.task)
    with contextlib.closing(engine(requests, done.keys())) as answers:
        for answer in answers:
            if claim.is_lost() or exchange.is_closed(folder):
                return
            claim.append(answer)
    if not exchange.finish(folder, claim.task):
        raise Stop(f"task {claim.task} of {folder} has requests without an answer")


def _next_claim(folder: pathlib.Path, name: str, seconds: float, model: str | None) -> Claim | None:
    """Claims the first open task that is free, one for the loaded model before others."""
    tasks = exchange.open_tasks(folder)
    if model is not None:
        tasks.sort(key=lambda task: _model_of(folder, task) != model)
    claims = (exchange.claim(folder, task, name, seconds) for task in tasks)
    for claim in filter(None, claims):
        if not exchange.is_answered(folder, claim.task):
            return claim  # else another worker has just finished it
    return None


@functools.lru_cache(maxsize=100_000)
def _model_of(folder: pathlib.Path, task: str) -> str:
    return exchange.read_task(folder, task)[0]["model"]


def _settings(folder: pathlib.Path) -> Row:
    path = folder / "settings.json"
    if not path.exists():
        raise Stop(f"{folder} has no settings.json; give the folder 'requests' of a run's stage.")
    return exchange.read_lines(path)[0]


def _open_engine(folder: pathlib.Path, settings: Row, model: str) -> Engine:
    """Opens an engine for a model. Raises Stop where a package that it needs is missing."""
    name = settings["engine"]
    try:
        return ENGINES[name].open(folder, settings, model)
    except ImportError as error:
        raise Stop(
            f"engine {name!r} needs a package that {sys.executable} does not have ({error}); "
            f"`python -m jaxtbpr.workers.install {name}` installs its environment."
        ) from error


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)
