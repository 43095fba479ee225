"""What a Qwen-VL model says about places: boxes and points in its answer, told apart from its prose.

The model writes JSON, fenced or bare, or the tags of Qwen2-VL. Everything is found in one pass whose time grows with
the length of the text and no faster, whatever the text holds. Knows nothing of pictures but their size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

from pydantic import Field

from backends.catalog.eyes import Eyes
from backends.pictures.box_json import MOST_MARKS, VALUE, RawMark, marks_of, plain, value_at, values

_HELD = 1_000  # characters of JSON without a box in sight that are kept back while more may come

_TAG = r"<\|(?:object_ref|box)_start\|>"
_START = re.compile(rf"(?P<ticks>`{{3,}})(?P<language>\w{{0,20}})|(?P<value>{VALUE.pattern})|{_TAG}")
# What may become one of these when more text comes.
_BEGINNING = re.compile(r"(?:`{1,2}|(?:\[\s{0,64}){1,4}(?:\{\s{0,64})?|\{\s{0,64}|<(?:\|[a-z_]{0,16}\|?)?)\Z")
_CORNER = r"\(\s{0,4}(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)\s{0,4},\s{0,4}(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)\s{0,4}\)"
_TAGGED = re.compile(
    r"(?:<\|object_ref_start\|>(?P<label>(?:(?!<\|).){0,1000})<\|object_ref_end\|>\s{0,8})?"
    rf"<\|box_start\|>{_CORNER}(?:,{_CORNER})?<\|box_end\|>",
    re.DOTALL,
)


_Pixels = Annotated[int, Field(ge=0, le=100_000)]  # pydantic holds to it what comes back from a file
_Label = Annotated[str, Field(max_length=4_000_000)]  # as long as an answer; a text with bounds also has to be Unicode


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in pixels of the picture as uploaded: 0 <= x0 <= x1 <= width, and y likewise."""

    label: _Label
    x0: _Pixels
    y0: _Pixels
    x1: _Pixels
    y1: _Pixels

    @property
    def is_point(self) -> bool:
        return self.x0 == self.x1 and self.y0 == self.y1


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer read: what is prose, the places in the order written, and their JSON as the model wrote it."""

    prose: str
    marks: tuple[RawMark, ...] = ()
    json: str = ""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of the text that is no prose. `instead` is what the prose has in its place, None for a gap."""

    start: int
    stop: int
    marks: Sequence[RawMark] = ()
    json: str = ""
    instead: str | None = None


def read(text: str, *, finished: bool = True) -> Reading:
    """Tells the places in an answer from its prose. Never raises.

    JSON without places stays in the prose as it is; JSON that was cut off gives the places that are complete. While
    the answer is not `finished`, what may become JSON about places is kept back. The first `MOST_MARKS` places count.
    """
    pieces = list(_pieces(text, finished))
    if not pieces:
        return Reading(text)
    marks = list(chain.from_iterable(piece.marks for piece in pieces))[:MOST_MARKS]
    return Reading(_prose(text, pieces), tuple(marks), "\n".join(piece.json for piece in pieces if piece.json))


def in_pixels(
    marks: Sequence[RawMark], eyes: Eyes, shown: tuple[int, int], uploaded: tuple[int, int]
) -> tuple[Mark, ...]:
    """The places in pixels of the picture as uploaded, cut at its edges; boxes that are then empty are left out.

    `shown` and `uploaded`: (width, height) in pixels, as the model saw the picture and as the visitor sent it.
    """
    width, height = (1000, 1000) if eyes.boxes == "thousandths" else shown

    def scaled(value: float, whole: int, pixels: int) -> int:
        return round(min(max(value, 0.0), float(whole)) / whole * pixels)

    placed = (
        Mark(
            mark.label,
            scaled(mark.x0, width, uploaded[0]),
            scaled(mark.y0, height, uploaded[1]),
            scaled(mark.x1, width, uploaded[0]),
            scaled(mark.y1, height, uploaded[1]),
        )
        for mark in marks
    )
    return tuple(
        mark
        for raw, mark in zip(marks, placed, strict=True)
        if raw.is_point or (mark.x0 < mark.x1 and mark.y0 < mark.y1)
    )


def as_json(marks: Sequence[Mark]) -> list[dict[str, str | int]]:
    return [{"label": m.label, "x0": m.x0, "y0": m.y0, "x1": m.x1, "y1": m.y1} for m in marks]


