"""Whose page a session is, and whose an event: nobody can name what is not theirs; and when it is forgotten."""

from __future__ import annotations

import asyncio
import datetime
import gc
import json
import re
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import gradio as gr
import httpx
import pytest
from gradio.state_holder import StateHolder
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from backends.adapters.scripted import Script
from backends.catalog.cards import Card
from backends.core.types import GenerationRequest
from tests.patience import PATIENCE_S
from tests.served import scripted_engine, serving
from ui.gradio_joint.lean_gradio import LeanBlocks
from ui.visitors import owners
from ui.visitors.owners import (
    EMPTY_SECONDS,
    KEPT_SECONDS,
    NO_EVENT,
    Named,
    forget,
    is_theirs,
    new_page,
    page_of,
    pages_of,
    sweep,
)
from ui.visitors.people import Visitor

NOW = datetime.datetime(2026, 1, 1, 12)

ann = Visitor("name Ann", "seat 1", "Ann", "users")
ben = Visitor("seat 2", "2")
eve = Visitor("seat 3", "3", "calm otter", "class")
nobody = Visitor("address 203.0.113.7")
neighbour = Visitor("address 203.0.113.8")
PEOPLE = [ann, ben, eve, nobody, neighbour]
visitors = st.sampled_from(PEOPLE)
words = st.text(max_size=8)


def session(data: dict[int, Any] | None = None, *, closed: bool = False) -> Any:
    return SimpleNamespace(state_data=data or {}, is_closed=closed)


class Holder:
    """As gradio's StateHolder, of which it notes what it is asked to delete."""

    def __init__(self, **sessions: Any) -> None:
        self.session_data = sessions
        self.time_last_used = dict.fromkeys(sessions, NOW)
        self.lock = threading.Lock()
        self.deleted: list[str] = []
        streams: dict[str, Any] = {page: set() for page in sessions}
        self.queue = SimpleNamespace(
            pending_messages_per_session=streams, pending_event_ids_session=dict(streams), event_ids_to_events={}
        )
        self.blocks = SimpleNamespace(_queue=self.queue)

    def delete_state(self, page: str) -> None:
        assert not self.lock.locked()
        self.deleted.append(page)


# --- whose it is ---------------------------------------------------------------------------------


@given(one=visitors, other=visitors, word=words, another=words)
def test_nobody_can_name_what_is_somebody_elses(one: Visitor, other: Visitor, word: str, another: str) -> None:
    page = page_of(one, word)
    assert (page == page_of(other, another)) == ((one.key, word) == (other.key, another))
    assert is_theirs(page, one)
    assert is_theirs(page, other) == (one.key == other.key)
    assert page_of(other, page) != page, "nor by the name that it has on the server"
    assert re.fullmatch("[0-9a-f]+", page)


@given(first=st.text(), second=st.text(), word=st.text(st.characters(categories=["L", "N", "Cs"])), another=st.text())
def test_no_name_of_a_person_and_a_page_reads_like_another_pair(
    first: str, second: str, word: str, another: str
) -> None:
    same = page_of(Visitor(first), word) == page_of(Visitor(second), another)
    assert same == ((first, word) == (second, another))


def test_a_name_is_the_same_person_at_every_computer() -> None:
    page = page_of(ann, "a page")
    assert page_of(Visitor(ann.key, "another seat", "Ann", "users"), "a page") == page
    assert page_of(Visitor(ann.key, "", "Ann", "users"), "a page") == page
    assert page_of(Visitor("seat 1", "1"), "a page") != page


def test_a_call_that_names_no_page_gets_one_of_its_callers() -> None:
    pages = {new_page(visitor) for visitor in PEOPLE for _ in range(3)}
    assert len(pages) == 3 * len(PEOPLE)
    for visitor in PEOPLE:
        assert sum(is_theirs(page, visitor) for page in pages) == 3


@given(owner=visitors, asker=visitors)
def test_an_event_is_its_owners_until_its_end_was_told(owner: Visitor, asker: Visitor) -> None:
    holder = Holder(**{page_of(owner, "a page"): session()})
    told = json.dumps({"event_id": "x"}).encode()
    assert json.loads(Named(holder, asker).body(told)) == {"event_id": NO_EVENT}
    holder.queue.pending_event_ids_session[page_of(owner, "a page")].add("x")
    mine = asker.key == owner.key
    assert json.loads(Named(holder, asker).body(told)) == {"event_id": "x" if mine else NO_EVENT}
    assert Named(holder, asker).path({"event_id": "x"}) == {"event_id": "x" if mine else NO_EVENT}


