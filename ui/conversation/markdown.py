"""Texts as the HTML that the page shows: what a person typed, exactly, and what a model wrote, as Markdown.

Markdown is CommonMark with tables and ~~struck out~~, line breaks where they were written, and formulas. Raw HTML is
shown as the text that it is, a picture as a link to it; no tag gets in that is not made here. Code stays byte for byte
what it was. Pure; knows nothing of gradio.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore, inline, text_join
from markdown_it.token import Token

from ui.conversation.formulas import MARKS, as_tex, formulas
from ui.conversation.highlight import escaped, highlighted
from ui.conversation.markdown_rules import EastAsianInline, bare_links, definitions, language_of, nested_fences, tables

LONGEST = 200_000
"""Characters; a longer text is shown plain, and so is a paragraph of more than a tenth of it."""
DEEPEST = 32
"""Quotations within each other, and twice the lists; deeper ones are shown plain."""

_ENDS = re.compile(r"\r\n|\r|\n")
_NO_MARKS = str.maketrans({mark: "\ufffd" for left, right, _ in MARKS for mark in (left, right)})
_CLOSING = re.compile(r"(?:</[a-z0-9]+>\s*)+\Z")
_SIGN = re.compile(r"[^\w ,:()]|_")
_NO_NAME = re.compile(r"[^\w+#.-]")


@dataclass(slots=True)
class Growth:
    """What was made of a text while it was shorter: a text that grows changes in its last block only.

    `blocks`, `lines`: HTML of each block, and of each run of text in the last one, by its source and the definitions of
    links that it was read with. `code`: the beginning of the code that grows, and the same in colours. `whole`: a text
    that has come to its end while others go on, and its blocks.
    """

    blocks: dict[tuple[str, str], str] = field(default_factory=dict)
    lines: dict[tuple[str, str], str] = field(default_factory=dict)
    code: tuple[str, str] = ("", "")
    whole: tuple[str, list[str]] = field(default=("", []))

    def coloured(self, code: str, language: str) -> str:
        """Colours cost more than all else, so they are made anew only when the code has grown by a quarter."""
        known, shown = self.code
        if not code.startswith(known) or len(code) > 1.25 * len(known) + 200:
            known = code[: code.rfind("\n") + 1]
            shown = highlighted(known, language)
            self.code = known, shown
        return shown + escaped(code[len(known) :])


def as_text(text: str) -> str:
    """Plain text within HTML of ours; it holds none of the marks of a formula."""
    return escaped(text.translate(_NO_MARKS))


def as_words(text: str) -> str:
    """A name in Markdown of ours that gradio shows: nothing in it is HTML, Markdown or the end of a line."""
    return _SIGN.sub(lambda found: f"&#{ord(found[0])};", text)


def as_typed(text: str) -> str:
    """A text exactly as it is. KaTeX looks into no `pre`, whose first line break the browser's parser leaves out."""
    return f'<pre class="typed">\n{escaped(text)}</pre>'


def as_formula(tex: str, display: bool = False) -> str:
    """A formula for KaTeX."""
    left, right, _ = MARKS[display]
    return f'<span class="formula">{left}{as_text(as_tex(tex, display))}{right}</span>'


def blocks(text: str, growth: Growth | None = None) -> list[str]:
    """What a model wrote, as HTML, one piece for each block that stands by itself: a paragraph, a list, a table.

    `growth`: of a text that is still being written; it is the same object for each state of one text.
    """
    if len(text) > LONGEST:
        return [as_typed(text)]
    source = _ENDS.sub("\n", text).replace("\0", "\ufffd")
    env: dict[str, Any] = {}
    tokens: list[Token] = []
    _MARKDOWN.block.parse(source, _MARKDOWN, env, tokens)
    if "\r" in text:
        _put_back_line_ends(text, tokens)
    lines, references = source.split("\n"), repr(env.get("references"))
    known = growth.blocks if growth and "\r" not in text else {}
    done = []
    separate = list(_apart(tokens))
    for block in separate:
        first, last = block[0].map or (0, 0)
        key = ("\n".join(lines[first:last]), references)
        if block is separate[-1] and growth:
            # Without the tags that close it, which the browser's parser adds: only what is new has to be sent.
            done.append(_CLOSING.sub("", _html(block, env | {"growth": growth}, key[0])))
            continue
        if key not in known:
            known[key] = _html(block, env, key[0])
        done.append(known[key])
    return done


