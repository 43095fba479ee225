"""Turns go round between people: nobody is served twice at once or out of turn, nothing beyond the capacity, and who
leaves is gone at once. Without a key everybody is a person of their own: first come, first served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.core.cancel import Cancel
from backends.core.errors import Busy
from backends.core.types import Queued
from backends.engine import scheduler
from backends.engine.scheduler import Line, Turn
from tests.patience import FOREVER_S, PATIENCE_S, eventually


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks up on their own: whoever moves must have been woken."""
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", FOREVER_S)


class Guest:
    """Someone in line, in a thread of their own. `got` is the turn, or None; `over` once that is known."""

    def __init__(self, line: Line, person: str = "") -> None:
        self.line, self.person, self.cancel, self.told = line, person, Cancel(), []
        self.got: Turn | None = None
        self.moved, self.over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._stand, daemon=True)

    def join_line(self, until: int | None = None) -> Guest:
        """Stands in line, and returns once the place `until` was told; at once with the turn if it is None."""
        self.start()
        if until is None:
            assert self.over.wait(PATIENCE_S)
        else:
            eventually(lambda: self.places[-1:] == [until])
        return self

    def start(self) -> None:
        self._thread.start()

    @property
    def places(self) -> list[int]:
        return [event.position for event in self.told]

    def _stand(self) -> None:
        waiting = self.line.wait(self.cancel, self.person)
        try:
            while True:
                self.told.append(next(waiting))
        except StopIteration as end:
            self.got = end.value
        self.over.set()

    def wait_for_turn(self) -> None:
        assert self.over.wait(PATIENCE_S)
        assert self.got is not None

    def leave(self) -> None:
        assert self.got is not None
        self.line.give_back(self.got)


def result(waiting: Generator[Queued, None, Turn | None]) -> Turn | None:
    """What a wait that must not have to wait comes to."""
    with pytest.raises(StopIteration) as end:
        next(waiting)
    return end.value.value  # type: ignore[no-any-return]


def got(waiting: Generator[Queued, None, Turn | None]) -> Turn:
    """The turn that is there now for who waits."""
    turn = result(waiting)
    assert turn is not None
    return turn


def taken(line: Line, person: str = "") -> Turn:
    """A turn that is to be had at once."""
    return got(line.wait(Cancel(), person))


def all_served(line: Line, turns: list[Turn], guests: list[Guest]) -> Iterator[Guest]:
    """Ends one turn after the other; everybody in the order in which their turn came."""
    while guests:
        line.give_back(turns.pop(0))
        eventually(lambda: any(guest.over.is_set() for guest in guests))
        guest = next(guest for guest in guests if guest.over.is_set())
        guests.remove(guest)
        assert guest.got is not None
        turns.append(guest.got)
        yield guest


def queue_up(line: Line, guests: int) -> list[Guest]:
    """So many guests, each standing before the next one comes."""
    return [Guest(line).join_line(until=place) for place in range(1, guests + 1)]


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_who_finds_a_free_slot_is_never_told_to_wait(capacity: int) -> None:
    line = Line(capacity)
    for served in range(1, capacity + 1):
        taken(line)
        assert line.running == served


def test_turns_come_in_the_order_of_arrival() -> None:
    line = Line(1)
    turn = taken(line)
    guests = queue_up(line, 6)
    line.give_back(turn)
    for n, guest in enumerate(guests):
        guest.wait_for_turn()
        assert not any(later.over.is_set() for later in guests[n + 1 :])
        guest.leave()
    assert line.running == 0


def test_nobody_who_comes_later_slips_into_a_slot_that_is_just_free() -> None:
    line = Line(1)
    turn = taken(line)
    first = line.wait(Cancel())
    assert next(first) == Queued(1)
    line.give_back(turn)  # the first in line has not looked up yet
    late = line.wait(Cancel())
    assert next(late).position == 2
    assert result(first) is not None
    late.close()


def test_places_only_fall_and_end_at_one() -> None:
    line = Line(2)
    turns = [taken(line), taken(line)]
    guests = queue_up(line, 5)
    for guest in guests:
        line.give_back(turns.pop(0))
        guest.wait_for_turn()
        assert guest.got is not None
        turns.append(guest.got)
    for guest in guests:
        assert guest.places == sorted(set(guest.places), reverse=True)
        assert guest.places[0] == guests.index(guest) + 1


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_who_cancels_leaves_the_line_at_once_and_the_others_move_up(gone: int) -> None:
    line = Line(1)
    turn = taken(line)
    guests = queue_up(line, 3)
    guests[gone].cancel()
    assert guests[gone].over.wait(PATIENCE_S)
    assert guests[gone].got is None
    staying = [guest for guest in guests if guest is not guests[gone]]
    for place, guest in enumerate(staying, start=1):
        eventually(lambda guest=guest, place=place: guest.places[-1] == place)
    line.give_back(turn)
    staying[0].wait_for_turn()
    assert line.running == 1
    staying[1].cancel()


def test_who_has_cancelled_before_never_takes_a_turn() -> None:
    line, cancel = Line(1), Cancel()
    cancel()
    assert result(line.wait(cancel)) is None
    assert line.running == 0
    taken(line)


