"""Connections to one server, kept open between requests, each of which can be cut from another thread.

A pool of httpx's own would not say which connection a request got before the first byte of its answer, and that is
when a person most wants to stop. So each line is a client with one connection, whose socket it knows.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx


class _Line:
    """A client with one connection, and that connection's socket once there is one."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.socket: socket.socket | None = None

    def cut(self) -> None:
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


class Link:
    """A line lent to one request: `client` sends over it, `extensions` belong to the request if it is to be cut."""

    def __init__(self, line: _Line) -> None:
        self.client = line.client
        self.extensions = {"trace": self._trace}
        self._line = line
        self._lock = threading.Lock()
        self._cut = self._returned = False

    def hang_up(self) -> None:
        """Ends the request from any thread, before the first byte too; of no effect once the line has gone back."""
        with self._lock:
            if not self._returned:
                self._cut = True
                self._line.cut()

    def give_back(self) -> None:
        with self._lock:
            self._returned = True

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """For httpcore, which calls it at every step of a request."""
        if event == "connection.connect_tcp.complete":
            self._line.socket = info["return_value"].get_extra_info("socket")
        if self._cut:
            self._line.cut()


class Links:
    """As many lines as there are requests at once; `connect` makes the client of a new one."""

    def __init__(self, connect: Callable[[], httpx.Client]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._all: list[_Line] = []
        self._free: list[_Line] = []

    @contextmanager
    def borrow(self) -> Iterator[Link]:
        with self._lock:
            line = self._free.pop() if self._free else None
        if line is None:
            line = _Line(self._connect())
            with self._lock:
                self._all.append(line)
        link = Link(line)
        try:
            yield link
        finally:
            link.give_back()
            with self._lock:
                self._free.append(line)

    def close(self) -> None:
        """Cuts every line."""
        with self._lock:
            lines, self._all, self._free = self._all, [], []
        for line in lines:
            line.cut()
            line.client.close()
