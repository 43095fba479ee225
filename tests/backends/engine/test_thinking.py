"""Thoughts and answers are told apart wherever the text is cut, and the thoughts end in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, ThinkingRule
from backends.catalog.prompts import REASONING
from backends.core.cancel import Cancel, Controls
from backends.core.types import Answer, Begun, Done, GenerationRequest, Loading, Message, Sampling, Thinking, Thought
from backends.engine.thinking import CLOSING_SENTENCE, PROMPTED_CLOSING, Splitter, think_then_answer

Event = Loading | Thought | Answer | Done

# --- the splitter --------------------------------------------------------------------------------

# (text, whether the prompt has opened the thoughts, thoughts, answer)
SPLITS = {
    "thoughts, then an answer": ("<think>\nSo it is.\n</think>\n\nYes.", False, "So it is.", "Yes."),
    "opened by the prompt": ("\nSo it is.\n</think>\n\nYes.", True, "So it is.", "Yes."),
    "no thoughts": ("Yes, and no.\n\nBut why?\n", False, "", "Yes, and no.\n\nBut why?\n"),
    "empty thoughts": ("<think>\n\n</think>\n\nYes.", False, "", "Yes."),
    "empty thoughts, opened by the prompt": ("\n\n</think>\n\nYes.", True, "", "Yes."),
    "no answer": ("<think>Hm.</think>\n", False, "Hm.", ""),
    "never closed": ("<think>\nHm.\n\nStill hm.\n", False, "Hm.\n\nStill hm.\n", ""),
    "never closed, opened by the prompt": ("Hm.\n\n", True, "Hm.\n\n", ""),
    "blank lines within the thoughts": ("<think>a\n\n\nb\n\n</think>c", False, "a\n\n\nb", "c"),
    "an opening marker late in the answer": ("Write <think> here, </think> there.", False, "", None),
    "a pair of markers after the thoughts": (
        "<think>a</think>b <think>c</think> d",
        False,
        "a",
        "b <think>c</think> d",
    ),
    "a second opening marker within the thoughts": ("<think>a <think> b</think>c", False, "a <think> b", "c"),
    "an opening marker right after the closing one": (
        "<think>a</think><think>b</think>",
        False,
        "a",
        "<think>b</think>",
    ),
    "half a closing marker in the thoughts": ("<think>a </thin b</think>c", False, "a </thin b", "c"),
    "half an opening marker": ("<thin", False, "", "<thin"),
    "half a closing marker at the end": ("<think>a\n</thin", False, "a\n</thin", ""),
    "nearly an opening marker": ("<thinking>a</thinking>", False, "", "<thinking>a</thinking>"),
    "a lone closing marker outside": ("a</think>b", False, "", "a</think>b"),
    "blank lines before the opening marker": (" \n\n<think>a</think>b", False, "a", "b"),
    "angle brackets everywhere": ("<think><<</</think><</think>", False, "<<</", "<</think>"),
    "other scripts": ("<think>想一想…</think>\n🦜 好", False, "想一想…", "🦜 好"),
    "nothing": ("", False, "", ""),
}

fragments = st.sampled_from(["<think>", "</think>", "<", "</", "th", "ink>", "\n", "\n\n", " ", "word", "想", "🦜"])
texts = st.one_of(st.lists(fragments, max_size=14).map("".join), st.text(max_size=30))


def split(pieces: Iterator[str] | list[str], inside: bool) -> tuple[str, str]:
    """The joined (thoughts, answer) of a text fed in these pieces."""
    splitter = Splitter(inside)
    parts = [part for piece in pieces for part in splitter.feed(piece)]
    parts += splitter.flush()
    kinds = [kind for kind, _ in parts]
    assert kinds == sorted(kinds, reverse=True), "a thought came after the answer had begun"
    assert all(text for _, text in parts), "an empty piece"
    return tuple("".join(text for kind, text in parts if kind == wanted) for wanted in ("thought", "answer"))


every_split = pytest.mark.parametrize(("text", "inside", "thoughts", "answer"), SPLITS.values(), ids=SPLITS)


@every_split
def test_a_text_fed_whole_is_split_as_meant(text: str, inside: bool, thoughts: str, answer: str | None) -> None:
    assert split([text], inside) == (thoughts, text if answer is None else answer)


@every_split
def test_a_cut_at_any_position_changes_nothing(text: str, inside: bool, thoughts: str, answer: str | None) -> None:
    whole = split([text], inside)
    for cut in range(len(text) + 1):
        assert split([text[:cut], text[cut:]], inside) == whole
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert split([text[:first], text[first:second], text[second:]], inside) == whole


@every_split
def test_one_character_at_a_time_changes_nothing(text: str, inside: bool, thoughts: str, answer: str | None) -> None:
    assert split(list(text), inside) == split([text], inside)


@given(text=texts, inside=st.booleans(), data=st.data())
def test_no_cuts_of_any_text_change_anything(text: str, inside: bool, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces, inside) == split([text], inside)


@given(text=texts, inside=st.booleans())
def test_nothing_but_one_pair_of_markers_and_blank_edges_is_lost(text: str, inside: bool) -> None:
    kept = unspaced("".join(split([text], inside)))
    opened = text.replace("<think>", "", 1)
    assert kept in map(unspaced, (text, opened, text.replace("</think>", "", 1), opened.replace("</think>", "", 1)))


def unspaced(text: str) -> str:
    return "".join(text.split())


@given(text=st.text(alphabet="ab<>/ \n", max_size=20))
def test_what_is_no_marker_is_not_held_back_for_long(text: str) -> None:
    splitter = Splitter(inside=False)
    given_out = "".join(piece for character in "answer" + text for _, piece in splitter.feed(character))
    assert given_out == "answer" + text


# --- thinking, then answering --------------------------------------------------------------------

THOUGHTS = tuple(f"t{n} " for n in range(10))
ANSWER = tuple(f"a{n} " for n in range(6))
LONG = Script(THOUGHTS, ANSWER)


class Recorder(Scripted):
    """A scripted engine that remembers what it was asked, and may press a button before it says something."""

    def __init__(self, script: Script = LONG, before: Callable[[int], None] = lambda n: None, **options: Any) -> None:
        super().__init__(script, **options)
        self.asked: list[GenerationRequest] = []
        self._before = before
        self._said = 0

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Event]:
        self.asked.append(request)
        for event in super().stream(request, cancel):
            if isinstance(event, Thought | Answer):
                self._said += 1
            yield event
            self._before(self._said)


def loaded(backend: Recorder, card: Card) -> Recorder:
    list(backend.load(card))
    return backend


@pytest.fixture
def thinker(card: Card) -> Callable[..., Recorder]:
    return lambda *args, **options: loaded(Recorder(*args, **options), card)


@pytest.fixture
def ask(card: Card) -> Callable[..., GenerationRequest]:
    def ask(
        kind: str = "switch", *, think: bool = True, budget: int | None = None, system: str = "", **sampling: Any
    ) -> GenerationRequest:
        rule = ThinkingRule(kind=kind, default=kind == "always")
        messages = (Message.of("user", "Why?"),)
        if system:
            messages = (Message.of("system", system), *messages)
        asked = card.model_copy(update={"thinking": rule})
        return GenerationRequest(asked, messages, Sampling(seed=1, **sampling), Thinking(think, budget))

    return ask


Ask = Callable[..., GenerationRequest]
Thinker = Callable[..., Recorder]


def run(backend: Recorder, request: GenerationRequest, controls: Controls | None = None) -> list[Event]:
    """All events; exactly one Done, last."""
    events = list(think_then_answer(backend, request, controls or Controls()))
    assert [isinstance(event, Done) for event in events] == [False] * (len(events) - 1) + [True]
    return events


def said(events: list[Event], kind: type) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def spent(events: list[Event], kind: type) -> int:
    return sum(event.tokens for event in events if isinstance(event, kind))


def assert_adds_up(events: list[Event]) -> None:
    usage = events[-1].usage
    assert (usage.thinking, usage.answer) == (spent(events, Thought), spent(events, Answer))


@pytest.mark.parametrize("kind", ["switch", "always", "prompted"])
def test_without_a_budget_thoughts_and_answer_come_as_they_are(thinker: Thinker, ask: Ask, kind: str) -> None:
    engine = thinker()
    events = run(engine, ask(kind))
    assert (said(events, Thought), said(events, Answer)) == ("".join(THOUGHTS), "".join(ANSWER))
    assert events[-1].reason == "stop"
    assert_adds_up(events)
    assert len(engine.asked) == 1


def test_no_thoughts_when_thinking_is_off(thinker: Thinker, ask: Ask) -> None:
    engine = thinker()
    request = ask("prompted", think=False)
    events = run(engine, request)
    assert said(events, Thought) == ""
    assert said(events, Answer) == "".join(ANSWER)
    assert engine.asked == [request]


@pytest.mark.parametrize("kind", ["switch", "always", "prompted"])
@pytest.mark.parametrize("budget", range(1, len(THOUGHTS)))
def test_the_budget_ends_the_thoughts_at_exactly_that_many_tokens(
    thinker: Thinker, ask: Ask, kind: str, budget: int
) -> None:
    events = run(thinker(), ask(kind, budget=budget))
    assert said(events, Thought) == "".join(THOUGHTS[:budget]) + CLOSING_SENTENCE
    assert said(events, Answer) == "".join(ANSWER)
    assert events[-1].usage.thinking == budget
    assert events[-1].reason == "stop"
    assert_adds_up(events)


def test_the_closing_sentence_comes_once_between_thoughts_and_answer_and_costs_no_token(
    thinker: Thinker, ask: Ask
) -> None:
    events = run(thinker(), ask(budget=3))
    at = events.index(Thought(CLOSING_SENTENCE, tokens=0))
    assert all(isinstance(event, Thought) for event in events[:at])
    assert all(isinstance(event, Answer) for event in events[at + 1 : -1])


def test_the_answer_goes_on_from_the_thoughts_that_were_shown(thinker: Thinker, ask: Ask) -> None:
    engine = thinker()
    events = run(engine, ask(budget=3))
    first, second = engine.asked
    assert second.begun == Begun(thoughts=said(events, Thought), closed=True)
    assert second.messages == first.messages


@pytest.mark.parametrize("budget", [len(THOUGHTS) + 1, 10_000])
def test_a_budget_that_is_not_reached_changes_nothing(thinker: Thinker, ask: Ask, budget: int) -> None:
    engine = thinker()
    events = run(engine, ask(budget=budget))
    assert CLOSING_SENTENCE not in said(events, Thought)
    assert events == run(thinker(), ask())
    assert len(engine.asked) == 1


@pytest.mark.parametrize("after", range(1, len(THOUGHTS)))
def test_answer_now_ends_the_thoughts_at_once_and_the_answer_follows(thinker: Thinker, ask: Ask, after: int) -> None:
    controls = Controls()
    engine = thinker(before=lambda n: controls.answer_now() if n == after else None)
    events = run(engine, ask(), controls)
    assert said(events, Thought) == "".join(THOUGHTS[:after]) + CLOSING_SENTENCE
    assert said(events, Answer) == "".join(ANSWER)
    assert not controls.cancel.is_set()
    assert_adds_up(events)


def test_answer_now_before_the_first_thought_gives_an_answer(thinker: Thinker, ask: Ask) -> None:
    controls = Controls()
    controls.answer_now()
    events = run(thinker(), ask(), controls)
    assert said(events, Answer) == "".join(ANSWER)
    assert events[-1].reason == "stop"


@pytest.mark.parametrize("after", range(1, len(ANSWER) + 1))
def test_answer_now_while_the_answer_is_written_changes_nothing(thinker: Thinker, ask: Ask, after: int) -> None:
    controls = Controls()
    engine = thinker(before=lambda n: controls.answer_now() if n == len(THOUGHTS) + after else None)
    assert run(engine, ask(), controls) == run(thinker(), ask())
    assert len(engine.asked) == 1


@pytest.mark.parametrize("budget", [None, 4])
@pytest.mark.parametrize("after", [1, 3, 5, 8])
def test_cancel_in_either_phase_ends_it_as_cancelled(
    thinker: Thinker, ask: Ask, budget: int | None, after: int
) -> None:
    controls = Controls()
    engine = thinker(before=lambda n: controls.cancel() if n == after else None)
    events = run(engine, ask(budget=budget), controls)
    assert events[-1].reason == "cancelled"
    assert spent(events, Thought) + spent(events, Answer) == after
    assert_adds_up(events)
    assert (CLOSING_SENTENCE in said(events, Thought)) == (budget is not None and after > budget)


def test_cancel_before_anything_brings_nothing_but_done(thinker: Thinker, ask: Ask) -> None:
    controls = Controls()
    controls.cancel()
    (done,) = run(thinker(), ask(budget=2), controls)
    assert done.reason == "cancelled"


@pytest.mark.parametrize("limit", [1, len(THOUGHTS) - 1, len(THOUGHTS)])
def test_the_longest_length_within_the_thoughts_is_the_end(thinker: Thinker, ask: Ask, limit: int) -> None:
    engine = thinker()
    events = run(engine, ask(max_new_tokens=limit))
    assert events[-1].reason == "length"
    assert said(events, Answer) == ""
    assert len(engine.asked) == 1
    assert_adds_up(events)


@pytest.mark.parametrize("budget", range(1, 12))
@pytest.mark.parametrize("limit", range(1, 18))
def test_thoughts_and_answer_together_keep_to_the_longest_length(
    thinker: Thinker, ask: Ask, budget: int, limit: int
) -> None:
    events = run(thinker(), ask(budget=budget, max_new_tokens=limit))
    assert events[-1].usage.thinking + events[-1].usage.answer <= limit
    assert_adds_up(events)


def test_a_model_that_ends_its_turn_within_its_thoughts_is_asked_for_the_answer(
    thinker: Thinker, ask: Ask, card: Card
) -> None:
    class EndsEarly(Recorder):
        """Ends its turn without an answer, as a prompted model does that forgets to close its thoughts."""

        def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Event]:
            script = Script(THOUGHTS, ()) if not self.asked else LONG
            self._script = script
            return super().stream(request, cancel)

    engine = loaded(EndsEarly(), card)
    events = run(engine, ask("prompted"))
    assert said(events, Thought) == "".join(THOUGHTS) + PROMPTED_CLOSING
    assert events[-1].usage.thinking == len(THOUGHTS), "the playground's own words cost no token"
    assert said(events, Answer) == "".join(ANSWER)
    assert engine.asked[1].begun == Begun(said(events, Thought), closed=True)
    assert_adds_up(events)


@pytest.mark.parametrize("system", ["", "You are terse."])
def test_a_prompted_model_is_asked_to_reason_and_begins_inside_its_thoughts(
    thinker: Thinker, ask: Ask, system: str
) -> None:
    engine = thinker()
    run(engine, ask("prompted", system=system))
    (asked,) = engine.asked
    assert asked.begun == Begun(thoughts="", closed=False)
    first = asked.messages[0]
    assert first.role == "system"
    assert first.text.startswith(REASONING)
    assert first.text.endswith(system)
    assert first.parts[0].ours, "its own words must keep their markers"
    assert not any(part.ours for part in first.parts[1:]), "and the visitor's must not"
    assert [message.role for message in asked.messages] == ["system", "user"]


@pytest.mark.parametrize("kind", ["switch", "always"])
def test_a_model_trained_to_think_gets_no_reasoning_prompt(thinker: Thinker, ask: Ask, kind: str) -> None:
    engine = thinker()
    request = ask(kind)
    run(engine, request)
    assert engine.asked == [request]


def test_reading_progress_passes_through(thinker: Thinker, ask: Ask) -> None:
    events = run(thinker(replace(LONG, reads=(0.5, 1.0))), ask())
    assert [event.fraction for event in events if isinstance(event, Loading)] == [0.5, 1.0]


@given(
    thoughts=st.lists(st.sampled_from(["a ", "b ", "c "]), max_size=8),
    answer=st.lists(st.sampled_from(["x ", "y "]), min_size=1, max_size=8),
    budget=st.none() | st.integers(1, 10),
    limit=st.integers(1, 20),
    stop=st.none() | st.integers(1, 16),
    now=st.none() | st.integers(1, 16),
)
def test_whatever_happens_it_ends_with_one_done_that_adds_up(
    card: Card,
    thoughts: list[str],
    answer: list[str],
    budget: int | None,
    limit: int,
    stop: int | None,
    now: int | None,
) -> None:
    controls = Controls()

    def press(n: int) -> None:
        if n == stop:
            controls.cancel()
        if n == now:
            controls.answer_now()

    engine = loaded(Recorder(Script(tuple(thoughts), tuple(answer)), press), card)
    request = GenerationRequest(
        card, (Message.of("user", "Why?"),), Sampling(seed=1, max_new_tokens=limit), Thinking(True, budget)
    )
    events = run(engine, request, controls)
    assert_adds_up(events)
    assert "".join(answer).startswith(said(events, Answer))
    assert "".join(thoughts).startswith(said(events, Thought).replace(CLOSING_SENTENCE, ""))
    assert events[-1].usage.thinking + events[-1].usage.answer <= limit
    if stop is None:
        assert events[-1].reason in ("stop", "length")


@pytest.mark.parametrize("kind", ["switch", "prompted"])
def test_an_engine_that_cannot_continue_ends_its_thoughts_by_itself(thinker: Thinker, ask: Ask, kind: str) -> None:
    backend = thinker()
    backend.capabilities = replace(backend.capabilities, continues=False)
    run(backend, ask(kind, budget=1))
    (asked,) = backend.asked
    assert asked.begun is None
    assert any(REASONING in message.text for message in asked.messages) == (kind == "prompted")
