"""Who asked to be forgotten: a cookie that was there before lets nobody in any more, until it would have ended.

A signed cookie cannot be called back, so the server keeps what it needs to refuse it: a hash and a time, beside the key
that signed it, so that a restart revives none and processes that share the folder know of each other's.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

from backends.core.logs import logger

log = logger(__name__)

NAME = "forgotten"
MOST = 10_000
"""Of more, the oldest is forgotten itself. Who wants that many needs as many seats, of which an address gets few."""


class Forgotten:
    """Kept in a file of `folder`; without one, or where it cannot be written, until the end of the program."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = folder / NAME if folder else None
        self._until: dict[str, float] = {}
        self._read_at: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def add(self, who: str, seconds: float) -> None:
        """For as long as a cookie of theirs may still be good."""
        with self._lock:
            self._read()
            self._keep(_hash(who), time.time() + seconds)
            if self._file is None:
                return
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                part = self._file.with_suffix(f".{os.getpid()}")
                part.write_text("".join(f"{name} {until:.0f}\n" for name, until in self._until.items()), "ascii")
                part.replace(self._file)
            except OSError:
                log.warning("who asked to be forgotten is so until the next start only: it could not be written down")

    def __contains__(self, who: str) -> bool:
        with self._lock:
            self._read()
            return self._until.get(_hash(who), 0) > time.time()

    def _keep(self, name: str, until: float) -> None:
        now = time.time()
        self._until = {name: until for name, until in self._until.items() if until > now} | {name: until}
        for old in list(self._until)[:-MOST]:
            del self._until[old]

    def _read(self) -> None:
        """What another process has written, or this one before it was started again."""
        try:
            status = self._file.stat() if self._file else None
            if status is None or (status.st_mtime_ns, status.st_ino) == self._read_at:
                return
            self._read_at = (status.st_mtime_ns, status.st_ino)
            lines = [line.split() for line in self._file.read_text("ascii").splitlines()] if self._file else []
            self._until |= {line[0]: float(line[1]) for line in lines if len(line) == 2}
        except (OSError, ValueError):
            pass


def _hash(who: str) -> str:
    return hashlib.sha256(who.encode("utf-8", "surrogatepass")).hexdigest()[:32]
