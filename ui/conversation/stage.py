"""The picture beside the talk, as HTML: every picture of the conversation, the boxes of the last answer on them.

Pure text out of transcript and tray; what a click does is page.js and `looking.py`. Nothing a model or a person wrote
gets in unescaped.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import dataclass

from backends.pictures.boxes import Mark, as_json
from ui.conversation.pictures import SHOWN_SIDE, THUMBNAIL_SIDE, Picture, shown
from ui.conversation.render import Say
from ui.conversation.transcript import Transcript

LABEL_HEIGHT = 12
"""Of the picture, in percent: with less above it a mark has its label inside."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One picture on the stage: its number in the conversation, what was found on it, whether it still waits in the
    tray."""

    picture: Picture
    number: int
    marks: tuple[Mark, ...] = ()
    waiting: bool = False


def exhibits(transcript: Transcript, tray: Iterable[Picture]) -> list[Exhibit]:
    """The pictures in the order in which they came; marks are those of the last answer that found something on it."""
    found: list[Exhibit] = []
    for turn in transcript.turns[:-1] if transcript.failed else transcript.turns:
        found += [Exhibit(picture, len(found) + i) for i, picture in enumerate(turn.pictures, 1)]
        marks = next((reply.marks for reply in turn.replies if reply.marks), ())
        if found and marks:
            at = next((i for i in reversed(range(len(found))) if found[i].picture.image), -1)  # the one it was about
            found[at] = Exhibit(found[at].picture, found[at].number, marks)
    return found + [Exhibit(picture, len(found) + i, waiting=True) for i, picture in enumerate(tray, 1)]


def stage(shown_now: list[Exhibit], say: Say) -> str:
    """The newest picture, large, and small ones to choose from where there are several."""
    if not shown_now:
        return f"<div class='stage empty'><p>{html.escape(say('stage_empty'))}</p></div>"
    figures = "".join(_figure(exhibit, exhibit is shown_now[-1], say) for exhibit in shown_now)
    small = "".join(_choice(exhibit, exhibit is shown_now[-1], say) for exhibit in shown_now)
    return f"<div class='stage'>{figures}" + (f"<nav>{small}</nav>" if len(shown_now) > 1 else "") + "</div>"


def _figure(exhibit: Exhibit, current: bool, say: Say) -> str:
    picture, name = exhibit.picture, html.escape(say("picture_n", n=exhibit.number))
    caption = f"{name} · {picture.width:,} × {picture.height:,}"
    if exhibit.waiting:
        caption += f" · {html.escape(say('picture_waiting'))}"
    if picture.image is None:
        canvas = f"<p>{html.escape(say('picture_gone'))}</p>"
    else:
        large_first = sorted(exhibit.marks, key=_area, reverse=True)  # what lies within another can still be reached
        marks = "".join(_mark(mark, picture, say) for mark in large_first)
        size = f"--width:{min(picture.image.width, SHOWN_SIDE)}px;--ratio:{picture.width / picture.height:.4f}"
        canvas = f"<div class='canvas' style='{size}'><img src='{shown(picture.image)}' alt='{name}'>{marks}</div>"
    buttons = ""
    if exhibit.waiting:
        buttons += f"<button type='button' data-remove='{picture.id}'>{html.escape(say('picture_remove'))}</button>"
    if exhibit.marks:
        text = html.escape(json.dumps(as_json(exhibit.marks), ensure_ascii=False), quote=True)
        buttons += f"<button type='button' data-copy='{text}'>{html.escape(say('copy_boxes'))}</button>"
    return (
        f"<figure data-picture='{exhibit.number}'{'' if current else ' hidden'}>{canvas}"
        f"<figcaption><span>{caption}</span>{buttons}</figcaption></figure>"
    )


def _area(mark: Mark) -> int:
    """In square pixels; 0 for a point."""
    return (mark.x1 - mark.x0) * (mark.y1 - mark.y0)


def _mark(mark: Mark, picture: Picture, say: Say) -> str:
    """A button over what was found; a click looks closer."""
    left, top = 100 * mark.x0 / picture.width, 100 * mark.y0 / picture.height
    width, height = 100 * (mark.x1 - mark.x0) / picture.width, 100 * (mark.y1 - mark.y0) / picture.height
    label = html.escape(mark.label or say("mark_unnamed"), quote=True)
    kind, size = ("point", "") if mark.is_point else ("box", f"width:{width:.2f}%;height:{height:.2f}%")
    kind += " high" * (top < LABEL_HEIGHT) + " far" * (left > 50)
    return (
        f"<button type='button' class='mark {kind}' style='left:{left:.2f}%;top:{top:.2f}%;{size}'"
        f" data-closer='{picture.id} {mark.x0} {mark.y0} {mark.x1} {mark.y1}'"
        f" aria-label='{label}'><span dir='auto'>{label}</span></button>"
    )


def _choice(exhibit: Exhibit, current: bool, say: Say) -> str:
    name = html.escape(say("picture_n", n=exhibit.number), quote=True)
    image = exhibit.picture.image
    inside = f"<img src='{shown(image, THUMBNAIL_SIDE)}' alt=''>" if image else ""
    return (
        f"<button type='button' data-show='{exhibit.number}' aria-label='{name}'"
        f" aria-pressed='{str(current).lower()}'>{inside}<span>{exhibit.number}</span></button>"
    )
