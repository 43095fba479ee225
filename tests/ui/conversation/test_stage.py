"""The stage as a browser would read it: marks where they should be, nothing alive that a model or a person wrote."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.pictures.boxes import Mark
from tests.drawn import picture, without_bytes
from ui.conversation.pictures import Picture
from ui.conversation.stage import Exhibit, exhibits, stage
from ui.conversation.texts import speaker
from ui.conversation.transcript import Reply, Transcript, Turn

SAY = speaker("en")
RED, GREEN, BLUE = (picture(200, 100, colour) for colour in ("red", "green", "blue"))
BOX = Mark("a cat", 20, 10, 120, 60)
EVIL = """'"><script>alert(1)</script><img src=http://e/x onerror='x'>&amp;"""

Element = tuple[str, dict[str, str | None]]


class Page(HTMLParser):
    """The elements with their attributes in order, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def having(self, attribute: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if attribute in attributes]

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    @property
    def marks(self) -> list[dict[str, str | None]]:
        return [a for _, a in self.elements if (a.get("class") or "").startswith("mark ")]


def page(*shown: Exhibit) -> Page:
    return Page(stage(list(shown), SAY))


def marked(*marks: Mark, on: Picture = RED) -> Page:
    return page(Exhibit(on, 1, marks))


def styles(mark: dict[str, str | None]) -> dict[str, float]:
    """left, top, width and height in per cent."""
    rows = (row.split(":") for row in (mark["style"] or "").split(";") if row)
    return {name: float(value.removesuffix("%")) for name, value in rows}


def answered(*marks: Mark, pictures: tuple[Picture, ...] = ()) -> Turn:
    return Turn(user="q", pictures=pictures, replies=(Reply(state="done", answer="a", marks=marks),))


# --- escaping ------------------------------------------------------------------------------------


@given(label=st.text(max_size=40))
@example(EVIL)
@example("' onmouseover='x")
@example('"')
@example("&lt;b&gt;")
def test_a_label_is_words_and_nothing_else(label: str) -> None:
    label = label.replace("\r", " ").replace("\0", " ")
    plain, found = marked(BOX), marked(Mark(label, 20, 10, 120, 60))
    assert found.tags == plain.tags
    assert [set(attributes) for _, attributes in found.elements] == [set(a) for _, a in plain.elements]
    (mark,) = found.marks
    assert mark["aria-label"] == (label or SAY("mark_unnamed"))
    assert (label or SAY("mark_unnamed")) in found.text


@given(text=st.text(max_size=40))
@example(EVIL)
def test_no_text_of_the_interface_is_html_either(text: str) -> None:
    shown = [
        Exhibit(RED, 1, (Mark("", 1, 1, 9, 9),)),
        Exhibit(without_bytes(GREEN), 2),
        Exhibit(BLUE, 3, waiting=True),
    ]
    for exhibits_ in (shown, []):
        plain = Page(stage(exhibits_, lambda key, **values: "x"))
        assert Page(stage(exhibits_, lambda key, **values: text)).tags == plain.tags


@given(marks=st.lists(st.builds(Mark, st.text(max_size=9), *[st.integers(0, 100)] * 4), max_size=4))
def test_nothing_is_fetched_and_nothing_is_run(marks: list[Mark]) -> None:
    found = page(Exhibit(RED, 1, tuple(marks)), Exhibit(GREEN, 2, waiting=True))
    for tag, attributes in found.elements:
        assert tag in ("div", "figure", "img", "button", "span", "figcaption", "nav")
        assert not any(name.startswith("on") or name in ("href", "srcset", "action") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert tag != "button" or attributes["type"] == "button"


# --- marks ---------------------------------------------------------------------------------------


@given(
    size=st.tuples(st.integers(2, 20_000), st.integers(2, 20_000)),
    share=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_mark_lies_where_it_was_found(size: tuple[int, int], share: tuple[float, float, float, float]) -> None:
    width, height = size
    x0, x1 = sorted(round(value * width) for value in share[:2])
    y0, y1 = sorted(round(value * height) for value in share[2:])
    (mark,) = marked(Mark("x", x0, y0, x1, y1), on=RED.model_copy(update={"width": width, "height": height})).marks
    at = styles(mark)
    found = [at["left"], at["top"], at.get("width", 0), at.get("height", 0)]
    expected = [100 * x0 / width, 100 * y0 / height, 100 * (x1 - x0) / width, 100 * (y1 - y0) / height]
    assert found == pytest.approx(expected, abs=0.0051)
    assert at["left"] + at.get("width", 0) <= 100.01


def test_a_box_can_be_looked_at_closer_and_says_where() -> None:
    (mark,) = marked(BOX).marks
    assert mark["class"] == "mark box high"
    assert mark["data-closer"] == f"{RED.id} 20 10 120 60"
    assert styles(mark) == {"left": 10, "top": 10, "width": 50, "height": 50}


def test_a_point_has_a_place_and_no_size_and_can_be_looked_at_closer() -> None:
    (mark,) = marked(Mark("here", 100, 50, 100, 50)).marks
    assert mark["class"] == "mark point"
    assert mark["data-closer"] == f"{RED.id} 100 50 100 50"
    assert styles(mark) == {"left": 50, "top": 50}


def test_a_label_stays_on_the_picture_wherever_its_mark_is() -> None:
    for x0, y0, where in ((0, 0, "mark box high"), (150, 0, "mark box high far"), (150, 80, "mark box far")):
        (mark,) = marked(Mark("x", x0, y0, x0 + 20, y0 + 10)).marks
        assert mark["class"] == where


def test_what_lies_within_another_is_drawn_above_it() -> None:
    point, small, large = Mark("point", 9, 9, 9, 9), Mark("small", 5, 5, 20, 20), Mark("large", 0, 0, 90, 90)
    drawn = [mark["aria-label"] for mark in marked(point, small, large).marks]
    assert drawn == ["large", "small", "point"]


def test_the_boxes_can_be_copied_as_json() -> None:
    marks = (BOX, Mark(EVIL, 1, 2, 3, 4))
    (button,) = marked(*marks).having("data-copy")
    assert json.loads(button["data-copy"] or "") == [
        {"label": mark.label, "x0": mark.x0, "y0": mark.y0, "x1": mark.x1, "y1": mark.y1} for mark in marks
    ]
    assert page(Exhibit(RED, 1)).having("data-copy") == []


# --- pictures ------------------------------------------------------------------------------------


def test_an_empty_stage_says_how_to_fill_it() -> None:
    assert page().text == SAY("stage_empty")


def test_a_picture_has_a_name_and_its_size_as_uploaded() -> None:
    found = page(Exhibit(RED.model_copy(update={"width": 4000, "height": 3000}), 3))
    assert "Picture 3 · 4,000 × 3,000" in found.text
    assert found.having("alt")[0]["alt"] == "Picture 3"


def test_only_what_waits_can_be_removed() -> None:
    found = page(Exhibit(RED, 1), Exhibit(GREEN, 2, waiting=True))
    assert [button["data-remove"] for button in found.having("data-remove")] == [GREEN.id]
    assert SAY("picture_waiting") in found.text


def test_a_picture_without_bytes_says_so() -> None:
    found = page(Exhibit(without_bytes(RED), 1, (BOX,)))
    assert SAY("picture_gone") in found.text
    assert "img" not in found.tags
    assert found.marks == []


@given(count=st.integers(1, 8))
def test_of_several_pictures_the_newest_is_shown_and_every_one_can_be_chosen(count: int) -> None:
    row = [Exhibit(picture(20 + n, 20), n + 1) for n in range(count)]
    found = page(*row)
    assert [figure["data-picture"] for figure in found.having("data-picture")] == [str(e.number) for e in row]
    assert ["hidden" in figure for figure in found.having("data-picture")] == [True] * (count - 1) + [False]
    choices = found.having("data-show")
    assert [choice["data-show"] for choice in choices] == ([str(e.number) for e in row] if count > 1 else [])
    assert [c["aria-pressed"] for c in choices] == ["false"] * (len(choices) - 1) + ["true"] * bool(choices)
    assert all(choice["aria-label"] for choice in choices)


# --- which ---------------------------------------------------------------------------------------


def test_pictures_are_numbered_through_the_conversation_and_the_tray_comes_last() -> None:
    turns = (answered(pictures=(RED,)), answered(), answered(pictures=(GREEN, RED)))
    shown = exhibits(Transcript(turns=turns), (BLUE,))
    assert [(e.picture, e.number, e.waiting) for e in shown] == [
        (RED, 1, False), (GREEN, 2, False), (RED, 3, False), (BLUE, 4, True),
    ]  # fmt: skip


def test_marks_are_those_of_the_last_answer_that_found_something_on_the_newest_picture_of_its_time() -> None:
    other = Mark("a dog", 1, 1, 9, 9)
    turns = (answered(BOX, pictures=(RED,)), answered(other), answered(), answered(BOX, pictures=(GREEN, BLUE)))
    assert [e.marks for e in exhibits(Transcript(turns=turns), ())] == [(other,), (), (BOX,)]
    assert exhibits(Transcript(turns=(answered(BOX),)), ()) == []


def test_marks_lie_on_a_picture_that_the_model_was_shown() -> None:
    """The engine is sent none that has no bytes, so what was found is on the newest that has."""
    turns = (answered(pictures=(RED,)), answered(BOX, pictures=(without_bytes(GREEN),)))
    assert [e.marks for e in exhibits(Transcript(turns=turns), ())] == [(BOX,), ()]
    gone = tuple(answered(BOX, pictures=(without_bytes(one),)) for one in (RED, GREEN))
    assert [bool(e.marks) for e in exhibits(Transcript(turns=gone), ())] == [True, True]
