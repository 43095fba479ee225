"""A conversation as a file of Markdown: a person's words as typed, a model's as Markdown in which nothing is left open.

The questions stand in fences that are longer than any in them. To an answer is added what closes it: the end of a code
block, of a comment, of HTML, of a formula. markdown-it tells what is open, as it reads the file that comes out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ui.conversation.transcript import Transcript

_PARSER = MarkdownIt("commonmark")
_SIGN = re.compile(r"[\\`*_{}\[\]<>#|~$&!@]")
_LINE_END = re.compile(r"\r\n?")
_TICKS = re.compile("`+")
_MATHS = {"$$": "$$", "\\[": "\\]"}
_ENDS = {"<!--": "-->", "<?": "?>", "<![CDATA[": "]]>", "<!": ">"}  # of the HTML blocks that go on over empty lines
_VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr".split()  # noqa: SIM905
)


def to_markdown(title: str, transcript: Transcript) -> str:
    """The conversation for reading: questions in fences, thoughts folded away."""
    lines = [f"# {_words(title)}", ""]
    pictures = 0
    for turn in transcript.turns:
        lines += ["## You", ""]
        for picture in turn.pictures:
            pictures += 1
            lines += [f"*Picture {pictures}, {picture.width:,} × {picture.height:,} pixels*", ""]
        lines += [_as_typed(turn.user), ""]
        for reply in turn.replies:
            name = reply.stats.model if reply.stats and reply.stats.model else "Qwen"
            lines += [f"## {_words(name)}" + (f" ({_words(reply.language)})" if reply.language else ""), ""]
            if thoughts := reply.thoughts.strip():
                lines += ["<details><summary>Thoughts</summary>", "", closed(thoughts), "", "</details>", ""]
            lines += [closed(reply.answer), ""]
    return "\n".join(lines)


def closed(answer: str) -> str:
    """The answer and, after it, what ends everything that it leaves open."""
    tokens = _PARSER.parse(answer)
    if block := _open_block(answer, tokens):
        answer += block
        tokens = _PARSER.parse(answer)
    if maths := _open_formula(answer, tokens):
        answer += f"\n\n{maths}"
    if tags := _open_tags(tokens):
        answer += "\n\n" + "".join(f"</{tag}>" for tag in reversed(tags))
    return answer


def _open_block(answer: str, tokens: list[Token]) -> str:
    """What ends a block of code or HTML that would swallow the heading after the answer."""
    if _ends(answer):
        return ""
    last = tokens[-1]
    if last.type == "fence":
        return f"\n{last.markup}"
    start = last.content.lstrip()
    tag = re.match(r"<(script|pre|style|textarea)\b", start, re.IGNORECASE)
    return f"</{tag[1]}>" if tag else next((end for begin, end in _ENDS.items() if start.startswith(begin)), "")


def _ends(answer: str) -> bool:
    """Whether a heading that follows is one."""
    *_, last = _PARSER.parse(f"{answer}\n\n# -")
    return last.type == "heading_close" and last.level == 0


def _open_formula(answer: str, tokens: list[Token]) -> str:
    """The sign that ends a display formula, which may go on over empty lines, if one is left open."""
    lines, end = answer.split("\n"), ""
    code = {n for t in tokens if t.type in ("fence", "code_block", "html_block") and t.map for n in range(*t.map)}
    for line in (line.strip() for n, line in enumerate(lines) if n not in code):
        if end:
            end = "" if end in line else end
        elif line[:2] in _MATHS and _MATHS[line[:2]] not in line[2:]:
            end = _MATHS[line[:2]]
    return end


def _open_tags(tokens: list[Token]) -> list[str]:
    """The names of the HTML elements that are not ended, the outermost first."""
    reader = _Tags()
    for raw in _html(tokens):
        reader.feed(raw)
    return reader.open


def _html(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type in ("html_block", "html_inline"):
            yield token.content
        yield from _html(token.children or [])


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)  # HTML knows no '/>'

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            del self.open[len(self.open) - 1 - self.open[::-1].index(tag) :]


def _as_typed(text: str) -> str:
    """A person's words: in a fence they are never Markdown. Every line ends as the file's own do."""
    text = _LINE_END.sub("\n", text)
    fence = "`" * max(3, 1 + max(map(len, _TICKS.findall(text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _words(text: str) -> str:
    """Words in a line of ours: nothing in them is Markdown, or the end of the line."""
    return _SIGN.sub(r"\\\g<0>", " ".join(text.split()))
