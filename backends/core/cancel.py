"""How a running answer is ended from another thread. Knows nothing of what is ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field


class Cancel:
    """A one-way switch shared by whoever waits for an answer and whoever makes it.

    Callbacks run once, in the thread that cancels, so that an engine blocked in a read can be woken.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def __call__(self) -> None:
        with self._lock:
            if self._event.is_set():
                return
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            with suppress(Exception):  # a callback wakes a reader; one that has gone already is no error
                callback()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float) -> bool:
        return self._event.wait(timeout)

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Registers `callback` (called at once when already cancelled); returns what takes it back."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return lambda: None

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock, suppress(ValueError):
            self._callbacks.remove(callback)


@dataclass(slots=True)
class Controls:
    """The two things a person can do to a running request: stop it, or end its thinking and have the answer."""

    cancel: Cancel = field(default_factory=Cancel)
    answer_now: Cancel = field(default_factory=Cancel)
