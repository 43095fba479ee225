"""What it costs to show an answer while it is being written: processor time and bytes sent, for each token."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from gradio.utils import diff

from bench.report import Figure, median
from ui.conversation.render import Growths, Look, Message, project
from ui.conversation.texts import speaker
from ui.conversation.transcript import Reply, Transcript, Turn

STEP = 10  # characters between two drawings: the 0.1 s in which a small model writes some three tokens
CHARACTERS_A_TOKEN = 4
FUNCTION = (
    'def area(width: float, height: float) -> float:\n    """In m2."""\n    return width * height  # both in m\n\n'
)
ROW = "| Qwen3 | 4 B | 12.5 tokens/s |\n"
ANSWERS = {
    "prose with formulas": (
        "The **derivative** of $x^n$ is $n x^{n-1}$, so for $f(x) = 3x^2 + 2x$ we get:\n\n\\[\nf'(x) = 6x + 2\n\\]\n\n"
        "1. Bring the exponent down.\n2. Subtract one from it: `n - 1`.\n3. Add the terms up.\n\n"
    )
    * 9,
    "code": f"Here it is:\n\n```python\n{FUNCTION * 24}```\n",
    "a table and lists": f"| model | size | speed |\n|---|---|---|\n{ROW * 8}\n- one\n- two\n  - three\n\n" * 6,
}


def measure(quick: bool) -> Iterator[Figure]:
    for kind, text in ANSWERS.items():
        runs = [_shown(text) for _ in range(1 if quick else 5)]
        tokens = len(text) / CHARACTERS_A_TOKEN
        spent = median([seconds for seconds, _ in runs]) / tokens
        sent = runs[0][1] / tokens
        yield Figure(
            f"an answer that grows: {kind}",
            "the text alone",
            f"{1e6 * spent:,.0f} µs and {sent:,.0f} bytes a token",
            f"{CHARACTERS_A_TOKEN} bytes a token",
            str(len(runs)),
            target="at most 1 ms a token",
            met=spent <= 1e-3,
            note=f"{len(text):,} characters, drawn every {STEP}; processor time of making the HTML, and the edits that "
            "gradio sends for it, without its own envelope.",
        )


def _shown(text: str) -> tuple[float, int]:
    """Seconds of processor time, and bytes, from the first word to the last."""
    growths, seconds, sent = Growths(), 0.0, 0
    before: list[Message] = []
    look = Look(speaker("en"), growths=growths)
    for end in range(STEP, len(text) + STEP, STEP):
        over = end >= len(text)
        reply = Reply(answer=text[:end], state="done" if over else "answering")
        began = time.process_time()
        now = project(Transcript(turns=(Turn(user="q", replies=(reply,)),)), look)
        seconds += time.process_time() - began
        sent += len(json.dumps(diff(before, now)).encode())
        before = now
    return seconds, sent
