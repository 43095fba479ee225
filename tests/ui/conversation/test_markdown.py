"""What a model wrote and what a person typed, as HTML: exact where it must be, inert, and as quick as it is long."""

from __future__ import annotations

import itertools
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.shown import read, seen
from ui.conversation.formulas import boxed, is_formula
from ui.conversation.highlight import LONGEST as LONGEST_CODE
from ui.conversation.highlight import highlighted
from ui.conversation.markdown import LONGEST, Growth, as_typed, as_words, blocks
from ui.conversation.tabs import PROGRAMMING_LANGUAGES

CASES = tomllib.loads((Path(__file__).resolve().parents[2] / "rendering" / "cases.toml").read_text("utf-8"))["case"]

TAGS = {
    "a": {"href", "target", "rel", "title"}, "blockquote": set(), "br": set(), "code": {"class"}, "div": {"class"},
    "em": set(),
    "h1": set(), "h2": set(), "h3": set(), "h4": set(), "h5": set(), "h6": set(), "hr": set(), "li": set(),
    "ol": {"start", "dir"}, "p": set(), "pre": {"class"}, "s": set(), "span": {"class"}, "strong": set(),
    "table": {"dir"},
    "tbody": set(), "td": {"style"}, "th": {"style"}, "thead": set(), "tr": set(), "ul": {"dir"},
}  # fmt: skip

PIECES = (
    "<img src=http://e/x>", "<script>", "<!--", "![x](http://e/x.png)", "![", "](http://e/x.png)", "<b>", "</p>", "`",
    "``", "```", "````", "~~~", "\n", "\n\n", "\n```\n", "\n~~~\n", "    ", "\n    ", "> ", "- ", "1. ", "\\", "!", "[",
    "<", "$", "$$", "\\(", "\\)", "\\[", "\\]", "\\boxed{", "}", " ", "word", "5", "|", "\n|-|\n", "*", "**", "_", "~~",
    "[a]: javascript:alert(1)\n", "[a]", "](javascript:alert(1))", "](data:text/html,x)", "http://e/", "&lt;", "&#0;",
    "\ufdd0", "\ufdd3", "：", "请", "\r", "\r\n", "\t", "\u2028", "\\begin{align}", "\\end{align}", "\n\\[\n", "=\n",
    "```markdown\n", "```python\n", "\U0001f600", "\u200d", "\u202e", "x" * 30,
)  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join)


def html(text: str, growth: Growth | None = None) -> str:
    return "".join(f"<div>{block}" for block in blocks(text, growth))


# --- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=[f"{row['kind']}: {row['text'][:40]!r}" for row in CASES])
def test_what_is_written_is_what_is_seen(case: dict[str, str]) -> None:
    assert seen("".join(blocks(case["text"]))) == case["seen"]


def test_no_case_is_told_twice() -> None:
    texts = [case["text"] for case in CASES]
    assert len(texts) == len(set(texts))


# --- nothing comes alive -------------------------------------------------------------------------


@given(text=texts, grows=st.booleans())
@example("[x](javascript:alert(1))", False)
@example("<javascript:alert(1)>", False)
@example('[x](http://e/ "a\\" onclick=alert(1)")', False)
@example('```" onclick="x\n```', False)
@example("```x onclick=y\n```", True)
def test_no_tag_and_no_attribute_gets_in_that_is_not_the_pages_own(text: str, grows: bool) -> None:
    for tag, attributes in read(html(text, Growth() if grows else None)).tags:
        assert set(attributes) <= TAGS[tag]
        assert attributes.get("style") in (None, "text-align:left", "text-align:right", "text-align:center")
        address = attributes.get("href") or ""
        assert not address.lower().lstrip().startswith(("javascript:", "data:", "vbscript:", "file:"))


@given(text=texts)
@example("\ufdd0x\ufdd1 and \ufdd2y\ufdd3")
@example("[\ufdd0](http://e/ '\ufdd1')")
def test_katex_is_given_formulas_of_ours_alone(text: str) -> None:
    """It looks into no code; elsewhere nobody's text holds a mark."""
    page = re.sub(r"<(pre|code)[ >].*?</\1>", "", html(text), flags=re.S)
    page = re.sub(r'<span class="formula">(.)([^\ufdd0-\ufdd3]*)(.)</span>', r"\2", page, flags=re.S)
    assert not re.search("[\ufdd0-\ufdd3]", page)


