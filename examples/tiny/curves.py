"""Draws the curves of README.md from the training's log: `python -m examples.tiny.curves`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot

from examples.tiny.lessons import LESSONS

LOG = Path("build/tiny/log.jsonl")
PICTURE = Path(__file__).with_name("curves.png")
EYES = {"kind": "shape at a token", "colour": "its colour", "iou": "its box (IoU)"}
WORDS = ("colour and shape", "counting", "position", "sums", "sums, thinking", "refusing")


def points(log: Path) -> list[dict[str, Any]]:
    """The log's lines in the order of the lessons; where a training went on from a checkpoint, the later one counts."""
    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    order = [lesson.name for lesson in LESSONS]
    newest = {(row["lesson"], row["step"]): row for row in rows if row["lesson"] in order}
    steps = {lesson.name: lesson.steps for lesson in LESSONS}
    kept = [row for (name, step), row in newest.items() if step <= steps[name]]
    kept.sort(key=lambda row: (order.index(row["lesson"]), row["step"]))
    for row in kept:
        row["at"] = row["step"] + sum(steps[name] for name in order[: order.index(row["lesson"])])
    return kept


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, title in EYES.items():
        left.plot([row["at"] for row in rows], [row[name] for row in rows], label=title)
    left.set_title("The eyes: what the heads read off visual tokens")
    for name in WORDS:
        seen = [row for row in rows if name in row]
        right.plot([row["at"] for row in seen], [row[name] for row in seen], label=name)
    right.set_title("The words: questions answered right to the last token")
    edges = [0]
    for lesson in LESSONS:
        edges.append(edges[-1] + lesson.steps)
    for axes in (left, right):
        for start, lesson in zip(edges, LESSONS, strict=False):
            axes.axvline(start, color="0.8", linewidth=0.8)
            axes.text(start, 1.01, f" {lesson.name}", fontsize=8, color="0.4", clip_on=True)
        axes.set_ylim(0, 1.06)
        axes.set_xlabel("step")
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    talks = next(start for start, lesson in zip(edges, LESSONS, strict=False) if lesson.skills)
    right.set_xlim(talks, rows[-1]["at"])
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    draw(points(LOG), PICTURE)
