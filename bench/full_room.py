"""A full room: how alike thirty-two people are served, and what two thousand turns leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from bench.crowd import PEOPLE, QUESTIONS, crowd, kept_after_a_round, room
from bench.report import Figure, median

LONGEST_WAIT, MOST_GROWTH = 1.5, 0.05
ENGINES = {"scripted": ("an engine that writes 20 words a second", 60), "real": ("Qwen2.5-Coder 0.5B", 8)}
"""What each is called, and the tokens that an answer may have."""


def _asked(tokens: int, n: int) -> dict[str, Any]:
    """What the n-th person gives beside the question."""
    return {"temperature": 0.0, "max_new_tokens": tokens, "seed": n}


def measure(quick: bool) -> Iterator[Figure]:
    for engine, (name, tokens) in ENGINES.items():
        with room(engine) as served:
            people = crowd(served.url, "Write three words about the sea.", partial(_asked, tokens))
        waits = [wait for person in people for wait in person.waits]
        ratio = max(waits) / median(waits)
        yield Figure(
            f"longest wait for a first token of {PEOPLE} people, {name}",
            "the median of all waits",
            f"{max(waits):.1f} s",
            f"{median(waits):.1f} s",
            str(len(waits)),
            f"{ratio:.2f}",
            f"at most {LONGEST_WAIT}",
            ratio <= LONGEST_WAIT,
            f"{PEOPLE} clients, each with its own cookie, send at the same moment, again as soon as they are answered, "
            f"{QUESTIONS} questions each; from the call of gradio_client to the first item with an answer in it.",
        )
    with room("quick") as served:
        before = kept_after_a_round(served)
        for _ in range(1 if quick else 2):
            after = kept_after_a_round(served)
    growth = after["bytes"] / before["bytes"] - 1
    yield Figure(
        "memory (RSS) after 2,000 turns more",
        "after the first 1,000",
        f"{after['bytes'] / 2**20:.0f} MiB",
        f"{before['bytes'] / 2**20:.0f} MiB",
        "1",
        f"{100 * growth:+.1f} %",
        f"at most {100 * MOST_GROWTH:.0f} %",
        growth <= MOST_GROWTH,
        f"half of the turns on pages that come and go, half through the endpoint. Threads {before['threads']} and "
        f"{after['threads']}, open files {before['files']} and {after['files']}, sessions {after['sessions']}.",
    )
