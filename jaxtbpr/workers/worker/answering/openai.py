"""Engine `openai`: asks a server that speaks OpenAI's chat completions (vLLM, SGLang, ...).

Only the standard library is used. Transient errors (429, 5xx, time-outs, broken connections,
answers that are not JSON) are retried with exponential backoff; errors of one request (400, 413,
422) are that request's problem; errors of all requests (401, 403, 404, a server that never answers
or refuses everything) stop the worker, and nothing is lost.
"""

import base64
import concurrent.futures
import contextlib
import datetime
import difflib
import email.utils
import http.client
import json
import mimetypes
import os
import pathlib
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from typing import Any, NoReturn

from .errors import Stop, note
from .exchange import Row

_LONGEST_PAUSE = 60.0  # seconds, of the backoff
_LONGEST_WAIT = 600.0  # longest Retry-After in seconds that is waited for; beyond, the worker stops
_PROBLEMS_OF_ONE = (400, 413, 415, 422)
_PROBLEMS_OF_ALL = (401, 403, 404)
_BETWEEN_NOTES = 60.0  # seconds
_TOO_MANY = 20  # refused requests, where not one was answered
_CHUNK = 65536
_MISSHAPEN = (KeyError, IndexError, TypeError, AttributeError)


class TryAgain(Exception):
    """A failed attempt. wait: seconds that the server asks for; status: its HTTP status."""

    def __init__(self, reason: str, wait: float = 0.0, status: int | None = None):
        super().__init__(reason)
        self.wait, self.status = wait, status


