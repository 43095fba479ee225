"""The exported Markdown, as a reader of Markdown takes it: who said what is found again, whatever was said."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ui.conversation.markdown_export import closed, to_markdown
from ui.conversation.transcript import Reply, Stats, Transcript, Turn

PARSER = MarkdownIt("commonmark")
MODEL = "A model of 1.5B *stars*, [links](x) & `ticks`"
FRAGMENTS = (
    "```", "```py", "````", "~~~", "~~~~ x", "    ", "  ", "\t", "- ", "1. ", "> ", "# ", "## You", "===", "---",
    "$$", "$", "\\[", "\\]", "<details>", "</details>", "<summary>", "<!--", "-->", "<script>", "</script>", "<pre>",
    "<textarea>", "<style>", "<?php", "<!DOCTYPE", "<![CDATA[", "<b>", "<div", ">", "<br/>", "[a]: b", "[a]", "\\",
    "`", "``", "|", "a|b\n-|-", "&lt;", "x", " ", "\n", "\n\n", "\r\n", "**", "\u2060", "\x00", "<x-y>",
    "<table><tr>", "'", "\"", "](", "![", "<http://a", "\x0b", "\f", "\u2028",
)  # fmt: skip
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join) | st.text(max_size=30)


def normal(text: str) -> str:
    """As every reader of Markdown begins: one kind of line end, no NUL."""
    return re.sub("\r\n?", "\n", text).replace("\0", "\ufffd")


def spoken(markdown: str) -> list[tuple[str, str]]:
    """(heading, what stands right after it) of all headings of ours, which no text can forge in this file."""
    tokens = PARSER.parse(markdown)
    found = []
    for n, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0 and token.tag == "h2" and n + 3 < len(tokens):
            found.append((tokens[n + 1].content, tokens[n + 3].content if tokens[n + 3].type == "fence" else ""))
    return found


@given(question=texts, answer=texts, thoughts=texts)
@example(question="```\nx\n```", answer="```py\nprint(1)", thoughts="~~~\n")
@example(question="", answer="- a\n  ```py\n  b", thoughts="> ```\n> x")
@example(question="a\n", answer="<!-- a\n\n```", thoughts="<script>\n\n</details>")
@example(question="x", answer="<details>\n\nso far", thoughts="<b>")
def test_every_heading_and_every_question_is_found_again(question: str, answer: str, thoughts: str) -> None:
    reply = Reply(answer=answer, thoughts=thoughts, state="stopped", stats=Stats(model=MODEL))
    talk = Transcript(turns=(Turn(user=question, replies=(reply,)), Turn(user="the last question", replies=(reply,))))
    file = to_markdown("A talk", talk)
    assert file.startswith("# A talk\n")
    assert answer in file
    assert thoughts.strip() in file
    told = spoken(file)
    ours = [(heading, content) for heading, content in told if content == "the last question\n"]
    assert ours, "the second question is swallowed by the first answer"
    assert told[0] == ("You", normal(question) + "\n")
    inline = PARSER.parse(file)
    names = ["".join(c.content for c in t.children or []) for t in inline if t.type == "inline" and t.level == 1]
    assert names.count("A model of 1.5B *stars*, [links](x) & `ticks`") >= 2, "a name from a file is text"


@pytest.mark.parametrize(
    ("answer", "added"),
    [
        ("Plain.", ""),
        ("```py\nx = 1", "\n```"),
        ("````md\n```py\nx", "\n````"),
        ("```py\nx\n```", ""),
        ("- a\n  ```\n  b", ""),
        ("> ```\n> b", ""),
        ("    ```", ""),
        ("``` a`b", ""),
        ("$$\nx^2", "\n\n$$"),
        ("$$\nx^2\n$$", ""),
        ("$$x$$ and $5", ""),
        ("It costs $$ a lot", ""),
        ("```\n$$\n```", ""),
        ("\\[\nx", "\n\n\\]"),
        ("<!-- so", "-->"),
        ("<script>\n\nx", "</script>"),
        ("<details>\n\nso", "\n\n</details>"),
        ("<div><b>so</b>", "\n\n</div>"),
        ("a <b>b <i>c</i>", "\n\n</b>"),
        ("a<br>b<img src=x>", ""),
        ("`<b>`", ""),
        ("```html\n<div>\n```", ""),
    ],
)
def test_what_is_open_is_ended_and_nothing_else_is_added(answer: str, added: str) -> None:
    assert closed(answer) == answer + added


def test_each_language_says_which_it_is() -> None:
    replies = (Reply(language="en", answer="yes"), Reply(language="*x*", answer="no"))
    file = to_markdown("A talk", Transcript(turns=(Turn(user="q", replies=replies),)))
    assert "## Qwen (en)\n" in file
    assert "## Qwen (\\*x\\*)\n" in file
