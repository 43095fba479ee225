"""The scripted engine keeps its times to the token, fails as it is told to, and repeats itself for the same seed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters import scripted
from backends.adapters.scripted import Script, Scripted, small_talk, tokens
from backends.catalog.cards import Card
from backends.core.cancel import Cancel
from backends.core.errors import Busy, EngineDied, PlaygroundError, UnsupportedModality
from backends.core.types import (
    Answer,
    Begun,
    Done,
    GenerationRequest,
    Image,
    Loading,
    Message,
    Sampling,
    Text,
    Thinking,
    Thought,
)
from tests.patience import FOREVER_S, ended

Ask = Callable[..., GenerationRequest]
Loaded = Callable[..., Scripted]


@pytest.fixture(scope="module")
def ask(card: Card) -> Ask:
    def build(
        text: str = "Hello there", *, think: bool = True, begun: Begun | None = None, **sampling: Any
    ) -> GenerationRequest:
        return GenerationRequest(card, (Message.of("user", text),), Sampling(**sampling), Thinking(think), begun=begun)

    return build


@pytest.fixture(scope="module")
def loaded(card: Card) -> Loaded:
    def build(script: Script | Callable[[GenerationRequest], Script] = small_talk, **options: Any) -> Scripted:
        engine = Scripted(script, **options)
        list(engine.load(card))
        return engine

    return build


class Clock:
    """Time for the engine under test: it passes by waiting and by nothing else."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Unhurried(Cancel):
    """A cancel whose waits pass on the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float) -> bool:
        self._clock.sleep(timeout)
        return self.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(scripted, "time", clock)
    return clock


def hear(engine: Scripted, request: GenerationRequest) -> list[Loading | Thought | Answer | Done]:
    return list(engine.stream(request, Cancel()))


def texts(events: list[Loading | Thought | Answer | Done], kind: type) -> list[str]:
    return [event.text for event in events if isinstance(event, kind)]


# --- times ---------------------------------------------------------------------------------------


def test_every_token_comes_when_it_is_due(ask: Ask, loaded: Loaded, clock: Clock) -> None:
    engine = loaded(Script(("a ", "b "), ("c ", "d "), prompt_delay_s=0.1, interval_s=0.05))
    start = clock.now
    times = [clock.now - start for _ in engine.stream(ask(), Unhurried(clock))]
    assert times == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.25])


def test_a_slow_listener_does_not_delay_the_tokens_after(ask: Ask, loaded: Loaded, clock: Clock) -> None:
    stream = loaded(Script(answer=("a ",) * 11, interval_s=0.02)).stream(ask(), Unhurried(clock))
    start = clock.now
    next(stream)
    clock.sleep(0.15)  # the seven tokens due meanwhile are all there
    times = [clock.now - start for _ in stream]
    assert times == pytest.approx([0.15] * 7 + [0.16, 0.18, 0.2, 0.2])


def test_without_an_interval_it_waits_for_nothing(ask: Ask, loaded: Loaded, clock: Clock) -> None:
    engine = loaded(Script(answer=("a ",) * 2000))
    start = clock.now
    assert len(list(engine.stream(ask(), Unhurried(clock)))) == 2001
    assert clock.now == start


def test_reading_is_told_in_its_place_within_the_delay(ask: Ask, loaded: Loaded, clock: Clock) -> None:
    engine = loaded(Script(answer=("a",), prompt_delay_s=0.1, reads=(0.5, 1.0)))
    start = clock.now
    stream = engine.stream(ask("one two three four"), Unhurried(clock))
    assert next(stream) == Loading("reading", 0.5, done=2, total=4)
    assert clock.now - start == pytest.approx(0.05)
    assert next(stream) == Loading("reading", 1.0, done=4, total=4)
    assert clock.now - start == pytest.approx(0.1)


def test_cancel_ends_a_wait_that_would_not_end(ask: Ask, loaded: Loaded) -> None:
    cancel = Cancel()
    stream = loaded(Script(answer=("late",), prompt_delay_s=FOREVER_S, reads=(0.0,))).stream(ask(), cancel)
    next(stream)
    threading.Timer(0.05, cancel).start()
    events = ended(lambda: list(stream))
    assert [type(event) for event in events] == [Done]
    assert events[0].reason == "cancelled"


def test_loading_takes_its_steps(card: Card, clock: Clock) -> None:
    engine = Scripted(load_steps=((0.3, 0.02), (1.0, 0.02)))
    start = clock.now
    steps = engine.load(card)
    assert next(steps) == Loading("loading", 0.3, card.name)
    assert not engine.alive
    assert [step.fraction for step in steps] == [1.0]
    assert clock.now - start == pytest.approx(0.04)
    assert engine.alive


# --- what is said --------------------------------------------------------------------------------


def test_thoughts_only_when_thinking(ask: Ask, loaded: Loaded) -> None:
    engine = loaded(Script(("Well, ",), ("yes.",)))
    assert hear(engine, ask(think=True))[:-1] == [Thought("Well, "), Answer("yes.")]
    assert hear(engine, ask(think=False))[:-1] == [Answer("yes.")]


def test_a_script_may_be_written_for_the_request(ask: Ask, loaded: Loaded) -> None:
    engine = loaded(lambda request: Script(answer=tokens(request.messages[-1].text)))
    assert texts(hear(engine, ask("say 你好 🦜")), Answer) == ["say", " 你", "好", " 🦜"]


def test_the_limit_counts_thoughts_and_answer(ask: Ask, loaded: Loaded) -> None:
    *said, done = hear(loaded(Script(("a", "b"), ("c", "d"))), ask(max_new_tokens=3))
    assert said == [Thought("a"), Thought("b"), Answer("c")]
    assert (done.reason, done.usage.thinking, done.usage.answer) == ("length", 2, 1)


def test_an_answer_as_long_as_the_limit_is_whole(ask: Ask, loaded: Loaded) -> None:
    assert hear(loaded(Script(answer=("a", "b"))), ask(max_new_tokens=2))[-1].reason == "stop"


def test_prompt_and_answer_share_the_context(ask: Ask, loaded: Loaded) -> None:
    *said, done = hear(loaded(Script(answer=("a",) * 9), context=5), ask("two words"))
    assert (len(said), done.reason) == (3, "length")


def test_small_talk_follows_the_seed(ask: Ask, loaded: Loaded) -> None:
    answers = ["".join(texts(hear(loaded(), ask(seed=seed)), Answer)) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]
    assert answers[0].count(".") == 3


@given(text=st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text
    assert all(tokens(text))


@given(pieces=st.lists(st.text(max_size=4), max_size=6), data=st.data())
def test_what_has_begun_and_what_follows_make_the_whole(
    loaded: Loaded, card: Card, pieces: list[str], data: st.DataObject
) -> None:
    whole = "".join(pieces)
    begun = Begun(answer=whole[: data.draw(st.integers(0, len(whole)))])
    request = GenerationRequest(card, (), Sampling(), begun=begun)
    rest = texts(hear(loaded(Script(answer=tuple(pieces))), request), Answer)
    assert begun.answer + "".join(rest) == whole
    assert all(rest)


def test_open_thoughts_go_on_and_closed_ones_do_not(ask: Ask, loaded: Loaded) -> None:
    engine = loaded(Script(("First, ", "then. "), ("Yes, ", "it is.")))
    assert hear(engine, ask(begun=Begun("First, ", closed=False)))[:-1] == [
        Thought("then. "),
        Answer("Yes, "),
        Answer("it is."),
    ]
    cut_short = Begun("First, that is enough. ", closed=True, answer="Yes")
    assert texts(hear(engine, ask(begun=cut_short)), Answer) == [", ", "it is."]


# --- what goes wrong -----------------------------------------------------------------------------


def test_the_given_error_is_raised_after_the_given_tokens_and_the_engine_lives(ask: Ask, loaded: Loaded) -> None:
    error = ZeroDivisionError("given")
    engine = loaded(Script(answer=("a", "b", "c"), fail_after=2, error=error))
    stream = engine.stream(ask(), Cancel())
    assert [next(stream), next(stream)] == [Answer("a"), Answer("b")]
    with pytest.raises(ZeroDivisionError) as caught:
        next(stream)
    assert caught.value is error
    assert engine.alive
    assert hear(engine, ask(max_new_tokens=1))[-1].reason == "length"  # the slot is free again


def test_a_failure_may_come_after_the_last_token(ask: Ask, loaded: Loaded) -> None:
    engine = loaded(Script(answer=("a",), fail_after=1))
    with pytest.raises(PlaygroundError):
        hear(engine, ask())


def test_when_it_dies_every_answer_under_way_dies_and_loading_brings_it_back(
    ask: Ask, loaded: Loaded, card: Card
) -> None:
    def live_or_die(request: GenerationRequest) -> Script:
        return Script(answer=("a", "b", "c"), die_after=1 if request.messages[0].text == "die" else None)

    engine = loaded(live_or_die, parallel=2)
    other = engine.stream(ask("live"), Cancel())
    next(other)
    with pytest.raises(EngineDied):
        hear(engine, ask("die"))
    assert not engine.alive
    with pytest.raises(EngineDied):
        next(other)
    assert list(engine.load(card)) == []
    assert hear(engine, ask("live"))[-1].reason == "stop"


def test_more_requests_than_slots_are_refused(ask: Ask, loaded: Loaded) -> None:
    engine = loaded(Script(answer=("a", "b")))
    with closing(engine.stream(ask(), Cancel())) as running:
        next(running)
        with pytest.raises(Busy):
            hear(engine, ask())
    assert hear(engine, ask())[-1].reason == "stop"


def test_the_slot_is_free_when_done_arrives(ask: Ask, loaded: Loaded) -> None:
    engine = loaded(Script(answer=("a",)))
    finished = engine.stream(ask(), Cancel())
    assert [type(next(finished)) for _ in range(2)] == [Answer, Done]
    assert hear(engine, ask())[-1].reason == "stop"


def test_pictures_are_read_only_where_told(ask: Ask, loaded: Loaded, card: Card) -> None:
    picture = Message("user", (Text("What is it?"), Image(b"", 1, 1)))
    request = GenerationRequest(card, (picture,), Sampling())
    with pytest.raises(UnsupportedModality):
        hear(Scripted(), request)
    assert hear(loaded(modalities=frozenset({"text", "image"})), request)[-1].reason == "stop"
