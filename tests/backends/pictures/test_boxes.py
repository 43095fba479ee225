"""Boxes and points are found however the model writes them, and nothing that it writes does harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.catalog.eyes import Eyes
from backends.pictures.box_json import MOST_LABEL
from backends.pictures.boxes import MOST_MARKS, Mark, RawMark, as_json, in_pixels, read
from tests.patience import grows_in_proportion

THOUSANDTHS = Eyes(side=32, fewest=4, default=1280, most=2560, boxes="thousandths")
RESIZED = Eyes(side=28, fewest=4, default=1280, most=2560, boxes="resized pixels")
CAT = {"bbox_2d": [10, 20, 300, 400], "label": "cat"}
A_CAT = RawMark("cat", 10, 20, 300, 400)

# --- properties ----------------------------------------------------------------------------------

labels = st.text(st.characters(categories=["L", "N"], include_characters=' "\\{}[]<>|&`'), max_size=20).filter(
    lambda label: label == " ".join(label.split()) and "```" not in label
)
places = st.integers(0, 1000)
boxes = st.builds(
    lambda label, x, y, dx, dy: RawMark(label, x, y, x + dx, y + dy),
    labels,
    places,
    places,
    st.integers(1, 500),
    st.integers(1, 500),
)
points = st.builds(lambda label, x, y: RawMark(label, x, y, x, y), labels, places, places)
marks = st.lists(boxes | points, min_size=1, max_size=5)
prose = st.sampled_from(["", "Here is what I see:", "Ein Satz.\nNoch einer.", "图中有一只猫。", "See [1] and (2)."])
WRAPPINGS = {
    "bare": "{}",
    "fenced": "```json\n{}\n```",
    "fenced on one line": "```json {} ```",
    "fenced without a language": "```\n{}\n```",
    "fenced in capitals": "```JSON\n{}\n```",
    "in an object": '{{"objects": {}}}',
}


def row_of(mark: RawMark, box: str = "bbox_2d", point: str = "point_2d", label: str = "label") -> dict[str, Any]:
    if mark.is_point:
        return {point: [mark.x0, mark.y0], label: mark.label}
    return {label: mark.label, box: [mark.x0, mark.y0, mark.x1, mark.y1]}


@given(
    marks,
    prose,
    prose,
    st.sampled_from(sorted(WRAPPINGS)),
    st.sampled_from([None, 2]),
    st.sampled_from(["bbox_2d", "bbox", "box_2d"]),
    st.sampled_from(["point_2d", "point"]),
    st.sampled_from(["label", "text_content", "name"]),
)
def test_places_come_back_as_they_were_written_and_the_prose_around_them_stays(
    marks: list[RawMark], before: str, after: str, wrapping: str, indent: int | None, box: str, point: str, label: str
) -> None:
    written = json.dumps([row_of(mark, box, point, label) for mark in marks], indent=indent, ensure_ascii=False)
    text = WRAPPINGS[wrapping].format(written)
    reading = read(f"{before}\n\n{text}\n\n{after}")
    assert reading.marks == tuple(marks)
    assert reading.prose == "\n\n".join(filter(None, [before, after]))
    assert written in reading.json
    assert "```" not in reading.json or "```" in written


@given(marks, prose, prose, st.sampled_from(sorted(WRAPPINGS)), st.sampled_from([None, 2]))
def test_no_json_is_seen_while_the_answer_comes_in_and_places_only_add_up(
    marks: list[RawMark], before: str, after: str, wrapping: str, indent: int | None
) -> None:
    written = WRAPPINGS[wrapping].format(json.dumps([row_of(mark) for mark in marks], indent=indent))
    whole = f"{before}\n{written}\n{after}"
    final = read(whole)
    seen: tuple[RawMark, ...] = ()
    for end in range(len(whole) + 1):
        reading = read(whole[:end], finished=False)
        assert final.prose.startswith(reading.prose.strip())
        assert reading.marks[: len(seen)] == seen
        seen = reading.marks
    assert seen == final.marks


@given(marks, st.sampled_from(["bare", "fenced", "in an object"]), st.data())
def test_an_answer_that_was_cut_off_gives_its_complete_places_and_no_json_in_its_prose(
    marks: list[RawMark], wrapping: str, data: st.DataObject
) -> None:
    opening, rows = WRAPPINGS[wrapping].split("{}")[0].replace("{{", "{"), [json.dumps(row_of(mark)) for mark in marks]
    complete = data.draw(st.integers(0, len(rows) - 1))
    begun = rows[complete][: data.draw(st.integers(len('{"point'), len(rows[complete]) - 1))]
    text = f"Look: {opening}[{', '.join([*rows[:complete], begun])}"
    reading = read(text)
    assert reading.marks == tuple(marks[:complete])
    if complete or '_2d"' in begun:
        assert reading.prose == "Look:"
        assert "```" not in reading.json


tags = ["<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "(1,2),(3,4)"]
values = ["[1,2,3,4]", "[1,2]", "NaN", "1e999", "null", '"bbox_2d"', '"bbox_2d":', '"label":', json.dumps(CAT)]
pieces = st.sampled_from([*'[]{}",:\\\n-` 猫', "```", "```json", "```python", "[{", '{"', "word", *tags, *values])


@given(st.lists(pieces, max_size=30).map("".join) | st.text(), st.booleans())
def test_no_text_makes_it_fail(text: str, finished: bool) -> None:
    reading = read(text, finished=finished)
    assert len(reading.marks) <= MOST_MARKS
    in_pixels(reading.marks, THOUSANDTHS, (64, 64), (100, 100))


@given(st.text())
def test_a_text_without_places_is_not_touched(text: str) -> None:
    assert read(text).prose == text


coordinates = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))


@given(
    st.lists(st.builds(lambda a, b, c, d: RawMark("", min(a, c), min(b, d), max(a, c), max(b, d)), *[coordinates] * 4)),
    st.sampled_from([THOUSANDTHS, RESIZED]),
    sizes,
    sizes,
)
def test_marks_lie_within_the_picture_and_boxes_are_not_empty(
    raw: list[RawMark], eyes: Eyes, shown: tuple[int, int], uploaded: tuple[int, int]
) -> None:
    for mark in in_pixels(raw, eyes, shown, uploaded):
        assert 0 <= mark.x0 <= mark.x1 <= uploaded[0]
        assert 0 <= mark.y0 <= mark.y1 <= uploaded[1]
        assert mark.is_point or (mark.x0 < mark.x1 and mark.y0 < mark.y1)


@given(boxes, sizes)
def test_coordinates_of_the_resized_picture_are_scaled_by_the_size_shown(box: RawMark, size: tuple[int, int]) -> None:
    assert in_pixels([box], RESIZED, (1000, 1000), size) == in_pixels([box], THOUSANDTHS, (64, 64), size)
    assert in_pixels([box], RESIZED, (2000, 2000), (2000, 2000)) == (
        Mark(box.label, int(box.x0), int(box.y0), int(box.x1), int(box.y1)),
    )


# --- examples ------------------------------------------------------------------------------------

# text: (prose, how many places)
TEXTS = {
    json.dumps([CAT]): ("", 1),
    json.dumps(CAT): ("", 1),
    f"First {json.dumps([CAT])}\nthen\n```json\n{json.dumps([CAT, CAT])}\n```\ndone": ("First\n\nthen\n\ndone", 3),
    f"It lies at {json.dumps(CAT)}, asleep.": ("It lies at, asleep.", 1),
    f"It lies at {json.dumps(CAT)} and sleeps.": ("It lies at and sleeps.", 1),
    f"One:\n\n\n{json.dumps([CAT])}\n\n\n\nTwo": ("One:\n\nTwo", 1),
    '{"name": "Cake", "steps": ["stir", "bake"]}': (None, 0),
    '```json\n{"name": "Cake", "weights": [1, 2, 3, 4]}\n```': (None, 0),
    "```json\n[]\n```": (None, 0),
    "[]": (None, 0),
    f"```python\nboxes = {json.dumps([CAT])}\n```": (None, 0),
    f"```python\nboxes = {json.dumps([CAT])}": (None, 0),
    "```\nsome text with [brackets]\n```": (None, 0),
    '{"a": 1} is no box, ' + json.dumps(CAT): ('{"a": 1} is no box,', 1),
    '{"a" is a brace. ' + json.dumps(CAT): ('{"a" is a brace.', 1),
    f'{{"objects": [{json.dumps(CAT)}], "count": 1}}': ("", 1),
    '[{"bbox_2d": [1.5, 2.25, 3.0, 4e0], "label": "a"}]': ("", 1),
    '[{"bbox_2d": ["1", "2", "3", "4"], "label": "a"}]': (None, 0),
    '[{"bbox_2d": [true, false, 3, 4]}]': (None, 0),
    '[{"bbox_2d": [1, 2, 3]}, {"bbox_2d": null}, {"bbox_2d": {}}]': (None, 0),
    '[{"bbox_2d": [NaN, 2, 3, 4]}, {"bbox_2d": [1, 2, Infinity, 4]}, {"bbox_2d": [1, 2, -1e999, 4]}]': (None, 0),
    '[{"bbox_2d": [1, 2, 3, ' + "9" * 4000 + "]}]": (None, 0),
    '[{"bbox_2d": [1, 2, 3, ' + "9" * 5000 + "]}]": (None, 0),
    '[{"bbox_2d": [5, 5, 5, 9], "label": "no width"}, ' + json.dumps(CAT) + "]": ("", 1),
    '[{"point_2d": [5, 6], "label": "p"}]': ("", 1),
    "<|object_ref_start|>the cat<|object_ref_end|><|box_start|>(10,20),(300,400)<|box_end|> sleeps": (
        "the cat sleeps",
        1,
    ),
    "<|object_ref_start|>cats<|object_ref_end|>"
    "<|box_start|>(1,2),(3,4)<|box_end|><|box_start|>(5, 6),(7, 8)<|box_end|>": ("cats", 2),
    "<|box_start|>(1,2),(3,x)<|box_end|>": (None, 0),
}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:40])
def test_what_is_read_as_places_and_what_stays(text: str) -> None:
    expected, count = TEXTS[text]
    reading = read(text)
    assert reading.prose == (text if expected is None else expected)
    assert len(reading.marks) == count
    assert bool(reading.json) == bool(count)


def test_swapped_corners_are_put_in_order() -> None:
    assert read('{"bbox_2d": [300, 400, 10, 20], "label": "cat"}').marks == (A_CAT,)


def test_qwen2_vls_tags_are_a_box_with_its_label() -> None:
    reading = read("A <|object_ref_start|>cat<|object_ref_end|><|box_start|>(10,20),(300,400)<|box_end|>.")
    assert (reading.prose, reading.marks) == ("A cat.", (A_CAT,))
    assert json.loads(reading.json) == CAT


BEGINNINGS = [
    "`",
    "``",
    "```",
    "```j",
    "```js",
    "```json",
    "```json\n",
    "```json\n[",
    "[",
    "[{",
    "[\n{",
    "{",
    '{"',
    '{"bb',
]


@pytest.mark.parametrize("end", [*BEGINNINGS, '{"label":', "<", "<|box_s", "<|object_ref_start|>ca"])
def test_what_may_become_a_place_is_kept_back_until_the_answer_ends(end: str) -> None:
    assert read(f"Look: {end}", finished=False).prose == "Look:"


@pytest.mark.parametrize("end", ["```js\n", "```python\n[{", "see [1", "{ x", "a < b", '{"a" is', "```json\nno"])
def test_what_can_become_none_is_shown_at_once(end: str) -> None:
    assert read(f"Look: {end}", finished=False).prose == f"Look: {end}"


def test_long_json_of_something_else_is_shown_before_it_ends() -> None:
    recipe = '```json\n{"steps": ["' + "stir, " * 500
    assert read(recipe, finished=False).prose == recipe


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("<b onclick=x>&amp;", "<b onclick=x>&amp;"),
        ("<|im_end|>", "<|im_end|>"),
        ("two\nlines\x00\x1b[31m", "two lines [31m"),
        ("turned \u202e round", "turned round"),
        ("\ud800", ""),
        ("x" * 10_000, "x" * (MOST_LABEL - 1) + "…"),
    ],
)
def test_a_label_is_one_short_line_of_plain_text(label: str, expected: str) -> None:
    (mark,) = read(json.dumps({"bbox_2d": [1, 2, 3, 4], "label": label})).marks
    assert mark.label == expected
    mark.label.encode()


@pytest.mark.parametrize("label", [7, None, ["a"], {"a": "b"}])
def test_a_label_that_is_no_text_is_left_out(label: Any) -> None:
    assert read(json.dumps({"bbox_2d": [1, 2, 3, 4], "label": label})).marks == (RawMark("", 1, 2, 3, 4),)


def test_marks_are_pixels_of_the_picture_as_uploaded() -> None:
    raw = [RawMark("a", -50, 500, 250, 2000), RawMark("p", 1500, -3, 1500, -3), RawMark("off", 1100, 0, 1200, 10)]
    placed = in_pixels(raw, THOUSANDTHS, (64, 32), (800, 400))
    assert placed == (Mark("a", 0, 200, 200, 400), Mark("p", 800, 0, 800, 0))
    assert as_json(placed)[0] == {"label": "a", "x0": 0, "y0": 200, "x1": 200, "y1": 400}
    assert in_pixels([RawMark("", 28, 28, 56, 56)], RESIZED, (112, 56), (448, 224)) == (Mark("", 112, 112, 224, 224),)


def test_a_box_smaller_than_a_pixel_does_not_become_a_point() -> None:
    assert in_pixels([RawMark("", 1, 1, 2, 2)], THOUSANDTHS, (64, 64), (64, 64)) == ()


# --- hostile texts -------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[int], str]] = {
    "brackets": lambda n: "[" * n,
    "brackets with spaces": lambda n: "[ " * n,
    "braces": lambda n: "{" * n,
    "nested objects": lambda n: '{"a":' * n,
    "nested boxes": lambda n: '{"bbox":' * n,
    "nested boxes, closed": lambda n: '{"bbox":' * n + "1" + "}" * n,
    "an array of arrays in a box": lambda n: '[{"bbox_2d": ' + "[" * n + "]" * n + "}]",
    "begun objects": lambda n: '[{"' * n,
    "strings that never end": lambda n: '{"a\\' * n,
    "backslashes": lambda n: '{"' + "\\" * n,
    "spaces": lambda n: '{"a"' + " " * n,
    "fences": lambda n: "```json\n" * n,
    "ticks": lambda n: "`" * n,
    "tags": lambda n: "<|object_ref_start|>" * n,
    "begun boxes": lambda n: "<|box_start|>(" * n,
    "digits": lambda n: '{"bbox_2d": [' + "1" * n,
    "lines": lambda n: "\n" * n,
    "single boxes": lambda n: f"{json.dumps(CAT)}\n" * (n // 10),
    "quotes": lambda n: '{"' + '":"' * n,
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_length_and_no_faster(name: str, finished: bool) -> None:
    def reads(length: int) -> None:
        assert len(read(HOSTILE[name](length), finished=finished).marks) <= MOST_MARKS

    grows_in_proportion(reads, 25_000)


def test_of_ten_thousand_boxes_the_first_are_kept_and_none_is_in_the_prose() -> None:
    rows = [{"bbox_2d": [i, 0, i + 1, 1], "label": str(i)} for i in range(10_000)]
    reading = read(f"Many:\n{json.dumps(rows)}\nThat is all.")
    assert [mark.label for mark in reading.marks] == [str(i) for i in range(MOST_MARKS)]
    assert reading.prose == "Many:\n\nThat is all."
