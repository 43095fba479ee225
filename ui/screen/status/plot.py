"""A small line plot as SVG, coloured by the stylesheet: nothing to load, and nothing that moves but the values."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 400, 160
LEFT, BOTTOM, TOP, RIGHT = 40, 20, 8, 8
COLOURS = 6  # classes of the stylesheet


def line_plot(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """`series`: by name, points of (seconds of time.time(), value from 0 up), in the order of time."""
    points = [point for line in series.values() for point in line]
    figure = f"<figcaption>{html.escape(title)}</figcaption>"
    if not points:
        return f"<figure class='plot'>{figure}<svg viewBox='0 0 {WIDTH} {HEIGHT}' aria-hidden='true'></svg></figure>"
    first, last = min(at for at, _ in points), max(at for at, _ in points)
    top = _round_up(max(value for _, value in points))

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((at - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)

    parts = []
    for share in (0.0, 0.5, 1.0):
        height = y(share * top)
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{height:.1f}' y2='{height:.1f}'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{height + 4:.1f}' text-anchor='end'>{share * top:g}</text>")
    for at, anchor in ((first, "start"), (last, "end")) if last > first else ((first, "middle"),):
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        parts.append(f"<text x='{x(at):.1f}' y='{HEIGHT - 4}' text-anchor='{anchor}'>{clock}</text>")
    for number, (name, line) in enumerate(series.items()):
        places = [(x(at), y(value)) for at, value in line]
        path = " ".join(f"{left:.1f},{down:.1f}" for left, down in places)
        dots = "".join(f"<circle cx='{left:.1f}' cy='{down:.1f}' r='2.2'/>" for left, down in places)
        title_of = f"<title>{html.escape(name)}</title>"
        parts.append(f"<g class='series-{number % COLOURS}'>{title_of}<polyline points='{path}'/>{dots}</g>")
    names = "".join(
        f"<span class='series-{number % COLOURS}'>{html.escape(name)}</span>" for number, name in enumerate(series)
    )
    label = html.escape(f"{title}: {points[-1][1]:.3g}", quote=True)
    drawing = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>{''.join(parts)}</svg>"
    return f"<figure class='plot'>{figure}{drawing}<div class='legend'>{names}</div></figure>"


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 and so on that is not below `value`."""
    if value <= 0:
        return 1.0
    power = math.floor(math.log10(value))
    tops = (float(f"{factor}e{power}") for factor in (1, 2, 5, 10))
    return next((top for top in tops if value <= top < math.inf), value)
