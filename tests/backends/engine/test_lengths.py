"""No answer is longer than was asked for, whatever the engine does; and none that keeps to it is ever cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, ThinkingRule
from backends.core.cancel import Cancel, Controls
from backends.core.types import (
    Answer,
    Done,
    GenerationRequest,
    Loading,
    Message,
    Sampling,
    Thinking,
    Thought,
    TokenLogprob,
    Usage,
)
from backends.engine.lengths import LAST_EVENTS, kept_to_length
from backends.engine.thinking import think_then_answer

Event = Loading | Thought | Answer | Done


class Teller(Scripted):
    """Tells given events whatever the limit is; heeds a cancel, or not. `told`: how many it was asked for."""

    def __init__(self, events: list[Event], *, heeds: bool = True, reason: str = "stop") -> None:
        super().__init__()
        self.events, self.heeds, self.reason, self.told = events, heeds, reason, 0
        self.closed = False

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Event]:
        spent = {Thought: 0, Answer: 0}
        try:
            for event in self.events:
                if cancel.is_set() and self.heeds:
                    break
                self.told += 1
                if isinstance(event, Thought | Answer):
                    spent[type(event)] += event.tokens
                yield event
            yield Done("cancelled" if cancel.is_set() else self.reason, Usage(9, 4, spent[Thought], spent[Answer]))
        finally:
            self.closed = True


class Deaf(Scripted):
    """A scripted engine that has never heard of max_new_tokens."""

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Event]:
        endless = request.sampling.model_copy(update={"max_new_tokens": 4000})
        return super().stream(replace(request, sampling=endless), cancel)


def asked(card: Card, most: int, thinking: Thinking | None = None) -> GenerationRequest:
    card = card.model_copy(update={"thinking": ThinkingRule(kind="switch")})
    sampling = Sampling(max_new_tokens=most, seed=1)
    return GenerationRequest(card, (Message.of("user", "Why?"),), sampling, thinking or Thinking())


def deltas(events: list[Event]) -> list[Thought | Answer]:
    return [event for event in events if isinstance(event, Thought | Answer)]


def tokens(events: list[Event]) -> int:
    return sum(event.tokens for event in deltas(events))


texts = st.text(min_size=1, max_size=6)
some = st.lists(
    st.builds(Thought, texts, st.integers(0, 5)) | st.builds(Answer, texts, st.integers(0, 5)), max_size=12
).map(lambda events: sorted(events, key=lambda event: isinstance(event, Answer)))


@given(events=some, spare=st.integers(0, 9), reason=st.sampled_from(["stop", "length"]))
def test_what_keeps_to_the_length_comes_as_it_is(card: Card, events: list[Event], spare: int, reason: str) -> None:
    most = max(1, tokens(events) + spare)
    given = [Loading("reading", 0.5), *events]
    engine = Teller(given, reason=reason)
    *heard, done = kept_to_length(engine, asked(card, most), Cancel())
    assert heard == given
    assert done.reason == reason


@given(events=some, most=st.integers(1, 20), heeds=st.booleans())
def test_what_goes_beyond_is_cut_at_the_length(card: Card, events: list[Event], most: int, heeds: bool) -> None:
    engine = Teller(events, heeds=heeds)
    *heard, done = kept_to_length(engine, asked(card, most), Cancel())
    assert tokens(heard) <= most
    assert done.usage.thinking + done.usage.answer == tokens(heard)
    assert (done.reason == "length") == (tokens(events) > most)
    whole, kept = ("".join(event.text for event in deltas(of)) for of in (events, heard))
    assert whole.startswith(kept)
    assert engine.closed


def test_a_delta_of_many_tokens_is_shortened_to_those_that_are_allowed(card: Card) -> None:
    logprobs = tuple(TokenLogprob(c, -1.0) for c in "abcdefgh")
    engine = Teller([Answer("abcdefgh", 8, logprobs)])
    (kept, done) = kept_to_length(engine, asked(card, 3), Cancel())
    assert kept == Answer("abc", 3, logprobs[:3])
    assert done == Done("length", Usage(9, 4, 0, 3))


def test_the_engine_is_cancelled_at_the_first_token_too_many(card: Card) -> None:
    engine = Teller([Answer("a ")] * 1000)
    list(kept_to_length(engine, asked(card, 7), Cancel()))
    assert engine.told == 8


def test_an_engine_that_hears_no_cancel_either_is_left(card: Card) -> None:
    engine = Teller([Answer("a ")] * 1000, heeds=False)
    *heard, done = kept_to_length(engine, asked(card, 7), Cancel())
    assert len(heard) == 7
    assert (done.reason, done.usage.answer) == ("length", 7)
    assert engine.told == 8 + LAST_EVENTS
    assert engine.closed


def test_a_count_that_never_rises_is_no_way_around(card: Card) -> None:
    engine = Teller([Answer("0123456789", 0)] * 1000)
    *heard, done = kept_to_length(engine, asked(card, 2), Cancel())
    assert (len(heard), done.reason) == (51, "length")


def test_a_stop_while_it_is_cut_is_told_as_a_stop(card: Card) -> None:
    cancel = Cancel()
    stream = kept_to_length(Teller([Answer("a ")] * 9), asked(card, 2), cancel)
    next(stream), next(stream)
    cancel()
    assert list(stream)[-1].reason == "cancelled"


@given(
    thoughts=st.integers(0, 12), answer=st.integers(0, 12), budget=st.none() | st.integers(1, 12),
    most=st.integers(1, 20), now=st.none() | st.integers(1, 12),
)  # fmt: skip
def test_thoughts_and_answer_together_are_no_longer_than_asked(
    card: Card, thoughts: int, answer: int, budget: int | None, most: int, now: int | None
) -> None:
    """With a budget and 'answer now' too, which ask the engine twice: it goes on beyond the length both times."""
    script = Script(tuple(f"t{n} " for n in range(thoughts)), tuple(f"a{n} " for n in range(answer)))
    engine, controls = Deaf(script), Controls()
    list(engine.load(card))
    heard: list[Event] = []
    for event in think_then_answer(engine, asked(card, most, Thinking(True, budget)), controls):
        heard.append(event)
        if len(heard) == now:
            controls.answer_now()
    done = heard[-1]
    assert isinstance(done, Done)
    assert done.usage.thinking + done.usage.answer == tokens(heard) <= most
    if budget is None and now is None:
        assert (done.reason == "length") == (thoughts + answer > most or (thoughts == most and not answer))


@pytest.mark.parametrize("think", [False, True])
def test_an_engine_without_a_limit_of_its_own_ends_with_length(card: Card, think: bool) -> None:
    engine = Deaf(Script(("t ",) * 50, ("a ",) * 50))
    list(engine.load(card))
    *heard, done = think_then_answer(engine, asked(card, 5, Thinking(think)), Controls())
    assert len(heard) == 5
    assert done.reason == "length"
    assert next(engine.stream(asked(card, 1), Cancel())), "its slot is free"
