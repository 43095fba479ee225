r"""Formulas in Markdown: where one begins and where it ends, as rules for markdown-it.

A dollar stands for money at least as often as for mathematics, and `\(` may be an escaped parenthesis. These are all
the rules that tell them apart; `tests/rendering/cases.toml` has cases for each:

1. An opening '$' has no ASCII letter or digit before it ('CA$', '5$') and no white space after it.
2. The formula ends at the next '$' that is not escaped. That one has no white space before it, and after it no ASCII
   letter or digit, but for the ending of an ordinal ('$n$th').
3. '$$', like `\[`, opens a formula of its own line; it is no part of a longer run of dollars.
4. Between the two stands something of mathematics (`is_formula`), with its braces closed, and no backtick: code is
   never a formula. A number alone between `\[` and `\]` is the number of a source.

Pure; knows nothing of gradio. Formulas come out between `MARKS`, for KaTeX in the browser to find.
"""

from __future__ import annotations

import re
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

MARKS = (("\ufdd0", "\ufdd1", False), ("\ufdd2", "\ufdd3", True))
"""What stands left and right of a formula on its way to KaTeX, and whether it has a line of its own. Noncharacters: of
no meaning, for use within a program; no text on the screen holds them."""

LONGEST_DISPLAY = 60  # lines

_SIGN = re.compile(r"[\\^_=<>+*/|{}×÷±≤≥≠≈∞√∑∏∫∂∈∉⊂∪∩→⇒⇔∀∃·πθλμΔ°]|\d\s*-|-\s*\d")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|operatorname|mbox|label|tag)\*?\s*\{[^{}]*\}")
_BETWEEN = frozenset({"and", "or", "to", "with", "und", "oder", "et", "ou"})
_FUNCTIONS = frozenset({"sin", "cos", "tan", "log", "ln", "lim", "max", "min", "exp", "mod", "gcd", "det"})
_ORDINAL = re.compile(r"(?:th|st|nd|rd|s)(?![A-Za-z0-9])")
_CONTAINER = re.compile(r">|(?:[-+*]|\d{1,9}[.)])\s")  # a quotation or a list, whose own lines are looked at later
_ENVIRONMENT = re.compile(r"\\begin\{((?:equation|align|aligned|gather|gathered|multline|cases|[bpvV]?matrix)\*?)\}")


def is_formula(text: str) -> bool:
    """Whether what stands between two delimiters is mathematics, and not the words between two prices or brackets."""
    if "`" in text or not any(character.isalnum() for character in text) or not _is_closed(text):
        return False
    words = [word for word in _WORD.findall(_TEXT.sub("", text)) if word not in _FUNCTIONS]
    if re.match(r"\s*\d", text):  # as a price begins
        return not any(re.search(rf"[\s(]{word}", text) for word in words)
    if _SIGN.search(text):
        return True
    stripped = text.strip()
    if stripped in _BETWEEN:
        return False
    return stripped.isalnum() or not any(len(word) > 2 and word.islower() for word in words)


def boxed(text: str) -> str:
    r"""The contents of the last complete \boxed{...} with balanced braces, or ''."""
    start = text.rfind("\\boxed{")
    end = _braces(text).get(start + len("\\boxed"), 0)
    return text[start + len("\\boxed{") : end - 1].strip() if start >= 0 and end else ""


def as_tex(written: str, display: bool) -> str:
    r"""A formula as KaTeX takes it: signs that mean something else in TeX are meant as they are ('25%', '$18'), a box
    needs no delimiters within, and an environment for lines of their own has a sister that stands within a line."""
    tex = _BOXED_TWICE.sub(r"\\boxed{\1\2}", written)
    special = "%#" if "\\text" in tex or "\\begin" in tex else "%#$&"
    tex = re.sub(rf"\\[\s\S]|[{special}]", lambda found: found[0] if len(found[0]) > 1 else "\\" + found[0], tex)
    return tex if display else _OF_A_LINE.sub(r"\1\2ed}", tex)


_BOXED_TWICE = re.compile(r"\\boxed\{\s*(?:\$([^${}]*)\$|\\\(((?:(?!\\\))[\s\S])*)\\\))\s*\}")
_OF_A_LINE = re.compile(r"(\\(?:begin|end)\{)(align|gather)\*?\}")


def formulas(md: MarkdownIt) -> None:
    """A plugin of markdown-it: formulas in lines and on lines of their own."""
    md.inline.ruler.before("escape", "formula", _inline)
    md.block.ruler.before("fence", "display", _display, {"alt": ["paragraph", "reference", "blockquote", "list"]})


# --- within a line -------------------------------------------------------------------------------------------------


def _inline(state: StateInline, silent: bool) -> bool:
    found = _found(state)
    if found is None:
        return False
    content, end, display = found
    if not silent:
        token = state.push("formula", "", 0)
        token.content = content
        token.meta["display"] = display
    state.pos = end
    return True


