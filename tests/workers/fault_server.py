"""An OpenAI-compatible server that misbehaves: what tests of engine `openai` ask."""

import base64
import collections
import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator

PNG = b"\x89PNG"


class Server(http.server.ThreadingHTTPServer):
    """misbehave: (body of the request, how often it came) -> name of a fault, or None."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, answer: Callable[[dict], str], misbehave=lambda body, times: None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.misbehave, self.is_streaming = answer, misbehave, False
        self.asked: collections.Counter[str] = collections.Counter()  # by the request's identity
        self.answered: collections.Counter[str] = collections.Counter()  # sent whole
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.now = self.most_at_once = 0
        self.models: list[str] = []  # that it lists
        self.in_parts = False  # whether contents are lists of parts
        self.count_tokens = None  # body -> tokens of the prompt, for servers that tell them
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        pass  # clients that went away


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        assert self.path == "/v1/models"
        listed = [{"id": name, "object": "model"} for name in self.server.models]
        self.send(200, json.dumps({"object": "list", "data": listed}).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = identity(body)
        with self.server.lock:
            self.server.times.append(time.monotonic())
            self.server.now += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.now)
            self.server.asked[key] += 1
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            times = self.server.asked[key]
        try:
            fault = self.server.misbehave(body, times)
            FAULTS[fault](self) if fault else self.reply(body, key)
        finally:
            with self.server.lock:
                self.server.now -= 1

    def reply(self, body, key):
        text, finish = self.server.answer(body), "stop"
        if isinstance(text, tuple):
            text, finish = text
        if self.server.is_streaming:
            self.stream(*(chunk(word + " ") for word in text.split()), chunk(finish=finish))
        else:
            if self.server.in_parts:
                thought = {"type": "thinking", "thinking": "Who is it?"}
                text = [thought, *({"type": "text", "text": part} for part in (text[:9], text[9:]))]
            content = {} if text is None else {"content": text}
            choice = {"message": {"role": "assistant"} | content, "finish_reason": finish}
            count = self.server.count_tokens
            usage = {"usage": {"prompt_tokens": count(body)}} if count else {}
            self.send(200, json.dumps({"choices": [choice]} | usage).encode())
        with self.server.lock:
            self.server.answered[key] += 1

    def send(self, status, data, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *chunks):
        data = b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks)
        self.send(200, data, Content_Type="text/event-stream")

    def cut(self):
        self.send(200, b'{"choices": [{"mess', length=4000)
        self.close_connection = True

    def drop(self):
        self.close_connection = True

    def hang(self):
        time.sleep(5)
        self.close_connection = True

    def drip(self):
        """A byte now and then: every read is in time, the whole never comes."""
        self.send(200, b"", length=4000)
        for _ in range(50):
            time.sleep(0.1)
            self.wfile.write(b" ")
            self.wfile.flush()
        self.close_connection = True


def chunk(content=None, finish=None):
    """One event of a stream, without what is empty."""
    delta = {"content": content} if content else {}
    ended = {"finish_reason": finish} if finish else {}
    return {"object": "chat.completion.chunk", "choices": [{"delta": delta} | ended]}


FAULTS = {
    "429": lambda h: h.send(429, b"slow down", Retry_After="0"),
    "429 wait": lambda h: h.send(429, b"slow down", Retry_After="1"),
    "500": lambda h: h.send(500, b"oops"),
    "503": lambda h: h.send(503, b""),
    "429 day": lambda h: h.send(429, b"come back", Retry_After="86400"),
    "400": lambda h: h.send(400, b'{"error": "image too large"}'),
    "401": lambda h: h.send(401, b"bad key"),
    "404": lambda h: h.send(404, b"no such model"),
    "malformed": lambda h: h.send(200, b'{"choices": [{"message": {"con'),
    "page": lambda h: h.send(200, b"<html>welcome</html>", Content_Type="text/html"),
    "no choices": lambda h: h.send(200, b'{"choices": []}'),
    "a list": lambda h: h.send(200, b"[1, 2]"),
    "stream cut": lambda h: h.stream(chunk("A woman in")),
    "stream error": lambda h: h.stream(chunk("A woman in"), {"error": "out of memory"}),
    "empty stream": lambda h: h.stream(),
    "cut": Handler.cut,
    "drop": Handler.drop,
    "hang": Handler.hang,
    "drip": Handler.drip,
}


def identity(body: dict) -> str:
    """What tells one request of a run from another: its image, its words and its seed."""
    return json.dumps([body["messages"], body.get("seed")])


def image_of(body: dict) -> bytes:
    parts = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return base64.b64decode(urls[0].partition("base64,")[2]) if urls else b""


@contextlib.contextmanager
def serving(answer: Callable[[dict], str], misbehave=lambda body, times: None) -> Iterator[Server]:
    server = Server(answer, misbehave)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
