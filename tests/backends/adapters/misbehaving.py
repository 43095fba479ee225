"""A server that speaks OpenAI's chat completions and misbehaves on command."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Handler"], None]
MODEL = "Qwen/Qwen3-8B"


class Misbehaving(ThreadingHTTPServer):
    """`act` answers the questions, `listed` that for models; the next `unhealthy` ones for health are told to wait;
    `counted` tokens has every prompt.
    `bodies`, `heads`: what was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.act: Act = lambda handler: handler.stream(chunk("Hello"), chunk(" there"), finish())
        self.listed: Any = {"data": [{"id": MODEL, "owned_by": "vllm", "max_model_len": 4096}]}
        self.listed_status = 200
        self.unhealthy = 0
        self.counted: int | None = None
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.hung_up = threading.Event()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up is no error."""
        self.hung_up.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Misbehaving

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.say(self.server.listed_status, self.server.listed)
        elif self.path == "/health":
            self.server.unhealthy -= 1
            self.say(503 if self.server.unhealthy >= 0 else 200, {})
        else:
            self.say(404, {"error": {"message": "secret /srv/path"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            known = self.path == "/tokenize" and self.server.counted is not None
            self.say(200 if known else 404, {"count": self.server.counted})
            return
        self.server.bodies.append(body)
        self.server.heads.append({name.lower(): value for name, value in self.headers.items()})
        self.server.act(self)

    def say(self, status: int, body: Any, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()

    def stream(self, *pieces: bytes, done: bool = True) -> None:
        self.begin()
        for piece in (*pieces, *([b"data: [DONE]\n\n"] if done else [])):
            self.wfile.write(piece)
            self.wfile.flush()
        self.close_connection = True

    def talk(self, *pieces: bytes) -> None:
        """The pieces again and again until the other side goes or the test is over: it has heard of no limit."""
        self.begin()
        self.close_connection = True
        while not self.server.over.is_set():
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()

    def hang(self) -> None:
        """Says nothing more until the other side goes or the test is over."""
        self.connection.settimeout(0.05)
        while not self.server.over.is_set():
            try:
                if not self.connection.recv(1):
                    self.server.hung_up.set()
                    return
            except TimeoutError:
                time.sleep(0.01)
            except OSError:
                self.server.hung_up.set()
                return


def data(**fields: Any) -> bytes:
    return f"data: {json.dumps(fields, ensure_ascii=False)}\n\n".encode()


def chunk(text: str = "", **delta: Any) -> bytes:
    return data(choices=[{"index": 0, "delta": {"content": text, **delta} if text else delta, "finish_reason": None}])


def finish(reason: str = "stop", **fields: Any) -> bytes:
    return data(choices=[{"index": 0, "delta": {}, "finish_reason": reason}], **fields)


@contextmanager
def misbehaving() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
