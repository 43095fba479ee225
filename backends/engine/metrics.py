"""How it goes: what Prometheus asks for, and the last answers for the page about the playground itself.

No figure and no label names a person.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Outcome = Literal["done", "cancelled", "refused", "failed"]
"""'refused': before any engine was asked; 'failed': by an engine or by the playground itself."""

RECENT = 200  # answers that the page about the playground shows
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
SPEEDS = (1, 2, 5, 10, 20, 40, 80, 160, 320)


@dataclass(frozen=True, slots=True)
class Answered:
    """How one request went. Times in seconds; `at` is time.time(). `kind`: the failure's, empty where there is none."""

    at: float
    engine: str
    model: str
    outcome: Outcome
    kind: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    thinking_tokens: int = 0
    answer_tokens: int = 0
    queue_s: float = 0.0
    load_s: float = 0.0
    ttft_s: float | None = None
    generate_s: float = 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """From the first token to the last; None where there were too few to tell."""
        tokens = self.thinking_tokens + self.answer_tokens
        return (tokens - 1) / self.generate_s if tokens > 1 and self.generate_s > 0 else None


class Metrics:
    """The figures of all engines. Counting is safe from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._recent: deque[Answered] = deque(maxlen=RECENT)
        self._lock = threading.Lock()
        whose = ("engine", "model")

        def counter(name: str, what: str, *more: str) -> Counter:
            return Counter(f"playground_{name}", what, (*whose, *more), registry=self.registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"playground_{name}", what, whose, buckets=buckets, registry=self.registry)

        self._requests = counter("requests", "Requests by how they ended", "outcome")
        self._problems = counter("problems", "Requests that were refused or failed, by kind", "kind")
        self._prompt = counter("prompt_tokens", "Tokens of prompts")
        self._cached = counter("cached_prompt_tokens", "Tokens of prompts that were found in the KV cache")
        self._written = counter("written_tokens", "Tokens of thoughts and answers")
        self._wait = histogram("queue_seconds", "Time in line", SECONDS)
        self._first = histogram("first_token_seconds", "From the turn, model loaded, to the first token", SECONDS)
        self._speed = histogram("tokens_per_second", "Of one answer, from its first token to its last", SPEEDS)

    def watch(self, now: Callable[[], Iterable[Metric]]) -> None:
        """Asks for what is true at the moment whenever Prometheus asks."""
        self.registry.register(_Now(now))

    def record(self, answered: Answered) -> None:
        whose = (answered.engine, answered.model)
        self._requests.labels(*whose, answered.outcome).inc()
        if answered.kind:
            self._problems.labels(*whose, answered.kind).inc()
        if answered.outcome != "refused":
            self._wait.labels(*whose).observe(answered.queue_s)
        self._prompt.labels(*whose).inc(answered.prompt_tokens)
        self._cached.labels(*whose).inc(answered.cached_tokens)
        self._written.labels(*whose).inc(answered.thinking_tokens + answered.answer_tokens)
        if answered.ttft_s is not None:
            self._first.labels(*whose).observe(answered.ttft_s)
        if (speed := answered.tokens_per_s) is not None:
            self._speed.labels(*whose).observe(speed)
        with self._lock:
            self._recent.append(answered)

    @property
    def recent(self) -> tuple[Answered, ...]:
        """The last answers, the oldest first."""
        with self._lock:
            return tuple(self._recent)

    def text(self) -> bytes:
        """In the format that Prometheus reads."""
        return generate_latest(self.registry)


class _Now(Collector):
    def __init__(self, now: Callable[[], Iterable[Metric]]) -> None:
        self._now = now

    def collect(self) -> Iterable[Metric]:
        return self._now()
