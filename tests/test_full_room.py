"""Thirty-two people at once: everybody is served, nobody waits much longer than the others or gets somebody else's."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from prometheus_client.parser import text_string_to_metric_families

from tests.served import leaks_of_gradio

ROOT = Path(__file__).resolve().parents[1]
PEOPLE, QUESTIONS = 32, 3
LONGEST_WAIT = 1.5  # times the median

pytestmark = pytest.mark.crowd


@contextmanager
def room(engine: str) -> Iterator[str]:
    """The address of a playground in a process of its own."""
    command = [sys.executable, "-m", "tests.room_server", engine]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.communicate()


@dataclass
class Person:
    """One program like a browser: its own cookie, its own session, a marker in all that it sends."""

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
            assert first is not None, item["error"]
            self.waits.append(first)
            self.finals.append(item)


def crowd(url: str, text: str, given: Callable[[int], dict[str, Any]]) -> list[Person]:
    """Everybody asks at the same moment, and again as soon as they are answered."""
    begin = threading.Barrier(PEOPLE)
    with ThreadPoolExecutor(PEOPLE) as pool:
        clients = list(pool.map(lambda _: Client(url, verbose=False), range(PEOPLE)))
        people = [Person(f"person-{n:02}-of-this-room", client) for n, client in enumerate(clients)]
        list(pool.map(lambda n: people[n].ask(text, begin, **given(n)), range(PEOPLE)))
    check(url, people)
    with leaks_of_gradio():
        for client in clients:
            client.close()
        del clients
    return people


def check(url: str, people: list[Person]) -> None:
    figures = {family.name: family for family in text_string_to_metric_families(httpx.get(f"{url}metrics").text)}
    assert figures["playground_people"].samples[0].value == PEOPLE, "cookies were mixed up"
    markers = {person.marker for person in people}
    for person in people:
        assert [final["state"] for final in person.finals] == ["done"] * QUESTIONS
        told = str(person.finals)
        assert not [marker for marker in markers - {person.marker} if marker in told], "somebody else's words"
    waits = [wait for person in people for wait in person.waits]
    middle = statistics.median(waits)
    print([[round(w, 1) for w in sorted(p.waits[k] for p in people)][::6] for k in range(QUESTIONS)], middle)
    assert max(waits) <= LONGEST_WAIT * middle, f"{max(waits):.2f} s where the median is {middle:.2f} s"


def test_everybody_is_served_alike_and_gets_their_own() -> None:
    with room("scripted") as url:
        people = crowd(url, "What?", lambda n: {"seed": n, "system": f"You are number {n}."})
    for n, person in enumerate(people):
        for number, final in enumerate(person.finals):
            assert final["answer"].startswith(f"You are number {n}. | {person.marker} {number}: What? | {n} ")


@pytest.mark.model
def test_on_the_real_model_too() -> None:
    given = {"temperature": 0.0, "max_new_tokens": 8}
    with room("real") as url:
        crowd(url, "Write three words about the sea.", lambda n: given | {"seed": n})
