"""Lets requests in until the playground is stopped; those that run may end, for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from backends.core.cancel import Cancel
from backends.core.errors import Closing

LAST_WORDS_SECONDS = 3.0
"""How long a request that was ended has to tell its reader so."""


class Gate:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[object, Cancel] = {}
        self.closed = False

    @contextmanager
    def passing(self, cancel: Cancel) -> Iterator[None]:
        """For as long as a request runs. Raises `Closing` once the gate is closed."""
        ticket = object()
        with self._changed:
            if self.closed:
                raise Closing("The playground is being restarted.")
            self._inside[ticket] = cancel
        try:
            yield
        finally:
            with self._changed:
                del self._inside[ticket]
                self._changed.notify_all()

    def close(self, grace_s: float) -> int:
        """Lets nobody in any more, waits `grace_s` seconds for those inside, ends the rest; how many that were."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: not self._inside, grace_s)
            rest = list(self._inside.values())
        for cancel in rest:
            cancel()
        with self._changed:
            self._changed.wait_for(lambda: not self._inside, LAST_WORDS_SECONDS)
        return len(rest)
