"""Two thousand turns, on pages that come and go and through the endpoint: nothing of them piles up."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from bench.browser import API, Page, Site, ask_endpoint

ROOT = Path(__file__).resolve().parents[1]
AT_ONCE, PAGES, TURNS, CALLS = 8, 50, 10, 500
"""A round has `PAGES` pages of `TURNS` turns and as many turns again through the endpoint."""
MOST_GROWTH = 1.05
SLACK = {"threads": 8, "files": 8}  # idle threads of pools and connections that are kept alive come and go

pytestmark = pytest.mark.crowd


class Room:
    """A playground in a process of its own, which tells on request how much it keeps."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.site = Site(self._line())

    def kept(self) -> dict[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return dict(json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def room() -> Iterator[Room]:
    command = [sys.executable, "-m", "tests.room_server", "quick"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Room(process)
        process.communicate()


def visit(site: Site) -> None:
    """One page from opening to closing, as the server sees it: its heartbeat lasts as long as it does."""
    with closing(Page(site)) as page, closing(http.client.HTTPConnection(site.address, timeout=60)) as heart:
        heart.request("GET", f"{API}/heartbeat/{page.session}", headers=page.headers)
        with heart.getresponse() as beats:
            beats.readline()
            for turn in range(TURNS):
                page.ask(f"Is it so, {turn}?", first="yes")


def kept_after_a_round(room: Room) -> dict[str, int]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: visit(room.site), range(PAGES)))
        list(pool.map(lambda n: ask_endpoint(room.site, f"Is it so, {n}?", "yes"), range(CALLS)))
    return room.kept()


def test_after_two_thousand_turns_everything_is_back_at_its_level(room: Room) -> None:
    before = kept_after_a_round(room)  # pools are as large as they get, and memory has been at its height
    kept_after_a_round(room)
    after = kept_after_a_round(room)
    for what in ("sessions", "iterators", "events", "streams", "waiting"):
        assert after[what] <= before[what] + 2, (what, before, after)
    for what, slack in SLACK.items():
        assert after[what] <= before[what] + slack, (what, before, after)
    assert after["bytes"] <= MOST_GROWTH * before["bytes"], (before, after)