@given(text=texts)
def test_a_name_in_markdown_of_ours_is_only_a_name(text: str) -> None:
    (sentence,) = blocks(f"so {as_words(text)} it is")
    assert [tag for tag, _ in read(sentence).tags] == ["p"]


# --- exact ---------------------------------------------------------------------------------------


@given(text=texts.filter(lambda text: "\0" not in text))
@example("\n\nfirst\n")
@example("    an indent\tand a tab")
@example("C:\\new\\_file\\*.txt &lt;b&gt; # main __init__")
def test_a_persons_text_is_shown_as_it_was_typed(text: str) -> None:
    assert read(as_typed(text)).codes == [text]


ALIASES = (
    "py", "python3", "js", "javascript", "jsx", "ts", "tsx", "cpp", "c++", "cc", "cs", "c#", "csharp", "golang", "rs",
    "kt", "rb", "sh", "shell", "zsh", "bash", "console", "ps1", "powershell", "pl", "hs", "jl", "matlab", "sql",
    "postgresql", "html", "xml", "css", "scss", "json", "yaml", "yml", "toml", "ini", "dockerfile", "make",
    "makefile", "diff", "tex", "latex", "md", "text", "txt", "plaintext", "vue", "svelte", "graphql", "mermaid",
    "objective-c", "swift", "dart", "r", "fortran", "cobol", "asm", "nasm", "elixir", "erlang", "clojure", "lisp",
    "scheme", "vb", "pascal", "ocaml", "f#", "fsharp", "groovy", "lua", "nim", "zig", "solidity", "verilog", "vhdl",
    "prolog", "no-such-language", "",
)  # fmt: skip
CODES = (
    "#include <stdio.h>\nint main(void) { return 0; }\n",
    "re.sub(r'<think>.*?</think>', '', text)\n",
    "f'<|im_start|>{role}\\n{text}<|im_end|>'\n",
    "<p>a &amp; b <s>gone</s></p>\n<!-- x -->\n",
    "echo $$ && kill $$\n",
    "\n\n    indented\twith a tab  \n\n",
    "a\u2060b\ufdd0c\n",
    "$x$ \\(y\\) ![x](y) **z** ~~w~~\n",
    "'unfinished \"string\n",
    "日本語 = 'é🎉'\n",
)
FRAMES = (("", ""), ("1. a list\n\n   ", "   "), ("> ", "> "), ("- a\n  - b\n\n    ", "    "), ("> - ", ">   "))


@pytest.mark.parametrize("language", [*PROGRAMMING_LANGUAGES, *ALIASES])
def test_code_in_any_language_is_the_models_to_the_byte(language: str) -> None:
    for code, (frame, indent) in zip(CODES, itertools.cycle(FRAMES)):
        lines = f"````{language}\n{code}````".split("\n")
        text = frame + "\n".join([lines[0], *(indent + line for line in lines[1:])])
        assert read(html(text)).codes == [code], text
        assert read(html(text, Growth())).codes == [code], text


@pytest.mark.parametrize(("frame", "indent"), FRAMES)
def test_code_is_exact_wherever_markdown_has_it(frame: str, indent: str) -> None:
    for code in CODES:
        lines = f"````python\n{code}````".split("\n")
        text = frame + "\n".join([lines[0], *(indent + line for line in lines[1:])])
        assert read(html(text)).codes == [code], text


@pytest.mark.parametrize("name", [name for name in PROGRAMMING_LANGUAGES if name not in ("HTML", "CSS")])
def test_every_language_that_the_page_offers_has_colours(name: str) -> None:
    assert "<span" in highlighted("<?php\n# if x: return 'a'\n// while for\nif (x) return 'a'; end\n", name.lower())


@given(code=texts.filter(lambda text: "`" not in text and "\0" not in text and not text.startswith("\n")))
@example("a\r\nb\rc")
@example("    deep\n\n\n  less")
def test_any_code_in_a_fence_is_the_models_to_the_byte(code: str) -> None:
    assert read(html(f"before\n\n```py\n{code}\n```\n")).codes == [f"{code}\n"]


