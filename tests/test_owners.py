"""Whose page a session is: its first visitor's and nobody else's, until it is forgotten."""

from __future__ import annotations

import asyncio
import datetime
import gc
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio.state_holder import StateHolder
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.scripted import Script
from backends.catalog import Card
from backends.types import GenerationRequest
from tests.patience import PATIENCE_S
from tests.served import scripted_engine, serving
from ui.lean_gradio import LeanBlocks
from ui.owners import EMPTY_SECONDS, KEPT_SECONDS, claim, forget, is_of_another, pages_of, sweep
from ui.people import Visitor

NOW = datetime.datetime(2026, 1, 1, 12)

ann = Visitor("name Ann", "seat 1", "Ann", "users")
ben = Visitor("seat 2", "2")
eve = Visitor("seat 3", "3", "calm otter", "class")
nobody = Visitor("address 203.0.113.7")
neighbour = Visitor("address 203.0.113.8")
PEOPLE = [ann, ben, eve, nobody, neighbour]
visitors = st.sampled_from(PEOPLE)


def session(data: dict[int, Any] | None = None, *, closed: bool = False) -> Any:
    return SimpleNamespace(state_data=data or {}, is_closed=closed)


class Holder:
    """As gradio's StateHolder, of which it notes what it is asked to delete."""

    def __init__(self, **sessions: Any) -> None:
        self.session_data = sessions
        self.time_last_used = dict.fromkeys(sessions, NOW)
        self.lock = threading.Lock()
        self.deleted: list[str] = []
        streams = {page: object() for page in sessions}
        self.queue = SimpleNamespace(
            pending_messages_per_session=streams, pending_event_ids_session=dict(streams), event_ids_to_events={}
        )
        self.blocks = SimpleNamespace(_queue=self.queue)

    def delete_state(self, page: str) -> None:
        assert not self.lock.locked()
        self.deleted.append(page)


# --- whose it is ---------------------------------------------------------------------------------


@given(asked=st.lists(visitors, min_size=1))
def test_a_page_belongs_to_the_first_who_can_own_one_and_to_nobody_after(asked: list[Visitor]) -> None:
    page = session()
    granted = [claim(page, visitor) for visitor in asked]
    owners = [visitor for visitor in asked if visitor.seat]
    first = asked.index(owners[0]) if owners else len(asked)
    assert granted == [n < first or visitor == owners[0] for n, visitor in enumerate(asked)]
    assert getattr(page, "owner", "") == (owners[0].key if owners else "")


def test_an_address_owns_nothing_since_many_may_share_it() -> None:
    page = session()
    assert claim(page, nobody)
    assert claim(page, neighbour)
    assert not hasattr(page, "owner")
    assert claim(page, ben)
    assert not claim(page, nobody)


def test_a_name_is_the_same_person_at_every_computer() -> None:
    page = session()
    assert claim(page, ann)
    assert claim(page, Visitor(ann.key, "another seat", "Ann", "users"))
    assert claim(page, Visitor(ann.key, "", "Ann", "users"))
    assert not claim(page, Visitor("seat 1", "1"))


def test_a_name_without_a_seat_owns_pages_too() -> None:
    page, someone = session(), Visitor("huggingface ann", "", "ann", "huggingface")
    assert claim(page, someone)
    assert page.owner == someone.key


@pytest.mark.parametrize("visitor", PEOPLE)
def test_a_page_that_is_not_there_is_nobodys(visitor: Visitor) -> None:
    holder = Holder(other=session())
    assert not is_of_another(holder, "page", visitor)
    assert list(holder.session_data) == ["other"]


def test_who_is_told_that_a_page_is_theirs_has_it_from_then_on() -> None:
    holder = Holder(page=session())
    assert not is_of_another(holder, "page", ben)
    assert is_of_another(holder, "page", eve)
    assert is_of_another(holder, "page", nobody)
    assert not is_of_another(holder, "page", ben)


@given(owners=st.lists(visitors, max_size=10))
def test_everybody_has_their_own_pages(owners: list[Visitor]) -> None:
    holder = Holder(**{f"page {n}": session() for n in range(len(owners))})
    for visitor, page in zip(owners, holder.session_data.values(), strict=True):
        claim(page, visitor)
    for visitor in (ann, ben, eve):
        own = [f"page {n}" for n, owner in enumerate(owners) if owner == visitor]
        assert pages_of(holder, visitor.key) == own
    assert pages_of(holder, nobody.key) == []


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
    assert not is_of_another(holder, "a", ann)
    assert "a" not in holder, "to ask makes no session"
    for page, visitor in (("a", ann), ("b", ben), ("c", ann)):
        assert claim(holder[page], visitor)
        holder[page][state] = f"what {page} keeps"
    assert claim(holder["a"], ann), "gradio hands out the same session again"
    assert is_of_another(holder, "a", ben)
    assert sorted(pages_of(holder, ann.key)) == ["a", "c"]

    forget(holder, "a")
    assert deleted == ["what a keeps"]
    assert "a" not in holder
    assert pages_of(holder, ann.key) == ["c"]
    assert claim(holder["a"], ben), "what is made anew is nobody's"

    holder["b"].is_closed = True
    assert sweep(holder) == 0
    later = datetime.datetime.now() + datetime.timedelta(seconds=KEPT_SECONDS)
    assert sweep(holder, later) == 2
    assert list(holder.session_data) == list(holder.time_last_used) == ["c"]
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