@given(query=st.binary(max_size=40))
def test_a_query_that_names_nothing_is_left_as_it_is(query: bytes) -> None:
    read = QueryParams(query)
    if not {"session_hash", "event_id", "upload_id"} & set(read):
        assert Named(Holder(), ben).query(query) == query


@given(told=st.lists(st.tuples(st.sampled_from(["session_hash", "upload_id", "x", "é"]), words), max_size=4))
def test_of_a_query_all_else_stays_in_its_place(told: list[tuple[str, str]]) -> None:
    meant = QueryParams(Named(Holder(), ben).query(urlencode(told).encode())).multi_items()
    read = QueryParams(urlencode(told).encode()).multi_items()
    for (name, value), (before, said) in zip(meant, read, strict=True):
        assert name == before
        assert value == (page_of(ben, said) if name in ("session_hash", "upload_id") else said)


@given(owners=st.lists(visitors, max_size=10))
def test_everybody_has_their_own_pages(owners: list[Visitor]) -> None:
    pages = [page_of(owner, f"page {n}") for n, owner in enumerate(owners)]
    holder = Holder(**{page: session() for page in pages[::2]})
    for page in pages[1::2]:
        holder.queue.pending_messages_per_session[page] = object()  # one that waits, and has not begun
    for visitor in PEOPLE:
        own = [page for page, owner in zip(pages, owners, strict=True) if owner == visitor]
        assert pages_of(holder, visitor.key) == sorted(own)


# --- forgetting ----------------------------------------------------------------------------------


def test_a_page_is_forgotten_with_all_that_is_kept_of_it_and_no_other() -> None:
    holder = Holder(page=session({1: "a talk"}), other=session({1: "another"}))
    forget(holder, "page")
    assert holder.deleted == ["page"]
    assert list(holder.session_data) == list(holder.time_last_used) == ["other"]
    assert list(holder.queue.pending_messages_per_session) == ["other"]
    assert list(holder.queue.pending_event_ids_session) == ["other"]
    assert not holder.lock.locked()


def test_what_is_forgotten_already_can_be_forgotten_again() -> None:
    holder = Holder(page=session())
    for _ in range(2):
        forget(holder, "page")
    assert holder.session_data == {}


idle_seconds = st.integers(-10, 2 * KEPT_SECONDS) | st.sampled_from(
    [EMPTY_SECONDS - 1, EMPTY_SECONDS, KEPT_SECONDS - 1, KEPT_SECONDS]
)
pages = st.tuples(st.booleans(), st.booleans(), idle_seconds)


@given(pages=st.lists(pages, max_size=8))
def test_only_what_nobody_comes_back_to_is_swept_away(pages: list[tuple[bool, bool, int]]) -> None:
    sessions = {
        f"page {n}": session({1: "x"} if full else {}, closed=closed) for n, (closed, full, _) in enumerate(pages)
    }
    holder = Holder(**sessions)
    for (_, _, idle), page in zip(pages, sessions, strict=True):
        holder.time_last_used[page] = NOW - datetime.timedelta(seconds=idle)
    gone = sweep(holder, NOW)
    assert gone == len(sessions) - len(holder.session_data) == len(holder.deleted)
    for (closed, full, idle), page in zip(pages, sessions, strict=True):
        if full and (not closed or idle < KEPT_SECONDS):
            assert page in holder.session_data, "what is kept of an open page, or of one just closed, stays"
        if idle < EMPTY_SECONDS:
            assert page in holder.session_data, "an answer may be on its way"
        if closed and idle >= KEPT_SECONDS:
            assert page not in holder.session_data, "an hour is promised"
        if not full and idle >= EMPTY_SECONDS:
            assert page not in holder.session_data
    assert sweep(holder, NOW) == 0, "once is enough"


@pytest.mark.parametrize("other_pages", [0, 1])
def test_of_one_persons_pages_the_oldest_are_forgotten_when_they_are_very_many(
    monkeypatch: pytest.MonkeyPatch, other_pages: int
) -> None:
    monkeypatch.setattr(owners, "MOST_PAGES", 3)
    mine = [page_of(ben, f"page {n}") for n in range(3 + other_pages)]
    theirs = [page_of(eve, f"page {n}") for n in range(3)]
    holder = Holder(**{page: session({1: "a talk"}) for page in (*mine, *theirs)})
    for age, page in enumerate(mine):
        holder.time_last_used[page] = NOW - datetime.timedelta(seconds=age)
    assert sweep(holder, NOW) == other_pages
    assert set(holder.session_data) == {*mine[:3], *theirs}


