"""Ready is who has just given a token, or gives one when asked; nobody has to wait for an engine that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, Catalog
from backends.core.cancel import Cancel, Controls
from backends.core.errors import Fault
from backends.core.types import Answer, Done, GenerationRequest, Message, Sampling, Usage
from backends.engine import readiness, scheduler
from backends.engine.engine import Engine
from backends.engine.limits import Limits, Rules
from backends.engine.pool import House, LocalModels
from backends.engine.readiness import FRESH_SECONDS, Readiness
from backends.engine.room import Room
from backends.machine.machine import GIB, Machine
from tests.patience import PATIENCE_S, eventually

HELLO = Script(answer=("hello ", "you "))
BROKEN = Script(answer=("never ",), fail_after=0)
SECRET = "/home/someone/secret hf_abcdefgh"


class Probed(Engine):
    """An engine whose models all are `backend`; `asked` are the requests that reached it."""

    def __init__(self, card: Card, script: Script | None = None, room: Room | None = None, **how: Any) -> None:
        self.script, self.card, self.asked = script or HELLO, card, list[GenerationRequest]()
        self.backend: Scripted = how.pop("backend", None) or Scripted(self._said, **how)
        super().__init__(
            LocalModels(
                Catalog((card,)), "scripted", self.backend.capabilities, lambda card, fit: self.backend,
                lambda artefact: True, house=House(lambda: Machine(1, 1, 16 * GIB, 16 * GIB)),
            ),
            room,
        )  # fmt: skip

    def _said(self, request: GenerationRequest) -> Script:
        self.asked.append(request)
        return self.script

    def answer(self) -> None:
        """To somebody, to the end."""
        request = GenerationRequest(self.card, (Message.of("user", "Hello?"),), Sampling())
        *_, end = self.run(request, Controls())
        assert isinstance(end, Done)
        self.asked.clear()


class Hanging(Scripted):
    """Says nothing until it may `go`; `entered` counts who has asked it."""

    def __init__(self) -> None:
        super().__init__(HELLO)
        self.go, self.entered = threading.Event(), 0

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Any]:
        self.entered += 1
        assert self.go.wait(PATIENCE_S)
        yield from super().stream(request, cancel)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is slow a probe takes longer than somebody who asks would wait."""
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", PATIENCE_S)


@pytest.fixture
def engine(card: Card) -> Probed:
    return Probed(card)


@pytest.fixture
def hanging(card: Card, patient: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """Those who ask are not patient; in the end it answers, and no probe is left behind."""
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.02)
    backend = Hanging()
    yield backend
    backend.go.set()
    eventually(lambda: not probes())


def probes() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("probe of ")]


def ready(*engines: Engine) -> bool:
    return Readiness({f"engine {n}": engine for n, engine in enumerate(engines)}).check()[0]


# --- one engine ----------------------------------------------------------------------------------


def test_an_engine_that_has_just_answered_needs_no_probe(engine: Probed) -> None:
    engine.answer()
    assert ready(engine)
    assert engine.asked == []


def test_an_engine_that_nobody_has_asked_yet_is_probed_once_and_then_ready(engine: Probed) -> None:
    both = Readiness({"here": engine})
    assert both.check()[0]
    assert both.check()[0]
    assert len(engine.asked) == 1


def test_a_token_that_is_too_old_is_followed_by_a_probe(engine: Probed) -> None:
    engine.answer()
    engine.last_token_at = time.monotonic() - FRESH_SECONDS - 1
    _, ages = Readiness({"here": engine}).check()
    assert len(engine.asked) == 1
    assert ages["here"] is not None
    assert ages["here"] < FRESH_SECONDS


def test_every_word_of_an_answer_is_a_sign_of_life(engine: Probed) -> None:
    events = engine.run(GenerationRequest(engine.card, (Message.of("user", "Hi"),), Sampling()), Controls())
    seen = [engine.last_token_at for event in events if isinstance(event, Answer)]
    assert len(seen) == 2
    assert None not in seen
    assert seen[0] < seen[1]


@pytest.mark.parametrize("wrong", [BROKEN, Script(answer=("never ",), die_after=0)], ids=["fails", "dies"])
def test_an_engine_that_is_broken_is_not_ready_and_the_log_says_how(card: Card, wrong: Script) -> None:
    engine = Probed(card, wrong)
    with capture_logs() as logged:
        assert Readiness({"here": engine}).check() == (False, {"here": None})
    (event,) = [event for event in logged if event["log_level"] == "warning"]
    assert event["engine"] == "here"
    assert event["kind"] in ("engine", "engine_died")


def test_an_engine_that_was_mended_is_ready_when_asked_again(card: Card) -> None:
    engine = Probed(card, BROKEN)
    probed = Readiness({"here": engine})
    assert not probed.check()[0]
    engine.script = HELLO
    assert probed.check()[0]


def test_a_machine_without_room_for_the_model_is_not_ready(card: Card) -> None:
    artefact = card.artefacts[0].model_copy(update={"bytes": 100 * GIB})
    assert not ready(Probed(card.model_copy(update={"artefacts": (artefact,)})))