def _apart(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    block: list[Token] = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield block
            block = []


def _html(block: list[Token], env: dict[str, Any], source: str) -> str:
    """One block; plain where reading it as Markdown would lose something, or take too long."""
    too_deep = any(token.level >= DEEPEST - 1 for token in block)
    if too_deep or any(token.type == "inline" and len(token.content) > LONGEST // 10 for token in block):
        return as_typed(source)
    growth, references = env.get("growth"), repr(env.get("references"))
    known = growth.lines if growth else {}
    lines: dict[tuple[str, str], str] = {}
    for token in block:
        if token.type in ("bullet_list_open", "ordered_list_open"):
            token.attrSet("dir", "auto")  # the numbers of an Arabic list stand at its right
        if token.type == "inline":
            key = (token.content, references)
            lines[key] = known[key] if key in known else _line_html(token, env)
            token.children = [Token("html_inline", "", 0, content=lines[key])]
    if growth:
        growth.lines = lines  # and not every state of a line that grows
    return str(_MARKDOWN.renderer.render(block, _MARKDOWN.options, env))


def _line_html(token: Token, env: dict[str, Any]) -> str:
    state = StateCore("", _MARKDOWN, env, [token])
    inline(state)
    text_join(state)
    return str(_MARKDOWN.renderer.render([token], _MARKDOWN.options, env))


def _put_back_line_ends(text: str, tokens: list[Token]) -> None:
    """Code has the line ends that were written; Markdown is read with line feeds only."""
    ends = _ENDS.findall(text)
    for token in tokens:
        if token.type in ("fence", "code_block") and token.map:
            first = token.map[0] + (token.type == "fence")
            *lines, rest = token.content.split("\n")
            token.content = "".join(line + end for line, end in zip(lines, ends[first:], strict=False)) + rest


def _diagram(source: str) -> str:
    """A diagram for gradio's mermaid to draw below its source; it stays unseen where it is wrong.

    Labels are text. Source that would set mermaid's own settings is not drawn.
    """
    if "%%{" in source or source.lstrip().startswith("---"):
        return ""
    return f'<div class="mermaid">{as_text(_LABELS_ARE_TEXT + source)}</div>\n'


_LABELS_ARE_TEXT = '%%{init: {"htmlLabels": false, "flowchart": {"htmlLabels": false}}}%%\n'


class _Renderer(RendererHTML):
    """markdown-it's, with code that is highlighted, formulas, tables that scroll, and no pictures."""

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        language = language_of(unescapeAll(tokens[idx].info))
        named = f' class="language-{name}"' if (name := _NO_NAME.sub("", language)) else ""
        growth: Growth | None = env.get("growth")
        code = (growth.coloured if growth else highlighted)(tokens[idx].content, language)
        block = f'<div class="code_wrap"><pre><code{named}>{code}</code></pre></div>\n'
        return block + _diagram(tokens[idx].content) if language == "mermaid" and not growth else block

    def code_block(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return f'<div class="code_wrap"><pre><code>{escaped(tokens[idx].content)}</code></pre></div>\n'

    def formula(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return as_formula(tokens[idx].content, tokens[idx].meta["display"])

    def text(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return as_text(tokens[idx].content)

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Nothing is fetched before a person clicks."""
        name = self.renderInlineAsText(tokens[idx].children or [], options, env)
        href = str(tokens[idx].attrs["src"])
        return f'<a href="{escaped(href)}" {_ELSEWHERE}>{as_text(name or href)}</a>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        title = tokens[idx].attrs.get("title")
        href = f'<a href="{escaped(str(tokens[idx].attrs["href"]))}" {_ELSEWHERE}'
        return f'{href} title="{as_text(str(title))}">' if title else f"{href}>"

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return '<div class="scrolls"><table dir="auto">\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return "</table></div>\n"


_ELSEWHERE = 'target="_blank" rel="noopener noreferrer"'


def _parser() -> MarkdownIt:
    md = MarkdownIt("js-default", {"breaks": True, "maxNesting": DEEPEST}, renderer_cls=_Renderer)
    md.inline = EastAsianInline()
    return md.use(formulas).use(nested_fences).use(bare_links).use(definitions).use(tables)


_MARKDOWN = _parser()
