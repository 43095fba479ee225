"""Whose turn it is: a line in front of each engine, for as long as its slots are taken.

First come, first served. Knows nothing of models or of people.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator

from backends.cancel import Cancel
from backends.types import Queued

LOOK_SECONDS = 0.5  # how often someone in line looks up even when nothing has moved


class Line:
    """The line in front of one engine that serves `capacity` requests at once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.running = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()
        self._seconds: deque[float] = deque(maxlen=20)  # how long recent turns took

    def wait(self, cancel: Cancel) -> Generator[Queued, None, bool]:
        """Tells the place in line whenever it moves. Returns True with the turn taken, False once cancelled."""
        ticket, told = object(), 0
        undo = cancel.on_cancel(self._wake)
        with self._changed:
            self._waiting.append(ticket)
        try:
            while True:
                with self._changed:
                    if cancel.is_set():
                        return False
                    position = self._waiting.index(ticket) + 1
                    if position == 1 and self.running < self.capacity:
                        self.running += 1
                        return True
                    if position == told:
                        self._changed.wait(LOOK_SECONDS)
                        continue
                told = position
                yield Queued(position, self._eta(position))
        finally:
            undo()
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give_back(self, taken_at: float) -> None:
        """Ends the turn that began at `taken_at` (time.monotonic)."""
        with self._changed:
            self.running -= 1
            self._seconds.append(time.monotonic() - taken_at)
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _eta(self, position: int) -> float | None:
        """Seconds until it is the turn of this place, from how long recent turns took."""
        if not self._seconds:
            return None
        return position * (sum(self._seconds) / len(self._seconds)) / self.capacity