class Pace:
    """Lets at most `per_minute` requests begin in a minute, evenly; 0 = no limit."""

    def __init__(self, per_minute: float):
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Returns when the next request may begin."""
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + self._gap
        time.sleep(max(0.0, start - time.monotonic()))


class Server:
    """Asks one model of a server.

    folder: that image paths start from; settings: "url" (with /v1), "concurrency",
    "requests_per_minute", "timeout" (seconds of an attempt), "max_attempts", "retry_delay"
    (seconds), "parameters" (parameter of a request -> its name at this server, "" to leave it out).
    The key is the environment variable OPENAI_API_KEY, if there is one.
    """

    def __init__(self, folder: pathlib.Path, settings: Row, model: str):
        self._folder, self._settings, self._model = folder, settings, model
        self._base = settings["url"].rstrip("/")
        self._url = self._base + "/chat/completions"
        self._pace = Pace(settings["requests_per_minute"])
        self._retry_delay = settings["retry_delay"]
        self._answered = 0  # with a text: if none, the fault is the server's, not the request's
        self._problems = 0
        self._noted = -_BETWEEN_NOTES  # when a failed attempt was last reported
        self._is_ended = threading.Event()
        self._sight = (
            threading.Lock()
        )  # held for good by the request that checks whether images are used

    def __call__(self, requests: list[Row], done: Collection[str]) -> Iterator[Row]:
        """Yields answers as they come, at most `concurrency` requests at a time."""
        todo = [request for request in requests if request["id"] not in done]
        threads = concurrent.futures.ThreadPoolExecutor(self._settings["concurrency"])
        held: list[Row] = []  # problems that may be the server's: not to be stored then
        try:
            started = [threads.submit(self._answer, request) for request in todo]
            for future in concurrent.futures.as_completed(started):
                held.append(future.result())
                if self._answered:
                    yield from held
                    held.clear()
            self._require_difference(held)
            yield from held
        finally:
            self._is_ended.set()  # no further attempts of running requests
            threads.shutdown(wait=False, cancel_futures=True)
            self._is_ended = threading.Event()

    def _answer(self, request: Row) -> Row:
        """Tries until there is an answer. Raises Stop where the server answers no request."""
        is_ended, attempts = self._is_ended, self._settings["max_attempts"]
        jitter = random.Random(f"{request['seed']} {request['id']}")
        try:
            body = self._body(request)
        except OSError as error:
            return {"id": request["id"], "problem": f"the image cannot be read: {error}"}
        before, attempt = 0, 0
        while True:
            self._pace.wait()
            try:
                answer = {"id": request["id"]} | self._try(body)
            except TryAgain as error:
                if attempt == 0:
                    before = self._answered  # not earlier: it may have been well at the start
                pause = min(_LONGEST_PAUSE, self._retry_delay * 2**attempt)
                pause = max(error.wait, pause * jitter.uniform(0.5, 1.5))
                self._note(error)
                if error.wait > _LONGEST_WAIT:
                    raise Stop(f"{self._url} asks to wait {_duration(error.wait)} ({error}); rerun "
                               "the same command then, nothing is lost.") from error  # fmt: skip
                attempt += 1
                if attempt == attempts:
                    return self._unanswered(request, attempts, error, before)
                if is_ended.wait(pause):
                    raise Stop("ended") from error
            else:
                self._count(answer)
                self._note_blindness(request, answer.pop("prompt_tokens", None))
                return answer

    def _unanswered(self, request: Row, attempts: int, last: TryAgain, before: int) -> Row:
        """The answer to a request that had none; before: answers of others at its first failure.

        Raises Stop where there has been none since.
        """
        if self._answered == before:
            why = "restart it, or check the config keys url and timeout."
            if last.status:
                why = self._unlisted() or f"check its log, and whether it serves {self._model!r}."
            raise Stop(f"no answer from {self._url} after {attempts} attempts ({last}); {why}")
        return {"id": request["id"], "problem": f"no answer after {attempts} attempts: {last}"}

    def _note(self, error: TryAgain) -> None:
        """Says now and then that attempts fail, so that the user knows what a run waits for."""
        if time.monotonic() - self._noted >= _BETWEEN_NOTES:
            self._noted = time.monotonic()
            wait = f" and asks to wait {_duration(error.wait)}" if error.wait else ""
            why = self._unlisted() if error.status and not self._answered else ""
            note(f"no answer from {self._url} ({error}){wait}; requests are tried up to "
                 f"{self._settings['max_attempts']} times{'; ' + why if why else '.'}")  # fmt: skip

    def _unlisted(self) -> str:
        """Returns a sentence where the server does not list the model; else ""."""
        try:
            with urllib.request.urlopen(self._sent("/models"), timeout=10) as response:
                names = [str(one["id"]) for one in _json(response.read())["data"]]
        except (OSError, http.client.HTTPException, ValueError, *_MISSHAPEN):
            return ""
        if not names or self._model in names:
            return ""
        near = difflib.get_close_matches(self._model, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names[:5])}."
        return f"it does not list model {self._model!r}; {hint}"

    def _sent(self, path: str, body: bytes | None = None) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        return urllib.request.Request(self._base + path, body, headers)

    def _count(self, answer: Row) -> None:
        """Raises Stop where all requests are refused, since then the fault is not in a request."""
        self._answered += "text" in answer
        self._problems += "problem" in answer
        if self._problems >= _TOO_MANY and not self._answered:
            self._stop_refused(answer["problem"])

    def _note_blindness(self, request: Row, tokens: int | None) -> None:
        """Warns once where an image adds no token to the prompt, if the server reports its tokens.

        `transformers serve` silently ignores images for models that take none.
        """
        is_known = bool(request["image"] and tokens)
        if not is_known or not self._sight.acquire(blocking=False):
            return
        self._pace.wait()
        with contextlib.suppress(TryAgain, Stop):
            without = self._try(self._body(request | {"image": None, "max_tokens": 1}))
            if without.get("prompt_tokens") == tokens:
                note(
                    f"model {self._model!r} gets {tokens} tokens from the server with an image and "
                    "as many without: it seems to ignore images and to invent captions; name a "
                    "model that takes images in the config key `models` of this stage."
                )

    def _require_difference(self, held: list[Row]) -> None:
        """Raises Stop where several requests, and all, are refused in the same words."""
        problems = {row["problem"] for row in held}
        if len(held) > 1 and len(problems) == 1:
            self._stop_refused(*problems)

    def _stop_refused(self, problem: str) -> NoReturn:
        raise Stop(
            f"{self._url} refuses every request: {problem}; check its settings and those "
            "of this stage."
        )

    def _body(self, request: Row) -> bytes:
        messages = [
            {"role": message["role"], "content": [{"type": "text", "text": message["text"]}]}
            for message in request["messages"]
        ]
        if request["image"]:
            url = {"url": _data_url(self._folder / request["image"])}
            messages[-1]["content"].insert(0, {"type": "image_url", "image_url": url})
        drawn = {key: request[key] for key in ("seed", "temperature", "top_p")}
        drawn |= {"max_tokens": request["max_tokens"]}
        names = self._settings["parameters"]
        parameters = {names[key]: value for key, value in drawn.items() if names[key]}
        return json.dumps({"model": self._model, "messages": messages} | parameters).encode()

    def _try(self, body: bytes) -> Row:
        """One request. Returns {"text", "finish"}, {"problem"}. Raises TryAgain and Stop.

        "prompt_tokens" is added where the server reports it.
        """
        post = self._sent("/chat/completions", body)
        deadline = time.monotonic() + self._settings["timeout"]
        try:
            with urllib.request.urlopen(post, timeout=self._settings["timeout"]) as response:
                data = _read(response, deadline)
                is_stream = response.headers.get_content_type() == "text/event-stream"
                return (_parse_stream if is_stream else _parse)(data)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error)
        except ValueError as error:
            raise TryAgain(str(error)) from error
        except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
            raise TryAgain(f"{type(error).__name__}: {error}") from error

    def _refused(self, error: urllib.error.HTTPError) -> Row:
        message = f"HTTP {error.code} {error.reason}: {_excerpt(error)}"
        if error.code in _PROBLEMS_OF_ALL:
            raise Stop(
                f"{self._url} refuses model {self._model!r} ({message}); " + (self._unlisted() or
                "check the url, the model's name and the environment variable OPENAI_API_KEY.")
            ) from error  # fmt: skip
        if error.code in _PROBLEMS_OF_ONE:
            hint = _parameter_hint(message, self._settings["parameters"])
            return {"problem": f"the server refuses the request ({message}){hint}"}
        wait = _retry_after(error.headers.get("Retry-After"))
        raise TryAgain(message, wait, error.code) from error


def _parameter_hint(message: str, names: Row) -> str:
    """Returns advice where a refusal names a parameter of the request."""
    named = [key for key, name in names.items() if name and name in message]
    keys = " and ".join(f"parameters.{key}" for key in named)
    return f"; config key {keys} of this stage renames it, '' leaves it out" if named else ""


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Reads to the end. Raises TimeoutError after the deadline, also if bytes still trickle in."""
    parts = []
    while part := response.read1(_CHUNK):
        parts.append(part)
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
    whole = b"".join(parts)
    promised = response.headers.get("Content-Length")
    if promised and len(whole) < int(promised):
        raise http.client.IncompleteRead(whole, int(promised) - len(whole))
    return whole


