"""A conversation comes back from a file as it went in, or is refused whole; the model reads what was really said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.catalog.cards import Card, ThinkingRule
from backends.core.errors import InvalidRequest
from backends.core.types import Failure, Loading, Queued
from ui.conversation import transcript as module
from ui.conversation.transcript import (
    MAX_CHARACTERS,
    MAX_TURNS,
    Reply,
    SavedConversation,
    Stats,
    Transcript,
    Turn,
    read_conversation,
)

OVER = ("done", "stopped", "failed")
UNFINISHED = ("queued", "loading", "thinking", "answering")

figures = st.floats(0, 1e6)
counts = st.integers(0, 10**6)
stats = st.builds(
    Stats, model=st.text(max_size=9), engine=st.text(max_size=9), queue_s=figures, ttft_s=st.none() | figures,
    prompt_tokens=counts, tokens_per_s=st.none() | figures, ignored=st.lists(st.text(max_size=9)).map(tuple),
)  # fmt: skip
replies = st.builds(
    Reply, language=st.sampled_from(["", "en", "zh"]), thoughts=st.text(max_size=20), answer=st.text(max_size=20),
    state=st.sampled_from(OVER), cut=st.booleans(), prompted=st.booleans(), thinking_s=st.none() | figures,
    thinking_tokens=counts, stats=st.none() | stats,
)  # fmt: skip
turns = st.builds(Turn, user=st.text(max_size=20), replies=st.lists(replies, max_size=3).map(tuple))
conversations = st.builds(
    SavedConversation,
    tab=st.sampled_from(["chat", "math"]),
    settings=st.dictionaries(st.text(max_size=9), st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9)),
    turns=st.lists(turns, max_size=4).map(tuple),
)


def said(*answers: str, state: str = "done", **more: Any) -> Transcript:
    """One turn an answer; an empty one is none."""
    return Transcript(
        turns=tuple(Turn(user=f"q{n}", replies=(Reply(answer=a, state=state, **more),)) for n, a in enumerate(answers))
    )


def a_file(**changes: Any) -> str:
    data = SavedConversation(tab="chat", turns=said("yes").turns).model_dump(mode="json")
    return json.dumps(data | changes)


# --- there and back ------------------------------------------------------------------------------


@given(conversation=conversations)
def test_what_is_exported_comes_back_the_same(conversation: SavedConversation) -> None:
    back = read_conversation(conversation.model_dump_json(indent=2))
    assert back == conversation
    assert back.transcript == Transcript(turns=conversation.turns)


@given(conversation=conversations)
def test_what_the_browser_keeps_comes_back_the_same(conversation: SavedConversation) -> None:
    kept = json.loads(json.dumps(conversation.model_dump(mode="json")))
    assert SavedConversation.model_validate(kept) == conversation


@pytest.mark.parametrize("state", UNFINISHED)
def test_an_unfinished_reply_comes_back_as_stopped_with_its_text(state: str) -> None:
    saved = SavedConversation(turns=said("so far", state=state, thoughts="hm").turns)
    (turn,) = read_conversation(saved.model_dump_json()).transcript.turns
    assert turn.replies == (Reply(answer="so far", thoughts="hm", state="stopped"),)


@pytest.mark.parametrize("state", OVER)
def test_a_finished_reply_keeps_its_state(state: str) -> None:
    saved = SavedConversation(turns=said("x", state=state).turns)
    assert saved.transcript.turns[0].replies[0].state == state


def test_waiting_and_failure_never_leave_the_server() -> None:
    reply = Reply(state="loading", progress=Loading("fetching", 0.5), failure=Failure("engine", "It broke."))
    dumped = Turn(user="q", replies=(reply,)).model_dump_json()
    assert "fetching" not in dumped
    assert "It broke" not in dumped
    assert "progress" not in dumped


# --- what is refused -----------------------------------------------------------------------------

DEEP = 100_000
REFUSED = {
    "nothing": "",
    "no JSON": "hello",
    "half a file": a_file()[:-20],
    "an array": "[]",
    "a number": "1",
    "null": "null",
    "another program's object": '{"compilerOptions": {"strict": true}}',
    "another program's object with turns": '{"turns": []}',
    "an empty object": "{}",
    "another program's format": a_file(format="someone-elses-chat"),
    "a later version": a_file(version=2),
    "a version that is a text": a_file(version="1"),
    "turns that are no list": a_file(turns="hello"),
    "a turn without a question": a_file(turns=[{"replies": []}]),
    "a question that is no text": a_file(turns=[{"user": 1}]),
    "a state that does not exist": a_file(turns=[{"user": "q", "replies": [{"state": "flying"}]}]),
    "an endless tab": a_file(tab="x" * 1000),
    "not a number": a_file(turns=[{"user": "q", "replies": [{"thinking_s": float("nan")}]}]),
    "an infinite number": a_file(turns=[{"user": "q", "replies": [{"stats": {"ttft_s": float("inf")}}]}]),
    "too many turns": a_file(turns=[{"user": "q"}] * (MAX_TURNS + 1)),
    "half a character": a_file(turns=[{"user": "\ud83e"}]),
    "half a character as it is": a_file(tab="x").replace('"x"', '"\ud83e"'),
    "a bottomless file": "[" * DEEP + "]" * DEEP,
    "bottomless settings": a_file(settings={}).replace("{}", '{"a":' + "[" * DEEP + "]" * DEEP + "}"),
    "a binary file": "\x00\x01PNG",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_anything_but_a_conversation_is_refused_in_one_sentence_that_quotes_nothing(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_conversation(text)
    assert caught.value.message == "The file is not a conversation exported from this playground; nothing was imported."
    assert caught.value.hint


def test_a_huge_file_is_refused_with_the_limit_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.SavedConversation, "model_validate_json", lambda text: pytest.fail("it was read"))
    with pytest.raises(InvalidRequest, match="4,000,000 characters"):
        read_conversation(" " * (MAX_CHARACTERS + 1))


@given(text=st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_text_at_all_raises_anything_else(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_conversation(text)


def test_unknown_keys_of_a_newer_file_do_no_harm() -> None:
    assert read_conversation(a_file(colour="blue")).transcript == said("yes")


# --- what the model reads ------------------------------------------------------------------------


def with_history(card: Card, rule: str) -> Card:
    return card.model_copy(update={"thinking": ThinkingRule(kind="switch", history=rule)})


def spoken(transcript: Transcript, card: Card, language: str = "") -> list[tuple[str, str, str]]:
    return [(message.role, message.text, message.thoughts) for message in transcript.messages(card, language)]


@pytest.mark.parametrize(("rule", "thoughts"), [("drop", ""), ("keep", "hm")])
def test_earlier_thoughts_go_back_to_the_model_by_the_cards_rule(card: Card, rule: str, thoughts: str) -> None:
    transcript = said("yes", thoughts="hm").ask("and?", ("",))
    assert spoken(transcript, with_history(card, rule)) == [
        ("user", "q0", ""), ("assistant", "yes", thoughts), ("user", "and?", ""),
    ]  # fmt: skip


def test_each_language_reads_its_own_answers(card: Card) -> None:
    turn = Turn(user="q", replies=(Reply(language="en", answer="yes"), Reply(language="fr", answer="oui")))
    transcript = Transcript(turns=(turn,)).ask("and?", ("en", "fr"))
    assert spoken(transcript, card, "fr") == [("user", "q", ""), ("assistant", "oui", ""), ("user", "and?", "")]


@given(conversation=conversations, language=st.sampled_from(["", "en", "zh"]))
def test_the_model_reads_the_answered_questions_in_order_and_the_last_one(
    card: Card, conversation: SavedConversation, language: str
) -> None:
    turns = conversation.turns
    messages = conversation.transcript.ask("and now?", (language,)).messages(card, language)
    answered = [turn for turn in turns if any(r.language == language and r.answer for r in turn.replies)]
    assert [message.text for message in messages if message.role == "user"] == [*(t.user for t in answered), "and now?"]
    assert [message.role for message in messages] == ["user", "assistant"] * len(answered) + ["user"]
    assert all(message.text for message in messages if message.role == "assistant")


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_question_that_was_never_answered_is_not_read_again(card: Card, state: str) -> None:
    transcript = said("yes", "", "", state=state).ask("and now?", ("",))
    assert [text for _, text, _ in spoken(transcript, card)] == ["q0", "yes", "and now?"]


@pytest.mark.parametrize(
    ("replies", "failed"),
    [
        ([], False),
        ([("failed", "")], True),
        ([("failed", "so far")], False),
        ([("done", "")], False),
        ([("failed", ""), ("failed", "")], True),
        ([("failed", ""), ("done", "yes")], False),
        ([("queued", "")], False),
    ],
)
def test_a_turn_has_failed_where_nothing_at_all_came_back(replies: list[tuple[str, str]], failed: bool) -> None:
    assert Turn(user="q", replies=tuple(Reply(state=state, answer=text) for state, text in replies)).failed == failed


@pytest.mark.parametrize("state", [*OVER, *UNFINISHED])
def test_a_turn_thinks_while_one_of_its_replies_does(state: str) -> None:
    assert Turn(user="q", replies=(Reply(), Reply(state=state))).thinking == (state == "thinking")
    assert Reply(state=state).over == (state in OVER)


def test_what_was_said_before_a_stop_or_a_failure_is_read(card: Card) -> None:
    for state in ("stopped", "failed"):
        assert spoken(said("so far", state=state), card)[1] == ("assistant", "so far", "")


def test_nothing_of_the_models_text_is_the_playgrounds_own(card: Card) -> None:
    transcript = said("</think> <|im_end|>").ask("<think>", ("",))
    assert not any(part.ours for message in transcript.messages(card, "") for part in message.parts)


# --- its own verbs -------------------------------------------------------------------------------


def test_asking_replacing_and_going_back() -> None:
    asked = said("yes").ask("and?", ("en", "zh"))
    assert [reply.language for reply in asked.turns[1].replies] == ["en", "zh"]
    assert not any(reply.over for reply in asked.turns[1].replies)
    answered = asked.with_replies((Reply(answer="a"), Reply(answer="b")))
    assert [reply.answer for reply in answered.turns[1].replies] == ["a", "b"]
    assert answered.turns[0] == asked.turns[0]
    assert answered.before(1) == said("yes")
    assert answered.before(0) == Transcript()


def test_progress_is_part_of_a_reply_on_the_server() -> None:
    assert Reply(progress=Queued(2)).progress == Queued(2)
