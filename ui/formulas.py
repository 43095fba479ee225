"""Formulas as gradio finds them: it takes out what stands between its delimiters, one pair after the other, before it
looks for code or anything else. Pure; knows nothing of gradio."""

from __future__ import annotations

import re
from collections.abc import Callable

DELIMITERS = (("\\[", "\\]"), ("\\(", "\\)"))
"""No dollars: gradio would find them in code too, where '$$' is a shell's own number."""
_NONCHARACTERS = 0xFDD0  # from here on: of no meaning, for use within a program


class Taken:
    """A text and its formulas. `rest` has a sign in the place of each, made of a character that the text lacks."""

    def __init__(self, text: str) -> None:
        held = set(text) if chr(_NONCHARACTERS) in text else ()
        self._sign = next(sign for sign in map(chr, range(_NONCHARACTERS, 0x110000)) if sign not in held)
        self._place = re.compile(f"{self._sign}([0-9]+){self._sign}")
        self._formulas: list[str] = []
        self.rest = text
        for left, right in DELIMITERS:
            self.rest = self._without(self.rest, left, right)

    @property
    def formulas(self) -> set[str]:
        """Each with its delimiters, those within others too."""
        return {self.back(formula) for formula in self._formulas}

    def put(self, formula: str) -> str:
        """One more formula; returns what stands for it."""
        self._formulas.append(formula)
        return f"{self._sign}{len(self._formulas) - 1}{self._sign}"

    def back(self, text: str, change: Callable[[str], str] = str) -> str:
        """`text` with formulas in the place of their signs, each as `change` makes it."""
        return self._place.sub(lambda found: change(self.back(self._formulas[int(found[1])])), text)

    def _without(self, text: str, left: str, right: str) -> str:
        rest: list[str] = []
        end = 0
        while (start := text.find(left, end)) >= 0 and (stop := text.find(right, start + len(left) + 1)) >= 0:
            rest += [text[end:start], self.put(text[start : stop + len(right)])]
            end = stop + len(right)
        return "".join([*rest, text[end:]])
