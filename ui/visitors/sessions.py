"""Which answers are being written for whom, so that Stop finds them. Lives on the server: it holds live switches."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from backends.core.cancel import Controls


class Sessions:
    """Running answers by page (gradio's session hash) and tab; one answer a tab at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], Controls] = {}
        self._key = secrets.token_bytes(32)

    @contextmanager
    def answering(self, page: str, tab: str) -> Iterator[Controls | None]:
        """The switches of a new answer, or None while the tab has one already. However the block is left, what was
        begun in it is cancelled, which means nothing to an answer that has ended, and the tab is free again."""
        with self._lock:
            controls = None if (page, tab) in self._running else Controls()
            if controls is not None:
                self._running[page, tab] = controls
        try:
            yield controls
        finally:
            if controls is not None:
                controls.cancel()
                with self._lock:
                    self._running.pop((page, tab), None)

    def find(self, page: str, tab: str) -> Controls | None:
        with self._lock:
            return self._running.get((page, tab))

    def conversation(self, page: str, tab: str) -> str:
        """The same for all questions of a page's tab, for engines that keep a conversation on one replica; nobody can
        tell from it whose it is, and the next start of the playground makes another one."""
        return hmac.new(self._key, f"{page}/{tab}".encode(), hashlib.sha256).hexdigest()[:32]

    def close(self, page: str) -> None:
        """Stops everything that runs for a page that is gone."""
        with self._lock:
            gone = [controls for (owner, _), controls in self._running.items() if owner == page]
        for controls in gone:
            controls.cancel()

    @property
    def interval(self) -> float:
        """Seconds between two drawings of one answer: each one takes processor time from the model that writes it."""
        return max(0.1, 0.015 * len(self._running))
