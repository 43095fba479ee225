"""One request on its way through the loop, and what the loop tells about it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from backends.adapters.hf_transformers.prompts import Prompt
from backends.adapters.hf_transformers.sampling import Sampler
from backends.core.types import Loading, Reason, Sampling


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer; `logprob` and `top` as (id, logprob) where they were asked for."""

    id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The last word of the loop about a request. `cached`: prompt tokens that did not have to be read."""

    reason: Reason
    cached: int


Told = Loading | Token | End | Exception


@dataclass(eq=False)
class Job:
    """One request in the loop. `limit`: most tokens of the answer."""

    prompt: Prompt
    sampling: Sampling
    limit: int
    logprobs: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    told: queue.SimpleQueue[Told] = field(default_factory=queue.SimpleQueue)
    # From here on the loop's own.
    key: list[int] = field(default_factory=list)  # of every token whose keys and values are held, in order
    made: int = 0
    last: int = 0  # the token that is to be read next
    cached: int = 0
    offset: int = 0  # what a position is ahead of its token's place, where pictures take fewer positions than tokens
    sampler: Sampler | None = None

    def events(self) -> Iterator[Told]:
        """Everything that the loop tells, the End or an exception last."""
        while True:
            told = self.told.get()
            yield told
            if isinstance(told, End | Exception):
                return
