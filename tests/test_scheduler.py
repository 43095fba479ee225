"""First come, first served: nobody overtakes, nothing is served beyond the capacity, who leaves is gone at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import scheduler
from backends.cancel import Cancel
from backends.scheduler import Line
from backends.types import Queued

PATIENCE_S = 10.0  # far more than anything here takes; only a test that would hang gets there


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks up on their own: whoever moves must have been woken."""
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", PATIENCE_S)


class Guest:
    """Someone in line, in a thread of their own. `got` is True with the turn, False without, None while waiting."""

    def __init__(self, line: Line) -> None:
        self.line, self.cancel, self.told = line, Cancel(), []
        self.got: bool | None = None
        self.moved, self.over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._stand, daemon=True)

    def join_line(self, until: int | None = None) -> Guest:
        """Stands in line, and returns once the place `until` was told; at once with the turn if it is None."""
        self._thread.start()
        if until is None:
            assert self.over.wait(PATIENCE_S)
        else:
            eventually(lambda: self.places[-1:] == [until])
        return self

    @property
    def places(self) -> list[int]:
        return [event.position for event in self.told]

    def _stand(self) -> None:
        waiting = self.line.wait(self.cancel)
        try:
            while True:
                self.told.append(next(waiting))
        except StopIteration as end:
            self.got = end.value
        self.over.set()

    def wait_for_turn(self) -> None:
        assert self.over.wait(PATIENCE_S)
        assert self.got is True

    def leave(self) -> None:
        self.line.give_back(time.monotonic())


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


def result(waiting: Generator[Queued, None, bool]) -> bool:
    """What a wait that must not have to wait comes to."""
    with pytest.raises(StopIteration) as end:
        next(waiting)
    return end.value.value


def queue_up(line: Line, guests: int) -> list[Guest]:
    """So many guests, each standing before the next one comes."""
    return [Guest(line).join_line(until=place) for place in range(1, guests + 1)]


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_who_finds_a_free_slot_is_never_told_to_wait(capacity: int) -> None:
    line = Line(capacity)
    for served in range(1, capacity + 1):
        assert result(line.wait(Cancel())) is True
        assert line.running == served


def test_turns_come_in_the_order_of_arrival() -> None:
    line = Line(1)
    assert result(line.wait(Cancel()))
    guests = queue_up(line, 6)
    line.give_back(time.monotonic())
    for n, guest in enumerate(guests):
        guest.wait_for_turn()
        assert not any(later.over.is_set() for later in guests[n + 1 :])
        guest.leave()
    assert line.running == 0


def test_nobody_who_comes_later_slips_into_a_slot_that_is_just_free() -> None:
    line = Line(1)
    assert result(line.wait(Cancel()))
    first = line.wait(Cancel())
    assert next(first) == Queued(1)
    line.give_back(time.monotonic())  # the first in line has not looked up yet
    late = line.wait(Cancel())
    assert next(late).position == 2
    assert result(first) is True
    late.close()


def test_places_only_fall_and_end_at_one() -> None:
    line = Line(2)
    for _ in range(2):
        assert result(line.wait(Cancel()))
    guests = queue_up(line, 5)
    for guest in guests:
        line.give_back(time.monotonic())
        guest.wait_for_turn()
    for guest in guests:
        assert guest.places == sorted(set(guest.places), reverse=True)
        assert guest.places[0] == guests.index(guest) + 1


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_who_cancels_leaves_the_line_at_once_and_the_others_move_up(gone: int) -> None:
    line = Line(1)
    assert result(line.wait(Cancel()))
    guests = queue_up(line, 3)
    guests[gone].cancel()
    assert guests[gone].over.wait(PATIENCE_S)
    assert guests[gone].got is False
    staying = [guest for guest in guests if guest is not guests[gone]]
    for place, guest in enumerate(staying, start=1):
        eventually(lambda guest=guest, place=place: guest.places[-1] == place)
    line.give_back(time.monotonic())
    staying[0].wait_for_turn()
    assert line.running == 1
    staying[1].cancel()


