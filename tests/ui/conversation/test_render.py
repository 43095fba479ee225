"""Events into replies and replies onto the screen: pure, complete, and inert whatever a model or a person writes."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.core.types import Answer, Done, Event, Failure, Loading, Queued, Thought, Timings, Usage
from backends.pictures.boxes import Mark
from tests.drawn import picture, without_bytes
from tests.shown import read, seen
from ui.conversation import render
from ui.conversation.markdown import Growth, as_typed, blocks
from ui.conversation.render import Look, figures, fold, project, turn_of_message, waiting
from ui.conversation.texts import LANGUAGES, dictionaries, speaker
from ui.conversation.transcript import Reply, Stats, Transcript, Turn

SAY = speaker("en")
LOOK = Look(SAY)
COLUMNS = Look(SAY, {"en": "English", "zh": "中文", "ar": "العربية"})

EVIL = ("<img src=http://e/x>", "<script>", "<!--", "![x](http://e/x.png)", "![", "](http://e/x.png)", "<b>", "</p>")
evil = st.lists(
    st.sampled_from([
        *EVIL, "`", "```", "~~~", "\n", "\n\n", "\n```\n", "    ", "> ", "- ", "\\", "[", "<", "$", "$$", "\\(", "\\)",
        "\\[", "\\]", "\\boxed{", "}", " ", "word", "5", "|", "*",
    ]),
    max_size=10,
).map("".join)  # fmt: skip


def text_of(message: dict[str, Any]) -> str:
    """The HTML of a message, whole."""
    return "".join(part["text"] for part in message["content"] or ())


# --- events into a reply -------------------------------------------------------------------------

EVENTS = (
    Queued(2),
    Loading("loading", 0.5),
    Thought("hm ", 2),
    Answer("yes ", 1),
    Done("stop"),
    Done("length"),
    Done("cancelled"),
    Failure("engine", "It broke.", "Try again."),
)
STATES = {Queued: "queued", Loading: "loading", Thought: "thinking", Answer: "answering", Failure: "failed"}
events = st.lists(st.sampled_from(EVENTS), max_size=12)


def told(*events: Event, reply: Reply | None = None) -> Reply:
    """The reply after these events, one second apart."""
    reply = reply or Reply()
    for second, event in enumerate(events):
        reply = fold(reply, event, float(second))
    return reply


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_the_last_event_gives_the_state(event: Event) -> None:
    expected = STATES.get(type(event)) or {"cancelled": "stopped"}.get(event.reason, "done")
    assert told(event).state == expected
    assert told(event).over == isinstance(event, Done | Failure)


@given(events=events)
def test_folding_keeps_every_word_in_order_and_changes_nothing_it_was_given(events: list[Event]) -> None:
    before = Reply()
    reply = told(*events, reply=before)
    assert before == Reply()
    assert reply.thoughts == "".join(event.text for event in events if isinstance(event, Thought))
    assert reply.answer == "".join(event.text for event in events if isinstance(event, Answer))
    waits = bool(events) and isinstance(events[-1], Queued | Loading)
    assert reply.progress == (events[-1] if waits else None)


def test_the_time_of_thinking_ends_with_the_first_word_that_is_no_thought() -> None:
    assert told(Queued(1), Thought("a")).thinking_s is None
    assert told(Queued(1), Thought("a"), Answer("b"), Answer("c"), Done("stop")).thinking_s == 2
    assert told(Thought("a"), Thought("b"), Done("length")).thinking_s == 2
    assert told(Thought("a"), Failure("engine", "It broke.")).thinking_s == 1
    assert told(Answer("a"), Done("stop")).thinking_s is None


def test_tokens_of_thoughts_are_counted_and_corrected_at_the_end() -> None:
    assert told(Thought("a", 2), Thought("b", 0), Thought("c")).thinking_tokens == 3
    assert told(Thought("a", 2), Done("stop", Usage(thinking=5))).thinking_tokens == 5
    assert told(Answer("a"), Done("stop", Usage(thinking=5))).thinking_tokens == 0


@pytest.mark.parametrize(("reason", "cut"), [("stop", False), ("length", True), ("cancelled", False)])
def test_only_the_longest_length_cuts_an_answer(reason: str, cut: bool) -> None:
    assert told(Answer("a"), Done(reason)).cut == cut


def test_the_end_brings_the_figures_and_keeps_whose_they_are() -> None:
    done = Done(
        "stop", Usage(30, 10, 4, 6), Timings(0.1, 0.2, 0.5, 3.0), ignored=("min_p",), dropped_turns=2, context=4096
    )
    stats = told(Thought("a"), Answer("b"), done, reply=Reply(stats=Stats(model="Qwen", engine="llama.cpp"))).stats
    assert stats == Stats(
        model="Qwen", engine="llama.cpp", queue_s=0.1, load_s=0.2, ttft_s=0.5, prompt_tokens=30, cached_tokens=10,
        thinking_tokens=4, answer_tokens=6, tokens_per_s=3.0, ignored=("min_p",), dropped_turns=2, context=4096,
    )  # fmt: skip


@given(st.integers(0, 5), st.integers(0, 5), st.floats(0, 100))
def test_no_figures_of_speed_without_words(thinking: int, answer: int, seconds: float) -> None:
    stats = told(Done("stop", Usage(1, 0, thinking, answer), Timings(0, 0, 1, seconds))).stats
    assert (stats.ttft_s is None) == (thinking + answer == 0)
    assert (stats.tokens_per_s is None) == (thinking + answer < 2 or seconds == 0)


def test_a_failure_keeps_what_was_said() -> None:
    reply = told(Thought("a"), Answer("b"), Failure("engine_died", "It broke.", "Try again."))
    assert (reply.thoughts, reply.answer, reply.failure.message) == ("a", "b", "It broke.")


# --- waiting and figures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "sentence"),
    [
        (None, "One moment"),
        (Queued(3), "Number 3 in line"),
        (Queued(3, 40.4), "Number 3 in line, about 40 s"),
        (Queued(1, 0.01), "Number 1 in line, about 1 s"),
        (Loading("fetching"), "Fetching the model"),
        (Loading("fetching", detail="Waiting for another process"), "Waiting for another process"),
        (Loading("fetching", 0.3, "", 412_000_000, 1_117_000_000), "Fetching the model: 412 of 1117 MB"),
        (
            Loading("fetching", 0.3, "", 412_000_000, 1_117_000_000, 20.2),
            "Fetching the model: 412 of 1117 MB, 20 s left",
        ),
        (Loading("checking", 0.5), "Checking the model's file: 50 %"),
        (Loading("loading", None), "Loading the model: 0 %"),
        (Loading("reading", 0.404), "Reading your text: 40 %"),
        (Loading("waiting", seconds_left=4.6), "The engine is busy; trying again in 5 s"),
    ],
)
def test_waiting_is_told_in_words_with_numbers(progress: Any, sentence: str) -> None:
    reply = Reply(state="loading", progress=progress)
    assert waiting(reply, SAY) == sentence
    (message,) = project(Transcript(turns=(Turn(user="q", replies=(reply,)),)), LOOK)[1:]
    assert sentence in seen(text_of(message))


STATS = Stats(
    model="Qwen", engine="llama.cpp", ttft_s=0.5, prompt_tokens=30, cached_tokens=10, thinking_tokens=4,
    answer_tokens=6, tokens_per_s=3.0, ignored=("min_p", "top_k"),
)  # fmt: skip


def test_the_figures_are_one_line() -> None:
    assert figures(STATS, SAY) == (
        "Qwen · llama.cpp · first token 0.50 s · 30 tokens read (10 cached) · 4 thinking · 6 answer · 3.0 tokens/s"
        " · not supported here: min_p, top_k"
    )


def test_figures_that_are_not_known_are_left_out() -> None:
    line = figures(Stats(model="Qwen", engine="llama.cpp"), SAY)
    assert "None" not in line
    assert "thinking" not in line
    assert "tokens/s" not in line
    assert "not supported" not in line


# --- onto the screen -----------------------------------------------------------------------------

replies = st.builds(
    Reply, language=st.sampled_from(["", "en", "zh", "xx"]), thoughts=evil | st.just(""), answer=evil | st.just(""),
    state=st.sampled_from(["queued", "loading", "thinking", "answering", "done", "stopped", "failed"]),
    cut=st.booleans(), prompted=st.booleans(), thinking_s=st.none() | st.floats(0, 99),
    stats=st.sampled_from([None, STATS]),
    failure=st.sampled_from([None, Failure("engine", "It <broke>.", "Try & try.")]),
    progress=st.sampled_from([None, Queued(2), Loading("loading", 0.5)]),
)  # fmt: skip
transcripts = st.lists(
    st.builds(Turn, user=evil, replies=st.lists(replies, min_size=1, max_size=3).map(tuple)), max_size=3
).map(lambda turns: Transcript(turns=tuple(turns)))
looks = st.sampled_from([LOOK, COLUMNS, Look(SAY, lift_boxed=True), *(Look(speaker(code)) for code in LANGUAGES)])


@given(transcript=transcripts, look=looks)
def test_showing_is_pure_and_every_text_is_there(transcript: Transcript, look: Look) -> None:
    before = transcript.model_dump_json()
    first = project(transcript, look)
    assert first == project(transcript, look)
    assert transcript.model_dump_json() == before
    for message in first:
        assert message["role"] in ("user", "assistant")
        assert message["content"] not in ([], None)
        assert all(part["type"] == "text" and part["text"] for part in message["content"])
    shown = [text_of(message) for message in first if message["role"] == "user"]
    assert shown == [as_typed(turn.user) for turn in transcript.turns]


@given(transcript=transcripts, look=looks)
def test_a_messages_turn_is_the_turn_that_it_shows(transcript: Transcript, look: Look) -> None:
    messages = project(transcript, look)
    turn = -1
    for index, message in enumerate(messages):
        turn += message["role"] == "user"
        assert turn_of_message(transcript, index, look) == turn
    if messages:
        assert turn_of_message(transcript, len(messages) + 5, look) == len(transcript.turns) - 1


@given(transcript=transcripts, look=looks)
def test_the_last_turn_looks_the_same_alone(transcript: Transcript, look: Look) -> None:
    """What a running answer rests on: only the last turn is projected again and again."""
    last = project(Transcript(turns=transcript.turns[-1:]), look)
    assert project(transcript, look)[-len(last) :] == last if last else not transcript.turns


@pytest.mark.parametrize(("state", "status"), [("thinking", "pending"), ("answering", "done"), ("failed", "done")])
def test_thoughts_stand_before_the_answer_folded_with_tokens_and_duration(state: str, status: str) -> None:
    reply = Reply(thoughts="\nhm\n", answer="yes", state=state, thinking_tokens=7, thinking_s=1.23)
    _, thoughts, answer = project(Transcript(turns=(Turn(user="q", replies=(reply,)),)), LOOK)
    assert seen(text_of(thoughts)) == "hm"
    assert thoughts["metadata"] == {"title": "Thoughts", "log": "7 tokens", "status": status, "duration": 1.2}
    assert seen(text_of(answer)).startswith("yes")


def test_prompted_thoughts_say_so() -> None:
    transcript = Transcript(turns=(Turn(user="q", replies=(Reply(thoughts="hm", prompted=True),)),))
    assert project(transcript, LOOK)[1]["metadata"]["title"] == dictionaries()["en"]["thoughts_prompted"]


def shown(reply: Reply, look: Look = LOOK) -> str:
    return text_of(project(Transcript(turns=(Turn(user="q", replies=(reply,)),)), look)[-1])


@pytest.mark.parametrize(
    ("reply", "key"),
    [
        (Reply(answer="a", state="stopped"), "note_stopped"),
        (Reply(answer="a", state="done", cut=True), "note_cut"),
        (Reply(answer=" ", state="done"), "note_empty"),
    ],
)
def test_what_became_of_an_answer_is_told(reply: Reply, key: str) -> None:
    assert dictionaries()["en"][key] in shown(reply)


def test_left_out_turns_are_told_with_their_number() -> None:
    assert "the 3 oldest turns" in shown(Reply(answer="a", state="done", stats=Stats(dropped_turns=3)))


def test_a_failure_is_shown_with_its_hint_after_what_was_said_and_its_words_are_no_html() -> None:
    text = shown(Reply(answer="so far", state="failed", failure=Failure("engine", "It <broke>.", "Try & try.")))
    assert text.index("so far") < text.index("It &lt;broke&gt;.") < text.index("Try &amp; try.")
    assert "role='alert'" in text


@pytest.mark.parametrize("state", ["answering", "done", "stopped"])
def test_the_boxed_result_is_lifted_once_the_answer_is_over(state: str) -> None:
    reply = Reply(answer=r"So \boxed{42}", state=state)
    assert ("Final answer" in shown(reply, Look(SAY, lift_boxed=True))) == (state != "answering")
    assert "Final answer" not in shown(reply)


def test_a_boxed_result_is_no_html() -> None:
    result = shown(Reply(answer=r"\boxed{<img src=x>}", state="done"), Look(SAY, lift_boxed=True))
    assert "img" not in [tag for tag, _ in read(result).tags]
    assert "⟦m \\boxed{<img src=x>}⟧" in seen(result)


def columns(*replies: Reply) -> list[str]:
    (_, message) = project(Transcript(turns=(Turn(user="q", replies=replies),)), COLUMNS)
    return [part["text"] for part in message["content"]]


def test_languages_stand_side_by_side_in_one_message_each_under_its_name() -> None:
    first, second = columns(Reply(language="en", answer="yes"), Reply(language="zh", answer="是", thoughts="想"))
    assert "English" in first
    assert seen(first).endswith("yes")
    assert "中文" in second
    assert second.index("<details>") < second.index("想") < second.index("</details>") < second.index("是")


def test_thoughts_in_a_column_are_open_only_while_they_come() -> None:
    assert "<details open>" in columns(Reply(language="en", thoughts="hm", state="thinking"))[0]
    assert "<details>" in columns(Reply(language="en", thoughts="hm", state="answering"))[0]


@pytest.mark.parametrize("fence", ["```", "~~~", "````"])
@pytest.mark.parametrize("where", ["thoughts", "answer"])
def test_an_unfinished_code_block_in_a_column_ends_with_its_part(fence: str, where: str) -> None:
    reply = Reply(
        language="en", state="stopped", stats=STATS, **{"thoughts": "hm", "answer": "x"} | {where: f"{fence}py\na"}
    )
    (column,) = columns(reply)
    assert read(column).codes[0] == "a"
    assert SAY("note_stopped") in seen(column)


@given(text=evil)
def test_whatever_stands_in_a_column_does_not_swallow_what_follows(text: str) -> None:
    (column,) = columns(Reply(language="en", answer=text, state="stopped", stats=STATS))
    assert not any(SAY("note_stopped") in code for code in read(column).codes)
    assert f"<small class='note'>{SAY('note_stopped')}" in column


# --- what is copied ------------------------------------------------------------------------------


@given(text=evil.filter(str.strip))
def test_what_lies_there_to_be_copied_is_what_the_model_wrote(text: str) -> None:
    for look in (LOOK, PLACES, Look(SAY, {"": "English"})):
        html = shown(Reply(answer=text, state="done", stats=STATS, marks=(Mark("x", 1, 2, 3, 4),)), look)
        assert read(html[html.index("<span class='source'>") :]).codes == [text]


@pytest.mark.parametrize("state", ["thinking", "answering"])
def test_nothing_lies_there_to_be_copied_while_it_is_being_written(state: str) -> None:
    assert "class='source'" not in shown(Reply(answer="a", state=state))


@given(name=evil)
def test_what_comes_from_a_file_is_text(name: str) -> None:
    html = shown(Reply(answer="a", state="done", stats=Stats(model=name, engine=name, ttft_s=1.0, ignored=(name,))))
    assert {tag for tag, _ in read(html).tags} == {"div", "p", "small", "span", "pre"}


# --- pictures ------------------------------------------------------------------------------------

PLACES = Look(SAY, places=True)
FOUND = 'Here: [{"bbox_2d": [1, 2, 3, 4], "label": "x"}]'


@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=4), earlier=st.integers(0, 5))
def test_each_picture_is_a_message_before_its_words_with_its_number(rows: list[int], earlier: int) -> None:
    turns = tuple(Turn(user="q", pictures=(picture(),) * n, replies=(Reply(answer="a"),)) for n in rows)
    transcript, look = Transcript(turns=turns), Look(SAY, places=True, earlier=earlier)
    messages = project(transcript, look)
    names = [text_of(m) for m in messages if "class='attached'" in text_of(m)]
    assert all(f"Picture {earlier + n}<" in name for n, name in enumerate(names, 1))
    assert len(names) == sum(rows)
    belongs = [turn for turn, n in enumerate(rows) for _ in range(n + 2)]
    assert [turn_of_message(transcript, index, look) for index in range(len(messages))] == belongs


def test_a_small_picture_is_the_pages_own_and_one_that_is_gone_is_only_named() -> None:
    turn = Turn(user="q", pictures=(picture(), without_bytes(picture())))
    kept, gone, _ = (text_of(message) for message in project(Transcript(turns=(turn,)), PLACES))
    assert "<img src='data:image/webp;base64," in kept
    assert "<img" not in gone
    assert "Picture 2" in gone


@pytest.mark.parametrize("state", ["answering", "done"])
def test_places_are_told_in_words_and_their_json_is_not_shown(state: str) -> None:
    reply = Reply(answer=FOUND, state=state, marks=(Mark("x", 1, 2, 3, 4),))
    text, _, _ = shown(reply, PLACES).partition("<span class='source'>")
    assert "bbox_2d" not in text
    assert "Here:" in text
    assert "Drawn on the picture (1): x" in text
    assert "bbox_2d" in shown(Reply(answer=FOUND, state=state)), "only the image tab reads places"


@given(label=st.text(max_size=20) | evil)
def test_a_label_in_an_answer_is_words_and_nothing_else(label: str) -> None:
    def told(label: str) -> list[Any]:
        return read(shown(Reply(answer="a", state="done", marks=(Mark(label, 1, 2, 3, 4),)), PLACES)).tags

    assert told(label) == told("x")


# --- made once -----------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of which HTML was made, one after the other."""
    texts: list[str] = []

    def counted(text: str, growth: Growth | None = None) -> list[str]:
        texts.append(text)
        return blocks(text, growth)

    monkeypatch.setattr(render, "blocks", counted)
    return texts


def test_what_is_over_is_made_once_and_forgotten_with_its_reply(made: list[str]) -> None:
    transcript = Transcript(turns=(Turn(user="q", replies=(Reply(thoughts="hm", answer="only here", state="done"),)),))
    assert project(transcript, LOOK) == project(transcript, LOOK)
    assert made == ["hm", "only here"]
    kept = len(render._finished)
    del transcript
    gc.collect()
    assert len(render._finished) < kept


def test_thoughts_are_not_made_anew_while_the_answer_is_written(made: list[str]) -> None:
    look = Look(SAY)
    for answer in ("a", "ab", "abc"):
        shown(Reply(thoughts="hm", answer=answer, state="answering"), look)
    assert made == ["hm", "a", "ab", "abc"]
