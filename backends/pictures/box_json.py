"""JSON about places as a model writes it: cut off, wrapped, nested, wrong. One walk over it reads what is sound.

Time grows with the length of the text and no faster, whatever the text holds. Nothing here raises.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MOST_MARKS = 200
MOST_LABEL = 80

_BOXES, _POINTS = ("bbox_2d", "bbox", "box_2d"), ("point_2d", "point")
_KEYS = (*_BOXES, *_POINTS)
_LABELS = ("label", "text_content", "name")
_DEEPEST = 12  # levels of brackets; no answer about places needs half of them

_STRING = r'"(?:[^"\\\n]++|\\.)*+"'
_LEXEME = re.compile(
    rf"[\s,:]++|[\[\]{{}}]|(?P<key>{_STRING}(?=\s{{0,64}}(?::|\Z)))|{_STRING}"
    r"|-?[0-9][0-9.eE+-]*+|true|false|null|NaN|-?Infinity"
)
_CUT_LEXEME = re.compile(r'"(?:[^"\\\n]++|\\.)*+\\?|t|tr|tru|f|fa|fal|fals|n|nu|nul|N|Na|-?I[a-z]{0,6}|-')
VALUE = re.compile(r'(?:\[\s{0,64}){0,4}\{\s{0,64}"')


@dataclass(frozen=True, slots=True)
class RawMark:
    """A place as the model wrote it, corners in order; a point has both corners in one place."""

    label: str
    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def is_point(self) -> bool:
        return self.x0 == self.x1 and self.y0 == self.y1


@dataclass(slots=True)
class Value:
    """One JSON value. `cut`: the text ends before it does; `about_places`: it has, or begins to have, a place's key."""

    start: int
    stop: int
    marks: list[RawMark] = field(default_factory=list)
    cut: bool = False
    about_places: bool = False

    @property
    def counts(self) -> bool:
        return bool(self.marks) or (self.cut and self.about_places)


def values(text: str, start: int, end: int) -> Iterator[Value]:
    while found := VALUE.search(text, start, end):
        value = value_at(text, found.start(), end)
        yield value
        start = value.stop


def value_at(text: str, start: int, end: int) -> Value:
    """Walks over the value at `start` bracket by bracket and reads each object in it that has a place's key.

    Never comes back over what it has passed: a value that breaks the rules of JSON ends where it does so.
    """
    value = Value(start, start)
    opened: list[int] = []  # where each object that is open began; -1 for an array
    keyed: list[bool] = []
    position = start
    while lexeme := _LEXEME.match(text, position, end):
        mark, position = lexeme[0][0], lexeme.end()
        if mark in "[{":
            if len(opened) == _DEEPEST:
                break
            opened.append(lexeme.start() if mark == "{" else -1)
            keyed.append(False)
        elif mark in "]}":
            began, has_place = opened.pop(), keyed.pop()
            if (mark == "}") != (began >= 0):
                break
            if has_place and began >= 0 and len(value.marks) < MOST_MARKS:
                value.marks += _marks_in(text[began:position])
            if not opened:
                break
        elif lexeme["key"] and lexeme["key"][1:-1] in _KEYS:
            keyed[-1] = value.about_places = True
    else:
        rest = _CUT_LEXEME.fullmatch(text, position, end)
        value.cut = position == end or rest is not None
        value.about_places |= (
            rest is not None and len(rest[0]) > 1 and any(f'"{key}'.startswith(rest[0]) for key in _KEYS)
        )
        position = end if value.cut else position
    value.stop = position
    return value


def _marks_in(source: str) -> list[RawMark]:
    try:
        row = json.loads(source, strict=False)
    except ValueError:
        return []
    return marks_of(row)


def marks_of(row: dict[str, Any]) -> list[RawMark]:
    """The place of one object, if it is one: finite numbers, and a box that is not empty."""
    label = next((plain(row[key]) for key in _LABELS if isinstance(row.get(key), str)), "")
    box = next((numbers for key in _BOXES if (numbers := _numbers(row.get(key), 4))), None)
    if box and box[0] != box[2] and box[1] != box[3]:
        (x0, x1), (y0, y1) = sorted(box[::2]), sorted(box[1::2])
        return [RawMark(label, x0, y0, x1, y1)]
    point = next((numbers for key in _POINTS if (numbers := _numbers(row.get(key), 2))), None)
    return [RawMark(label, *point, *point)] if point and not box else []


def _numbers(value: object, count: int) -> list[float] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in value):
        return None
    try:
        numbers = [float(number) for number in value]
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def plain(label: str) -> str:
    """One line of at most `MOST_LABEL` characters, without control characters and marks that turn the direction."""
    seen = "".join(
        " "
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"
        else c
        for c in label[: 10 * MOST_LABEL]
    )
    line = " ".join(seen.split())
    return line if len(line) <= MOST_LABEL else line[: MOST_LABEL - 1] + "…"
