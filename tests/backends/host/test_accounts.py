"""Names and passwords in a file: changed as a whole or not at all, and what is changed counts at once."""

from __future__ import annotations

import getpass
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.host import accounts
from backends.host.accounts import (
    AT_ONCE,
    LEAST_PASSWORD,
    MOST_PASSWORD,
    NAME,
    Account,
    Accounts,
    BadAccounts,
    new_account,
    read_accounts,
    write_accounts,
)
from tools import users

PASSWORD = "correct horse"
Run = Callable[..., int]


class Cheap(PasswordHasher):
    """Argon2 at the least that it can cost. `verified`: the hashes that were tried; `most`: how many at once."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified: list[Any] = []
        self.now = self.most = 0
        self._lock = threading.Lock()

    def verify(self, known: Any, password: Any) -> Any:
        with self._lock:
            self.verified.append(known)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            time.sleep(0.001)
            return super().verify(known, password)
        finally:
            with self._lock:
                self.now -= 1


@pytest.fixture(autouse=True)
def hasher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cheap]:
    cheap = Cheap()
    monkeypatch.setattr(accounts, "_hasher", cheap)
    accounts._nobody.cache_clear()
    yield cheap
    accounts._nobody.cache_clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users.txt"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, file: Path) -> Run:
    """`python -m tools.users` on the file; `typed` is what comes in."""

    def run(*arguments: str, typed: str = f"{PASSWORD}\n") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return users.main([str(file), *arguments])

    return run


def write(file: Path, *them: Account) -> None:
    write_accounts(file, {account.name: account for account in them})


# --- the tool ------------------------------------------------------------------------------------


def test_who_was_added_can_sign_in_and_who_was_removed_cannot(run: Run, file: Path) -> None:
    assert run("add", "mia") == 0
    assert run("add", "bob smith", typed="another password\n") == 0
    known = Accounts(file)
    assert known.check("mia", PASSWORD)
    assert known.check("bob smith", "another password")
    assert run("remove", "mia") == 0
    assert not known.check("mia", PASSWORD)
    assert known.check("bob smith", "another password")


def test_the_list_names_everybody_and_the_host_but_no_hash(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name, mark in {"mia": ["--host"], "bob": []}.items():
        assert run("add", name, *mark) == 0
    capsys.readouterr()
    assert run("list") == 0
    assert capsys.readouterr().out == "mia (host)\nbob\n"


def test_only_who_is_marked_is_the_host(run: Run, file: Path) -> None:
    run("add", "mia", "--host")
    run("add", "bob")
    mia, bob = (Accounts(file).get(name) for name in ("mia", "bob"))
    assert mia is not None
    assert bob is not None
    assert (mia.host, bob.host) == (True, False)


def test_adding_a_name_again_gives_it_another_password_and_leaves_the_others(run: Run, file: Path) -> None:
    run("add", "mia", "--host")
    run("add", "bob")
    before = read_accounts(file)
    assert run("add", "mia", typed="quite another\n") == 0
    after = read_accounts(file)
    assert list(after) == ["mia", "bob"]
    assert after["bob"] == before["bob"]
    assert not after["mia"].host, "who is added without --host is not the host"
    assert not Accounts(file).check("mia", PASSWORD)
    assert Accounts(file).check("mia", "quite another")


def test_the_same_password_is_never_the_same_hash(run: Run, file: Path) -> None:
    run("add", "mia")
    run("add", "bob")
    assert len({account.password_hash for account in read_accounts(file).values()}) == 2
    assert PASSWORD not in file.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "typed", "told"),
    [
        (("add", "eve"), "short\n", f"A password has {LEAST_PASSWORD} to {MOST_PASSWORD:,} characters."),
        (("add", "eve"), "", "A password has"),
        (("add", "eve"), "x" * (MOST_PASSWORD + 1), "A password has"),
        (("add", "mia"), "short\n", "A password has"),
        (("add", "e:ve"), f"{PASSWORD}\n", "A name has 1 to 40 letters"),
        (("remove", "eve"), "", "There is no 'eve' in the file."),
    ],
)
def test_what_will_not_do_is_said_in_a_sentence_and_changes_nothing(
    run: Run, file: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], typed: str, told: str
) -> None:
    run("add", "mia")
    before = file.read_bytes()
    capsys.readouterr()
    assert run(*arguments, typed=typed) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told)
    assert err.count("\n") == 1
    assert file.read_bytes() == before


@pytest.mark.parametrize("arguments", [("list",), ("remove", "mia")])
def test_a_file_that_is_not_there_is_told_with_what_makes_it(
    run: Run, file: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) == 1
    assert "python -m tools.users FILE add NAME" in capsys.readouterr().err
    assert not file.exists()


def test_a_file_that_cannot_be_understood_is_not_written_over(
    run: Run, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("somebody's notes\n", "utf-8")
    assert run("add", "mia") == 1
    assert "line 1" in capsys.readouterr().err
    assert file.read_text("utf-8") == "somebody's notes\n"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    assert users.main([str(tmp_path / "no" / "users.txt"), "add", "mia"]) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "result"), [([PASSWORD, PASSWORD], 0), ([PASSWORD, "something else"], 1)])
def test_at_a_terminal_the_password_is_asked_for_twice(
    monkeypatch: pytest.MonkeyPatch, file: Path, typed: list[str], result: int
) -> None:
    answers = iter(typed)
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(answers))
    assert users.main([str(file), "add", "mia"]) == result
    assert Accounts(file).check("mia", PASSWORD) == (result == 0)
    assert next(answers, None) is None


# --- names and passwords -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m", "mia", "Mia Müller", "mia@example.org", "a-b_c.d", "李雷", "7", "x" * 40])
def test_a_name_may_have_letters_digits_and_what_addresses_have(name: str, file: Path) -> None:
    write(file, new_account(name, PASSWORD))
    assert Accounts(file).check(name, PASSWORD)


@pytest.mark.parametrize(
    "name", ["", " mia", ".mia", "@mia", "-mia", "_mia", "#mia", "mi:a", "mi\na", "mi\u2028a", "mi/a", "x" * 41, "🚀"]
)
def test_a_name_that_could_be_something_else_is_refused(name: str) -> None:
    with pytest.raises(BadAccounts, match="A name has 1 to 40 letters"):
        new_account(name, PASSWORD)


@pytest.mark.parametrize("length", [LEAST_PASSWORD, MOST_PASSWORD])
def test_a_password_may_be_short_or_long_up_to_a_point(file: Path, length: int) -> None:
    password = "ü:" * (length // 2)
    write(file, new_account("mia", password))
    assert Accounts(file).check("mia", password)
    assert not Accounts(file).check("mia", password[:-1])
    for wrong in (LEAST_PASSWORD - 1, MOST_PASSWORD + 1):
        with pytest.raises(BadAccounts, match="A password has 8 to 1,000 characters"):
            new_account("mia", "x" * wrong)


# --- the file ------------------------------------------------------------------------------------

someone = st.builds(
    Account, name=st.from_regex(NAME, fullmatch=True), password_hash=st.just("$argon2id$v=19$a$b"), host=st.booleans()
)


@settings(max_examples=40)
@given(them=st.lists(someone, max_size=5, unique_by=lambda account: account.name))
def test_whatever_is_written_is_read_again_in_the_same_order(
    tmp_path_factory: pytest.TempPathFactory, them: list[Account]
) -> None:
    file = tmp_path_factory.mktemp("accounts") / "users.txt"
    write(file, *them)
    assert list(read_accounts(file).values()) == them


def test_empty_lines_and_comments_are_nobody(file: Path) -> None:
    file.write_text("# the class of 2026\n\nmia:$argon2id$x:host\n   \n", "utf-8")
    assert read_accounts(file) == {"mia": Account("mia", "$argon2id$x", True)}


@pytest.mark.parametrize(
    "line",
    [
        "mia",
        "mia:",
        "mia:password",
        ":$argon2id$x",
        "mia:$argon2id$x:",
        "mia:$argon2id$x:guest",
        "mia:$argon2id$x:host:host",
        "/etc:$argon2id$x",
        "mia $argon2id$x",
        ":",
    ],
)
def test_a_line_that_is_no_account_is_named_by_its_number_and_not_quoted(file: Path, line: str) -> None:
    file.write_text(f"# first\nbob:$argon2id$x\n{line}\n", "utf-8")
    with pytest.raises(BadAccounts) as caught:
        read_accounts(file)
    assert str(caught.value).startswith("line 3 of the users file is not 'name:argon2 hash'")
    assert "password" not in str(caught.value)


@given(st.binary(max_size=60))
@settings(max_examples=60)
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any users.txt"
    file.write_bytes(content)
    with suppress(BadAccounts):
        assert all(NAME.fullmatch(name) for name in read_accounts(file))


def test_only_its_owner_can_read_the_file_and_it_is_replaced_as_a_whole(file: Path) -> None:
    file.write_text("", "utf-8")
    file.chmod(0o644)
    with file.open("rb") as before:
        write(file, new_account("mia", PASSWORD))
        assert before.read() == b"", "who was reading it meets half of it"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_stays_as_it_was_with_nothing_beside_it(
    monkeypatch: pytest.MonkeyPatch, run: Run, file: Path, step: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    run("add", "mia")
    before = file.read_bytes()
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], full)
    assert run("add", "bob") == 1
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


# --- signing in ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "password", "right"),
    [
        ("mia", PASSWORD, True),
        ("mia", PASSWORD + " ", False),
        ("mia", PASSWORD.upper(), False),
        ("mia", "", False),
        ("Mia", PASSWORD, False),
        ("mia ", PASSWORD, False),
        ("eve", PASSWORD, False),
        ("eve", "nobody has this password", False),
        ("", "", False),
        ("mia", "x" * 100_000, False),
    ],
)
def test_a_password_is_right_or_wrong(file: Path, name: str, password: str, right: bool) -> None:
    write(file, new_account("mia", PASSWORD))
    assert Accounts(file).check(name, password) is right


def test_a_name_that_there_is_not_costs_as_much_as_a_wrong_password(file: Path, hasher: Cheap) -> None:
    write(file, new_account("mia", PASSWORD))
    known = Accounts(file)
    for name in ("mia", "eve", "eve", "mallory"):
        before = len(hasher.verified)
        assert not known.check(name, "wrong password")
        assert len(hasher.verified) == before + 1
    of_mia, *of_nobody = hasher.verified
    assert {of_mia.split("$")[3]} == {known.split("$")[3] for known in of_nobody}, "they cost something else"


def test_a_hash_that_is_damaged_lets_nobody_in(file: Path) -> None:
    write(file, Account("mia", "$argon2id$damaged"))
    assert not Accounts(file).check("mia", PASSWORD)


def test_passwords_are_checked_a_few_at_a_time(file: Path, hasher: Cheap) -> None:
    write(file, new_account("mia", PASSWORD))
    known = Accounts(file)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: known.check("mia", PASSWORD), range(16)))
    assert len(hasher.verified) == 16
    assert hasher.most <= AT_ONCE


# --- a file that changes -------------------------------------------------------------------------


def test_what_is_changed_in_the_file_counts_from_the_next_look_on(file: Path) -> None:
    known = Accounts(file)
    assert known.get("mia") is None, "a file that is not there yet has nobody"
    write(file, new_account("mia", PASSWORD))
    assert known.check("mia", PASSWORD)
    write(file, new_account("mia", "quite another", host=True))
    assert not known.check("mia", PASSWORD)
    assert known.check("mia", "quite another")
    assert known.get("mia").host  # type: ignore[union-attr]
    write(file)
    assert known.get("mia") is None


def test_what_is_changed_in_place_counts_too(file: Path) -> None:
    file.write_text("mia:$argon2id$x\n", "utf-8")
    os.utime(file, ns=(1, 1))
    known = Accounts(file)
    assert known.get("mia") is not None
    file.write_text("bob:$argon2id$x\n", "utf-8")
    os.utime(file, ns=(2, 2))
    assert known.get("mia") is None
    assert known.get("bob") is not None


def test_a_file_that_has_not_changed_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, new_account("mia", PASSWORD))
    known = Accounts(file)
    known.get("mia")
    monkeypatch.setattr(accounts, "read_accounts", lambda file: pytest.fail("it was read again"))
    assert known.get("mia") is not None
    assert known.get("eve") is None


@pytest.mark.parametrize("broken", [None, b"\xff\xfe", b"mia\n", b"mia:password\n"])
def test_a_file_that_vanishes_or_breaks_leaves_those_in_who_were_in_it(file: Path, broken: bytes | None) -> None:
    write(file, new_account("mia", PASSWORD))
    known = Accounts(file)
    assert known.check("mia", PASSWORD)
    file.unlink() if broken is None else file.write_bytes(broken)
    assert known.check("mia", PASSWORD)
    assert not known.check("eve", PASSWORD)
    write(file, new_account("bob", PASSWORD))
    os.utime(file, ns=(1, 1))  # it may have the number of the file that vanished
    assert not known.check("mia", PASSWORD)
    assert known.check("bob", PASSWORD)