def test_a_page_whose_time_is_unknown_is_as_if_it_had_just_come() -> None:
    holder = Holder(page=session(closed=True))
    holder.time_last_used.clear()
    assert sweep(holder, NOW + datetime.timedelta(days=1)) == 0


def test_sweeping_goes_by_the_clock_where_no_time_is_given() -> None:
    holder = Holder(page=session(), other=session())
    holder.time_last_used["other"] = datetime.datetime.now()
    assert sweep(holder) == 1
    assert list(holder.session_data) == ["other"]


def test_a_page_for_which_something_runs_or_waits_stays() -> None:
    holder = Holder(page=session(), other=session(closed=True), third=session())
    holder.queue.event_ids_to_events = {
        n: SimpleNamespace(session_hash=page) for n, page in enumerate(["page", "other"])
    }
    assert sweep(holder, NOW + datetime.timedelta(days=1)) == 1
    holder.queue.event_ids_to_events.clear()
    assert sweep(holder, NOW + datetime.timedelta(days=1)) == 2


# --- gradio's own --------------------------------------------------------------------------------


@pytest.fixture
def gradios() -> Iterator[tuple[StateHolder, int, list[Any]]]:
    """The real thing, the id of a state in it, and what of that was deleted."""
    deleted: list[Any] = []

    async def made() -> tuple[StateHolder, int]:
        with LeanBlocks(analytics_enabled=False) as blocks:
            state = gr.State(None, delete_callback=deleted.append)
            blocks.queue()
        holder = StateHolder()
        holder.set_blocks(blocks)
        return holder, state._id

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with ThreadPoolExecutor(1) as thread:
            holder, state = thread.submit(asyncio.run, made()).result()
        yield holder, state, deleted
        gc.collect()


def test_gradios_holder_keeps_owners_and_forgets_what_we_forget(gradios: tuple[StateHolder, int, list[Any]]) -> None:
    holder, state, deleted = gradios
    a, b, c = page_of(ann, "a"), page_of(ben, "b"), page_of(ann, "c")
    for page, name in ((a, "a"), (b, "b"), (c, "c")):
        holder[page][state] = f"what {name} keeps"
    assert pages_of(holder, ann.key) == sorted([a, c])

    forget(holder, a)
    assert deleted == ["what a keeps"]
    assert a not in holder
    assert pages_of(holder, ann.key) == [c]

    holder[b].is_closed = True
    assert sweep(holder) == 0
    later = datetime.datetime.now() + datetime.timedelta(seconds=KEPT_SECONDS)
    assert sweep(holder, later) == 1
    assert list(holder.session_data) == list(holder.time_last_used) == [c]
    assert deleted == ["what a keeps", "what b keeps"]


# --- a playground that is served -----------------------------------------------------------------


class Slow:
    """An engine's script that ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.end = threading.Event(), threading.Event()

    def __call__(self, request: GenerationRequest) -> Script:
        self.begun.set()
        assert self.end.wait(PATIENCE_S)
        return Script(answer=("yes",))


def test_an_answer_that_takes_long_outlives_every_sweep(card: Card) -> None:
    slow = Slow()
    with serving(scripted_engine(card, slow)) as app, httpx.Client(base_url=app.url, timeout=PATIENCE_S) as client:
        holder = app.blocks.app.state_holder
        values = ["Why?", *[None] * 13]
        event = client.post("gradio_api/call/chat", json={"data": values}).raise_for_status().json()["event_id"]
        with ThreadPoolExecutor(1) as thread:
            told = thread.submit(client.get, f"gradio_api/call/chat/{event}")
            try:
                assert slow.begun.wait(PATIENCE_S)
                swept = sweep(holder, datetime.datetime.now() + datetime.timedelta(seconds=EMPTY_SECONDS))
            finally:
                slow.end.set()
            answer = told.result().text
        assert (swept, "event: complete" in answer, '"answer": "yes"' in answer) == (0, True, True)
        queue = app.blocks._queue
        until = time.monotonic() + PATIENCE_S
        while queue.event_ids_to_events and time.monotonic() < until:
            time.sleep(0.01)  # gradio is done with an event a moment after its caller is
        assert sweep(holder, datetime.datetime.now() + datetime.timedelta(seconds=EMPTY_SECONDS)) == 1
        assert not holder.session_data
