"""What a host allows: so much for one person in an hour, so many people at once, so long a prompt and an answer.

The counting is the library's: in memory, or in Redis where several processes count together.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from limits import RateLimitItemPerHour
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

from backends.core.errors import LimitReached
from backends.core.logs import logger

log = logger(__name__)

GONE_SECONDS = 600
"""Who has asked nothing for so long is no longer one of those who are here."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the host has set; 0 is no limit. Answers and prompts are measured in tokens."""

    answers_per_hour: int = 0
    tokens_per_hour: int = 0
    longest_answer: int = 0
    longest_prompt: int = 0
    pictures_per_message: int = 0
    people_at_once: int = 0


@dataclass(frozen=True, slots=True)
class _Seen:
    """When somebody last did something, and from which address; empty for who has signed in."""

    at: float
    address: str


class Limits:
    """Keeps the rules for everybody. People are keys; who has none is not counted (the playground's own probes)."""

    def __init__(
        self,
        rules: Rules | None = None,
        storage: str = "memory://",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules or Rules()
        self._counter = FixedWindowRateLimiter(storage_from_string(storage, wrap_exceptions=True))
        # The library's memory loses counts, or raises, where two threads count at once; Redis does not.
        self._counting: AbstractContextManager[object] = (
            threading.Lock() if storage.startswith("memory:") else nullcontext()
        )
        self._answers = RateLimitItemPerHour(self.rules.answers_per_hour or 1)
        self._tokens = RateLimitItemPerHour(self.rules.tokens_per_hour or 1)
        self._clock = clock
        self._lock = threading.Lock()
        self._here: dict[str, _Seen] = {}  # the one who did nothing for longest first

    def admit(self, person: str, address: str = "") -> None:
        """Counts one answer. Raises `LimitReached`, which says which limit and until when.

        `address`: where somebody comes from who has not signed in. Whoever wants to can have many such persons.
        """
        if not person:
            return
        self._enter(person, address)
        rules = self.rules
        try:
            with self._counting:
                if rules.tokens_per_hour and not self._counter.test(self._tokens, person, "tokens"):
                    spent = f"Your answers of this hour have {rules.tokens_per_hour:,} tokens"
                    self._refuse(spent, self._tokens, person)
                if rules.answers_per_hour and not self._counter.hit(self._answers, person, "answers"):
                    self._refuse(f"You had {rules.answers_per_hour:,} answers in this hour", self._answers, person)
        except StorageError:
            log.error("limits cannot be counted, so nobody is held to them", exc_info=True)

    def spend(self, person: str, tokens: int) -> None:
        """Counts what an answer had. The last one may go over: an answer that has begun is not taken away."""
        if not person:
            return
        with self._lock:
            if person in self._here:  # who was refused a place gets none by being told so
                self._here_again(person, self._here[person].address)
        if self.rules.tokens_per_hour and tokens:
            try:
                with self._counting:
                    self._counter.hit(self._tokens, person, "tokens", cost=tokens)
            except StorageError:
                log.error("tokens cannot be counted", exc_info=True)

    @property
    def people(self) -> int:
        """How many are here."""
        with self._lock:
            self._forget()
            return len(self._here)

    def _enter(self, person: str, address: str) -> None:
        most = self.rules.people_at_once
        with self._lock:
            self._forget()
            if most and person not in self._here and len(self._here) >= most and not self._place_from_many(address):
                first = next(iter(self._here.values()))
                raise LimitReached(
                    f"{most} people use the playground already, as many as its host allows at once.",
                    f"A place may be free {_in(GONE_SECONDS - (self._clock() - first.at))}; send again then.",
                )
            self._here_again(person, address)

    def _place_from_many(self, address: str) -> bool:
        """Frees a place of the address that has the most, if `address` then has no more than it.

        So one address may fill an empty house, as a class behind one router does, but keeps nobody out of it. Whose
        place is taken is the one who did nothing for longest; what is being written for them goes on.
        """
        held = Counter(seen.address for seen in self._here.values() if seen.address)
        largest, places = next(iter(held.most_common(1)), ("", 0))
        if places <= held[address] + 1:
            return False
        del self._here[next(person for person, seen in self._here.items() if seen.address == largest)]
        return True

    def _here_again(self, person: str, address: str) -> None:
        self._here.pop(person, None)
        self._here[person] = _Seen(self._clock(), address)

    def _forget(self) -> None:
        gone = [person for person, seen in self._here.items() if self._clock() - seen.at > GONE_SECONDS]
        for person in gone:
            del self._here[person]

    def _refuse(self, what: str, item: RateLimitItemPerHour, person: str) -> None:
        kind = "tokens" if item is self._tokens else "answers"
        left = self._counter.get_window_stats(item, person, kind).reset_time - time.time()
        raise LimitReached(f"{what}, as many as the host of this playground allows.", f"Send again {_in(left)}.")


def _in(seconds: float) -> str:
    return f"in {seconds / 60:.0f} min" if seconds >= 90 else f"in {max(1, seconds):.0f} s"
