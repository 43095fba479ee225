"""The names and passwords of a users file: one a line, 'name:argon2 hash', with ':host' behind those who may see and do
what is the host's. `python -m tools.users` writes it."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

NAME = re.compile(r"[^\W_][\w .@-]{0,39}")
LEAST_PASSWORD = 8  # characters
MOST_PASSWORD = 1000
AT_ONCE = 2  # passwords that are checked in the same moment; each takes 64 MiB and about 50 ms of processor time

_hasher = PasswordHasher()
_checking = threading.Semaphore(AT_ONCE)


@cache
def _nobody() -> str:
    """So that an unknown name takes as long as a wrong password."""
    return _hasher.hash("nobody has this password")


class BadAccounts(ValueError):
    """The users file cannot be read, or not be understood; one sentence that says where and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    password_hash: str
    host: bool = False

    @property
    def line(self) -> str:
        return f"{self.name}:{self.password_hash}{':host' if self.host else ''}"


def new_account(name: str, password: str, host: bool = False) -> Account:
    """Raises `BadAccounts` on a name or a password that will not do."""
    if not NAME.fullmatch(name):
        raise BadAccounts("A name has 1 to 40 letters, digits, spaces or any of . @ - _ and begins with none of these.")
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        raise BadAccounts(f"A password has {LEAST_PASSWORD} to {MOST_PASSWORD:,} characters.")
    return Account(name, _hasher.hash(password), host)


def read_accounts(file: Path) -> dict[str, Account]:
    """By name. Raises `BadAccounts`."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadAccounts("the users file cannot be read; make it with 'python -m tools.users FILE add NAME'") from exc
    accounts: dict[str, Account] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = line.strip().split(":")
        password_hash, more = "".join(rest[:1]), rest[1:]
        if not NAME.fullmatch(name) or not password_hash.startswith("$argon2") or more not in ([], ["host"]):
            raise BadAccounts(f"line {number} of the users file is not 'name:argon2 hash' or 'name:argon2 hash:host'")
        accounts[name] = Account(name, password_hash, more == ["host"])
    return accounts


def write_accounts(file: Path, accounts: dict[str, Account]) -> None:
    """All or nothing; only the file's owner can read it."""
    with ExitStack() as at_the_end:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=file.parent, prefix=file.name, delete=False
        ) as part:
            at_the_end.callback(Path(part.name).unlink, missing_ok=True)
            part.write("".join(f"{account.line}\n" for account in accounts.values()))
            part.flush()
            os.fsync(part.fileno())
        Path(part.name).replace(file)


class Accounts:
    """A users file as it is now: what is changed in it counts from the next look on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read_at: tuple[int, int] | None = None
        self._accounts: dict[str, Account] = {}

    def get(self, name: str) -> Account | None:
        """A file that cannot be read any more leaves those in that were in it."""
        try:
            status = self._file.stat()
            changed = (status.st_mtime_ns, status.st_ino)
            if changed != self._read_at:
                self._accounts, self._read_at = read_accounts(self._file), changed
        except (OSError, BadAccounts):
            pass
        return self._accounts.get(name)

    def check(self, name: str, password: str) -> bool:
        """Takes as long for a name that there is not."""
        account = self.get(name)
        with _checking:
            try:
                _hasher.verify(account.password_hash if account else _nobody(), password[:MOST_PASSWORD])
            except (VerificationError, InvalidHashError):
                return False
        return account is not None
