"""Makes and edits a users file: `python -m tools.users FILE add NAME [--host]`, `... remove NAME`, `... list`.

The password is asked for, or read as one line where the input is no terminal. Adding a name that is there already gives
it another password.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from backends.host.accounts import Account, BadAccounts, new_account, read_accounts, write_accounts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.users", description=__doc__)
    parser.add_argument("file", type=Path)
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("add", help="add a name, or give it another password")
    add.add_argument("name")
    add.add_argument("--host", action="store_true", help="may unload models and see the limits")
    verbs.add_parser("remove", help="remove a name").add_argument("name")
    verbs.add_parser("list", help="list the names")
    given = parser.parse_args(arguments)
    try:
        accounts = read_accounts(given.file) if given.file.exists() or given.verb != "add" else {}
        match given.verb:
            case "add":
                accounts[given.name] = _asked(given.name, given.host)
                write_accounts(given.file, accounts)
                print(f"{given.name} can sign in now.")
            case "remove":
                if accounts.pop(given.name, None) is None:
                    raise BadAccounts(f"There is no {given.name!r} in the file.")
                write_accounts(given.file, accounts)
                print(f"{given.name} cannot sign in any more.")
            case "list":
                for account in accounts.values():
                    print(account.name + (" (host)" if account.host else ""))
    except (BadAccounts, OSError) as exc:
        print(exc if isinstance(exc, BadAccounts) else "The file cannot be written.", file=sys.stderr)
        return 1
    return 0


def _asked(name: str, host: bool) -> Account:
    if not sys.stdin.isatty():
        return new_account(name, sys.stdin.readline().rstrip("\n"), host)
    password = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise BadAccounts("These were two different passwords; nothing was changed.")
    return new_account(name, password, host)


if __name__ == "__main__":
    sys.exit(main())
