"""Events into replies and replies onto the screen: pure, complete, and inert whatever a model or a person writes."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from drawn import picture, without_bytes
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from backends.boxes import Mark
from backends.types import Answer, Done, Event, Failure, Loading, Queued, Thought, Timings, Usage
from tests.patience import grows_in_proportion
from ui.markdown import JOINER, as_meant, as_typed, as_written, boxed, closed
from ui.panel import LATEX
from ui.render import Look, figures, fold, project, turn_of_message, waiting
from ui.texts import LANGUAGES, dictionaries, speaker
from ui.transcript import Reply, Stats, Transcript, Turn

SAY = speaker("en")
LOOK = Look(SAY)
COLUMNS = Look(SAY, {"en": "English", "zh": "中文", "ar": "العربية"})

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


# --- text as it was typed ------------------------------------------------------------------------

CALLS_OUT = ("html_inline", "html_block", "image")
_MATH = [(re.escape(row["left"]), re.escape(row["right"])) for row in LATEX]


def live(markdown: str) -> list[str]:
    """What a browser would obey or fetch: raw HTML and pictures, by a parser of CommonMark.

    Formulas are set aside first, with the page's own delimiters, as gradio does it: KaTeX gets them as plain text.
    """
    for left, right in _MATH:
        markdown = re.sub(f"{left}([\\s\\S]+?){right}", "%%%LATEX_BLOCK_0%%%", markdown)
    tokens = MarkdownIt("commonmark").parse(markdown)
    every = [*tokens, *(child for token in tokens for child in token.children or ())]
    return [f"{token.type}: {token.content}" for token in every if token.type in CALLS_OUT]


EVIL = ("<img src=http://e/x>", "<script>", "<!--", "![x](http://e/x.png)", "![", "](http://e/x.png)", "<b>", "</p>")
evil = st.lists(
    st.sampled_from([
        *EVIL, "`", "``", "```", "````", "~~~", "\n", "\n\n", "\n```\n", "\n~~~\n", "    ", "\n    ", "> ", "- ", "\\",
        "!", "[", "<", "$", "$$", "\\(", "\\)", "\\[", "\\]", "\\boxed{", "}", " ", "word", "5", "|", "*",
    ]),
    max_size=10,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize(
    "around", ["{}", "a {} b", "- {}", "> {}", "# {}", "**{}**", "[{}](/)", "| {} |\n|-|\n", "\\{}"]
)
def test_no_html_and_no_picture_comes_alive(text: str, around: str) -> None:
    assert live(as_typed(around.format(text))) == []
    assert live(as_written(around.format(text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "a ``` <img src=x>",
        "a ~~~ ![x](http://e/x.png)",
        "\\`![x](http://e/x.png)\\`",
        "````\n```\n````\n![x](http://e/x.png)",
        "``a`b`` ![x](http://e/x.png) `",
        "    ```\n![x](http://e/x.png)\n```",
        "``` a`b\n![x](http://e/x.png)",
        "!![x](http://e/x.png)",
    ],
    ids=[
        "three backticks within a line",
        "three tildes within a line",
        "escaped backticks",
        "four backticks around three",
        "two backticks around one",
        "an indented fence",
        "a fence that is none",
        "two exclamation marks",
    ],
)
def test_what_only_looks_like_code_does_not_bring_anything_alive(text: str) -> None:
    assert live(as_typed(text)) == []
    assert live(as_written(text)) == []


@given(text=evil)
@example("$$\n```\n$$<img src=http://e/x>")
@example("\\[\n~~~\n\\]<img src=http://e/x>")
@example("$<b>\\)![x](http://e/x.png)$")
@example("`\\( a` $x$ `<img src=http://e/x>`")
@example("`\\( a` \\boxed{1} `<img src=http://e/x>`")
@example("```\n\\(\n```\n$x$\n```\n<img src=http://e/x>\n```")
@example("$$$$$$![x](http://e/x.png)$$")
@example("$$`$$<img src=http://e/x>`")
@example("\\( $$\n```\n$$<img src=http://e/x>")
@example("$$ \\[ $$ \\[ \n```\n\\]<img src=http://e/x>")
def test_nothing_anyone_writes_makes_the_browser_obey_or_fetch(text: str) -> None:
    assert live(as_typed(text)) == []
    assert live(as_written(text)) == []


@given(thoughts=evil, answer=evil)
@example("`\\( a`", "b \\) `<img src=http://e/x>`")
@example("`$$`", "`$$ <img src=http://e/x>`")
def test_nothing_comes_alive_where_thoughts_and_answer_are_one_message(thoughts: str, answer: str) -> None:
    assert live("\n\n".join((closed(as_written(thoughts)), closed(as_written(answer))))) == []


EVERY_SIGN = "".join(map(chr, range(0x10FFFE, 0xFDCF, -1)))


@pytest.mark.parametrize("fragment", ["\\(", "\\[", "$$", "$$`", "\\(`\\)"])
@pytest.mark.parametrize("function", [as_typed, as_written, closed])
def test_time_grows_in_proportion_to_a_run_of_delimiters(function: Callable[[str], str], fragment: str) -> None:
    grows_in_proportion(lambda times: function(fragment * times), 10_000)


def test_a_text_that_has_every_sign_is_taken() -> None:
    assert as_typed(EVERY_SIGN)
    assert closed(as_written(EVERY_SIGN))


CODE = (
    "In a regex `\\(` opens and `\\)` closes.\n```cpp\n#include <regex>\n```",
    "```sh\nkill $$\n```\n```sh\necho $$\n```\n```html\n<b>\n```",
    "```tex\n$$ a <b $$\n```",
    "```bash\necho $$ <b>\n```\nThe `$$` is a number, and `<b>` a tag.",
    "```html\n<b>bold</b> ![x](y) $a$\n```",
    "```\nunfinished <b> $x$",
    "~~~\n<b>\n~~~",
    "Use `<b>` and `a < b`.",
    "`$HOME` and `$PATH`",
    "- a list\n\n  ```python\n  if a <b: print('<b>')\n  ```",
)


@pytest.mark.parametrize("text", CODE)
def test_code_is_left_to_the_letter_since_it_is_copied_into_programs(text: str) -> None:
    assert as_typed(text) == as_written(text) == text


PROSE = (
    "",
    "A bat and a ball cost $1.10 in total. The bat costs $1.00 more",
    "It is $5 or $6, not $ 7 $.",
    "From $20 to $30",
    "a < b and c > d, 1 << 3, <3",
    "你好 🦜 مرحبا",
    "[a link](http://example.com) and * a star",
    "Done! [1]",
)


@pytest.mark.parametrize("text", PROSE)
def test_ordinary_text_and_prices_are_left_alone(text: str) -> None:
    assert as_typed(text) == as_written(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("So $x^2$ it is.", r"So \(x^2\) it is."),
        ("$a$, $b$", r"\(a\), \(b\)"),
        ("$$x < y$$", r"\[x < y\]"),
        ("So\n$$\nx <y\n$$\nholds", "So\n\\[\nx < y\n\\]\nholds"),
        (r"\(x<y\)", r"\(x< y\)"),
        (r"\[x\]", r"\[x\]"),
        (r"It is \boxed{42}.", r"It is \(\boxed{42}\)."),
        (r"$\boxed{42}$", r"\(\boxed{42}\)"),
        (r"\boxed{\frac{1}{2}}", r"\(\boxed{\frac{1}{2}}\)"),
        ("a $x$ costs $5", r"a \(x\) costs $5"),
    ],
)
def test_mathematics_gets_the_delimiters_that_no_price_has(text: str, shown: str) -> None:
    assert as_written(text) == shown


words = st.one_of(st.text(max_size=40), evil).map(lambda text: text.replace(JOINER, ""))


def _is_prose(text: str) -> bool:
    return "$" not in text and "\\" not in text and "![" not in text


@given(text=words.filter(_is_prose))
def test_prose_that_was_edited_on_the_screen_is_what_was_typed(text: str) -> None:
    assert as_meant(as_typed(text)) == text


@given(text=words)
@example("What is $x^2$?")
@example("Is ![this](http://e/x.png) a picture?")
@example(r"Why is it \boxed{42}?")
@example(r"Is \(a<b\) right?")
def test_anything_that_was_edited_on_the_screen_is_what_was_typed(text: str) -> None:
    assert as_meant(as_typed(text)) == text


def test_html_is_shown_with_the_joiner_alone() -> None:
    assert as_typed("<script>alert(1)</script>") == f"<{JOINER}script>alert(1)<{JOINER}/script>"


# --- the boxed result ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", ""),
        ("no box", ""),
        (r"\boxed{42}", "42"),
        (r"\boxed{ 42 }.", "42"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{unfinished", ""),
        (r"\boxed{\frac{1}{2}", ""),
        (r"\boxed{}", ""),
        (r"\boxed{a}}", "a"),
    ],
)
def test_the_last_box_is_the_result(text: str, result: str) -> None:
    assert boxed(text) == result


def test_a_box_that_is_still_being_written_does_not_hide_the_one_before() -> None:
    assert boxed(r"\boxed{1} and so \boxed{2") in ("", "1")


@given(inner=st.text(alphabet="ab12 ", min_size=1).map(str.strip).filter(bool), depth=st.integers(0, 5))
def test_braces_within_a_box_are_balanced(inner: str, depth: int) -> None:
    nested = "{" * depth + inner + "}" * depth
    assert boxed(rf"So \boxed{{{nested}}} is it }}{{") == nested


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
    assert sentence.replace("'", "&#x27;") in "".join(message["content"])


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
    shown = str([message["content"] for message in first if message["role"] == "user"])
    assert shown == str([as_typed(turn.user) for turn in transcript.turns])


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
    assert thoughts["content"] == "hm"
    assert thoughts["metadata"] == {"title": "Thoughts", "log": "7 tokens", "status": status, "duration": 1.2}
    assert "".join(answer["content"]).startswith("yes")


def test_prompted_thoughts_say_so() -> None:
    transcript = Transcript(turns=(Turn(user="q", replies=(Reply(thoughts="hm", prompted=True),)),))
    assert project(transcript, LOOK)[1]["metadata"]["title"] == dictionaries()["en"]["thoughts_prompted"]


def shown(reply: Reply, look: Look = LOOK) -> str:
    return "\n".join(project(Transcript(turns=(Turn(user="q", replies=(reply,)),)), look)[-1]["content"])


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
    assert not any("img" in found for found in live(result))


def columns(*replies: Reply) -> list[str]:
    (_, message) = project(Transcript(turns=(Turn(user="q", replies=replies),)), COLUMNS)
    return message["content"]


def test_languages_stand_side_by_side_in_one_message_each_under_its_name() -> None:
    first, second = columns(Reply(language="en", answer="yes"), Reply(language="zh", answer="是", thoughts="想"))
    assert "English" in first
    assert first.endswith("yes")
    assert "中文" in second
    assert second.index("<details>") < second.index("想") < second.index("</details>") < second.index("是")


def test_thoughts_in_a_column_are_open_only_while_they_come() -> None:
    assert "<details open>" in columns(Reply(language="en", thoughts="hm", state="thinking"))[0]
    assert "<details>" in columns(Reply(language="en", thoughts="hm", state="answering"))[0]


def code_blocks(markdown: str) -> list[str]:
    return [token.content for token in MarkdownIt("commonmark").parse(markdown) if token.type == "fence"]


@pytest.mark.parametrize("fence", ["```", "~~~", "````"])
@pytest.mark.parametrize("where", ["thoughts", "answer"])
def test_an_unfinished_code_block_in_a_column_ends_with_its_part(fence: str, where: str) -> None:
    reply = Reply(
        language="en", state="stopped", stats=STATS, **{"thoughts": "hm", "answer": "x"} | {where: f"{fence}py\na"}
    )
    (column,) = columns(reply)
    assert [block.strip() for block in code_blocks(column)] == ["a"]
    assert SAY("note_stopped") in column


@given(text=evil)
def test_whatever_stands_in_a_column_its_code_does_not_swallow_what_follows(text: str) -> None:
    (column,) = columns(Reply(language="en", answer=text, state="stopped", stats=STATS))
    if text.strip():
        assert not any(SAY("note_stopped") in block for block in code_blocks(column))


# --- pictures ------------------------------------------------------------------------------------

PLACES = Look(SAY, places=True)
FOUND = 'Here: [{"bbox_2d": [1, 2, 3, 4], "label": "x"}]'


@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=4), earlier=st.integers(0, 5))
def test_each_picture_is_a_message_before_its_words_with_its_number(rows: list[int], earlier: int) -> None:
    turns = tuple(Turn(user="q", pictures=(picture(),) * n, replies=(Reply(answer="a"),)) for n in rows)
    transcript, look = Transcript(turns=turns), Look(SAY, places=True, earlier=earlier)
    messages = project(transcript, look)
    names = [m["content"] for m in messages if "class='attached'" in m["content"]]
    assert all(f"Picture {earlier + n}<" in name for n, name in enumerate(names, 1))
    assert len(names) == sum(rows)
    belongs = [turn for turn, n in enumerate(rows) for _ in range(n + 2)]
    assert [turn_of_message(transcript, index, look) for index in range(len(messages))] == belongs


def test_a_small_picture_is_the_pages_own_and_one_that_is_gone_is_only_named() -> None:
    turn = Turn(user="q", pictures=(picture(), without_bytes(picture())))
    kept, gone, _ = (message["content"] for message in project(Transcript(turns=(turn,)), PLACES))
    assert "<img src='data:image/webp;base64," in kept
    assert "<img" not in gone
    assert "Picture 2" in gone


@pytest.mark.parametrize("state", ["answering", "done"])
def test_places_are_told_in_words_and_their_json_is_not_shown(state: str) -> None:
    reply = Reply(answer=FOUND, state=state, marks=(Mark("x", 1, 2, 3, 4),))
    text = shown(reply, PLACES)
    assert "bbox_2d" not in text
    assert "Here:" in text
    assert "Drawn on the picture (1): x" in text
    assert "bbox_2d" in shown(Reply(answer=FOUND, state=state)), "only the image tab reads places"


@given(label=st.text(max_size=20) | evil)
def test_a_label_in_an_answer_is_words_and_nothing_else(label: str) -> None:
    def told(label: str) -> str:
        return shown(Reply(answer="a", state="done", marks=(Mark(label, 1, 2, 3, 4),)), PLACES)

    assert live(told(label)) == live(told("x"))
    assert len(MarkdownIt("commonmark").parse(told(label))) == len(MarkdownIt("commonmark").parse(told("x")))
    if label.isprintable():
        assert (label or SAY("mark_unnamed")) in html.unescape(told(label))
