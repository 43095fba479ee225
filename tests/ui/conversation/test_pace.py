"""Batches for the eye: the first word at once, then no faster than asked for, and nothing lost or out of order."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.core.types import Answer, Done, Event, Failure, Loading, Queued, Thought
from tests.patience import PATIENCE_S, eventually
from ui.conversation import pace
from ui.conversation.pace import paced

LONG_S = 3600.0  # an interval that no test lives to see the end of
DONE = Done("stop")

events = st.lists(st.sampled_from([Queued(1), Loading("loading", 0.5), Thought("t"), Answer("a")]), max_size=12)


class Tap:
    """A source that says what it is told to, when it is told to."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.ended = threading.Event()

    def __iter__(self) -> Iterator[Event]:
        while (event := self._events.get(timeout=PATIENCE_S)) is not None:
            yield event
        self.ended.set()

    def say(self, *events: Event | None) -> None:
        for event in events:
            self._events.put(event)


def drain(sources: dict[str, Any], interval: float = 0.0) -> list[list[tuple[str, Event]]]:
    return list(paced({name: iter(source) for name, source in sources.items()}, lambda: interval))


def words_of(batches: list[list[tuple[str, Event]]], name: str) -> list[Event]:
    return [event for batch in batches for source, event in batch if source == name]


@given(sources=st.dictionaries(st.sampled_from("abcd"), events), interval=st.sampled_from([0.0, 0.001]))
def test_nothing_is_lost_and_the_order_within_a_source_is_kept(
    sources: dict[str, list[Event]], interval: float
) -> None:
    batches = drain(sources, interval)
    for name, said in sources.items():
        assert words_of(batches, name) == said
    assert all(batches), "an empty batch draws the screen for nothing"


def test_no_source_at_all_is_over_at_once() -> None:
    assert drain({}) == []


def test_the_first_word_of_every_source_goes_out_at_once() -> None:
    one, two = Tap(), Tap()
    batches = paced({"one": iter(one), "two": iter(two)}, lambda: LONG_S)
    one.say(Thought("a"))
    assert next(batches) == [("one", Thought("a"))]
    two.say(Answer("b"))
    assert next(batches) == [("two", Answer("b"))]
    for tap in (one, two):
        tap.say(None)
    assert list(batches) == []


@pytest.mark.parametrize("sign", [Queued(2), Loading("loading", 0.5), DONE, Failure("engine", "It broke.")])
def test_what_is_no_word_goes_out_at_once_with_all_that_was_held_back(sign: Event) -> None:
    tap = Tap()
    batches = paced({"": iter(tap)}, lambda: LONG_S)
    tap.say(Answer("a"))
    next(batches)
    tap.say(Answer("b"), Answer("c"), sign)
    assert next(batches) == [("", Answer("b")), ("", Answer("c")), ("", sign)]
    tap.say(None)
    assert list(batches) == []


def test_the_end_of_a_source_brings_out_what_was_held_back() -> None:
    tap = Tap()
    batches = paced({"": iter(tap)}, lambda: LONG_S)
    tap.say(Answer("a"))
    next(batches)
    tap.say(Answer("b"), None)
    assert list(batches) == [[("", Answer("b"))]]


class Shelf(queue.SimpleQueue[Any]):
    """A queue on a clock of its own: a wait for something that is not there moves the clock on by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if timeout is None:
            return super().get(timeout=PATIENCE_S)
        try:
            return super().get_nowait()
        except queue.Empty:
            self.now += timeout
            raise


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    monkeypatch.setattr(pace, "time", shelf)
    monkeypatch.setattr(pace, "queue", SimpleNamespace(SimpleQueue=lambda: shelf, Empty=queue.Empty))
    return shelf


def test_words_between_are_held_back_for_the_interval_and_no_longer(shelf: Shelf) -> None:
    interval = 0.15
    tap = Tap()
    batches = paced({"": iter(tap)}, lambda: interval)
    tap.say(Answer("a"))
    next(batches)
    for _ in range(3):
        drawn = shelf.now
        tap.say(Answer("b"), Answer("c"))
        eventually(lambda: shelf.qsize() == 2)
        assert next(batches) == [("", Answer("b")), ("", Answer("c"))]
        assert shelf.now - drawn == pytest.approx(interval)
    tap.say(None)
    assert list(batches) == []


def test_a_stream_of_words_is_drawn_no_more_often_than_the_interval_allows() -> None:
    def fast() -> Iterator[Event]:
        for n in range(300):
            time.sleep(0.001)
            yield Answer(str(n))
        yield DONE

    started = time.monotonic()
    batches = drain({"": fast()}, 0.05)
    took = time.monotonic() - started
    assert "".join(event.text for event in words_of(batches, "")[:-1]) == "".join(map(str, range(300)))
    assert len(batches) <= took / 0.05 + 3  # the first word, the last one and the end


def test_the_interval_may_change_while_it_runs() -> None:
    interval = [LONG_S]
    tap = Tap()
    batches = paced({"": iter(tap)}, lambda: interval[0])
    tap.say(Answer("a"))
    next(batches)
    interval[0] = 0.0
    tap.say(Answer("b"))
    assert next(batches) == [("", Answer("b"))]
    tap.say(None)
    assert list(batches) == []


def test_a_source_that_ends_early_does_not_end_the_others() -> None:
    one, two = Tap(), Tap()
    batches = paced({"one": iter(one), "two": iter(two)}, lambda: 0.0)
    one.say(DONE, None)
    assert next(batches) == [("one", DONE)]
    two.say(Answer("a"), DONE, None)
    assert words_of(list(batches), "two") == [Answer("a"), DONE]


def test_a_source_is_read_to_its_end_even_if_nobody_listens_any_more() -> None:
    tap = Tap()
    batches = paced({"": iter(tap)}, lambda: 0.0)
    tap.say(Answer("a"))
    next(batches)
    batches.close()
    tap.say(Answer("b"), DONE, None)
    assert tap.ended.wait(PATIENCE_S)


def test_a_source_that_breaks_ends_with_a_failure_that_has_a_number() -> None:
    """`engine.run` never raises; were it to, the page must not wait for ever."""

    def breaks() -> Iterator[Event]:
        yield Answer("a")
        raise ZeroDivisionError

    first, last = words_of(drain({"": breaks()}), "")
    assert first == Answer("a")
    assert isinstance(last, Failure)
    assert last.number


def test_what_takes_long_to_draw_is_drawn_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ui.conversation.pace.time.monotonic", lambda: now[0])
    tap = Tap()
    batches = paced({"": iter(tap)}, lambda: 0.0)
    tap.say(Answer("a"))
    assert next(batches) == [("", Answer("a"))]
    now[0] += 1.0  # that is how long it took to draw
    tap.say(Answer("b"), Answer("c"), DONE, None)
    assert next(batches) == [("", Answer("b")), ("", Answer("c")), ("", DONE)]
    assert list(batches) == []
