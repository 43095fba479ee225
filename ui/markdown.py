"""Markdown that shows text as it was written: raw HTML is never obeyed and pictures are not fetched.

An invisible U+2060 after the '<' or the '!' is enough for that and leaves no mark on the screen. Code and mathematics
are left alone, since there it would be copied into a program; where it is in doubt whether something is code, it is
treated as text. The page's content security policy is the second wall. Pure; knows nothing of gradio.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

JOINER = "\u2060"

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_CODE = r"(?<![`\\])(?P<ticks>`{1,2})(?!`)[^`\n|]+(?<!`)(?P=ticks)(?!`)"
_MATH = r"\$\$.*?\$\$|\\\[.*?\\\]|\\\(.*?\\\)|(?<!\$)\$(?![\s$])[^$\n]+(?<!\s)\$(?![\d$])"
_SPAN = re.compile(f"(?P<code>{_CODE})|(?P<math>{_MATH})", re.DOTALL)
_ONLY_CODE = re.compile(f"(?P<code>{_CODE})")
_TAG = r"<(?=[A-Za-z/!?])"
_ALIVE = re.compile(_TAG + r"|!(?=\[)")
_SIGN = re.compile(r"[^\w ,:()]|_")
_BARE_BOX = re.compile(r"\\boxed\{(?:[^{}]|\{[^{}]*\})*\}")  # small models forget the delimiters around it


def as_typed(text: str) -> str:
    """A person's text, exactly: `as_meant` gives it back."""
    return _outside_fences(text, lambda prose: _apart(prose, _ONLY_CODE, _still))


def as_written(text: str) -> str:
    """A model's text. Dollars are mathematics by pandoc's rule, which knows prices, and become \\( \\): gradio gets
    only the delimiters that nobody writes prices with."""
    return _outside_fences(text, lambda prose: _apart(prose, _SPAN, _still_but_boxed))


def as_meant(shown: str) -> str:
    """What `as_typed` was given, from text that a person has edited on the screen."""
    return shown.replace("<" + JOINER, "<").replace("!" + JOINER, "!")


def as_words(text: str) -> str:
    """A name in a sentence of ours: nothing in it is HTML, Markdown or the end of a line."""
    return _SIGN.sub(lambda found: f"&#{ord(found[0])};", text)


def closed(markdown: str) -> str:
    """The same with an unfinished code block closed, so that what follows does not become code."""
    *_, (_, fence) = [("", ""), *_fenced(markdown)]
    return f"{markdown}\n{fence}" if fence else markdown


def boxed(text: str) -> str:
    r"""The contents of the last complete \boxed{...} with balanced braces, or ''."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return ""
    depth, begin = 0, start + len("\\boxed{")
    for i in range(begin - 1, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[begin:i].strip()
    return ""


def _fenced(text: str) -> Iterator[tuple[str, str]]:
    """Each line with the fence of the code block that it leaves open, '' outside of one."""
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.fullmatch(line)
        if found and not fence:
            if not (found[1][0] == "`" and "`" in found[2]):  # an info string with a backtick is inline code
                fence = found[1]
        elif found and found[1].startswith(fence) and not found[2].strip():
            yield line, ""
            fence = ""
            continue
        yield line, fence


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    """`text` with everything but fenced code blocks changed."""
    done: list[str] = []
    prose: list[str] = []
    before = ""
    for line, fence in _fenced(text):
        if fence or before:
            if prose:
                done.append(change("\n".join(prose)))
                prose = []
            done.append(line)
        else:
            prose.append(line)
        before = fence
    if prose:
        done.append(change("\n".join(prose)))
    return "\n".join(done)


def _apart(prose: str, spans: re.Pattern[str], change: Callable[[str], str]) -> str:
    """Prose changed, but for its spans of code and of mathematics. A paragraph with a stray backtick is all prose:
    Markdown may pair it with one on another line."""
    return "".join(_paragraph(part, spans, change) for part in re.split(r"(\n[ \t]*\n)", prose))


def _paragraph(text: str, spans: re.Pattern[str], change: Callable[[str], str]) -> str:
    if "`" in _ONLY_CODE.sub("", text):
        return change(text)
    pieces, end = [], 0
    for span in spans.finditer(text):
        pieces += [change(text[end : span.start()]), span[0] if span["code"] else _formula(span[0])]
        end = span.end()
    return "".join([*pieces, change(text[end:])])


def _formula(math: str) -> str:
    safe = re.sub(_TAG, "< ", math)
    return f"\\({safe[1:-1]}\\)" if safe.startswith("$") and not safe.startswith("$$") else safe


def _still(prose: str) -> str:
    return _ALIVE.sub(lambda found: found[0] + JOINER, prose)


def _still_but_boxed(prose: str) -> str:
    return _BARE_BOX.sub(r"\\(\g<0>\\)", _still(prose))
