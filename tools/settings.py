"""`python -m tools.settings`: writes the table of docs/settings.md from the settings themselves.

`--check` compares and changes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from backends.host.settings import Settings

FILE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
ON_A_SPACE = "SPACE_ID"
HEAD = """# Settings

Every setting is an environment variable or a flag of `app.py`; the flag wins. With make, flags go into `ARGS`:
`make run ARGS="--port 8000"`. If settings are wrong, the playground does not start and lists every problem;
`make run ARGS=--check-config` only checks.

This table is made from the settings themselves: `make settings` writes it anew.

| variable | flag | default | meaning |
|---|---|---|---|
"""


def document() -> str:
    """The whole text of docs/settings.md."""
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows())


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Variable, flag, default and meaning of each setting; two defaults where a Space has another one."""
    for name, info in Settings.model_fields.items():
        here, there = (_default(name, on_a_space) for on_a_space in (False, True))
        default = here if here == there else f"{here}; on a Space {there}"
        yield f"`PLAYGROUND_{name.upper()}`", f"`--{name.replace('_', '-')}`", default, info.description or ""


def _default(name: str, on_a_space: bool) -> str:
    kept = os.environ.pop(ON_A_SPACE, None)
    try:
        if on_a_space:
            os.environ[ON_A_SPACE] = "someone/playground"
        return _shown(Settings.model_fields[name].get_default(call_default_factory=True))
    finally:
        os.environ.pop(ON_A_SPACE, None)
        if kept is not None:
            os.environ[ON_A_SPACE] = kept


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, Path):
        return "the user's cache folder"
    words = ", ".join(default) if isinstance(default, tuple) else str(default)
    return f"`{words}`" if words not in ("", "None") else "empty"


def main(arguments: list[str] | None = None, file: Path = FILE) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.settings", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 where they differ")
    options = parser.parse_args(arguments)
    wanted = document()
    if file.is_file() and file.read_text("utf-8") == wanted:
        return 0
    if options.check:
        sys.stderr.write("docs/settings.md is not what the settings say: run 'make settings'.\n")
        return 1
    file.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
