"""A loopback server that misbehaves on request, and a machine on which nobody's own settings apply.

A test module takes the fixtures over by name: `from weight_servers import hub as hub`.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import pytest
from huggingface_hub import constants

from backends.core.types import Loading
from backends.weights.store import WeightStore

Result = TypeVar("Result")

CONTENT = random.Random(7).randbytes(200_000)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def damage(path: Path, at: int = 0) -> None:
    """One bit, and nothing about the file tells it."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def drain(steps: Generator[Loading, None, Result]) -> tuple[list[Loading], Result]:
    events = []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            return events, end.value


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.server.origin.probes += 1
        self.reply(200, b"")

    def do_GET(self) -> None:
        origin = self.server.origin
        origin.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        script = origin.scripts.pop(0) if origin.scripts else origin.always
        script(self)

    @property
    def start(self) -> int:
        """Where the request wants to begin."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def reply(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """`length` is what the server claims; the body is what it sends before it closes."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


Script = Callable[[Handler], None]


def honest(handler: Handler, content: bytes = CONTENT, stop: int | None = None) -> None:
    """Serves ranges; closes the connection after the byte `stop`, whatever it promised."""
    start = handler.start
    body = content[start:]
    sent = body if stop is None else content[start : max(start, stop)]
    if not start:
        handler.reply(200, sent, len(body))
    elif start >= len(content):
        handler.reply(416, b"", Content_Range=f"bytes */{len(content)}")
    else:
        content_range = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.reply(206, sent, len(body), Content_Range=content_range)


def dies_at(stop: int) -> Script:
    return lambda handler: honest(handler, stop=stop)


def answers(status: int) -> Script:
    return lambda handler: handler.reply(status, b"no")


def serves(content: bytes) -> Script:
    return lambda handler: honest(handler, content)


class Origin:
    """One loopback server. `scripts` answer the next requests in turn, `always` all further ones."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.probes = 0
        self.scripts: list[Script] = []
        self.always: Script = honest
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.origin = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def origins() -> Iterator[Callable[[], Origin]]:
    started: list[Origin] = []

    def start() -> Origin:
        started.append(Origin())
        return started[-1]

    yield start
    for origin in started:
        origin.close()


@pytest.fixture(autouse=True)
def nobody_elses_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("HF_", "PIP_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HF_ENDPOINT", refused())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def hub(origins: Callable[[], Origin], monkeypatch: pytest.MonkeyPatch) -> Origin:
    origin = origins()
    monkeypatch.setenv("HF_ENDPOINT", origin.url)
    return origin


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path / "root", retry_wait_s=0.0)


def refused() -> str:
    """An address on this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