def test_who_is_no_longer_listened_to_leaves_the_line() -> None:
    line = Line(1)
    turn = taken(line)
    waiting = line.wait(Cancel())
    next(waiting)
    waiting.close()
    line.give_back(turn)
    taken(line)


def test_giving_back_wakes_the_next_without_a_second_look() -> None:
    line = Line(1)
    turn = taken(line)
    (guest,) = queue_up(line, 1)
    line.give_back(turn)
    guest.wait_for_turn()


@pytest.mark.parametrize(("capacity", "guests"), [(1, 8), (3, 24)])
def test_never_more_than_the_capacity_are_served_at_once(capacity: int, guests: int) -> None:
    line, lock = Line(capacity), threading.Lock()
    served: list[int] = []
    now = 0

    def visit() -> None:
        nonlocal now
        guest = Guest(line).join_line()
        assert guest.got is not None
        with lock:
            now += 1
            served.append(now)
        time.sleep(0.002)
        with lock:
            now -= 1
        guest.leave()

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
    standing: list[tuple[Generator[Queued, None, Turn | None], Cancel, list[int]]] = []
    turns: list[Turn] = []
    for step, who in steps:
        if step == "come":
            free = line.running < 2 and not standing
            cancel = Cancel()
            waiting = line.wait(cancel)
            if free:
                turns.append(got(waiting))
            else:
                standing.append((waiting, cancel, [next(waiting).position]))
                assert standing[-1][2] == [len(standing)]
        elif step == "leave" and turns:
            line.give_back(turns.pop(who % len(turns)))
        elif step == "look" and standing and line.running < 2:
            turns.append(got(standing.pop(0)[0]))
        elif step == "cancel" and standing:
            waiting, cancel, _ = standing.pop(who % len(standing))
            cancel()
            assert result(waiting) is None
        assert line.running == len(turns) <= 2
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
    taken(line)
    waiting = line.wait(Cancel())
    assert next(waiting) == Queued(1, None)
    waiting.close()


@pytest.mark.parametrize(("capacity", "expected"), [(1, [6.0, 12.0]), (2, [3.0, 6.0])])
def test_the_time_told_is_the_place_times_how_long_turns_took_by_capacity(
    clock: Callable[[float], None], capacity: int, expected: list[float]
) -> None:
    line = Line(capacity)
    for seconds in (4.0, 8.0):
        turn = taken(line)
        clock(seconds)
        line.give_back(turn)
    for _ in range(capacity):
        taken(line)
    waiting = [line.wait(Cancel()) for _ in expected]
    assert [next(one).eta_s for one in waiting] == expected
    for one in waiting:
        one.close()


# --- several questions of one person --------------------------------------------------------------------------------


def test_nobody_is_served_twice_at_once_even_where_a_slot_is_free() -> None:
    line = Line(4)
    first = taken(line, "ann")
    second = Guest(line, "ann").join_line(until=1)
    other = taken(line, "bob")
    assert not second.over.is_set()
    line.give_back(first)
    second.wait_for_turn()
    second.leave()
    line.give_back(other)
    assert line.running == 0


def test_five_tabs_get_no_more_than_their_neighbours() -> None:
    """Everybody's first question comes before anybody's second, in whatever order they were asked."""
    line = Line(1)
    turn = taken(line, "host")
    asked = ["ann"] * 5 + ["bob", "cy", "bob"]
    places = [1, 2, 3, 4, 5, 2, 3, 5]  # of each, when asked: a newcomer stands before what others ask further
    guests = [Guest(line, who).join_line(until=place) for who, place in zip(asked, places, strict=True)]
    served = [guest.person for guest in all_served(line, [turn], guests)]
    assert served == ["ann", "bob", "cy", "ann", "bob", "ann", "ann", "ann"]


@settings(max_examples=30)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=10))
def test_among_people_who_wait_nobody_gets_two_turns_more_than_another(asked: list[str]) -> None:
    line = Line(1)
    turns = [taken(line, "host")]
    guests = []
    for who in asked:
        guests.append(Guest(line, who))
        before = line.waiting
        guests[-1].start()
        eventually(lambda before=before: line.waiting == before + 1)
    served = dict.fromkeys(asked, 0)
    for guest in all_served(line, turns, guests):
        served[guest.person] += 1
        waiting = [served[other.person] for other in guests]
        assert max(served.values()) - min(waiting, default=max(served.values())) <= 1
    assert line.waiting == 0


def test_a_line_that_is_too_long_says_so_and_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MOST_OF_ONE", 2)
    monkeypatch.setattr(scheduler, "MOST", 3)
    line = Line(1)
    turn = taken(line, "ann")
    waiting = [line.wait(Cancel(), who) for who in ("ann", "ann", "bob")]
    for one in waiting:
        next(one)
    with pytest.raises(Busy, match="You have 2 questions in line already"):
        next(line.wait(Cancel(), "ann"))
    with pytest.raises(Busy, match="The line is full: 3 questions wait"):
        next(line.wait(Cancel(), "cy"))
    assert line.waiting == 3
    line.give_back(turn)
    assert got(waiting[2]).owner == "bob"
    for one in waiting[:2]:
        one.close()
    assert line.waiting == 0