def _parse(data: bytes) -> Row:
    """Returns the answer of a response. Raises ValueError where it is not one."""
    response = _json(data)
    try:
        choice = response["choices"][0]
        text, finish = _text(choice["message"].get("content")), choice.get("finish_reason")
        tokens = (response.get("usage") or {}).get("prompt_tokens")
    except _MISSHAPEN as error:
        raise ValueError(f"not a chat completion: {data[:200]!r}") from error
    finish = "length" if finish == "length" else "stop"
    return {"text": text, "finish": finish} | ({"prompt_tokens": tokens} if tokens else {})


def _parse_stream(data: bytes) -> Row:
    """Likewise of an event stream, which `transformers serve` sends unasked."""
    lines = [line[5:] for line in data.splitlines() if line.startswith(b"data:")]
    events = [_json(line) for line in lines if line.strip() != b"[DONE]"]
    try:
        choices = [event["choices"][0] for event in events if event["choices"]]
        text = "".join(_text(choice["delta"].get("content")) for choice in choices)
        finish = choices[-1].get("finish_reason")
    except _MISSHAPEN as error:
        raise ValueError(f"not a stream of a chat completion: {data[-200:]!r}") from error
    if not finish:
        raise ValueError(f"the stream stops before its end: {data[-200:]!r}")
    return {"text": text, "finish": "length" if finish == "length" else "stop"}


def _text(content: Any) -> str:
    """Returns the text of a message: a string, nothing, or a list of parts ({"type", "text"}).

    Parts of another type, such as reasoning, are left out. Raises ValueError for
    anything else.
    """
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] in ("text", "output_text"))
    if content is not None and not isinstance(content, str):
        raise ValueError(f"its content is not text: {content!r:.200}")
    return content or ""


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise ValueError(f"the answer is not JSON: {data[:80]!r}") from error


def _excerpt(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(300).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return "no explanation"


def _retry_after(value: str | None) -> float:
    """Returns the seconds of a Retry-After header, which holds seconds or a date; 0 for none."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date - datetime.datetime.now(date.tzinfo)).total_seconds())


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.0f} s"


def _data_url(path: pathlib.Path) -> str:
    mime_type = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{mime_type};base64,{base64.b64encode(path.read_bytes()).decode()}"
