"""One load for many waiters, room made by unloading what is idle, and a choice that stays the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backends.adapters.scripted import Scripted
from backends.cancel import Cancel
from backends.catalog import Artefact, Card, Catalog
from backends.errors import EngineDied, OutOfMemory, SourceUnreachable, UnknownModel
from backends.hardware import Fit
from backends.machine import GIB, Machine
from backends.models import Model, Models
from backends.types import Backend, Loading

PATIENCE_S = 10.0


def cards(card: Card, *ids: str, size: int = 1) -> Catalog:
    rows = [card.artefacts[0].model_copy(update={"bytes": size})]
    return Catalog(tuple(card.model_copy(update={"id": name, "name": name, "artefacts": tuple(rows)}) for name in ids))


class House:
    """A machine with engines that only say when they are opened, loaded and closed.

    `hold`: loads wait for `go`. `memory`: bytes that the machine has; a loaded model takes its need of them.
    """

    def __init__(self, catalog: Catalog, *, memory: int = 16 * GIB, hold: bool = False, **options: Any) -> None:
        self.memory, self.go = memory, threading.Event()
        self.loads: list[str] = []
        self.closed: list[str] = []
        self.failures: list[Exception] = []
        self.live: dict[str, Fit] = {}
        if not hold:
            self.go.set()
        options.setdefault("obtainable", lambda artefact: True)
        self.models = Models(
            catalog, "scripted", Scripted().capabilities, self._open, options.pop("obtainable"),
            detect=self.detect, **options,
        )  # fmt: skip

    def detect(self) -> Machine:
        taken = sum(fit.need_bytes for fit in self.live.values())
        return Machine(2, 2, self.memory, self.memory - taken)

    def _open(self, card: Card, fit: Fit) -> Backend:
        house = self

        class Witness(Scripted):
            def load(self, card: Card) -> Iterator[Loading]:
                house.loads.append(card.id)
                yield Loading("loading", 0.25)
                assert house.go.wait(PATIENCE_S)
                if house.failures:
                    raise house.failures.pop()
                yield Loading("loading", 0.75)
                house.live[card.id] = fit
                yield from super().load(card)

            def close(self) -> None:
                house.closed.append(card.id)
                house.live.pop(card.id, None)
                super().close()

        return Witness(parallel=fit.slots, context=fit.context)

    def model(self, card_id: str) -> Model:
        return self.models.get(self.models.catalog.get(card_id))

    def load(self, card_id: str, cancel: Cancel | None = None) -> tuple[list[Loading], Backend | None]:
        """What a waiter hears, and the backend it gets."""
        waiting = self.models.ready(self.model(card_id), cancel or Cancel())
        heard = []
        try:
            while True:
                heard.append(next(waiting))
        except StopIteration as end:
            return heard, end.value


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


# --- one load for many waiters -------------------------------------------------------------------


def test_many_waiters_share_one_load_and_one_backend(card: Card) -> None:
    house, waiters = House(cards(card, "a"), hold=True), 12
    with ThreadPoolExecutor(waiters) as pool:
        futures = [pool.submit(house.load, "a") for _ in range(waiters)]
        eventually(lambda: house.loads == ["a"])
        house.go.set()
        backends = {id(future.result(PATIENCE_S)[1]) for future in futures}
    assert house.loads == ["a"]
    assert len(backends) == 1


def test_a_waiter_who_comes_late_sees_how_far_it_is(card: Card) -> None:
    house = House(cards(card, "a"), hold=True)
    first = house.models.ready(house.model("a"), Cancel())
    assert next(first) == Loading("loading", 0.25)
    late = house.models.ready(house.model("a"), Cancel())
    assert next(late) == Loading("loading", 0.25)
    house.go.set()
    assert all(event.fraction == 0.75 for event in (*first, *late))
    assert house.loads == ["a"]


def test_what_is_loaded_is_ready_at_once(card: Card) -> None:
    house = House(cards(card, "a"))
    _, backend = house.load("a")
    assert house.load("a") == ([], backend)
    assert house.loads == ["a"]
    assert [model.card.id for model in house.models.loaded()] == ["a"]


def test_a_failed_load_reaches_every_waiter_and_the_next_one_loads_anew(card: Card) -> None:
    house = House(cards(card, "a"), hold=True)
    house.failures = [EngineDied("It did not start.")]
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(house.load, "a") for _ in range(5)]
        eventually(lambda: house.loads == ["a"])
        time.sleep(0.02)  # the others have come by now; one who has not would load anew and be found out below
        house.go.set()
        errors = [future.exception(PATIENCE_S) for future in futures]
    assert {type(error) for error in errors} == {EngineDied}
    assert house.loads == ["a"]
    assert house.closed == ["a"], "what a failed load had opened was not closed"
    _, backend = house.load("a")
    assert backend is not None
    assert backend.alive
    assert house.loads == ["a", "a"]


def test_who_cancels_does_not_wait_for_the_load_and_the_others_go_on(card: Card) -> None:
    house = House(cards(card, "a"), hold=True)
    cancel = Cancel()
    with ThreadPoolExecutor(2) as pool:
        leaving, staying = pool.submit(house.load, "a", cancel), pool.submit(house.load, "a")
        eventually(lambda: house.loads == ["a"])
        cancel()
        assert leaving.result(PATIENCE_S)[1] is None
        assert not staying.done()
        house.go.set()
        assert staying.result(PATIENCE_S)[1] is not None


def test_a_cancel_at_the_worst_moment_is_not_missed(card: Card) -> None:
    class WorstMoment(Cancel):
        """Is cancelled by another thread right after it has said that it is not."""

        armed = True

        def is_set(self) -> bool:
            now = super().is_set()
            if not now and self.armed:
                self.armed = False
                thread = threading.Thread(target=self, daemon=True)
                thread.start()
                thread.join(0.3)  # it cannot end sooner where the lock is held that it needs to wake the waiter
            return now

    house = House(cards(card, "a"), hold=True)
    cancel = WorstMoment()
    cancel.armed = False
    waiting = house.models.ready(house.model("a"), cancel)
    next(waiting)
    cancel.armed = True
    ended = threading.Event()
    threading.Thread(target=lambda: (list(waiting), ended.set()), daemon=True).start()
    in_time = ended.wait(2)
    house.go.set()
    assert in_time


def test_a_backend_that_died_is_closed_and_loaded_again(card: Card) -> None:
    house = House(cards(card, "a"))
    _, dead = house.load("a")
    dead.alive = False
    assert house.models.loaded() == []
    _, backend = house.load("a")
    assert backend is not dead
    assert backend.alive
    assert house.closed == ["a"]


def test_the_line_is_as_wide_as_the_engine_is(card: Card) -> None:
    house = House(cards(card, "a"))
    _, backend = house.load("a")
    assert house.model("a").line.capacity == backend.capabilities.parallel


# --- room ----------------------------------------------------------------------------------------

MODEL_BYTES = 2 * GIB  # a loaded one needs a little more


def test_what_was_unused_the_longest_is_unloaded_first_and_only_as_much_as_needed(card: Card) -> None:
    house = House(cards(card, "a", "b", "c", size=MODEL_BYTES), memory=15 * GIB // 2)
    house.load("a")
    house.load("b")
    house.model("a").last_used = house.model("b").last_used + 1
    house.load("c")
    assert house.closed == ["b"]
    assert sorted(house.live) == ["a", "c"]


def test_nothing_is_unloaded_while_there_is_room(card: Card) -> None:
    house = House(cards(card, "a", "b", "c", size=MODEL_BYTES), memory=64 * GIB)
    for name in "abc":
        house.load(name)
    assert house.closed == []
    assert sorted(house.live) == ["a", "b", "c"]


def test_a_model_that_is_answering_is_never_unloaded(card: Card) -> None:
    house = House(cards(card, "a", "b", size=3 * GIB), memory=6 * GIB)
    house.load("a")
    house.model("b")  # there was room for it when it came into the line
    house.model("a").line.running = 1
    with pytest.raises(OutOfMemory):
        house.load("b")
    assert house.closed == []
    assert house.models.loaded()[0].backend.alive
    house.model("a").line.running = 0
    assert house.load("b")[1] is not None
    assert house.closed == ["a"]


def test_what_cannot_fit_is_refused_before_anything_is_unloaded(card: Card) -> None:
    small, large = cards(card, "a", size=MODEL_BYTES).cards[0], cards(card, "b", size=40 * GIB).cards[0]
    house = House(Catalog((small, large)), memory=8 * GIB)
    house.load("a")
    with pytest.raises(OutOfMemory) as caught:
        house.load("b")
    assert "b needs about" in caught.value.message
    assert house.closed == []


def test_what_would_fit_after_unloading_is_not_refused(card: Card) -> None:
    house = House(cards(card, "a", "b", size=4 * GIB), memory=7 * GIB)
    house.load("a")
    assert house.load("b")[1] is not None
    assert house.closed == ["a"]


def test_two_models_that_load_at_the_same_time_do_not_count_on_the_same_memory(card: Card) -> None:
    house = House(cards(card, "a", "b", size=4 * GIB), memory=7 * GIB, hold=True)
    first, second = house.model("a"), house.model("b")
    first.line.running = second.line.running = 1  # each has a visitor who waits for it
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(house.load, name) for name in "ab"]
        eventually(lambda: house.loads != [])
        time.sleep(0.05)  # time for the other to begin too, if it is let
        house.go.set()
        for future in futures:
            future.exception(PATIENCE_S)
    assert sum(fit.need_bytes for fit in house.live.values()) <= house.memory


def test_closing_unloads_everything(card: Card) -> None:
    house = House(cards(card, "a", "b"))
    house.load("a")
    house.load("b")
    house.models.close()
    assert sorted(house.closed) == ["a", "b"]
    assert house.models.loaded() == []


# --- which one -----------------------------------------------------------------------------------


def test_the_choice_stays_the_same_while_the_page_is_up(card: Card) -> None:
    can_be_had = {"a", "b"}
    rows = [
        card.model_copy(update={"id": name, "artefacts": (Artefact(engine="scripted", file=name, bytes=1, hub="t/x"),)})
        for name in "ab"
    ]
    house = House(Catalog(tuple(rows)), obtainable=lambda artefact: artefact.file in can_be_had)
    assert house.models.choose("chat").id == "a"
    can_be_had.remove("a")
    assert house.models.choose("chat").id == "a"
    assert house.models.choose("math").id == "b"


def test_a_choice_that_failed_is_made_anew(card: Card) -> None:
    online = [False]
    house = House(cards(card, "a"), obtainable=lambda artefact: online[0])
    with pytest.raises(SourceUnreachable):
        house.models.choose("chat")
    online[0] = True
    assert house.models.choose("chat").id == "a"


@pytest.mark.parametrize("task", ["chat", "coding", "math", "multilingual"])
def test_a_hosts_choice_is_every_tasks_choice(card: Card, task: str) -> None:
    assert House(cards(card, "a", "b"), choice="b").models.choose(task).id == "b"


def test_a_hosts_choice_that_does_not_exist_is_named(card: Card) -> None:
    with pytest.raises(UnknownModel, match="nope"):
        House(cards(card, "a"), choice="nope").models.choose("chat")


def test_what_is_loaded_and_idle_does_not_push_others_out_of_the_list(card: Card) -> None:
    house = House(cards(card, "a", "b", size=4 * GIB), memory=7 * GIB)
    house.load("a")
    assert [(other.id, reason) for other, _, reason in house.models.ranked("chat")] == [("a", ""), ("b", "")]
