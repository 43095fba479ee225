"""The end of the playground: who is inside may end, for a while; then they are ended, and nobody comes in any more."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.core.cancel import Cancel
from backends.core.errors import Closing
from backends.engine import gate
from backends.engine.gate import Gate
from tests.patience import PATIENCE_S, eventually


class Guest:
    """Someone inside, in a thread of their own, until they may leave or are told to."""

    def __init__(self, gate: Gate, *, deaf: bool = False) -> None:
        self.gate, self.cancel, self.may_leave, self._deaf = gate, Cancel(), threading.Event(), deaf
        self._inside = threading.Event()
        if not deaf:
            self.cancel.on_cancel(self.may_leave.set)
        self.thread = threading.Thread(target=self._visit, daemon=True)
        self.thread.start()
        assert self._inside.wait(PATIENCE_S)

    def _visit(self) -> None:
        with self.gate.passing(self.cancel):
            self._inside.set()
            assert self.may_leave.wait(PATIENCE_S)

    def leave(self) -> None:
        self.may_leave.set()
        self.thread.join(PATIENCE_S)


def closing(gate: Gate, grace_s: float) -> Future[int]:
    """Closes it in a thread of its own; comes back once the gate is closed."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(gate.close, grace_s)
    pool.shutdown(wait=False)
    eventually(lambda: gate.closed)
    return future


def refuses(gate: Gate) -> bool:
    try:
        with gate.passing(Cancel()):
            return False
    except Closing:
        return True


def test_an_open_gate_lets_everybody_in_at_once() -> None:
    gate = Gate()
    with gate.passing(Cancel()), gate.passing(Cancel()):
        assert not refuses(gate)
    assert not gate.closed


def test_a_gate_with_nobody_inside_is_closed_at_once_and_for_good() -> None:
    gate = Gate()
    assert gate.close(PATIENCE_S) == 0
    assert gate.closed
    assert refuses(gate)
    assert gate.close(PATIENCE_S) == 0
    assert refuses(gate)


def test_who_comes_too_late_is_told_what_goes_on() -> None:
    gate = Gate()
    gate.close(0)
    with pytest.raises(Closing) as caught, gate.passing(Cancel()):
        pytest.fail("somebody came in")
    assert caught.value.message == "The playground is being restarted."
    assert caught.value.hint


def test_closing_waits_for_those_inside_and_lets_nobody_in_meanwhile() -> None:
    gate = Gate()
    guests = [Guest(gate) for _ in range(3)]
    ended = closing(gate, PATIENCE_S)
    for guest in guests:
        assert not ended.done()
        assert refuses(gate)
        guest.leave()
    assert ended.result(PATIENCE_S) == 0
    assert not any(guest.cancel.is_set() for guest in guests)


def test_after_the_grace_the_rest_is_ended_and_counted() -> None:
    gate = Gate()
    early, *late = [Guest(gate) for _ in range(4)]
    early.leave()
    assert gate.close(0) == 3
    assert [guest.cancel.is_set() for guest in (early, *late)] == [False, True, True, True]
    for guest in late:
        guest.thread.join(PATIENCE_S)
        assert not guest.thread.is_alive()


def test_closing_comes_back_only_when_those_it_has_ended_have_said_so() -> None:
    gate = Gate()
    guest = Guest(gate, deaf=True)
    ended = closing(gate, 0)
    assert guest.cancel.wait(PATIENCE_S)
    assert not ended.done()
    guest.leave()
    assert ended.result(PATIENCE_S) == 1


def test_who_does_not_hear_that_it_is_over_cannot_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LAST_WORDS_SECONDS", 0.01)
    place = Gate()
    guest = Guest(place, deaf=True)
    assert place.close(0.01) == 1
    assert guest.thread.is_alive()
    guest.leave()


def test_a_request_that_is_ended_may_leave_in_the_thread_that_ends_it() -> None:
    gate, cancel = Gate(), Cancel()
    inside = gate.passing(cancel)
    inside.__enter__()
    cancel.on_cancel(lambda: inside.__exit__(None, None, None))
    assert gate.close(0) == 1


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), GeneratorExit()])
def test_who_falls_over_inside_has_left(error: BaseException) -> None:
    gate = Gate()
    with pytest.raises(type(error)), gate.passing(Cancel()):
        raise error
    assert gate.close(PATIENCE_S) == 0


def test_two_requests_that_share_a_cancel_are_two() -> None:
    gate, cancel = Gate(), Cancel()
    with gate.passing(cancel):
        with gate.passing(cancel):
            pass
        ended = closing(gate, 0)
        assert cancel.wait(PATIENCE_S), "one who left took the other along"
    assert ended.result(PATIENCE_S) == 1


@settings(max_examples=30)
@given(steps=st.lists(st.integers(-3, 3), max_size=20))
def test_exactly_those_who_came_and_have_not_left_are_ended(steps: list[int]) -> None:
    """0 and above: someone comes; below: one of those inside leaves."""
    gate = Gate()
    inside = []
    for step in steps:
        if step >= 0:
            cancel = Cancel()
            passing = gate.passing(cancel)
            passing.__enter__()
            cancel.on_cancel(lambda passing=passing: passing.__exit__(None, None, None))
            inside.append((passing, cancel))
        elif inside:
            inside.pop(step % len(inside))[0].__exit__(None, None, None)
    assert gate.close(0) == len(inside)
    assert all(cancel.is_set() for _, cancel in inside)
