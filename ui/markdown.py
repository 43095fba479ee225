"""Markdown that shows text as it was written: raw HTML is never obeyed and pictures are not fetched.

An invisible U+2060 after the '<' or the '!' is enough for that and leaves no mark on the screen. Code and mathematics
are left alone, since there it would be copied into a program; where it is in doubt whether something is code, it is
treated as text. The page's content security policy is the second wall. Pure; knows nothing of gradio.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ui.formulas import DELIMITERS, Taken

JOINER = "\u2060"

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_CODE = r"(?<![`\\])(?P<ticks>`{1,2})(?!`)[^`\n|]+(?<!`)(?P=ticks)(?!`)"
_DOLLARS = r"\$\$(?s:.+?)\$\$|(?<!\$)\$(?![\s$])[^$\n]+(?<!\s)\$(?![\d$])"
_SPAN = re.compile(f"(?P<code>{_CODE})|(?P<dollars>{_DOLLARS})")
_ONLY_CODE = re.compile(f"(?P<code>{_CODE})")
_ALIVE = re.compile(r"<(?=[A-Za-z/!?])|!(?=\[)")
_SIGN = re.compile(r"[^\w ,:()]|_")
_BARE_BOX = re.compile(r"\\boxed\{(?:[^{}]|\{[^{}]*\})*\}")  # small models forget the delimiters around it


def as_typed(text: str) -> str:
    """A person's text, exactly: `as_meant` gives it back."""
    return _shown(Taken(text), _ONLY_CODE, _still, _still)


def as_written(text: str) -> str:
    """A model's text. Dollars are mathematics by pandoc's rule, which knows prices, and become \\( \\) or \\[ \\]:
    gradio gets only the delimiters that nobody writes prices or programs with. Where those would pair with others,
    dollars stay as they are."""
    taken = Taken(text)

    def change(prose: str) -> str:
        return _BARE_BOX.sub(lambda found: taken.put(f"\\({found[0]}\\)"), _still(prose))

    done = _shown(taken, _SPAN, change, _inert)
    meant = taken.formulas
    return done if Taken(done).formulas <= meant | {_inert(formula) for formula in meant} else as_typed(text)


def as_meant(shown: str) -> str:
    """What `as_typed` was given, from text that a person has edited on the screen."""
    return shown.replace("<" + JOINER, "<").replace("!" + JOINER, "!")


def as_words(text: str) -> str:
    """A name in a sentence of ours: nothing in it is HTML, Markdown or the end of a line."""
    return _SIGN.sub(lambda found: f"&#{ord(found[0])};", text)


def closed(markdown: str) -> str:
    """The same with nothing left open that would reach into what follows: no code block, and no formula."""
    taken = Taken(markdown)
    for left, _ in DELIMITERS:
        taken.rest = taken.rest.replace(left, left[0] + JOINER + left[1])
    done = taken.back(taken.rest)
    *_, (_, fence) = [("", ""), *_fenced(done)]
    return f"{done}\n{fence}" if fence else done


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


def _shown(taken: Taken, spans: re.Pattern[str], change: Callable[[str], str], inert: Callable[[str], str]) -> str:
    """The text with its prose changed and its formulas made inert; code stays. Dollars become formulas where `spans`
    finds them."""

    def prose(text: str) -> str:
        return taken.back(change(text), inert)

    def formula(dollars: str) -> str:
        math = inert(dollars.strip("$"))
        return taken.put(f"\\[{math}\\]" if dollars.startswith("$$") else f"\\({math}\\)")

    return taken.back(_outside_fences(taken.rest, lambda text: _apart(text, spans, prose, formula)))


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


def _apart(prose: str, spans: re.Pattern[str], change: Callable[[str], str], formula: Callable[[str], str]) -> str:
    """Prose changed, but for its spans of code and of dollars. A paragraph with a stray backtick is all prose: Markdown
    may pair it with one on another line."""
    return "".join(_paragraph(part, spans, change, formula) for part in re.split(r"(\n[ \t]*\n)", prose))


def _paragraph(text: str, spans: re.Pattern[str], change: Callable[[str], str], formula: Callable[[str], str]) -> str:
    if "`" in _ONLY_CODE.sub("", text):
        return change(text)
    pieces, end = [], 0
    for span in spans.finditer(text):
        pieces += [change(text[end : span.start()]), span[0] if span["code"] else formula(span[0])]
        end = span.end()
    return "".join([*pieces, change(text[end:])])


def _inert(formula: str) -> str:
    """Spaces are nothing in a formula."""
    return _ALIVE.sub(lambda found: found[0] + " ", formula)


def _still(prose: str) -> str:
    return _ALIVE.sub(lambda found: found[0] + JOINER, prose)
