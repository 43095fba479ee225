"""A file of weights while it grows: its lock, its partial file, its room on the disk, its checksum, its progress.

Knows nothing of where the bytes come from, nor which of two checksums is the right one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from backends.core.cancel import Cancel
from backends.core.errors import NotEnoughDisk, WeightsError
from backends.core.types import Loading, Stage

EVENT_EVERY_S = 0.2
SPEED_MEMORY_S = 5.0
HASH_CHUNK = 4 << 20
LOCK_POLL_S = 0.5
GIT_BLOB_LENGTH = 40  # of git's id of a file in hexadecimal; a SHA-256 has 64


class Cancelled(Exception):
    """The person gave up waiting. No error: the partial file stays, and the next fetch goes on from there."""


def beside(file: Path, suffix: str) -> Path:
    """The neighbour of `file` whose name is longer by `suffix`."""
    return file.with_name(file.name + suffix)


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote; empty where there is nothing or nothing readable."""
    try:
        state = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Replaces the file in one step: a crash leaves the old state or the new one, never half of it."""
    draft = beside(path, ".new")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def sync_folder(folder: Path) -> None:
    """Makes new names survive a power cut, where the system lets folders be opened (Windows does not)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def alone(place: Path, name: str, work: Iterator[Loading], cancel: Cancel) -> Iterator[Loading]:
    """Does the `work` at `place` while no other thread or process does; `name` is for sentences.

    Raises `Cancelled`, `WeightsError`.
    """
    # Not thread-local: a web server may run each step of a generator in another thread.
    lock = FileLock(beside(place, ".lock"), thread_local=False)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield from _acquire(lock, cancel)
        yield from work
    except OSError as exc:
        sentence = f"{name} cannot be stored on this machine."
        raise WeightsError(sentence, "Check that the playground may write to its data folder.") from exc
    finally:
        lock.release()


def _acquire(lock: FileLock, cancel: Cancel) -> Iterator[Loading]:
    """Waits for the lock, saying so about twice a second."""
    while True:
        try:
            lock.acquire(blocking=False)
            return
        except Timeout:
            yield Loading("fetching", None, "waiting for another process that is fetching it")
            if cancel.wait(LOCK_POLL_S):
                raise Cancelled from None


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def human(size: int) -> str:
    """A number of bytes as people read it: '491 MB', '1.1 GB' (decimal units)."""
    if size < 1000:
        return f"{size} bytes"
    value, unit = size / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def no_room(name: str, needed: int, free: int) -> NotEnoughDisk:
    return NotEnoughDisk(f"{name} needs {human(needed)} more disk space, and {human(free)} are free.")


class PartialFile:
    """The bytes of `final` that are here so far, in order from the first; open for appending inside `with`.

    They are kept only while the checksum that they shall add up to stays the same. `ends` are the sizes at
    which a piece was complete and safely on the disk; a source of whole pieces goes on from the last of them. `needed`:
    bytes of the whole as far as they are known; `free` tells the free bytes of a folder's disk.
    """

    def __init__(self, final: Path, checksum: str, needed: int, free: Callable[[Path], int]) -> None:
        self.name = final.name
        self.path = beside(final, ".part")
        self.size = 0
        self.ends: list[int] = []
        self._state = beside(final, ".part.json")
        self._checksum = checksum
        self._free = free
        self._needed = needed

    def __enter__(self) -> Self:
        state = read_state(self._state)
        known = state.get("sha256") == self._checksum
        self._file = self.path.open("ab" if known else "wb")
        self.size = self._file.tell()
        self.ends = [end for end in state.get("ends", ()) if end <= self.size] if known else []
        if not known:
            self._remember()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Drops everything after the first `size` bytes."""
        self._file.flush()
        self._file.truncate(size)
        self._file.seek(size)
        self.size = size
        self.ends = [end for end in self.ends if end <= size]
        self._remember()

    def cut_to_last_end(self) -> None:
        self.cut(self.ends[-1] if self.ends else 0)

    def mark_end(self) -> None:
        """A piece ends here: what it brought will not have to be fetched again."""
        self.sync()
        self.ends.append(self.size)
        self._remember()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def forget(self) -> None:
        """The file has been given another name: what was remembered of it goes."""
        self._state.unlink(missing_ok=True)

    def require_room(self, total: int, slack: int = 0) -> None:
        """Raises `NotEnoughDisk` unless the rest of `total` bytes fits on the disk, and `slack` bytes beside it."""
        self._needed = total + slack
        if self._needed - self.size > self._free(self.path.parent):
            raise self.no_room()

    def no_room(self) -> NotEnoughDisk:
        return no_room(self.name, max(self._needed - self.size, 0), self._free(self.path.parent))

    def _remember(self) -> None:
        write_state(self._state, {"sha256": self._checksum, "ends": self.ends})


class Meter:
    """Turns a growing number of bytes into progress events: the first at once, then at most five a second."""

    def __init__(self, stage: Stage, total: int, done: int = 0) -> None:
        self._stage: Stage = stage
        self._total = total
        self._done = done
        self._measured, self._told = time.monotonic(), -math.inf
        self._speed: float | None = None

    def tick(self, done: int, detail: str = "") -> Iterator[Loading]:
        """One event, or none where the last is too fresh. Never runs backwards, never beyond the total."""
        now = time.monotonic()
        if now - self._told < EVENT_EVERY_S:
            return
        done = max(done, self._done)
        if self._told > -math.inf:
            self._measure(done - self._done, now - self._measured)
        self._told = self._measured = now
        self._done = done
        if self._total <= 0:
            yield Loading(self._stage, None, detail, done)
            return
        done = min(done, self._total)
        left = (self._total - done) / self._speed if self._speed else None
        yield Loading(self._stage, done / self._total, detail, done, self._total, left)

    def _measure(self, grown: int, seconds: float) -> None:
        speed = grown / seconds
        weight = 1.0 if self._speed is None else 1 - math.exp(-seconds / SPEED_MEMORY_S)
        self._speed = speed if self._speed is None else self._speed + weight * (speed - self._speed)


def as_part(events: Iterable[Loading], before: int, total: int) -> Iterator[Loading]:
    """The progress of one file as progress of a whole of `total` bytes, of which `before` are dealt with."""
    meters: dict[Stage, Meter] = {}
    for event in events:
        meter = meters.setdefault(event.stage, Meter(event.stage, total, before))
        yield from meter.tick(before + event.done, event.detail)


def hashed(path: Path, cancel: Cancel, *, git_blob: bool = False) -> Generator[Loading, None, str]:
    """Reads the whole file and returns its SHA-256, or git's id of it, in hexadecimal. Raises `Cancelled`, OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if git_blob else hashlib.sha256()
        meter = Meter("checking", size)
        yield from meter.tick(0)
        while data := file.read(HASH_CHUNK):
            if cancel.is_set():
                raise Cancelled
            digest.update(data)
            yield from meter.tick(file.tell())
    return digest.hexdigest()