def test_who_has_cancelled_before_never_takes_a_turn() -> None:
    line, cancel = Line(1), Cancel()
    cancel()
    assert result(line.wait(cancel)) is False
    assert line.running == 0
    assert result(line.wait(Cancel())) is True


def test_who_is_no_longer_listened_to_leaves_the_line() -> None:
    line = Line(1)
    assert result(line.wait(Cancel()))
    waiting = line.wait(Cancel())
    next(waiting)
    waiting.close()
    line.give_back(time.monotonic())
    assert result(line.wait(Cancel())) is True


def test_giving_back_wakes_the_next_without_delay() -> None:
    line = Line(1)
    assert result(line.wait(Cancel()))
    (guest,) = queue_up(line, 1)
    given_back = time.monotonic()
    line.give_back(given_back)
    guest.wait_for_turn()
    assert time.monotonic() - given_back < PATIENCE_S / 2, "only a second look found it"


@pytest.mark.parametrize(("capacity", "guests"), [(1, 8), (3, 24)])
def test_never_more_than_the_capacity_are_served_at_once(capacity: int, guests: int) -> None:
    line, lock = Line(capacity), threading.Lock()
    served: list[int] = []
    now = 0

    def visit() -> None:
        nonlocal now
        waiting = line.wait(Cancel())
        with suppress(StopIteration):
            while True:
                next(waiting)
        with lock:
            now += 1
            served.append(now)
        time.sleep(0.002)
        with lock:
            now -= 1
        line.give_back(time.monotonic())

    threads = [threading.Thread(target=visit, daemon=True) for _ in range(guests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(served) == guests
    assert max(served) <= capacity
    assert line.running == 0


@given(steps=st.lists(st.tuples(st.sampled_from(["come", "look", "leave", "cancel"]), st.integers(0, 5)), max_size=30))
def test_any_coming_and_going_keeps_order_and_capacity(steps: list[tuple[str, int]]) -> None:
    """Played in one thread: only those look up who would not have to wait, or who are told a new place."""
    line = Line(2)
    standing: list[tuple[Generator[Queued, None, bool], Cancel, list[int]]] = []
    for step, who in steps:
        if step == "come":
            free = line.running < 2 and not standing
            cancel = Cancel()
            waiting = line.wait(cancel)
            if free:
                assert result(waiting) is True
            else:
                standing.append((waiting, cancel, [next(waiting).position]))
                assert standing[-1][2] == [len(standing)]
        elif step == "leave" and line.running:
            line.give_back(time.monotonic())
        elif step == "look" and standing and line.running < 2:
            assert result(standing.pop(0)[0]) is True
        elif step == "cancel" and standing:
            waiting, cancel, _ = standing.pop(who % len(standing))
            cancel()
            assert result(waiting) is False
        assert 0 <= line.running <= 2
    for waiting, _, _ in standing:
        waiting.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def test_before_anyone_was_served_no_time_is_told() -> None:
    line = Line(1)
    assert result(line.wait(Cancel()))
    waiting = line.wait(Cancel())
    assert next(waiting) == Queued(1, None)
    waiting.close()


@pytest.mark.parametrize(("capacity", "expected"), [(1, [6.0, 12.0]), (2, [3.0, 6.0])])
def test_the_time_told_is_the_place_times_how_long_turns_took_by_capacity(
    clock: Callable[[float], None], capacity: int, expected: list[float]
) -> None:
    line = Line(capacity)
    for seconds in (4.0, 8.0):
        line.running += 1
        taken_at = scheduler.time.monotonic()
        clock(seconds)
        line.give_back(taken_at)
    for _ in range(capacity):
        assert result(line.wait(Cancel()))
    waiting = [line.wait(Cancel()) for _ in expected]
    assert [next(one).eta_s for one in waiting] == expected
    for one in waiting:
        one.close()
