"""From a request to its events: never an exception, one end, last, and a conversation that fits its context."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, Catalog, ThinkingRule
from backends.catalog.eyes import Eyes
from backends.core.cancel import Cancel, Controls
from backends.core.errors import PlaygroundError, PromptTooLong
from backends.core.types import (
    Answer,
    Backend,
    Capabilities,
    Done,
    Event,
    Failure,
    GenerationRequest,
    Image,
    Loading,
    Message,
    Queued,
    Sampling,
    Text,
    Thinking,
    Thought,
)
from backends.engine.engine import ANSWER_SHARE, LEAST_ANSWER, Engine, fit_into_context
from backends.engine.limits import Limits, Rules
from backends.engine.metrics import Answered
from backends.engine.pool import House, LocalModels
from backends.engine.room import Room
from backends.engine.thinking import CLOSING_SENTENCE
from backends.machine.machine import GIB, Machine
from tests.patience import FOREVER_S, PATIENCE_S

HELLO = Script(("hm ",), ("hello ", "you "))
PICTURE = Image(b"", 1, 1)
SEES = {
    "modalities": frozenset({"text", "image"}),
    "eyes": Eyes(side=32, fewest=4, default=64, most=256, boxes="thousandths"),
}


def every_error(of: type[PlaygroundError] = PlaygroundError) -> Iterator[type[PlaygroundError]]:
    yield of
    for kind in of.__subclasses__():
        yield from every_error(kind)


class Site:
    """An engine whose models all are `backend`; `opened` counts how often one was asked for."""

    def __init__(
        self, card: Card, backend: Backend, capabilities: Capabilities | None = None, rules: Rules | None = None
    ) -> None:
        self.card, self.backend, self.opened = card, backend, 0
        self.models = LocalModels(
            Catalog((card,)), "scripted", capabilities or backend.capabilities, self._open, lambda artefact: True,
            house=House(lambda: Machine(1, 1, 16 * GIB, 16 * GIB)),
        )  # fmt: skip
        self.room = Room(Limits(rules))
        self.engine = Engine(self.models, self.room)

    def _open(self, card: Card, fit: Any) -> Backend:
        self.opened += 1
        return self.backend

    def ask(self, text: str = "Hello?", *, think: bool = False, **sampling: Any) -> GenerationRequest:
        return GenerationRequest(self.card, (Message.of("user", text),), Sampling(**sampling), Thinking(think))

    def run(self, request: GenerationRequest | None = None, controls: Controls | None = None) -> list[Event]:
        """All events; exactly one end, last, one record of it, and the slot is free again."""
        before = len(self.room.metrics.recent)
        events = list(self.engine.run(request or self.ask(), controls or Controls()))
        ends = [isinstance(event, Done | Failure) for event in events]
        assert ends == [False] * (len(events) - 1) + [True]
        assert all(model.line.running == 0 for model in self.models._models.values())
        assert len(self.room.metrics.recent) == before + 1
        return events

    @property
    def record(self) -> Answered:
        """Of the only request so far."""
        (answered,) = self.room.metrics.recent
        return answered


@pytest.fixture
def site(card: Card) -> Site:
    return Site(card, Scripted(HELLO))


# --- the shape of it -----------------------------------------------------------------------------


def test_an_answer_is_loading_then_words_then_done(card: Card) -> None:
    site = Site(card, Scripted(replace(HELLO, reads=(1.0,)), load_steps=((0.5, 0.0),)))
    events = site.run(site.ask(think=True))
    order = [type(event) for event in events]
    assert order == sorted(order, key=[Queued, Loading, Thought, Answer, Done].index)
    assert {Thought, Answer, Done} <= set(order)
    assert "".join(event.text for event in events if isinstance(event, Answer)) == "hello you "


def test_done_says_what_was_measured_and_how_much_fits(card: Card) -> None:
    site = Site(card, Scripted(replace(HELLO, prompt_delay_s=0.02, interval_s=0.01), load_steps=((1.0, 0.02),)))
    done = site.run(site.ask(think=True))[-1]
    assert done.context == site.backend.context > 0
    assert done.dropped_turns == 0
    timings = done.timings
    assert timings.queue_s >= 0
    assert timings.load_s >= 0.02
    assert timings.ttft_s >= 0.02
    assert timings.ttft_s + timings.generate_s >= 0.04  # a first token that is late does not make the others so


def test_a_loaded_model_is_not_loaded_again(site: Site) -> None:
    site.run()
    site.run()
    assert site.opened == 1


def test_whoever_has_to_wait_is_told_the_place_in_line(site: Site) -> None:
    with closing(site.engine.run(site.ask(), Controls())) as first:
        while not isinstance(next(first), Answer):
            pass
        second = site.engine.run(site.ask(), Controls())
        assert next(second) == Queued(1)
        *_, done = first
        assert isinstance(done, Done)
        assert isinstance(list(second)[-1], Done)


def test_closing_an_answer_early_frees_its_slot(site: Site) -> None:
    with closing(site.engine.run(site.ask(), Controls())) as events:
        while not isinstance(next(events), Answer):
            pass
    assert site.models.get(site.card).line.running == 0
    assert site.run()[-1].reason == "stop"


# --- stopping ------------------------------------------------------------------------------------


def test_a_stop_in_line_is_a_cancelled_end_without_loading(site: Site) -> None:
    controls = Controls()
    controls.cancel()
    (done,) = site.run(controls=controls)
    assert done.reason == "cancelled"
    assert site.opened == 0


def test_a_stop_while_it_loads_is_a_cancelled_end_at_once(card: Card) -> None:
    go = threading.Event()

    class Slow(Scripted):
        def load(self, card: Card) -> Iterator[Loading]:
            yield Loading("loading", 0.5)
            assert go.wait(FOREVER_S)
            yield from super().load(card)

    site = Site(card, Slow(HELLO))
    controls = Controls()
    events = site.engine.run(site.ask(), controls)
    assert isinstance(next(events), Loading)
    controls.cancel()
    assert [event.reason for event in events] == ["cancelled"]
    go.set()
    assert site.run()[-1].reason == "stop"
    assert site.opened == 1, "the load that was under way was not joined"


def test_a_stop_within_the_answer_keeps_what_was_said(card: Card) -> None:
    site = Site(card, Scripted(Script(answer=("a",) * 1000, interval_s=0.001)))
    controls, said = Controls(), []
    for event in site.engine.run(site.ask(), controls):
        said.append(event)
        if sum(isinstance(event, Answer) for event in said) == 5:
            controls.cancel()
    assert said[-1].reason == "cancelled"
    assert sum(isinstance(event, Answer) for event in said) <= 6


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", dict.fromkeys(every_error()), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("after", [0, 2])
def test_every_error_becomes_the_failure_of_its_kind(card: Card, kind: type[PlaygroundError], after: int) -> None:
    site = Site(card, Scripted(replace(HELLO, fail_after=after, error=kind("It broke."))))
    *said, failure = site.run()
    assert failure == Failure(kind.kind, "It broke.", kind.default_hint, failure.number)
    assert len(failure.number) == 8
    assert sum(isinstance(event, Answer) for event in said) == after
    site.backend._script = HELLO
    assert site.run()[-1].reason == "stop", "the next message did not work"


def test_every_error_has_a_kind_of_its_own_and_a_hint() -> None:
    kinds = list(every_error())
    assert len({kind.kind for kind in kinds}) == len(kinds) > 10
    assert [kind.__name__ for kind in kinds if not kind.default_hint] in ([], ["PlaygroundError"])


@pytest.mark.parametrize("kind", dict.fromkeys(every_error()), ids=lambda kind: kind.__name__)
def test_an_error_keeps_the_hint_it_was_given(card: Card, kind: type[PlaygroundError]) -> None:
    site = Site(card, Scripted(replace(HELLO, fail_after=0, error=kind("It broke.", "Do this."))))
    assert site.run()[-1].hint == "Do this."


SECRET = "/home/someone/secret hf_abcdefgh 0x7fff12345678"


@pytest.mark.parametrize(
    "error", [RuntimeError(SECRET), KeyError(SECRET), OSError(5, SECRET), ZeroDivisionError(SECRET)]
)
@pytest.mark.parametrize("where", ["stream", "load", "open", "count"])
def test_an_unknown_exception_is_an_internal_failure_without_its_words(
    card: Card, error: Exception, where: str
) -> None:
    class Faulty(Scripted):
        def load(self, card: Card) -> Iterator[Loading]:
            if where == "load":
                raise error
            return super().load(card)

        def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Any]:
            if where == "stream":
                raise error
            return super().stream(request, cancel)

        def count_tokens(self, request: GenerationRequest) -> int:
            if where == "count":
                raise error
            return super().count_tokens(request)

    class NoDoor(Site):
        def _open(self, card: Card, fit: Any) -> Backend:
            if where == "open":
                raise error
            return super()._open(card, fit)

    site = NoDoor(card, Faulty(HELLO))
    (failure,) = site.run(site.ask("word " * 3000 if where == "count" else "Hello?"))
    assert failure.kind == "internal"
    assert failure.message.endswith(".")
    assert failure.hint
    assert not any(word in failure.message + failure.hint for word in SECRET.split())


def test_what_was_said_before_the_engine_died_is_kept_and_the_next_message_loads_anew(card: Card) -> None:
    site = Site(card, Scripted(replace(HELLO, die_after=1)))
    *said, failure = site.run()
    assert [event.text for event in said if isinstance(event, Answer)] == ["hello "]
    assert failure.kind == "engine_died"
    site.backend._script = HELLO
    assert site.run()[-1].reason == "stop"
    assert site.opened == 2


def test_a_model_too_large_for_the_machine_is_refused_with_the_numbers(card: Card) -> None:
    artefact = card.artefacts[0].model_copy(update={"bytes": 100 * GIB})
    site = Site(card.model_copy(update={"artefacts": (artefact,)}), Scripted(HELLO))
    (failure,) = site.run()
    assert failure.kind == "out_of_memory"
    assert "107.7 GB" in failure.message
    assert site.opened == 0


def with_picture(card: Card) -> GenerationRequest:
    return GenerationRequest(card, (Message("user", (Text("What is it?"), PICTURE)),), Sampling())


def test_a_picture_for_a_text_model_is_refused_before_anything_loads(site: Site) -> None:
    (failure,) = site.run(with_picture(site.card))
    assert failure.kind == "unsupported_modality"
    assert site.card.name in failure.message
    assert site.opened == 0


def test_a_picture_for_an_engine_that_reads_only_text_is_refused_before_anything_loads(card: Card) -> None:
    sees = card.model_copy(update=SEES)
    site = Site(sees, Scripted(HELLO))
    (failure,) = site.run(with_picture(sees))
    assert failure.kind == "unsupported_modality"
    assert site.opened == 0


def test_a_picture_is_let_through_where_model_and_engine_read_them(card: Card) -> None:
    sees = card.model_copy(update=SEES)
    site = Site(sees, Scripted(HELLO, modalities=frozenset({"text", "image"})))
    assert site.run(with_picture(sees))[-1].reason == "stop"


# --- the seed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 0, 7, 2**32 - 2])
def test_every_engine_gets_a_seed_and_a_given_one_is_left_alone(card: Card, seed: int | None) -> None:
    seeds: list[int | None] = []
    site = Site(card, Scripted(lambda request: (seeds.append(request.sampling.seed), HELLO)[1]))
    for _ in range(4):
        site.run(site.ask(seed=seed))
    assert None not in seeds
    assert all(0 <= got <= 2**32 - 2 for got in seeds)
    assert set(seeds) == {seed} if seed is not None else len(set(seeds)) > 1


# --- fitting into the context --------------------------------------------------------------------


def counting(context: int) -> tuple[Scripted, list[int]]:
    """A loaded engine with that context, and how often it was asked to count."""
    counted: list[int] = []

    class Counting(Scripted):
        def count_tokens(self, request: GenerationRequest) -> int:
            tokens = super().count_tokens(request)
            counted.append(tokens)
            return tokens

    backend = Counting(context=context)
    backend.alive = True
    return backend, counted


def conversation(card: Card, system: bool, turns: list[tuple[int, int]], last: int, limit: int) -> GenerationRequest:
    """Turns of so many words each; `last` is the question that is asked now. Long words, so that all is counted."""
    messages = [Message.of("system", "word56789012345678901234567890 " * 3)] if system else []
    for n, (asked, said) in enumerate(turns):
        messages.append(Message.of("user", f"q{n:029} " * asked))
        if said:  # an answer that failed leaves none
            messages.append(Message.of("assistant", f"a{n:029} " * said))
    messages.append(Message.of("user", "now456789012345678901234567890 " * last))
    return GenerationRequest(card, tuple(messages), Sampling(max_new_tokens=limit))


turns = st.lists(st.tuples(st.integers(1, 150), st.integers(0, 150)), max_size=12)
last = st.integers(1, 700)
contexts = st.integers(300, 900)


def without(request: GenerationRequest, turns: int) -> GenerationRequest:
    """The request without its oldest turns, the system message kept."""
    head = tuple(message for message in request.messages if message.role == "system")
    starts = [i for i, message in enumerate(request.messages) if message.role == "user"]
    return replace(request, messages=head + request.messages[starts[turns] :])


@given(system=st.booleans(), turns=turns, last=last, limit=st.integers(LEAST_ANSWER, 2000), context=contexts)
def test_a_conversation_loses_its_oldest_turns_and_as_few_as_possible(
    card: Card, system: bool, turns: list[tuple[int, int]], last: int, limit: int, context: int
) -> None:
    backend, _ = counting(context)
    request = conversation(card, system, turns, last, limit)
    room = context - min(limit, context // ANSWER_SHARE)
    assume(backend.count_tokens(without(request, len(turns))) <= context - LEAST_ANSWER)

    fitted, dropped = fit_into_context(backend, request)
    assert fitted == without(request, dropped)
    tokens = backend.count_tokens(fitted)
    assert tokens <= room or (dropped == len(turns) and tokens <= context - LEAST_ANSWER)
    assert dropped == 0 or backend.count_tokens(without(request, dropped - 1)) > room, "one fewer was enough"


@given(system=st.booleans(), turns=turns, over=st.integers(1, 300), limit=st.integers(1, 2000), context=contexts)
def test_a_conversation_is_refused_only_where_its_last_turn_alone_is_too_long(
    card: Card, system: bool, turns: list[tuple[int, int]], over: int, limit: int, context: int
) -> None:
    backend, _ = counting(context)
    request = conversation(card, system, turns, context - LEAST_ANSWER + over, limit)
    alone = backend.count_tokens(without(request, len(turns)))
    with pytest.raises(PromptTooLong) as refusal:
        fit_into_context(backend, request)
    assert f"{alone:,}" in refusal.value.message
    assert f"{context - LEAST_ANSWER:,}" in refusal.value.message


@pytest.mark.parametrize("limit", [1, 10, LEAST_ANSWER - 1, LEAST_ANSWER, 1000])
@pytest.mark.parametrize("words", [400, 520, 540, 570, 595, 700])
def test_a_long_conversation_with_a_short_question_is_never_refused(card: Card, limit: int, words: int) -> None:
    backend, _ = counting(600)
    request = conversation(card, False, [(words - 60, 20)], 40, limit)
    fitted, dropped = fit_into_context(backend, request)
    assert fitted == without(request, dropped)
    assert backend.count_tokens(fitted) <= 600 - min(limit, LEAST_ANSWER)


def test_a_short_conversation_is_not_even_counted(card: Card) -> None:
    backend, counted = counting(4096)
    request = conversation(card, True, [(1, 1)], 1, 100)
    assert fit_into_context(backend, request) == (request, 0)
    assert counted == []


def test_counting_is_rare_however_long_the_conversation(card: Card) -> None:
    backend, counted = counting(900)
    fit_into_context(backend, conversation(card, True, [(40, 40)] * 500, 10, 100))
    assert len(counted) <= 12


def test_done_tells_how_many_turns_were_left_out(card: Card) -> None:
    site = Site(card, Scripted(HELLO, context=600))
    done = site.run(conversation(card, True, [(100, 100)] * 4, 10, 100))[-1]
    assert (done.reason, done.dropped_turns) == ("stop", 2)


def test_a_text_too_long_by_itself_is_refused_with_both_numbers(site: Site) -> None:
    failure = site.run(site.ask("word " * 5000))[-1]
    assert failure.kind == "prompt_too_long"
    assert "5,000" in failure.message
    assert f"{4096 - LEAST_ANSWER:,}" in failure.message


def test_thoughts_that_are_kept_count_too(card: Card) -> None:
    keeps = card.model_copy(update={"thinking": ThinkingRule(kind="switch", history="keep")})
    site = Site(keeps, Scripted(HELLO, context=1000))
    earlier = (Message.of("user", "Why?"), Message.of("assistant", "So.", thoughts="word " * 2000))
    request = replace(site.ask("And?"), card=keeps, messages=(*earlier, Message.of("user", "And?")))
    done = site.run(request)[-1]
    assert getattr(done, "dropped_turns", done) == 1


@pytest.mark.parametrize("words", range(400, 700, 20))
def test_the_reasoning_prompt_counts_too(card: Card, words: int) -> None:
    """A prompted model is asked to think in words that stand before the conversation, and they must fit as well."""
    prompted = card.model_copy(update={"thinking": ThinkingRule(kind="prompted")})
    site = Site(prompted, Scripted(Script(("t ",) * 40, ("a ",) * 40), context=600))
    request = conversation(prompted, False, [(words - 60, 20)], 40, 100)
    end = site.run(replace(request, thinking=Thinking(True)))[-1]
    assert getattr(end, "reason", end) == "stop"


def test_thoughts_that_the_budget_ended_leave_room_for_the_answer(card: Card) -> None:
    site = Site(card, Scripted(Script(("t ",) * 500, ("a ",) * 10), context=1000))
    request = site.ask("word " * 700, think=True, max_new_tokens=2000)
    events = site.run(replace(request, thinking=Thinking(True, 100)))
    assert Thought(CLOSING_SENTENCE, 0) in events
    assert events[-1].reason == "stop"


# --- what is kept of it --------------------------------------------------------------------------


def stopped() -> Controls:
    controls = Controls()
    controls.cancel()
    return controls


def test_an_answer_is_recorded_with_what_was_measured(card: Card) -> None:
    site = Site(card, Scripted(replace(HELLO, prompt_delay_s=0.02, interval_s=0.01), load_steps=((1.0, 0.02),)))
    done = site.run(site.ask("Hello you?", think=True))[-1]
    record = site.record
    assert (record.engine, record.model, record.outcome, record.kind) == ("scripted", card.id, "done", "")
    assert (record.prompt_tokens, record.thinking_tokens, record.answer_tokens) == (2, 1, 2)
    timings = done.timings
    assert (record.queue_s, record.load_s, record.generate_s) == (timings.queue_s, timings.load_s, timings.generate_s)
    assert record.ttft_s == timings.ttft_s >= 0.02


def test_what_was_stopped_in_line_is_recorded_as_cancelled_without_a_first_token(site: Site) -> None:
    site.run(controls=stopped())
    assert (site.record.outcome, site.record.kind, site.record.ttft_s) == ("cancelled", "", None)
    assert site.record.answer_tokens == 0


@pytest.mark.parametrize("think", [False, True])
def test_what_was_stopped_within_the_answer_is_recorded_with_what_was_said(card: Card, think: bool) -> None:
    site = Site(card, Scripted(Script(("t ",), ("a ",) * 1000, interval_s=0.001)))
    controls, told = Controls(), 0
    for event in site.engine.run(site.ask(think=think), controls):
        told += isinstance(event, Thought | Answer)
        if told == 5:
            controls.cancel()
    assert site.record.outcome == "cancelled"
    assert site.record.thinking_tokens + site.record.answer_tokens == told
    assert site.record.thinking_tokens == think


@pytest.mark.parametrize("after", [1, 3, 10])
def test_an_answer_that_nobody_reads_to_its_end_is_recorded_as_cancelled(card: Card, after: int) -> None:
    site = Site(card, Scripted(Script(answer=("a ",) * 10)))
    told = 0
    with closing(site.engine.run(site.ask(), Controls())) as events:
        while told < after:
            told += isinstance(next(events), Answer)
    assert site.record.outcome == "cancelled"
    assert site.record.answer_tokens == after
    assert site.record.ttft_s is not None


def test_an_answer_that_is_left_after_its_last_event_is_recorded_as_what_it_was(card: Card) -> None:
    for backend, outcome in ((Scripted(HELLO), "done"), (Scripted(replace(HELLO, fail_after=0)), "failed")):
        site = Site(card, backend)
        with closing(site.engine.run(site.ask(), Controls())) as events:
            while not isinstance(next(events), Done | Failure):
                pass
        assert site.record.outcome == outcome


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (replace(HELLO, fail_after=1), "engine"),
        (replace(HELLO, die_after=1), "engine_died"),
        (replace(HELLO, fail_after=1, error=RuntimeError("no")), "internal"),
    ],
    ids=["fails", "dies", "unknown"],
)
def test_what_went_wrong_is_recorded_as_failed_with_what_was_said_before(card: Card, script: Script, kind: str) -> None:
    site = Site(card, Scripted(script))
    assert isinstance(site.run()[-1], Failure)
    assert (site.record.outcome, site.record.kind, site.record.answer_tokens) == ("failed", kind, 1)


def test_what_no_engine_was_asked_is_recorded_as_refused(card: Card) -> None:
    for request, kind in (
        (lambda site: with_picture(site.card), "unsupported_modality"),
        (lambda site: site.ask("word " * 5000), "prompt_too_long"),
    ):
        site = Site(card, Scripted(HELLO))
        assert site.run(request(site))[-1].kind == kind
        assert (site.record.outcome, site.record.kind) == ("refused", kind)


def test_a_request_that_was_never_read_is_none(site: Site) -> None:
    site.engine.run(site.ask(), Controls())
    assert site.room.metrics.recent == ()


@given(said=st.integers(0, 9), read=st.integers(0, 12), fail=st.none() | st.integers(0, 9), stop=st.booleans())
def test_however_a_request_ends_there_is_one_record_of_it_and_no_turn_is_left(
    card: Card, said: int, read: int, fail: int | None, stop: bool
) -> None:
    site = Site(card, Scripted(Script(answer=("a ",) * said, fail_after=fail)))
    controls, told = Controls(), 0
    with closing(site.engine.run(replace(site.ask(), person="mia"), controls)) as events:
        for _, event in zip(range(read + 1), events, strict=False):
            told += isinstance(event, Answer)
        if stop:
            controls.cancel()
            told += sum(isinstance(event, Answer) for event in events)
    assert site.record.answer_tokens == told
    assert site.models.get(card).line.running == 0
    assert site.room.gate.close(PATIENCE_S) == 0, "somebody is still inside"


def test_the_number_that_a_visitor_sees_stands_in_the_log(card: Card) -> None:
    for error in (None, RuntimeError("no"), PlaygroundError("It broke.")):
        script = replace(HELLO, fail_after=0, error=error) if error else HELLO
        site = Site(card, Scripted(script))
        with capture_logs() as logged:
            end = site.run()[-1]
        (answered,) = [event for event in logged if event["event"] == "answered"]
        assert answered["number"] == getattr(end, "number", None)
        faults = [event["number"] for event in logged if event["log_level"] == "error"]
        assert faults == ([end.number] if isinstance(error, RuntimeError) else [])


# --- what the host allows ------------------------------------------------------------------------


def by(person: str, request: GenerationRequest) -> GenerationRequest:
    return replace(request, person=person)


def test_the_answers_of_an_hour_are_counted_for_each_person_whatever_became_of_them(card: Card) -> None:
    site = Site(card, Scripted(HELLO), rules=Rules(answers_per_hour=2))
    assert site.run(by("mia", site.ask()))[-1].reason == "stop"
    assert site.run(by("mia", site.ask()), stopped())[-1].reason == "cancelled"
    (refusal,) = site.run(by("mia", site.ask()))
    assert refusal.kind == "limit_reached"
    assert "2 answers" in refusal.message
    assert site.run(by("bob", site.ask()))[-1].reason == "stop"
    assert [record.outcome for record in site.room.metrics.recent] == ["done", "cancelled", "refused", "done"]


@pytest.mark.parametrize("how", ["done", "closed early", "failed", "cancelled"])
def test_tokens_are_counted_however_an_answer_ended(card: Card, how: str) -> None:
    words = Script(("t ",), ("a ",) * 3)
    scripts = {"failed": replace(words, fail_after=4), "closed early": replace(words, answer=("a ",) * 9)}
    scripts["cancelled"] = replace(words, answer=("a ",) * 9)
    for most, refused in ((4, True), (5, False)):
        site = Site(card, Scripted(scripts.get(how, words)), rules=Rules(tokens_per_hour=most))
        controls, told = Controls(), 0
        with closing(site.engine.run(by("mia", site.ask(think=True)), controls)) as events:
            for event in events:
                told += isinstance(event, Thought | Answer)
                if told == 4 and how == "closed early":
                    break
                if told == 4 and how == "cancelled":
                    controls.cancel()
        assert told == 4
        end = site.run(by("mia", site.ask()))[-1]
        assert (getattr(end, "kind", "") == "limit_reached") == refused


def test_who_finds_no_place_finds_none_by_asking_again(card: Card) -> None:
    site = Site(card, Scripted(HELLO), rules=Rules(people_at_once=1))
    assert site.run(by("mia", site.ask()))[-1].reason == "stop"
    for _ in range(3):
        assert site.run(by("bob", site.ask()))[-1].kind == "limit_reached"
    assert site.room.limits.people == 1
    assert site.run(by("mia", site.ask()))[-1].reason == "stop"


def test_a_prompt_longer_than_the_host_allows_is_refused_with_the_number(card: Card) -> None:
    site = Site(card, Scripted(HELLO), rules=Rules(longest_prompt=1500))
    assert site.run(site.ask("word " * 1500))[-1].reason == "stop"
    failure = site.run(site.ask("word " * 1501))[-1]
    assert failure.kind == "prompt_too_long"
    assert "1,501 tokens" in failure.message
    assert "at most 1,500 of them" in failure.message


def test_a_conversation_longer_than_the_host_allows_loses_its_oldest_turns(card: Card) -> None:
    request = conversation(card, True, [(100, 100)] * 4, 10, 100)
    site = Site(card, Scripted(HELLO), rules=Rules(longest_prompt=300))
    done = site.run(request)[-1]
    assert (done.reason, done.dropped_turns) == ("stop", 3)
    assert site.record.prompt_tokens <= 300


@given(system=st.booleans(), turns=turns, last=last, most=st.integers(100, 1200), context=contexts)
def test_no_prompt_is_longer_than_the_host_allows_and_no_more_turns_go_than_need_to(
    card: Card, system: bool, turns: list[tuple[int, int]], last: int, most: int, context: int
) -> None:
    backend, _ = counting(context)
    request = conversation(card, system, turns, last, 100)
    limit = min(most, context - LEAST_ANSWER)
    assume(backend.count_tokens(without(request, len(turns))) <= limit)
    fitted, dropped = fit_into_context(backend, request, most)
    assert fitted == without(request, dropped)
    assert backend.count_tokens(fitted) <= limit
    room = min(most, context - min(100, context // ANSWER_SHARE))
    assert dropped == 0 or backend.count_tokens(without(request, dropped - 1)) > room, "one fewer was enough"


# --- the end of the playground -------------------------------------------------------------------


def test_after_the_gate_is_closed_nobody_is_let_in_or_counted(card: Card) -> None:
    site = Site(card, Scripted(HELLO), rules=Rules(answers_per_hour=1))
    site.room.gate.close(0)
    (failure,) = site.run(by("mia", site.ask()))
    assert failure.kind == "closing"
    assert failure.hint
    assert site.opened == site.room.limits.people == 0
    assert (site.record.outcome, site.record.kind) == ("refused", "closing")


def test_an_answer_that_the_end_cuts_short_says_so_after_what_was_said(card: Card) -> None:
    site = Site(card, Scripted(Script(answer=("a ",) * 1000)))
    controls = Controls()
    said: list[Event] = []
    end = threading.Thread(target=site.room.gate.close, args=(0,))
    for event in site.engine.run(site.ask(), controls):
        said.append(event)
        if len(said) == 5:
            end.start()
            assert controls.cancel.wait(PATIENCE_S)
    end.join(PATIENCE_S)
    *before, failure = said
    assert (failure.kind, failure.message) == ("closing", "The playground is being restarted.")
    assert "kept" in failure.hint
    answers = [event for event in before if isinstance(event, Answer)]
    assert 4 <= len(answers) <= 5
    assert (site.record.kind, site.record.answer_tokens) == ("closing", len(answers))
    assert site.models.get(card).line.running == 0


def test_who_stands_in_line_when_the_end_comes_is_told_so_too(site: Site) -> None:
    with closing(site.engine.run(site.ask(), Controls())) as first:
        while not isinstance(next(first), Answer):
            pass
        second = site.engine.run(site.ask(), Controls())
        assert next(second) == Queued(1)
        end = threading.Thread(target=site.room.gate.close, args=(0,))
        end.start()
        assert [event.kind for event in second] == ["closing"]
    end.join(PATIENCE_S)
    assert [record.kind for record in site.room.metrics.recent] == ["closing", ""]


def test_an_answer_that_ends_within_the_grace_is_whole(site: Site) -> None:
    ended: list[int] = []
    end = threading.Thread(target=lambda: ended.append(site.room.gate.close(PATIENCE_S)))
    events = site.engine.run(site.ask(), Controls())
    first = next(events)
    end.start()
    while not site.room.gate.closed:
        end.join(0.001)
    *_, done = first, *events
    assert done.reason == "stop"
    end.join(PATIENCE_S)
    assert ended == [0]


# --- pictures --------------------------------------------------------------------------------------


def looking(context: int) -> Scripted:
    """Loaded, and with eyes."""
    backend = Scripted(HELLO, context=context, modalities=frozenset({"text", "image"}))
    backend.alive = True
    return backend


def sized(visual_tokens: int) -> Image:
    """A picture that costs so much; nobody opens it."""
    return Image(b"", 32 * visual_tokens, 32)


def album(card: Card, *turns: tuple[int, ...], limit: int = 64) -> GenerationRequest:
    """A question for each row of pictures, given by what each costs; all but the last have an answer."""
    messages = [Message.of("system", "Look.")]
    for row in turns:
        messages += [Message("user", (*map(sized, row), Text("What?"))), Message.of("assistant", "This.")]
    return GenerationRequest(card, tuple(messages[:-1]), Sampling(max_new_tokens=limit))


rows = st.lists(st.integers(1, 256), max_size=3).map(tuple)


@given(turns=st.lists(rows, min_size=1, max_size=8), context=st.integers(400, 3000))
def test_pictures_count_and_the_oldest_turns_go_with_theirs(
    card: Card, turns: list[tuple[int, ...]], context: int
) -> None:
    backend, sees = looking(context), card.model_copy(update=SEES)
    request = album(sees, *turns)
    assume(backend.count_tokens(without(request, len(turns) - 1)) <= context - LEAST_ANSWER)
    fitted, dropped = fit_into_context(backend, request)
    assert fitted == without(request, dropped)
    assert backend.count_tokens(fitted) <= context - LEAST_ANSWER
    assert dropped == 0 or backend.count_tokens(without(request, dropped - 1)) > context - LEAST_ANSWER


def test_a_short_question_about_a_large_picture_is_counted(card: Card) -> None:
    counted: list[int] = []

    class Counting(Scripted):
        alive = True

        def count_tokens(self, request: GenerationRequest) -> int:
            counted.append(super().count_tokens(request))
            return counted[-1]

    sees = card.model_copy(update=SEES)
    assert fit_into_context(Counting(HELLO, context=1000), album(sees, (100,))) == (album(sees, (100,)), 0)
    assert counted == [], "what surely fits is not counted"
    assert fit_into_context(Counting(HELLO, context=1000), album(sees, (800,), (800,)))[1] == 1
    assert counted


def test_a_picture_too_large_for_the_context_is_named_with_its_tokens_and_what_to_do(card: Card) -> None:
    sees = card.model_copy(update=SEES)
    site = Site(sees, looking(2048))
    failure = site.run(album(sees, (1500, 700)))[-1]
    assert failure.kind == "prompt_too_long"
    assert "2,206 tokens, 1,500 of them for a picture" in failure.message
    assert f"{2048 - LEAST_ANSWER:,}" in failure.message
    assert "Visual tokens per picture" in failure.hint
    assert site.run(album(sees, (500,)))[-1].reason == "stop"


def test_a_picture_that_would_take_all_memory_is_refused_before_the_engine_sees_it(card: Card) -> None:
    asked: list[GenerationRequest] = []
    sees = card.model_copy(update=SEES)
    backend = Scripted(lambda request: (asked.append(request), HELLO)[1], modalities=frozenset({"text", "image"}))
    site = Site(sees, backend)
    failure = site.run(album(sees, (3, 20_000)))[-1]
    assert failure.kind == "out_of_memory"
    assert "20,000 visual tokens" in failure.message
    assert asked == []
    assert site.run(album(sees, (256,)))[-1].reason == "stop"
