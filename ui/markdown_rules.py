"""Where answers differ from CommonMark, as plugins for markdown-it: emphasis beside Chinese, Japanese and Korean,
fences within a fence of Markdown, and addresses without brackets. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token

# --- emphasis ------------------------------------------------------------------------------------------------------


class EastAsianInline(ParserInline):
    """As markdown-it's, with `EastAsianState`."""

    def parse(self, src: str, md: MarkdownIt, env: MutableMapping[str, Any], tokens: list[Token]) -> list[Token]:
        state = EastAsianState(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


class EastAsianState(StateInline):
    """Emphasis may begin and end beside wide characters. CommonMark asks for a space where punctuation stands inside of
    the markers, and these scripts write none: `**注意：**请先保存`. The rule is that of markdown-cjk-friendly."""

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:
        end = start
        while end < self.posMax and self.src[end] == self.src[start]:
            end += 1
        before = _kind(self.src[start - 1]) if start else "space"
        after = _kind(self.src[end]) if end < self.posMax else "space"
        left = after != "space" and (after != "punctuation" or before != "word")
        right = before != "space" and (before != "punctuation" or after != "word")
        can_open = left and (canSplitWord or not right or before == "punctuation")
        can_close = right and (canSplitWord or not left or after == "punctuation")
        return Scanned(can_open, can_close, end - start)


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    if isWhiteSpace(ord(character)):
        return "space"
    if unicodedata.east_asian_width(character) in "WFH":
        return "wide"
    return "punctuation" if isMdAsciiPunct(ord(character)) or isPunctChar(character) else "word"


# --- fences --------------------------------------------------------------------------------------------------------

_FENCE = re.compile(r"(`{3,})([^`]*)")


def nested_fences(md: MarkdownIt) -> None:
    """A fence that opens 'markdown' ends at its own level: the fences in it are part of what it shows."""
    interrupts = ["paragraph", "reference", "blockquote", "list"]
    md.block.ruler.before("fence", "markdown_fence", _markdown_fence, {"alt": interrupts})


def _markdown_fence(state: StateBlock, first: int, end_line: int, silent: bool) -> bool:
    opening = _FENCE.fullmatch(_line(state, first))
    if state.is_code_block(first) or not opening or language_of(opening[2]) not in ("markdown", "md", "mdx"):
        return False
    if silent:
        return True
    inside: list[int] = []  # lengths of the fences that are open within it
    last, closed = first, False
    while not closed and (last := last + 1) < end_line:
        if not state.isEmpty(last) and state.sCount[last] < state.blkIndent:
            break  # the end of the list that the fence stands in
        if not (found := _FENCE.fullmatch(_line(state, last))):
            continue
        length = len(found[1])
        if found[2].strip():
            inside.append(length)
        elif inside and length >= inside[-1]:
            inside.pop()
        elif not inside:
            closed = length >= len(opening[1])
    state.line = last + closed
    token = state.push("fence", "code", 0)
    token.info, token.markup = opening[2], opening[1]
    token.content = state.getLines(first + 1, last, state.sCount[first], True)
    token.map = [first, state.line]
    return True


def language_of(info: str) -> str:
    """The first word of a fence's info string, in small letters."""
    return (info.split() or [""])[0].lower()


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]


# --- addresses -----------------------------------------------------------------------------------------------------

_ADDRESS = re.compile(r"://[A-Za-z0-9.\-\[\]:]+[^\s<>`\"'\u3000-\u303f\uff00-\uffef\u4e00-\u9fff]*")
_SCHEME = re.compile(r"(?:^|[^A-Za-z0-9+.-])(https?)$", re.IGNORECASE)
_AFTER = re.compile(r"[?!.,:;*_~'\"]+$")


def bare_links(md: MarkdownIt) -> None:
    """'https://example.org' is a link as it stands. What ends a sentence, or closes a bracket around it, is no part."""
    md.inline.ruler.after("text", "bare_link", _bare_link)


def _bare_link(state: StateInline, silent: bool) -> bool:
    if state.linkLevel > 0 or not state.src.startswith("://", state.pos):
        return False
    scheme = _SCHEME.search(state.pending[-9:])
    found = _ADDRESS.match(state.src, state.pos, state.posMax)
    if not scheme or not found:
        return False
    rest = _AFTER.sub("", found[0])
    while rest.endswith(")") and rest.count(")") > rest.count("("):
        rest = _AFTER.sub("", rest[:-1])
    address = scheme[1] + rest
    href = state.md.normalizeLink(address)
    if len(rest) < 5 or not state.md.validateLink(href):
        return False
    if not silent:
        state.pending = state.pending[: -len(scheme[1])]
        state.push("link_open", "a", 1).attrs = {"href": href}
        state.push("text", "", 0).content = address
        state.push("link_close", "a", -1)
    state.pos += len(rest)
    return True
