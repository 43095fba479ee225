"""What was put into a prompt to guard it never comes out again, wherever the answer's pieces are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.openai.joiner import Unjoiner
from backends.core.special_tokens import LONGEST_NAME, WORD_JOINER, defuse, undefuse
from backends.core.types import Answer, Done, Loading, Thought, TokenLogprob

Event = Loading | Thought | Answer | Done
DONE = Done("stop")
TYPED = (
    r"re.sub(r'<think>.*?</think>', '', text)", 'f"<|im_start|>{role}\n{text}<|im_end|>"', "<p><s>old</s> new</p>",
    "<tool_call>", "</tool_response>", f"<|{'n' * LONGEST_NAME}|>",
)  # fmt: skip
OTHER = (
    "a < b", "<", "<<", "</", "<|", "|>", "<thin", "<thinker>", "\u2060", f"<{WORD_JOINER}b>", "word\u2060word",
    f"<{WORD_JOINER}think", f"<{WORD_JOINER}think>", "<|a b|>", "é",
)  # fmt: skip
texts = st.lists(st.sampled_from([*TYPED, *OTHER]) | st.text(max_size=5), max_size=8).map("".join)


def cut(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


def cleaned(events: list[Event], joined: bool = True) -> list[Event]:
    """As adapters do it: a few events at a time, of one answer."""
    joiner = Unjoiner(joined)
    return [event for one in [*events, DONE] for event in joiner.clean([one])]


def text(events: list[Event], kind: type = Answer) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


@given(texts=texts)
def test_what_was_put_in_is_taken_out_and_nothing_else(texts: str) -> None:
    assert undefuse(defuse(texts)) == undefuse(texts)
    if undefuse(texts) == texts:  # no joiner of its own in the very place
        assert undefuse(defuse(texts)) == texts


@given(said=texts, cuts=st.lists(st.integers(0, 500), max_size=40), kind=st.sampled_from([Thought, Answer]))
def test_no_cut_lets_it_through_and_no_other_letter_is_lost(
    said: str, cuts: list[int], kind: type[Thought] | type[Answer]
) -> None:
    pieces = cut(defuse(said), cuts)
    events = cleaned([kind(piece, 2) for piece in pieces if piece])
    assert text(events, kind) == undefuse(said)
    assert events[-1] == DONE
    assert all(event.text for event in events[:-1])
    assert sum(event.tokens for event in events[:-1]) == 2 * len([piece for piece in pieces if piece])


@pytest.mark.parametrize("said", TYPED)
def test_one_letter_at_a_time(said: str) -> None:
    assert text(cleaned([Answer(letter) for letter in defuse(said)])) == said


@given(thought=texts, answer=texts, cuts=st.lists(st.integers(0, 500), max_size=10))
def test_thoughts_and_answer_stay_apart_and_in_their_order(thought: str, answer: str, cuts: list[int]) -> None:
    thoughts = [Thought(piece) for piece in cut(defuse(thought), cuts) if piece]
    answers = [Answer(piece) for piece in cut(defuse(answer), cuts) if piece]
    events = cleaned([Loading("reading", 0.5), *thoughts, *answers])
    assert (text(events, Thought), text(events)) == (undefuse(thought), undefuse(answer))
    kinds = [type(event) for event in events]
    assert kinds == sorted(kinds, key=[Loading, Thought, Answer, Done].index)


def test_text_is_held_back_no_longer_than_it_has_to_be() -> None:
    joiner = Unjoiner(joined=True)

    def heard(*pieces: str) -> list[str]:
        return [text(list(joiner.clean([Answer(piece)]))) for piece in pieces]

    assert heard("a", " <", " b", "<", WORD_JOINER, "thi", "s is") == [
        "a",
        "",
        " < b",
        "",
        "",
        "",
        f"<{WORD_JOINER}this is",
    ]
    assert heard("<" + WORD_JOINER + "|", "n" * LONGEST_NAME, "n") == [
        "",
        "",
        f"<{WORD_JOINER}|" + "n" * (LONGEST_NAME + 1),
    ]


def test_where_nothing_was_joined_nothing_is_touched_or_held() -> None:
    events = [Answer("<"), Answer(WORD_JOINER), Answer("think>")]
    assert cleaned(events, joined=False) == [*events, DONE]


def test_the_names_of_tokens_are_rid_of_it_too() -> None:
    """Also where the joiner is two tokens of one part of a character each, as it is with Qwen."""
    half = "\ufffd"
    rows = [
        TokenLogprob("r'<", -0.1, (("r'<", -0.1), ("'", -3.0))),
        TokenLogprob(WORD_JOINER, -0.2, ((WORD_JOINER, -0.2), ("think", -2.0), (f"{WORD_JOINER}/", -4.0))),
        TokenLogprob("think", -0.3, (("think", -0.3),)),
        TokenLogprob(">.<", -0.4),
        TokenLogprob(half, -0.5),
        TokenLogprob(half, -0.6),
        TokenLogprob("/think", -0.7),
        TokenLogprob(f">{WORD_JOINER}", -0.8),
    ]
    said = ["r'<", WORD_JOINER, "think", ">.<", "", WORD_JOINER, "/think", f">{WORD_JOINER}"]
    events = cleaned([Answer(piece, 1, (row,)) for piece, row in zip(said, rows, strict=True)])
    told = [row for event in events if isinstance(event, Answer) for row in event.logprobs]
    assert text(events) == f"r'<think>.</think>{WORD_JOINER}"
    assert [row.token for row in told] == ["r'<", "think", ">.<", "/think", f">{WORD_JOINER}"]
    assert [row.logprob for row in told] == [-0.1, -0.3, -0.4, -0.7, -0.8]
    assert not any(WORD_JOINER in name for row in told[:-1] for name, _ in row.top)