def test_code_that_takes_a_lexer_too_long_is_shown_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.conversation.highlight.LONGEST_SECONDS", -1.0)
    assert highlighted("x = 1\n", "python") == "x = 1\n"


def test_long_code_is_shown_without_colours() -> None:
    assert "<span" not in highlighted("x = 1\n" * LONGEST_CODE, "python")


# --- while it grows ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(text=texts)
@example("```python\n" + "x = 'a'\n" * 60 + "```\nafter")
@example("[a] is a link\n\nwords\n\n[a]: http://e/")
def test_a_text_that_grows_looks_at_every_step_as_if_it_had_come_whole(text: str) -> None:
    growth = Growth()
    for end in range(0, len(text) + 1, max(1, len(text) // 12)):
        growing, whole = read(html(text[:end], growth)), read(html(text[:end]))
        assert "".join(growing.seen).rstrip("⟧ ") == "".join(whole.seen).rstrip("⟧ ")
        assert growing.codes == whole.codes
    assert blocks(text) == blocks(text, None)


def test_what_is_sent_while_an_answer_grows_is_what_is_new() -> None:
    text = "First paragraph.\n\nThen a longer one, with words and words that end in no tag"
    growth = Growth()
    steps = [blocks(text[:end], growth) for end in range(20, len(text), 5)]
    for before, after in itertools.pairwise(steps):
        assert after[0] == before[0] or len(before) == 1
        if len(after) == len(before):
            assert after[-1].startswith(before[-1])


def test_what_is_remembered_of_a_text_that_grows_is_no_longer_than_the_text() -> None:
    text = "one\n\n" + "word " * 400
    growth = Growth()
    for end in range(1, len(text), 7):
        blocks(text[:end], growth)
    remembered = [source for source, _ in (*growth.blocks, *growth.lines)]
    assert sum(map(len, remembered)) <= 2 * len(text)


# --- in proportion to its length -----------------------------------------------------------------


def lines_run(work: Callable[[], Any]) -> int:
    """How many lines of Python a piece of work takes: as good as a clock, and the same on every machine."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


DELIMITERS = (
    "\\(", "\\[", "\\)", "$", "$$", "$a", "$ ", "`", "``a", "*a", "**a_", "_a*", "[", "![", "[a](", "](", "<", "<a",
    "~~a", "> ", "- ", "1. ", "&", "&#", "\\boxed{", "\\begin{align}", "\\begin{align}\n", "\\[\n", "$$\na\n",
    "http://a", "a@a.", "\\", "***", "|a", "|a|\n|-|\n", "```\n", "```markdown\n", "[a]: b\n", "[a][b]", "#", "\t",
    "\n", "**a **", "~", "^", "{", "<!--", "]: ", "*_", "[*_", "^![", "![\n![",
)  # fmt: skip


@pytest.mark.parametrize("piece", DELIMITERS)
def test_the_work_grows_in_proportion_to_the_length(piece: str) -> None:
    def work(length: int) -> int:
        text = (piece * length)[:length]
        return lines_run(lambda: blocks(text))

    work(200)  # what is looked up once
    short, long = work(400), work(1600)
    assert long < 8 * short + 10_000


@pytest.mark.parametrize("piece", DELIMITERS)
def test_what_is_too_long_is_shown_plain(piece: str) -> None:
    text = piece * (LONGEST // len(piece) + 1)
    assert read(html(text)).codes == [text]


@pytest.mark.parametrize("piece", ["> ", "- ", "1. "])
def test_what_is_too_deep_is_shown_plain_and_nothing_is_lost(piece: str) -> None:
    text = f"{piece * 200}the end"
    assert "the end" in "".join(read(html(text)).seen)


# --- formulas and boxes --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "`x`", "5 (about 7 CA", " (moderate), ", " and ", "...", "10 or "])
def test_what_stands_between_two_prices_is_no_formula(text: str) -> None:
    assert not is_formula(text)


@pytest.mark.parametrize(
    "text", ["x", "x^2", "ABC", "5", "5x + 3", "\\text{cost} = \\$12", "a \\le b", "velocity", "2 sin x"]
)
def test_mathematics_is_a_formula(text: str) -> None:
    assert is_formula(text)


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
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
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
