"""One key for a folder, made once, read by nobody but its owner; and one in any case, where it cannot be kept too."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backends.host import signing_key as keys
from backends.host.signing_key import LENGTH, NAME, signing_key
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from pathlib import Path
from backends.host.signing_key import signing_key
sys.stdin.read()  # until all of them are there
print(signing_key(Path(sys.argv[1])).hex())
"""


def test_a_key_is_made_once_and_then_the_same(tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    assert len(key) == LENGTH == 32
    assert signing_key(tmp_path) == key
    assert (tmp_path / NAME).read_bytes() == key


def test_every_folder_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert len({signing_key(tmp_path / name) for name in "abcd"}) == 4


def test_a_folder_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    assert signing_key(folder) == (folder / NAME).read_bytes()


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_only_its_owner_can_read_it(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        signing_key(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_nothing_but_the_key_is_left_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    for _ in range(3):
        signing_key(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", NAME]


def test_threads_that_start_in_one_moment_have_one_key(tmp_path: Path) -> None:
    for attempt in range(10):
        folder, ready = tmp_path / str(attempt), threading.Barrier(8)

        def make(_: int, folder: Path = folder, ready: threading.Barrier = ready) -> bytes:
            ready.wait(PATIENCE_S)
            return signing_key(folder)

        with ThreadPoolExecutor(8) as pool:
            made = set(pool.map(make, range(8)))
        assert made == {(folder / NAME).read_bytes()}
        assert [path.name for path in folder.iterdir()] == [NAME]


def test_processes_that_start_in_one_moment_have_one_key(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for program in programs:
        assert program.stdin is not None
        program.stdin.close()
    made = set()
    for program in programs:
        with program:
            assert program.stdout is not None
            made.add(program.stdout.read().strip())
    assert made == {(folder / NAME).read_bytes().hex()}
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_who_loses_the_race_takes_the_key_of_who_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner, link = b"w" * LENGTH, os.link

    def slow(part: str, target: Path) -> None:
        target.write_bytes(winner)
        link(part, target)

    monkeypatch.setattr(keys.os, "link", slow)
    assert signing_key(tmp_path) == winner
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


# --- where it cannot be kept ---------------------------------------------------------------------


def refusing(*_: Any, **__: Any) -> Any:
    raise PermissionError(13, "Permission denied")


def full(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_a_folder_that_is_a_file_gives_a_key_without_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        assert len(signing_key(folder)) == LENGTH
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


cannot_be_written = pytest.mark.parametrize(
    ("where", "name", "how"),
    [(tempfile, "NamedTemporaryFile", refusing), (tempfile, "NamedTemporaryFile", full), (os, "link", refusing)],
    ids=["read only", "full", "no links"],
)


@cannot_be_written
def test_a_folder_that_cannot_be_written_gives_a_key_of_the_moment_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, how: Callable[..., Any]
) -> None:
    monkeypatch.setattr(where, name, how)
    made = {signing_key(tmp_path) for _ in range(2)}
    assert [len(key) for key in made] == [LENGTH] * 2
    assert list(tmp_path.iterdir()) == []


@cannot_be_written
def test_a_key_that_was_made_before_the_disk_was_full_stays_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, how: Callable[..., Any]
) -> None:
    key = signing_key(tmp_path)
    monkeypatch.setattr(where, name, how)
    assert signing_key(tmp_path) == key


@pytest.mark.parametrize("content", [b"", b"short", b"x" * (LENGTH + 1)])
def test_a_file_that_is_no_key_is_never_used_as_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    key = signing_key(tmp_path)
    assert len(key) == LENGTH
    assert key != content
    assert (tmp_path / NAME).read_bytes() == content