# --- finding -------------------------------------------------------------------------------------


def _pieces(text: str, finished: bool) -> Iterator[_Piece]:
    """In the order of the text. The last may be one that is kept back."""
    position, label, stop = 0, "", -1
    while found := _START.search(text, position):
        if found["ticks"]:
            piece, position = _fenced(text, found, finished)
        elif found["value"]:
            piece, position = _bare(text, found.start(), finished)
        else:
            follows = text[stop : found.start()].isspace() or stop == found.start()
            piece, position = _tagged(text, found, finished, label if follows else "")
            label, stop = piece.marks[-1].label if piece and piece.marks else "", position
        if piece:
            yield piece
    if not finished and (found := _BEGINNING.search(text, max(position, len(text) - 400))):
        yield _Piece(found.start(), len(text))


def _bare(text: str, start: int, finished: bool) -> tuple[_Piece | None, int]:
    """The JSON value at `start` if it counts, and where to go on."""
    value = value_at(text, start, len(text))
    if value.counts:
        return _Piece(start, value.stop, value.marks, text[start : value.stop].rstrip()), value.stop
    if value.cut and not finished and len(text) - start < _HELD:
        return _Piece(start, len(text)), len(text)
    return None, value.stop


def _fenced(text: str, opening: re.Match[str], finished: bool) -> tuple[_Piece | None, int]:
    """As `_bare`, for a code fence with all that is in it. Fences of other languages are not looked into."""
    closing = text.find(opening["ticks"], opening.end())
    is_open, language = closing < 0, opening["language"].lower()
    end, stop = (len(text), len(text)) if is_open else (closing, closing + len(opening["ticks"]))
    held = _Piece(opening.start(), stop) if is_open and not finished else None
    if language not in ("", "json"):
        return held if "json".startswith(language) and opening.end() == end else None, stop
    inside = text[opening.end() : end].strip()
    if not inside or _BEGINNING.fullmatch(inside):
        return held, stop
    if not language and inside[0] not in "[{":
        return None, stop
    found = list(values(text, opening.end(), end))
    marks = [mark for value in found for mark in value.marks]
    if marks or (is_open and any(value.counts for value in found)):
        return _Piece(opening.start(), stop, marks, inside), stop
    undecided = len(found) == 1 and found[0].cut and end - opening.end() < _HELD
    return held if undecided else None, stop


def _tagged(text: str, opening: re.Match[str], finished: bool, label: str) -> tuple[_Piece | None, int]:
    """As `_bare`, for Qwen2-VL's tags: a label, which is part of the prose, then a box. Further boxes share it."""
    found = _TAGGED.match(text, opening.start())
    if not found:
        rest = text[opening.end() : opening.end() + _HELD]
        if not finished and len(rest) < _HELD and "<|box_end|>" not in rest:
            return _Piece(opening.start(), len(text)), len(text)
        return None, opening.end()
    instead = found["label"]
    row: dict[str, Any] = {"label": plain(label if instead is None else instead)}
    numbers = [float(number) if "." in number else int(number) for number in found.groups()[1:] if number]
    row["bbox_2d" if len(numbers) == 4 else "point_2d"] = numbers
    piece = _Piece(found.start(), found.end(), marks_of(row), json.dumps(row, ensure_ascii=False), instead or "")
    return piece, found.end()


# --- what is left --------------------------------------------------------------------------------


def _prose(text: str, pieces: Sequence[_Piece]) -> str:
    """The text without the pieces. Where one stood between lines a blank line stands, within a line a space."""
    stretches: list[list[str]] = [[]]
    position = 0
    for piece in pieces:
        stretches[-1].append(text[position : piece.start])
        position = piece.stop
        if piece.instead is None:
            stretches.append([])
        else:
            stretches[-1].append(piece.instead)
    stretches[-1].append(text[position:])
    prose: list[str] = []
    gap = ""  # white space between the last words and what comes next
    for stretch in map("".join, stretches):
        words = stretch.strip()
        if not words:
            gap += stretch
            continue
        gap += stretch[: len(stretch) - len(stretch.lstrip())]
        if prose:
            prose.append("\n\n" if "\n" in gap else "" if words[0] in ",.;:!?)" else " ")
        prose.append(words)
        gap = stretch[len(stretch.rstrip()) :]
    return "".join(prose)
