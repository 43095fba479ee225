"""Whether the engines can answer: each one's last token is recent, or a probe has just produced one."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from backends.core.logs import logger
from backends.engine.engine import Engine

log = logger(__name__)

FRESH_SECONDS = 60.0
"""A token that is no older needs no probe."""
PATIENCE_SECONDS = 5.0
"""How long one who asks waits for a probe; it goes on after that, and the next one who asks has its result."""


class Readiness:
    """Probes the default engine, and others that have a model loaded, one probe an engine at a time."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._default = next(iter(engines))
        self._lock = threading.Lock()
        self._probes: dict[str, threading.Thread] = {}

    def check(self) -> tuple[bool, dict[str, float | None]]:
        """Whether all engines in use can answer, and how many seconds ago each of them gave its last token."""
        asked = [n for n, engine in self._engines.items() if n == self._default or engine.models.loaded()]
        probes = [self._probe(name) for name in asked if not self._fresh(name)]
        until = time.monotonic() + PATIENCE_SECONDS
        for probe in probes:
            probe.join(max(0.0, until - time.monotonic()))
        ages = {name: self._age(name) for name in self._engines}
        ready = all(self._fresh(name) for name in asked) and not self._engines[self._default].room.gate.closed
        return ready, {name: None if age is None else round(age, 1) for name, age in ages.items()}

    def _age(self, name: str) -> float | None:
        last = self._engines[name].last_token_at
        return None if last is None else time.monotonic() - last

    def _fresh(self, name: str) -> bool:
        age = self._age(name)
        return age is not None and age <= FRESH_SECONDS

    def _probe(self, name: str) -> threading.Thread:
        with self._lock:
            probe = self._probes.get(name)
            if probe is None or not probe.is_alive():
                probe = self._probes[name] = threading.Thread(
                    target=self._run, args=(name,), name=f"probe of {name}", daemon=True
                )
                probe.start()
            return probe

    def _run(self, name: str) -> None:
        problem = self._engines[name].probe()
        if problem is not None:
            log.warning("an engine gives no token", engine=name, kind=problem.kind)
