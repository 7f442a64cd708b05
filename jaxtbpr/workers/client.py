"""Requests texts from language models, each until an answer is accepted or retries run out.

Stages caption and prompts make the requests; the models run in separate workers (`isolated`) and
share a folder with this side (`worker/answering/exchange.py`). A rejected answer is requested again
with another seed. Everything is on disk, so that a killed run repeats no answered request, and ends
the same.
"""

import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.progress import SECONDS_BETWEEN_LINES, say
from jaxtbpr.core.seeds import rng
from jaxtbpr.workers import isolated
from jaxtbpr.workers.answers import Refusal, clean
from jaxtbpr.workers.worker.answering import engines, exchange

ENGINES = tuple(name for name, engine in engines.ENGINES.items() if engine.writes_text)

_AHEAD = 64  # shards whose tasks are written before the first is answered
_WARM = 0.7  # lowest temperature of a retry: at 0 the answer would be the same
_REPEATED = 20  # retried requests of a model after which a line says that it repeats itself
_WAIT = 0.2  # seconds between looks at the folder


@dataclasses.dataclass(frozen=True)
class Request:
    """A request for a text.

    key: names it in the run; group: texts of one group must differ; model: that is asked; image:
    path from the workdir, or None; instruction: attempt (0, 1, ...) -> what is asked.
    """

    key: str
    group: str
    model: str
    image: str | None
    instruction: Callable[[int], str]


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a request: the text, or None and the last refusal.

    attempt: of the last answer; rejected: the kinds of the rejected answers.
    """

    text: str | None
    attempt: int
    rejected: tuple[str, ...]
    last: Refusal | None


# (request, instruction, cleaned answer, how it finished, earlier answers of the group)
Judge = Callable[[Request, str, str, str, list[str]], Refusal | None]


def options(model: str, max_tokens: int) -> Options:
    """Returns the config keys of a stage that asks models; model: the default one."""
    return {
        "models": Option((model,), "language models: folder or hub id, optionally with @revision"),
        "retries": Option(3, "times that a rejected answer is requested again", low=0, high=100),
        "temperature": Option(0.7, "of sampling; 0 = greedy (retries: 0.7)",
                              low=0.0, high=10.0),
        "top_p": Option(0.9, "nucleus sampling: probability mass of the tokens drawn from",
                        low=0.01, high=1.0),
        "max_tokens": Option(max_tokens, "most tokens of an answer", low=1, high=100_000),
        "dtype": Option("auto", "of a local model; auto = as saved",
                        choices=("auto", "bfloat16", "float16", "float32")),
        "batch_size": Option(8, "requests in a batch of a local model; may change last bits",
                             low=1, high=65536),
        "trust_remote_code": Option(("",), "models whose custom code may be executed"),
        # Servers refuse unknown parameters, and have other names for some.
        "parameters": {
            name: Option(name, f"the server's name for {name}; '' = not sent")
            for name in ("max_tokens", "temperature", "top_p", "seed")
        },
        "url": Option("http://localhost:8000/v1", "url of engine openai's server", runtime=True),
        "concurrency": Option(16, "concurrent requests to a server", low=1, high=4096,
                              runtime=True),
        "requests_per_minute": Option(0.0, "most requests of each worker per minute; 0 = no limit",
                                      low=0.0, runtime=True),
        "timeout": Option(120.0, "seconds to wait for a server's answer", low=0.01,
                          runtime=True),
        "max_attempts": Option(8, "attempts of a request to a server", low=1, high=1000,
                               runtime=True),
        "retry_delay": Option(1.0, "seconds before the next attempt, doubled each time", low=0.0,
                              runtime=True),
    } | isolated.OPTIONS  # fmt: skip


def check(options: Mapping[str, Any], section: str) -> None:
    """Raises UserError for options that cannot work, and where the environment is missing.

    options: of a stage that asks models: those of `options`, "min_words" and "max_words".
    """
    if not (options["models"] and all(options["models"])):
        raise UserError(f"config.{section}.models names no model; give a folder or hub id.")
    if options["min_words"] > options["max_words"]:
        raise UserError(
            f"config.{section}.min_words={options['min_words']} is more than "
            f"max_words={options['max_words']}, so no answer can fit; lower it."
        )
    if not engines.ENGINES[options["engine"]].is_server:
        for model in options["models"]:
            _require_model(model, section)
    isolated.check(options, section)


def fingerprint(options: Mapping[str, Any]) -> dict[str, str]:
    """Returns {model: SHA-256 of its files} of the models that are local folders."""
    digests = {}
    for model in options["models"]:
        folder = pathlib.Path(_located(model))
        if folder.is_dir():
            parts = sorted(path for path in folder.rglob("*") if path.is_file())
            digests[model] = files.sha256_of(map(epath.Path, parts))
    return digests


def answer_all(
    root: epath.PathLike,
    folder: epath.PathLike,
    tasks: Mapping[str, list[exchange.Row]],
    options: Mapping[str, Any],
    section: str,
) -> list[exchange.Row]:
    """Returns the workers' answers to tasks, in order; those on disk are not requested again.

    root: the workdir; folder: that is shared with the workers; options: of `isolated.OPTIONS` and
    "engine". Raises UserError where the workdir is not a local folder.
    """
    _require_local(root, section, options["engine"])
    folder = pathlib.Path(folder)
    exchange.prepare(folder, {key: options[key] for key in ("engine", "claim_seconds")})
    for task, requests in tasks.items():
        exchange.write_task(folder, task, requests)
    report = _progress(folder, section, options["workers"])
    try:
        if exchange.open_tasks(folder):
            with isolated.workers(folder, options, section) as watch:
                while exchange.open_tasks(folder):
                    watch()
                    report()
                    time.sleep(_WAIT)
    finally:
        exchange.close(folder)
    return [answer for task in tasks for answer in exchange.read_answers(folder, task)]


class Client:
    """Asks the models of one stage of a run.

    root: the workdir; section: of the config, "caption" or "prompts.llm"; options: its values,
    those of `options` and "engine", one of ENGINES; seed: of the run. Raises UserError where the
    workdir is not a local folder.
    """

    def __init__(self, root: epath.PathLike, section: str, options: Mapping[str, Any], seed: int):
        _require_local(root, section, options["engine"])
        self._root = pathlib.Path(root)
        self._folder = self._root / section.partition(".")[0] / "requests"
        self._section, self._options, self._seed = section, options, seed
        self._repeated: dict[
            str, list[int]
        ] = {}  # model -> [retries, of these with the same answer]
        self._reported: set[str] = set()  # models of which that was said

    def ask(
        self, shards: Iterable[tuple[int, Callable[[], list[Request]]]], judge: Judge
    ) -> Iterator[tuple[int, dict[str, Result]]]:
        """Yields (number of a shard, {key: result}) of each shard, as they are finished.

        shards: (number, function that returns its requests). judge: says why an answer is rejected.
        """
        waiting = iter(shards)
        first = next(waiting, None)
        if first is None:
            return
        exchange.prepare(self._folder, self._settings())
        waiting = itertools.chain([first], waiting)
        open_shards: dict[int, Iterator[dict[str, Result] | None]] = {}
        report = _progress(self._folder, self._section, self._options["workers"])
        try:
            with isolated.workers(self._folder, self._options, self._section) as watch:
                while self._open_more(open_shards, waiting, judge):
                    results = [(k, next(rounds)) for k, rounds in open_shards.items()]
                    for number, done in results:
                        if done is not None:
                            del open_shards[number]
                            yield number, done
                    if all(done is None for _, done in results):
                        watch()
                        report()
                        time.sleep(_WAIT)
        finally:
            exchange.close(self._folder)
            self._report_repeated(1)

    def _report_repeated(self, min_retries: int) -> None:
        """Says, once, which models gave most of their rejected answers again, word for word.

        min_retries: retried requests of a model before it is said.
        """
        for model, (retries, same) in self._repeated.items():
            if retries >= min_retries and same > retries / 2 and model not in self._reported:
                self._reported.add(model)
                why = (
                    "; the server seems to ignore temperature and seed, as transformers serve does "
                    "unless do_sample is true in the model's generation_config.json"
                )
                is_server = engines.ENGINES[self._options["engine"]].is_server
                say(f"{self._section}: model {model!r} gave the same answer again in {same} of "
                    f"{retries} retries with other seeds"
                    f"{why if is_server else ''}.")  # fmt: skip

    def _open_more(self, open_shards: dict, waiting: Iterator, judge: Judge) -> bool:
        """Opens shards up to _AHEAD; returns whether any is open."""
        for number, requests in itertools.islice(waiting, _AHEAD - len(open_shards)):
            open_shards[number] = self._rounds(number, requests(), judge)
        return bool(open_shards)

    def _rounds(
        self, shard: int, requests: list[Request], judge: Judge
    ) -> Iterator[dict[str, Result] | None]:
        """Requests, checks and requests again; yields None while answers are pending."""
        results: dict[str, Result] = {}
        groups: dict[str, list[str]] = {}
        last: dict[str, str] = {}
        for attempt in range(self._options["retries"] + 1):
            tasks = self._write(shard, attempt, requests)
            while not all(exchange.is_answered(self._folder, task) for task in tasks):
                yield None
            answers = (exchange.read_answers(self._folder, task) for task in tasks)
            answer_of = {answer["id"]: answer for answer in itertools.chain(*answers)}
            self._count_repeated(requests, attempt, answer_of, last)
            self._report_repeated(_REPEATED)
            _judge_answers(requests, attempt, answer_of, results, groups, judge)
            requests = [request for request in requests if _is_open(results[request.key])]
        yield results

    def _count_repeated(
        self, requests: list[Request], attempt: int, answers: Mapping[str, exchange.Row], last: dict
    ) -> None:
        """Counts answers equal to those of the previous attempt; last: {key: its text}."""
        for request in requests:
            text = answers[f"{request.key}:{attempt}"].get("text")
            if text and request.key in last:
                counts = self._repeated.setdefault(request.model, [0, 0])
                counts[0] += 1
                counts[1] += text == last[request.key]
            last[request.key] = text

    def _write(self, shard: int, attempt: int, requests: list[Request]) -> list[str]:
        """Writes a task for each model; returns their names."""
        tasks = []
        for number, model in enumerate(dict.fromkeys(self._options["models"])):
            rows = [self._row(request, attempt) for request in requests if request.model == model]
            if rows:
                tasks.append(f"{shard:05d}-{number}-{attempt}")
                exchange.write_task(self._folder, tasks[-1], rows)
        return tasks

    def _row(self, request: Request, attempt: int) -> exchange.Row:
        seed = rng(self._seed, "asking", self._section, request.key, attempt).integers(2**31)
        temperature = self._options["temperature"]
        image = request.image and os.path.relpath(self._root / request.image, self._folder)
        return {
            "id": f"{request.key}:{attempt}",
            "model": _located(request.model),
            "messages": [{"role": "user", "text": request.instruction(attempt)}],
            "image": image,
            "seed": int(seed),
            "temperature": max(temperature, _WARM) if attempt else temperature,
            "top_p": self._options["top_p"],
            "max_tokens": self._options["max_tokens"],
        }

    def _settings(self) -> exchange.Row:
        keys = (
            "engine",
            "dtype",
            "batch_size",
            "trust_remote_code",
            "claim_seconds",
            "url",
            "concurrency",
        )
        keys += ("requests_per_minute", "timeout", "max_attempts", "retry_delay")
        tables = {"parameters": dict(self._options["parameters"])}  # it may be a ConfigDict
        trusted = [_located(model) for model in self._options["trust_remote_code"]]
        return {key: self._options[key] for key in keys} | tables | {"trust_remote_code": trusted}


def _located(model: str) -> str:
    """A model as its worker gets it: a folder without "~"."""
    return os.path.expanduser(model)


def _require_model(model: str, section: str) -> None:
    """Raises UserError for a model that can only be a folder and is none; hub ids are not checked.

    A hub id is a name or owner/name.
    """
    folder = pathlib.Path(_located(model))
    is_folder = folder.is_dir() or model.startswith((".", "/", "~")) or model.count("/") > 1
    if is_folder and not (folder / "config.json").is_file():
        what = "has no config.json" if folder.is_dir() else "does not exist"
        raise UserError(
            f"config.{section}.models names {model}, which {what}; give the folder of a model, or "
            "its hub id."
        )


def _require_local(root: epath.PathLike, section: str, engine: str) -> None:
    if not files.is_local(root):
        raise UserError(
            f"engine {engine!r} of config.{section} shares files with its workers; choose a "
            f"--workdir on a file system, not {os.fspath(root)}."
        )


def _judge_answers(
    requests: list[Request],
    attempt: int,
    answers: Mapping[str, exchange.Row],
    results: dict[str, Result],
    groups: dict[str, list[str]],
    judge: Judge,
) -> None:
    """Judges the answers of one attempt; adds them to `results`, accepted ones to `groups`."""
    for request in requests:
        answer = answers[f"{request.key}:{attempt}"]
        before = results[request.key].rejected if request.key in results else ()
        earlier = groups.setdefault(request.group, [])
        text, refusal = "", Refusal("no answer", answer.get("problem", ""))
        if "problem" not in answer:
            text = clean(answer["text"])
            refusal = judge(request, request.instruction(attempt), text, answer["finish"], earlier)
        if refusal is None:
            earlier.append(text)
            results[request.key] = Result(text, attempt, before, None)
        else:
            results[request.key] = Result(None, attempt, (*before, refusal.kind), refusal)


def _is_open(result: Result) -> bool:
    return result.last is not None and result.last.kind != "no answer"


def _progress(folder: pathlib.Path, label: str, workers: int) -> Callable[[], None]:
    """Returns a function that prints progress now and then: answers so far, or what it waits for.

    workers: how many were started here.
    """
    began = last_line = time.monotonic()
    whole: dict[str, int] = {}
    before = exchange.count_answers(folder, whole)

    def report() -> None:
        nonlocal last_line
        if time.monotonic() - last_line <= SECONDS_BETWEEN_LINES:
            return
        last_line = time.monotonic()
        answers, left = exchange.count_answers(folder, whole), len(exchange.open_tasks(folder))
        what = f"{answers} answers so far, {left} task{'' if left == 1 else 's'} open"
        if answers == before:
            what = f"waiting for {isolated.first_answer(folder, workers)}"
        say(f"{label}: {last_line - began:.0f} s, {what}")

    return report
