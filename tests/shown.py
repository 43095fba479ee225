"""What a reader sees of the page's HTML, as a line of text: `seen` is what the browser's test reads off the page too.

White space is one space outside of code. What stands out is in brackets: ⟦b bold⟧, ⟦i italic⟧, ⟦s struck out⟧, ⟦c code
in a line⟧, ⟦pre code of its own⟧, ⟦m formula⟧, ⟦M formula on a line of its own⟧.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

from ui.conversation.formulas import MARKS

NAMES = {"strong": "b", "em": "i", "s": "s"}
_FORMULAS = {
    mark: sign
    for left, right, display in MARKS
    for mark, sign in ((left, " ⟦M " if display else "⟦m "), (right, "⟧ " if display else "⟧"))
}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.codes: list[str] = []
        self._in_pre = self._in_code = False
        self._after_pre = self._in_diagram = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._after_pre = tag == "pre"
        self._in_diagram = dict(attrs).get("class") == "mermaid"
        if tag == "pre":
            self._in_pre = True
            self.seen.append(" ⟦pre ")
            self.codes.append("")
        elif tag == "code" and not self._in_pre:
            self.seen.append("⟦c ")
        elif tag in NAMES:
            self.seen.append(f"⟦{NAMES[tag]} ")
        elif tag in ("br", "p", "li", "td", "th", "tr", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote"):
            self.seen.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._in_diagram = False
        if tag == "pre":
            self._in_pre = False
        if tag == "pre" or (tag == "code" and not self._in_pre) or tag in NAMES:
            self.seen.append("⟧ " if tag == "pre" else "⟧")

    def handle_data(self, data: str) -> None:
        if self._after_pre and data.startswith("\n"):
            data = data[1:]  # as the browser's parser does
        self._after_pre = False
        if self._in_diagram:
            return  # drawn by mermaid, below its source
        if self._in_pre:
            self.codes[-1] += data
            self.seen.append(data)
        else:
            data = re.sub(r"[ \t\r\n\f]+", " ", data)
            self.seen.append("".join(_FORMULAS.get(character, character) for character in data))


def read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


def seen(html: str) -> str:
    """As the module says; spaces at both ends and more than one of them are left out."""
    text = "".join(read(html).seen)
    pieces = re.split(r"(⟦pre [\s\S]*?⟧)", text)
    return "".join(p if p.startswith("⟦pre ") else re.sub(r" {2,}", " ", p) for p in pieces).strip()
