"""Where answers differ from CommonMark, as plugins for markdown-it: emphasis beside Chinese, Japanese and Korean,
fences within a fence of Markdown, pipes within code in a table, what only looks like a definition of a link, and
addresses without brackets. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import MutableMapping
from functools import lru_cache
from types import FunctionType
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_block import StateBlock, reference
from markdown_it.rules_block.table import table
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token

from ui.conversation.formulas import is_formula, line_of

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
    opening = _FENCE.fullmatch(line_of(state, first))
    if state.is_code_block(first) or not opening or language_of(opening[2]) not in ("markdown", "md", "mdx"):
        return False
    if silent:
        return True
    inside: list[int] = []  # lengths of the fences that are open within it
    last, closed = first, False
    while not closed and (last := last + 1) < end_line:
        if not state.isEmpty(last) and state.sCount[last] < state.blkIndent:
            break  # the end of the list that the fence stands in
        if not (found := _FENCE.fullmatch(line_of(state, last))):
            continue
        length = len(found[1])
        if found[2].strip():
            inside.append(length)
        elif inside and not (length >= len(opening[1]) and length > inside[-1]):
            if length >= inside[-1]:
                inside.pop()
        else:
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


# --- tables --------------------------------------------------------------------------------------------------------

_WHOLE = re.compile(
    r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)|\\\(.*?\\\)|(?<![\\$\w])\$(?![\s$]).*?(?<![\s\\])\$(?![\w$])|\\?[\s\S]"
)


def tables(md: MarkdownIt) -> None:
    """A pipe within code or a formula separates nothing. GitHub asks for a backslash before it, and models write none.

    markdown-it's own rule, with another function where it splits a row.
    """
    own = FunctionType(table.__code__, {**table.__globals__, "escapedSplit": split_row}, "table")
    md.block.ruler.at("table", own, {"alt": ["paragraph", "reference"]})


def split_row(row: str) -> list[str]:
    cells = [""]
    for found in _WHOLE.finditer(row):
        piece = found[0]
        if piece == "|":
            cells.append("")
        elif piece == "\\|" or (piece[0] == "`" and len(piece) > 1):
            cells[-1] += piece.replace("\\|", "|")
        elif "|" in piece and not is_formula(piece.strip("$")):
            first, *others = piece.split("|")
            cells[-1] += first
            cells += others
        else:
            cells[-1] += piece
    return cells


# --- definitions of links ------------------------------------------------------------------------------------------

_DEFINITION = re.compile(r"\[([^\[\]]+)\]:[ \t]*(\S*)")


def definitions(md: MarkdownIt) -> None:
    """'[WARNING]: disk full' and '[^1]: a note' are text: only an address is the definition of a link, or what a link
    in the text asks for."""
    md.block.ruler.at("reference", _reference)


def _reference(state: StateBlock, first: int, end_line: int, silent: bool) -> bool:
    if found := _DEFINITION.match(line_of(state, first)):
        label, address = found.groups()
        is_asked_for = state.src.count(f"[{label}]") > 1
        if label.startswith("^") or (address and not re.search("[/.:#<]", address) and not is_asked_for):
            return False
    return bool(reference(state, first, end_line, silent))


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
