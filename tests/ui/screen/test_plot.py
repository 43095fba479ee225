"""A plot is a picture that is always whole: well-formed, with every point inside of it and every name escaped."""

from __future__ import annotations

import math
import re
import time
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ui.screen.status.plot import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, _round_up, line_plot

NOW = 1_700_000_000.0
times = st.floats(0, 4e9)
values = st.floats(0, allow_infinity=False)
text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cn", "Cs"]), max_size=12)  # what XML can hold
series = st.dictionaries(text, st.lists(st.tuples(times, values), max_size=8), max_size=9)


def drawn(title: str, lines: dict[str, list[tuple[float, float]]]) -> ElementTree.Element:
    ordered = {name: sorted(line) for name, line in lines.items()}
    return ElementTree.fromstring(line_plot(title, ordered))


def points(plot: ElementTree.Element) -> list[tuple[float, float]]:
    found = [tuple(map(float, p.split(","))) for line in plot.iter("polyline") for p in line.get("points", "").split()]
    dots = [(float(dot.get("cx", "nan")), float(dot.get("cy", "nan"))) for dot in plot.iter("circle")]
    assert found == dots, "every point of a line has its dot"
    return dots


@given(title=text, lines=series)
@example("", {"": [(0.0, 0.0)]})
@example("", {"a": [(0.0, 5e-324)]})
@example("", {"a": [(0.0, 1e-12)]})
@example("", {"a": [(0.0, 1.7e308), (1.0, 0.0)]})
@example("", {"a": [(0.0, 1e23)]})
def test_whatever_is_drawn_is_well_formed_and_inside(title: str, lines: dict[str, list[tuple[float, float]]]) -> None:
    plot = drawn(title, lines)
    (svg,) = plot.iter("svg")
    assert svg.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
    assert plot.findtext("figcaption") == title
    assert len(points(plot)) == sum(map(len, lines.values()))
    for x, y in points(plot):
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM
    for line in svg.iter("line"):
        assert all(0 <= float(line.get(name, "nan")) <= limit for name, limit in zip(
            ("x1", "x2", "y1", "y2"), (WIDTH, WIDTH, HEIGHT, HEIGHT), strict=True
        ))  # fmt: skip
    for words in svg.findall("text"):
        assert 0 <= float(words.get("x", "nan")) <= WIDTH
        assert 0 <= float(words.get("y", "nan")) <= HEIGHT
    assert not re.search("nan|inf", " ".join(words.text or "" for words in svg.findall("text")))


@given(lines=series)
def test_every_series_is_named_twice_in_the_same_colour(lines: dict[str, list[tuple[float, float]]]) -> None:
    assume(any(lines.values()))
    plot = drawn("", lines)
    groups = list(plot.iter("g"))
    names = [(group.get("class"), group.findtext("title")) for group in groups]
    assert names == [(f"series-{number % COLOURS}", name) for number, name in enumerate(lines)]
    assert names == [(span.get("class"), span.text or "") for span in plot.iter("span")]


@pytest.mark.parametrize("lines", [{}, {"a": []}, {"a": [], "b": []}])
def test_without_a_point_there_is_an_empty_picture(lines: dict[str, list[tuple[float, float]]]) -> None:
    plot = drawn("Speed", lines)
    (svg,) = plot.iter("svg")
    assert (svg.get("aria-hidden"), list(svg)) == ("true", [])
    assert plot.findtext("figcaption") == "Speed"


BAD = "</svg><script>alert(1)</script>\"' onload='x' &amp; <b>"


def test_names_and_titles_are_no_markup() -> None:
    plot = line_plot(BAD, {BAD: [(NOW, 1.0)]})
    assert "<script" not in plot
    assert "<b>" not in plot
    whole = ElementTree.fromstring(plot)
    (svg,) = whole.iter("svg")
    assert set(svg.keys()) == {"viewBox", "role", "aria-label"}
    assert svg.get("aria-label") == f"{BAD}: 1"
    assert whole.findtext("figcaption") == next(whole.iter("title")).text == next(whole.iter("span")).text == BAD


@given(line=st.lists(st.tuples(st.floats(NOW, NOW + 1e6), st.floats(0, 1e9)), min_size=2, max_size=20))
def test_later_is_further_right_and_more_is_higher(line: list[tuple[float, float]]) -> None:
    line.sort()
    where = points(drawn("", {"a": line}))
    for ((at, value), (x, y)), ((at_then, value_then), (x_then, y_then)) in pairwise(zip(line, where, strict=True)):
        assert x_then >= x or at_then < at
        assert (y_then <= y) if value_then >= value else (y_then >= y)


def test_lines_share_their_axes() -> None:
    first, second = {"a": [(NOW, 10.0)]}, {"b": [(NOW + 60, 4.0)]}
    (left, top), (right, lower) = points(drawn("", first | second))
    assert (left, right) == (LEFT, WIDTH - RIGHT)
    assert top == TOP
    assert lower == pytest.approx(TOP + (HEIGHT - TOP - BOTTOM) * 0.6, abs=0.1)


def test_the_axes_are_labelled_with_round_numbers_and_the_time_of_day() -> None:
    plot = drawn("", {"a": [(NOW, 3.0), (NOW + 90, 41.0)]})
    labels = [words.text for words in plot.iter("text")]
    clock = [time.strftime("%H:%M:%S", time.localtime(at)) for at in (NOW, NOW + 90)]
    assert labels == ["0", "25", "50", *clock]


def test_a_single_moment_stands_in_the_middle_and_has_one_label() -> None:
    plot = drawn("", {"a": [(NOW, 1.0)], "b": [(NOW, 2.0)]})
    assert {x for x, _ in points(plot)} == {(LEFT + WIDTH - RIGHT) / 2}
    assert len(list(plot.iter("text"))) == 4


@given(value=values)
@example(0.0)
@example(5e-324)
@example(1.7e308)
@example(0.30000000000000004)
@example(9.999999999999999e22)
def test_the_top_of_the_axis_is_never_below_a_value_and_never_endless(value: float) -> None:
    assert max(value, 0.0) <= _round_up(value) < math.inf
    assert _round_up(value) > 0


@given(value=st.floats(1e-9, 1e15))
def test_the_top_of_the_axis_is_a_round_number_close_by(value: float) -> None:
    top = _round_up(value)
    assert top < 2.5 * value * (1 + 1e-9)
    assert f"{top:e}"[0] in "125"
    assert float(f"{top:.0e}") == pytest.approx(top, rel=1e-9)


@given(value=st.sampled_from([1, 2, 5]), power=st.integers(-9, 15))
def test_a_round_number_is_its_own_top(value: int, power: int) -> None:
    number = float(f"{value}e{power}")
    assert _round_up(number) == pytest.approx(number, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.1, 2), (3, 5), (7, 10), (41, 50), (101, 200)]
)
def test_examples_of_tops(value: float, top: float) -> None:
    assert _round_up(value) == pytest.approx(top)
