"""What to do where something is slow, read off the last answers. Pure: the status page puts it into words."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from backends.engine.metrics import Answered

ENOUGH = 5  # answers, before anything is said of them
LONG_WAIT_S, LONG_FIRST_S, SLOW_TOKENS_S = 10.0, 5.0, 5.0
SHARE_FAILED, SHARE_LOADED = 0.2, 0.3
FULL = 0.92  # of the machine's memory


@dataclass(frozen=True, slots=True)
class Advice:
    """A text of the interface by its key, and what goes into it."""

    key: str
    values: dict[str, object] = field(default_factory=dict)


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def advice(answers: Sequence[Answered], memory_used: float) -> Iterator[Advice]:
    """`answers`: the last ones; `memory_used`: the share of the machine's memory that is taken, 0 to 1."""
    if memory_used >= FULL:
        yield Advice("advice_memory", {"percent": f"{100 * memory_used:.0f}"})
    if len(answers) < ENOUGH:
        return
    heard = [answer for answer in answers if answer.ttft_s is not None]
    failed = [answer for answer in answers if answer.outcome == "failed"]
    if len(failed) >= SHARE_FAILED * len(answers):
        yield Advice("advice_failed", {"n": len(failed), "all": len(answers)})
    wait = median([answer.queue_s for answer in heard])
    if wait is not None and wait > LONG_WAIT_S:
        yield Advice("advice_wait", {"seconds": f"{wait:.0f}"})
    loaded = [answer for answer in heard if answer.load_s > 1]
    if heard and len(loaded) >= SHARE_LOADED * len(heard) and len({answer.model for answer in loaded}) > 1:
        yield Advice("advice_loads", {"n": len(loaded), "all": len(heard)})
    for model in sorted({answer.model for answer in heard}):
        own = [answer for answer in heard if answer.model == model]
        speed = median([s for answer in own if (s := answer.tokens_per_s) is not None])
        if speed is not None and speed < SLOW_TOKENS_S:
            yield Advice("advice_slow", {"model": model, "speed": f"{speed:.1f}"})
        first = median([answer.ttft_s for answer in own if answer.ttft_s is not None])
        if first is not None and first > LONG_FIRST_S:
            yield Advice("advice_first", {"model": model, "seconds": f"{first:.0f}"})