def test_a_playground_that_is_being_stopped_is_not_ready_whatever_its_engines_can(engine: Probed) -> None:
    engine.answer()
    engine.room.gate.close(0)
    assert not ready(engine)


# --- an engine that hangs ------------------------------------------------------------------------


def test_who_asks_about_an_engine_that_hangs_gets_an_answer_and_later_a_better_one(
    card: Card, hanging: Hanging
) -> None:
    probed = Readiness({"here": Probed(card, backend=hanging)})
    assert probed.check() == (False, {"here": None})
    hanging.go.set()
    eventually(lambda: not probes())
    assert probed.check()[0]
    assert hanging.entered == 1, "the probe that was under way had the result"


def test_an_engine_that_hangs_has_one_probe_however_many_ask(card: Card, hanging: Hanging) -> None:
    probed = Readiness({"here": Probed(card, backend=hanging)})
    with ThreadPoolExecutor(8) as pool:
        answers = [probed.check()[0] for _ in range(2)] + list(pool.map(lambda _: probed.check()[0], range(8)))
    assert not any(answers)
    eventually(lambda: hanging.entered > 0)
    assert len(probes()) == hanging.entered == 1


def test_one_engine_that_hangs_does_not_keep_another_from_being_probed(card: Card, hanging: Hanging) -> None:
    other = Probed(card)
    other.answer()
    other.last_token_at = None
    assert not ready(Probed(card, backend=hanging), other)
    eventually(lambda: other.last_token_at is not None)


# --- several engines -----------------------------------------------------------------------------


def test_only_the_default_and_those_with_a_model_loaded_are_probed(card: Card) -> None:
    default, loaded, idle = Probed(card), Probed(card), Probed(card, BROKEN)
    loaded.answer()
    loaded.last_token_at = None
    is_ready, ages = Readiness({"default": default, "loaded": loaded, "idle": idle}).check()
    assert is_ready
    assert [len(engine.asked) for engine in (default, loaded, idle)] == [1, 1, 0]
    assert [age is None for age in ages.values()] == [False, False, True]


def test_one_broken_engine_with_a_model_loaded_is_enough_not_to_be_ready(card: Card) -> None:
    default, loaded = Probed(card), Probed(card)
    loaded.answer()
    loaded.last_token_at, loaded.script = None, BROKEN
    assert not ready(default, loaded)


# --- the probe -----------------------------------------------------------------------------------


def test_a_probe_asks_for_one_token_of_what_is_loaded(card: Card) -> None:
    larger = card.model_copy(update={"id": "larger", "name": "Larger"})
    engine = Probed(larger)
    engine.models.catalog = Catalog((card, larger))
    engine.answer()
    assert engine.probe() is None
    (request,) = engine.asked
    assert request.card.id == "larger"
    assert request.sampling.max_new_tokens == 1


def test_a_probe_counts_for_nobody(card: Card) -> None:
    room = Room(Limits(Rules(answers_per_hour=1, tokens_per_hour=1, people_at_once=1)))
    engine = Probed(card, room=room)
    for _ in range(3):
        assert engine.probe() is None
    assert room.metrics.recent == ()
    assert room.limits.people == 0
    assert engine.models.get(card).line.running == 0


def test_a_probe_leaves_no_turn_taken_where_the_engine_fails(card: Card) -> None:
    engine = Probed(card, BROKEN)
    problem = engine.probe()
    assert problem is not None
    assert problem.kind == "engine"
    assert engine.models.get(card).line.running == 0


def test_a_probe_that_meets_an_unknown_exception_tells_nothing_of_its_words(card: Card) -> None:
    engine = Probed(card, replace(BROKEN, error=RuntimeError(SECRET)))
    with capture_logs() as logged:
        problem = engine.probe()
    assert isinstance(problem, Fault)
    assert not any(word in str(problem) for word in SECRET.split())
    assert [event["log_level"] for event in logged] == ["error"]


def test_a_probe_waits_for_its_turn_like_everybody(engine: Probed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.02)
    events = engine.run(GenerationRequest(engine.card, (Message.of("user", "Hi"),), Sampling()), Controls())
    while not isinstance(next(events), Answer):
        pass
    engine.last_token_at = None
    line = engine.models.get(engine.card).line
    probed = Readiness({"here": engine})
    assert not probed.check()[0]
    eventually(lambda: line.waiting == 1)
    assert line.running == 1
    events.close()  # type: ignore[attr-defined]
    eventually(lambda: not probes())
    assert engine.last_token_at is not None


def test_a_token_whose_text_is_held_back_is_a_sign_of_life_too(card: Card) -> None:
    """As where the first token of a model that thinks is the marker of its thoughts."""

    class Marker(Scripted):
        def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Any]:
            yield Done("length", Usage(prompt=1, thinking=0, answer=1))

    assert ready(Probed(card, backend=Marker()))


def test_an_engine_that_ends_without_a_token_is_not_ready(card: Card) -> None:
    engine = Probed(card, Script())
    assert engine.probe() is None
    assert not ready(engine)


def test_a_line_that_is_full_while_no_token_comes_is_a_problem_like_any_other(
    engine: Probed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MOST", 0)
    problem = engine.probe()
    assert problem is not None
    assert problem.kind == "busy"
    assert not ready(engine)
