"""One load for many waiters, room made by unloading what is idle, and a choice that stays the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.scripted import Scripted
from backends.catalog.cards import Artefact, Card, Catalog
from backends.catalog.choice import Fit, looking_bytes
from backends.core.cancel import Cancel
from backends.core.errors import EngineDied, OutOfMemory, SourceUnreachable, UnknownModel
from backends.core.types import Backend, Loading
from backends.engine.pool import House, LocalModels, Model
from backends.machine.machine import GIB, Gpu, Machine
from tests.drawn import seeing
from tests.patience import FOREVER_S, PATIENCE_S, eventually


def cards(card: Card, *ids: str, size: int = 1) -> Catalog:
    rows = [card.artefacts[0].model_copy(update={"bytes": size})]
    return Catalog(tuple(card.model_copy(update={"id": name, "name": name, "artefacts": tuple(rows)}) for name in ids))


class Site:
    """A machine with two engines that only say when they are opened, loaded and closed; the second marks its own '+'.

    `hold`: loads wait for `go`. `memory`: bytes that the machine has; a loaded model takes its need of them. With `gpu`
    bytes of its own on a graphics card the second engine runs there.
    """

    def __init__(
        self, catalog: Catalog, *, memory: int = 16 * GIB, gpu: int = 0, hold: bool = False, **options: Any
    ) -> None:
        self.memory, self.gpu, self.go = memory, gpu, threading.Event()
        self.loads: list[str] = []
        self.closed: list[str] = []
        self.failures: list[Exception] = []
        self.live: dict[str, Fit] = {}
        if not hold:
            self.go.set()
        obtainable = options.pop("obtainable", lambda artefact: True)
        house = House(self.detect)
        self.models, self.other = (
            LocalModels(
                catalog, engine, Scripted().capabilities, partial(self._open, mark), obtainable, house=house, **options
            )
            for engine, mark in (("scripted", ""), ("transformers" if gpu else "scripted", "+"))
        )

    def detect(self) -> Machine:
        taken = {
            on_gpu: sum(f.need_bytes for f in self.live.values() if f.on_gpu == on_gpu) for on_gpu in (False, True)
        }
        gpus = (Gpu("a card", self.gpu, self.gpu - taken[True]),) if self.gpu else ()
        return Machine(2, 2, self.memory, self.memory - taken[False], gpus)

    def _open(self, mark: str, card: Card, fit: Fit) -> Backend:
        site, name = self, card.id + mark

        class Witness(Scripted):
            def load(self, card: Card) -> Iterator[Loading]:
                site.loads.append(name)
                yield Loading("loading", 0.25)
                assert site.go.wait(FOREVER_S)
                if site.failures:
                    raise site.failures.pop()
                yield Loading("loading", 0.75)
                site.live[name] = fit
                yield from super().load(card)

            def close(self) -> None:
                site.closed.append(name)
                site.live.pop(name, None)
                super().close()

        return Witness(parallel=fit.slots, context=fit.context)

    def model(self, name: str) -> Model:
        models = self.other if name.endswith("+") else self.models
        return models.get(models.catalog.get(name.rstrip("+")))

    def load(self, name: str, cancel: Cancel | None = None) -> tuple[list[Loading], Backend | None]:
        """What a waiter hears, and the backend it gets."""
        models = self.other if name.endswith("+") else self.models
        waiting = models.ready(self.model(name), cancel or Cancel())
        heard = []
        try:
            while True:
                heard.append(next(waiting))
        except StopIteration as end:
            return heard, end.value


@contextmanager
def answering(model: Model) -> Iterator[None]:
    """For as long as somebody is answered by it."""
    waiting = model.line.wait(Cancel())
    with pytest.raises(StopIteration) as taken:
        next(waiting)
    yield
    model.line.give_back(taken.value.value)


# --- one load for many waiters -------------------------------------------------------------------


def test_many_waiters_share_one_load_and_one_backend(card: Card) -> None:
    site, waiters = Site(cards(card, "a"), hold=True), 12
    with ThreadPoolExecutor(waiters) as pool:
        futures = [pool.submit(site.load, "a") for _ in range(waiters)]
        eventually(lambda: site.loads == ["a"])
        site.go.set()
        backends = {id(future.result(PATIENCE_S)[1]) for future in futures}
    assert site.loads == ["a"]
    assert len(backends) == 1


def test_a_waiter_who_comes_late_sees_how_far_it_is(card: Card) -> None:
    site = Site(cards(card, "a"), hold=True)
    first = site.models.ready(site.model("a"), Cancel())
    assert next(first) == Loading("loading", 0.25)
    late = site.models.ready(site.model("a"), Cancel())
    assert next(late) == Loading("loading", 0.25)
    site.go.set()
    assert all(event.fraction == 0.75 for event in (*first, *late))
    assert site.loads == ["a"]


def test_what_is_loaded_is_ready_at_once(card: Card) -> None:
    site = Site(cards(card, "a"))
    _, backend = site.load("a")
    assert site.load("a") == ([], backend)
    assert site.loads == ["a"]
    assert [model.card.id for model in site.models.loaded()] == ["a"]


def test_a_failed_load_reaches_every_waiter_and_the_next_one_loads_anew(card: Card) -> None:
    site = Site(cards(card, "a"), hold=True)
    site.failures = [EngineDied("It did not start.")]
    cancels = [Cancel() for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(site.load, "a", cancel) for cancel in cancels]
        eventually(lambda: all(cancel._callbacks for cancel in cancels))  # each watches the one load
        site.go.set()
        errors = [future.exception(PATIENCE_S) for future in futures]
    assert {type(error) for error in errors} == {EngineDied}
    assert site.loads == ["a"]
    assert site.closed == ["a"], "what a failed load had opened was not closed"
    _, backend = site.load("a")
    assert backend is not None
    assert backend.alive
    assert site.loads == ["a", "a"]


def test_who_cancels_does_not_wait_for_the_load_and_the_others_go_on(card: Card) -> None:
    site = Site(cards(card, "a"), hold=True)
    cancel = Cancel()
    with ThreadPoolExecutor(2) as pool:
        leaving, staying = pool.submit(site.load, "a", cancel), pool.submit(site.load, "a")
        eventually(lambda: site.loads == ["a"])
        cancel()
        assert leaving.result(PATIENCE_S)[1] is None
        assert not staying.done()
        site.go.set()
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

    site = Site(cards(card, "a"), hold=True)
    cancel = WorstMoment()
    cancel.armed = False
    waiting = site.models.ready(site.model("a"), cancel)
    next(waiting)
    cancel.armed = True
    ended = threading.Event()
    threading.Thread(target=lambda: (list(waiting), ended.set()), daemon=True).start()
    in_time = ended.wait(PATIENCE_S)
    site.go.set()
    assert in_time


def test_a_backend_that_died_is_closed_and_loaded_again(card: Card) -> None:
    site = Site(cards(card, "a"))
    _, dead = site.load("a")
    dead.alive = False
    assert site.models.loaded() == []
    _, backend = site.load("a")
    assert backend is not dead
    assert backend.alive
    assert site.closed == ["a"]


def test_the_line_is_as_wide_as_the_engine_is(card: Card) -> None:
    site = Site(cards(card, "a"))
    _, backend = site.load("a")
    assert site.model("a").line.capacity == backend.capabilities.parallel


# --- room ----------------------------------------------------------------------------------------

MODEL_BYTES = 2 * GIB  # a loaded one needs a little more


def test_what_was_unused_the_longest_is_unloaded_first_and_only_as_much_as_needed(card: Card) -> None:
    site = Site(cards(card, "a", "b", "c", size=MODEL_BYTES), memory=15 * GIB // 2)
    site.load("a")
    site.load("b")
    site.model("a").last_used = site.model("b").last_used + 1
    site.load("c")
    assert site.closed == ["b"]
    assert sorted(site.live) == ["a", "c"]


def test_nothing_is_unloaded_while_there_is_room(card: Card) -> None:
    site = Site(cards(card, "a", "b", "c", size=MODEL_BYTES), memory=64 * GIB)
    for name in "abc":
        site.load(name)
    assert site.closed == []
    assert sorted(site.live) == ["a", "b", "c"]


def test_a_model_that_is_answering_is_never_unloaded(card: Card) -> None:
    site = Site(cards(card, "a", "b", size=3 * GIB), memory=6 * GIB)
    site.load("a")
    site.model("b")  # there was room for it when it came into the line
    with answering(site.model("a")):
        with pytest.raises(OutOfMemory):
            site.load("b")
        assert site.closed == []
        assert site.models.loaded()[0].backend.alive
    assert site.load("b")[1] is not None
    assert site.closed == ["a"]


def test_what_cannot_fit_is_refused_before_anything_is_unloaded(card: Card) -> None:
    small, large = cards(card, "a", size=MODEL_BYTES).cards[0], cards(card, "b", size=40 * GIB).cards[0]
    site = Site(Catalog((small, large)), memory=8 * GIB)
    site.load("a")
    with pytest.raises(OutOfMemory) as caught:
        site.load("b")
    assert "b needs about" in caught.value.message
    assert site.closed == []


def test_what_would_fit_after_unloading_is_not_refused(card: Card) -> None:
    site = Site(cards(card, "a", "b", size=4 * GIB), memory=7 * GIB)
    site.load("a")
    assert site.load("b")[1] is not None
    assert site.closed == ["a"]


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b+"), ("a", "a+")], ids="-".join)
def test_two_models_that_load_at_the_same_time_do_not_count_on_the_same_memory(
    card: Card, names: tuple[str, str]
) -> None:
    site = Site(cards(card, "a", "b", size=4 * GIB), memory=7 * GIB, hold=True)
    first, second = map(site.model, names)
    with answering(first), answering(second), ThreadPoolExecutor(2) as pool:  # each has a visitor who waits for it
        futures = [pool.submit(site.load, name) for name in names]
        eventually(lambda: site.loads != [])
        time.sleep(0.05)  # time for the other to begin too, if it is let
        site.go.set()
        for future in futures:
            future.exception(PATIENCE_S)
    assert len(site.live) == 1
    assert sum(fit.need_bytes for fit in site.live.values()) <= site.memory


def test_closing_unloads_everything(card: Card) -> None:
    site = Site(cards(card, "a", "b"))
    site.load("a")
    site.load("b")
    site.models.close()
    assert sorted(site.closed) == ["a", "b"]
    assert site.models.loaded() == []


def test_engines_make_room_for_one_another_but_never_of_what_is_answering(card: Card) -> None:
    site = Site(cards(card, "a", size=4 * GIB), memory=7 * GIB)
    site.load("a")
    assert site.other.judge(site.other.catalog.get("a"), "chat")[2] == "", "what would be unloaded was not counted"
    site.model("a+")  # comes into its line while there is hope
    with answering(site.model("a")):
        with pytest.raises(OutOfMemory):
            site.load("a+")
        assert site.closed == []
    assert site.load("a+")[1] is not None
    assert site.closed == ["a"]
    assert site.models.loaded() == [], "the picker shows the models of its own engine"
    assert site.other.loaded() == [site.model("a+")]


def test_the_longest_unused_goes_first_whatever_its_engine(card: Card) -> None:
    site = Site(cards(card, "a", "b", size=MODEL_BYTES), memory=15 * GIB // 2)
    site.load("a")
    site.load("b+")
    site.model("a").last_used = site.model("b+").last_used + 1
    site.load("a+")
    assert site.closed == ["b+"]


def test_main_memory_is_no_room_on_a_graphics_card(card: Card) -> None:
    site = Site(cards(card, "a", "b", size=4 * GIB), memory=7 * GIB, gpu=4 * GIB)
    site.load("a")
    site.load("a+")
    site.load("b+")
    assert site.closed == ["a+"], "unloading from main memory would have freed nothing on the card"
    site.load("b")
    assert site.closed == ["a+", "a"]


def test_two_loads_on_a_graphics_card_do_not_count_on_the_same_memory(card: Card) -> None:
    site = Site(cards(card, "a", "b"), gpu=4 * GIB, hold=True)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(site.load, "a+")
        eventually(lambda: site.loads == ["a+"])
        with pytest.raises(OutOfMemory, match="the graphics card has"):
            site.model("b+")
        site.go.set()
        assert loading.result(PATIENCE_S)[1] is not None
    site.load("b+")
    assert site.closed == ["a+"]


@given(data=st.data())
def test_whatever_is_loaded_where_memory_is_kept_and_nobody_is_interrupted(card: Card, data: st.DataObject) -> None:
    site = Site(cards(card, "a", "b", "c", size=MODEL_BYTES), memory=15 * GIB // 2, gpu=4 * GIB)
    names = ["a", "b", "c", "a+", "b+", "c+"]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=8)):
        busy = data.draw(st.sampled_from([*site.live, None]))
        with answering(site.model(busy)) if busy else nullcontext():
            with suppress(OutOfMemory):
                site.load(name)
            assert site.detect().ram_available >= 0
            assert site.detect().gpus[0].free >= 0
            assert busy is None or busy in site.live


# --- which one -----------------------------------------------------------------------------------


def test_the_choice_stays_the_same_while_the_page_is_up(card: Card) -> None:
    can_be_had = {"a", "b"}
    rows = [
        card.model_copy(update={"id": name, "artefacts": (Artefact(engine="scripted", file=name, bytes=1, hub="t/x"),)})
        for name in "ab"
    ]
    site = Site(Catalog(tuple(rows)), obtainable=lambda artefact: artefact.file in can_be_had)
    assert site.models.choose("chat").id == "a"
    can_be_had.remove("a")
    assert site.models.choose("chat").id == "a"
    assert site.models.choose("math").id == "b"


def test_a_choice_that_failed_is_made_anew(card: Card) -> None:
    online = [False]
    site = Site(cards(card, "a"), obtainable=lambda artefact: online[0])
    with pytest.raises(SourceUnreachable):
        site.models.choose("chat")
    online[0] = True
    assert site.models.choose("chat").id == "a"


@pytest.mark.parametrize("task", ["chat", "coding", "math", "multilingual"])
def test_a_hosts_choice_is_every_tasks_choice(card: Card, task: str) -> None:
    assert Site(cards(card, "a", "b"), choice="b").models.choose(task).id == "b"


def test_a_hosts_choice_that_does_not_exist_is_named(card: Card) -> None:
    with pytest.raises(UnknownModel, match="nope"):
        Site(cards(card, "a"), choice="nope").models.choose("chat")


def test_what_is_loaded_and_idle_does_not_push_others_out_of_the_list(card: Card) -> None:
    site = Site(cards(card, "a", "b", size=4 * GIB), memory=7 * GIB)
    site.load("a")
    assert [(other.id, reason) for other, _, reason in site.models.ranked("chat")] == [("a", ""), ("b", "")]


def picture_models(card: Card) -> Catalog:
    """'text' reads that alone, 'eye' sees, and 'demo' is our own."""
    text = card.model_copy(update={"id": "text", "name": "text"})
    demo = seeing(card, id="demo", name="demo", demo=True, good_at=("image",))
    return Catalog((text, seeing(card, id="eye", name="eye"), demo))


@pytest.mark.parametrize(
    ("choice", "chat", "image"),
    [("text", "text", "demo"), ("eye", "eye", "eye"), ("demo", "text", "demo"), ("", "text", "demo")],
)
def test_a_hosts_choice_counts_where_it_can_do_the_task(card: Card, choice: str, chat: str, image: str) -> None:
    models = Site(picture_models(card), choice=choice).models
    assert (models.choose("chat").id, models.choose("image").id) == (chat, image)


def test_with_a_fixed_text_model_pictures_still_find_a_model_that_sees(card: Card) -> None:
    seers = Catalog(tuple(picture_models(card))[:2])
    models = Site(seers, choice="text").models
    assert models.choose("image").id == "eye"
    assert models.choose("chat").id == "text"


# --- room to look at a picture -------------------------------------------------------------------


@given(visual_tokens=st.integers(0, 20_000), memory=st.integers(0, 64 * GIB), on_gpu=st.booleans())
def test_a_picture_is_refused_exactly_where_it_needs_more_than_is_free(
    card: Card, visual_tokens: int, memory: int, on_gpu: bool
) -> None:
    sees = seeing(card)
    site = Site(Catalog((sees,)), memory=16 * GIB if on_gpu else memory, gpu=memory if on_gpu else 0)
    models = site.other if on_gpu and memory else site.models
    free = memory if models is site.other or not on_gpu else 16 * GIB
    need = looking_bytes(sees, visual_tokens)
    if not visual_tokens or need <= free:
        models.require_room_to_look(sees, visual_tokens)
        return
    with pytest.raises(OutOfMemory) as caught:
        models.require_room_to_look(sees, visual_tokens)
    assert f"{visual_tokens:,} visual tokens needs about {need / 1e9:.1f} GB" in caught.value.message
    assert f"{free / 1e9:.1f} GB are free" in caught.value.message
    assert "Visual tokens per picture" in caught.value.hint


def test_what_other_models_hold_is_not_free_for_a_picture(card: Card) -> None:
    catalog = cards(seeing(card), "a", "b", size=4 * GIB)
    site = Site(catalog, memory=12 * GIB)
    site.models.require_room_to_look(catalog.get("a"), 4000)
    site.load("a")
    site.load("b")
    with pytest.raises(OutOfMemory):
        site.models.require_room_to_look(catalog.get("a"), 4000)
