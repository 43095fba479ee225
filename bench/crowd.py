"""A crowd in front of a playground that runs in a process of its own: what they wait, and what stays behind of them."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradio_client import Client

from bench.browser import API, Page, Site, ask_endpoint

ROOT = Path(__file__).resolve().parents[1]
PEOPLE, QUESTIONS = 32, 3
AT_ONCE, PAGES, TURNS, CALLS = 8, 50, 10, 500
"""A round has `PAGES` pages of `TURNS` turns and as many turns again through the endpoint."""


class Room:
    """A playground at `url`, which tells on request how much it keeps."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self.url = self._line()

    def kept(self) -> dict[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return dict(json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def room(engine: str) -> Iterator[Room]:
    """`engine`: one that bench/room_server.py knows."""
    command = [sys.executable, "-m", "bench.room_server", engine]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Room(process)
        process.communicate()


@dataclass
class Person:
    """One program like a browser: its own cookie, its own session, a marker in all that it sends.

    `waits`: seconds from each question to the first token of its answer; `finals`: the last item of each.
    """

    marker: str
    client: Client
    waits: list[float] = field(default_factory=list)
    finals: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, text: str, begin: threading.Barrier, **given: Any) -> None:
        begin.wait()
        for number in range(QUESTIONS):
            sent, first = time.monotonic(), None
            for item in self.client.submit(f"{self.marker} {number}: {text}", api_name="/chat", **given):
                if first is None and item["answer"]:
                    first = time.monotonic() - sent
            if first is None:
                raise RuntimeError(f"no token came: {item['error']}")
            self.waits.append(first)
            self.finals.append(item)


def crowd(url: str, text: str, given: Callable[[int], dict[str, Any]]) -> list[Person]:
    """Everybody asks at the same moment, the model being loaded, and again as soon as they are answered.

    `given`: what each one sends beside the text.
    """
    begin = threading.Barrier(PEOPLE)
    with ThreadPoolExecutor(PEOPLE) as pool:
        clients = list(pool.map(lambda _: Client(url, verbose=False), range(PEOPLE)))
        list(clients[0].submit("Hello?", api_name="/chat", max_new_tokens=1))
        people = [Person(f"person-{n:02}-of-this-room", client) for n, client in enumerate(clients)]
        list(pool.map(lambda n: people[n].ask(text, begin, **given(n)), range(PEOPLE)))
    return people


def visit(site: Site) -> None:
    """One page from opening to closing, as the server sees it: its heartbeat lasts as long as it does."""
    with closing(Page(site)) as page, closing(http.client.HTTPConnection(site.address, timeout=60)) as heart:
        heart.request("GET", f"{API}/heartbeat/{page.session}", headers=page.headers)
        with heart.getresponse() as beats:
            beats.readline()
            for turn in range(TURNS):
                page.ask(f"Is it so, {turn}?", first="yes")


def kept_after_a_round(room: Room) -> dict[str, int]:
    """What `Room.kept` says after a thousand turns; a round is `2 * PAGES * TURNS` of them."""
    site = Site(room.url)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: visit(site), range(PAGES)))
        list(pool.map(lambda n: ask_endpoint(site, f"Is it so, {n}?", "yes"), range(CALLS)))
    return room.kept()