def _found(state: StateInline) -> tuple[str, int, bool] | None:
    """The formula that begins at the place: what it says, where it ends, whether it has a line of its own."""
    source, start = state.src, state.pos
    if source[start] == "$":
        return _in_dollars(state)
    if source[start] != "\\":
        return None
    for left, right, display in (("\\(", "\\)", False), ("\\[", "\\]", True)):
        if source.startswith(left, start):
            end = _next(state, right, start + 2)
            content = source[start + 2 : end]
            numbers_a_source = display and content.isdigit()
            return (content, end + 2, display) if end > 0 and is_formula(content) and not numbers_a_source else None
    if source.startswith("\\boxed{", start):  # small models forget the delimiters around it
        end = _braces(source).get(start + len("\\boxed"), 0)
        return (source[start:end], end, False) if 0 < end <= state.posMax else None
    if environment := _ENVIRONMENT.match(source, start):
        right = f"\\end{{{environment[1]}}}"
        end = _next(state, right, start)
        return (source[start : end + len(right)], end + len(right), True) if end > 0 else None
    return None


def _in_dollars(state: StateInline) -> tuple[str, int, bool] | None:
    source, start = state.src, state.pos
    run = 2 if source.startswith("$$", start) else 1
    if source.startswith("$", start + run) or (start and source[start - 1] == "$"):
        return None
    begin = start + run
    end = _next(state, "$" * run, begin)
    if end < 0 or source.startswith("$", end + run) or not is_formula(content := source[begin:end]):
        return None
    if run == 2:
        return content, end + 2, True
    before, after = source[start - 1 : start], source[end + 1 : end + 2]
    if _is_ascii_alnum(before) or content[0].isspace() or content[-1].isspace():
        return None
    if _is_ascii_alnum(after) and not _ORDINAL.match(source, end + 1):
        return None
    return content, end + 1, False


def _next(state: StateInline, right: str, start: int) -> int:
    """Where `right` stands next, not escaped; -1 if nowhere. Where it stands nowhere is looked for once only."""
    nowhere: dict[tuple[str, int, str], int] = state.env.setdefault("nowhere", {})
    key = (right, state.posMax, state.src)
    if start >= nowhere.get(key, state.posMax + 1):
        return -1
    end = start - 1
    while (end := state.src.find(right, end + 1, state.posMax)) >= 0:
        if right[0] != "$" or not _is_escaped(state.src, end):
            return end
    nowhere[key] = start
    return -1


@lru_cache(maxsize=8)
def _braces(text: str) -> dict[int, int]:
    """Where each brace that opens is closed, exclusive."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for brace in re.finditer(r"(?:[^{}\\]|\\[\s\S]?)*([{}])", text):
        if brace[1] == "{":
            opened.append(brace.start(1))
        elif opened:
            pairs[opened.pop()] = brace.end(1)
    return pairs


def _is_closed(text: str) -> bool:
    depth = 0
    for brace in re.finditer(r"\\[\s\S]|[{}]", text):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth < 0:
            return False
    return depth == 0


def _is_escaped(text: str, index: int) -> bool:
    before = index
    while before and text[before - 1] == "\\":
        before -= 1
    return (index - before) % 2 == 1


def _is_ascii_alnum(character: str) -> bool:
    return character.isascii() and character.isalnum()


# --- over several lines --------------------------------------------------------------------------------------------


def _display(state: StateBlock, first: int, end_line: int, silent: bool) -> bool:
    """A formula that opens on this line and closes on a later one: its lines are no lists, rules or headings."""
    line = line_of(state, first)
    if state.is_code_block(first) or _CONTAINER.match(line) or (opened := _opened(line)) is None:
        return False
    left, begin = opened
    right = left if left == "$$" else "\\]" if left == "\\[" else left.replace("begin", "end")
    if state.src.find(right, state.eMarks[first], state.eMarks[min(end_line, first + LONGEST_DISPLAY) - 1]) < 0:
        return False
    said = [line[begin + len(left) :]]
    for number in range(first + 1, min(end_line, first + LONGEST_DISPLAY)):
        empty = state.isEmpty(number)
        if (empty and line[:begin].strip()) or (not empty and state.sCount[number] < state.blkIndent):
            return False  # only a formula that begins a line may have empty lines
        line_now = line_of(state, number)
        before, closes, _ = line_now.partition(right)
        said.append(before)
        if closes:
            break
    else:
        return False
    if not is_formula("\n".join(said)):
        return False
    if silent:
        return True
    state.line = number + 1
    state.push("paragraph_open", "p", 1).map = [first, state.line]
    token = state.push("inline", "", 0)
    token.map, token.children = [first, state.line], []
    token.content = state.getLines(first, state.line, state.blkIndent, False).strip()
    state.push("paragraph_close", "p", -1)
    return True


def line_of(state: StateBlock, number: int) -> str:
    """A line without what it is indented by, and without the signs of the quotations that it stands in."""
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]


def _opened(line: str) -> tuple[str, int] | None:
    """The delimiter that is open at the end of a line, and where it stands; None where there is none, or in code."""
    if (environment := _ENVIRONMENT.match(line)) and f"\\end{{{environment[1]}}}" not in line:
        return environment[0], 0
    begin = line.rfind("\\[")
    left = "\\["
    if begin < 0 or "\\]" in line[begin:] or _is_escaped(line, begin):
        left, begin = "$$", line.rfind("$$")
        if begin < 0 or line.count("$$") % 2 == 0 or "$$$" in line or _is_escaped(line, begin):
            return None
    return None if line[:begin].count("`") % 2 else (left, begin)
