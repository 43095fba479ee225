"""The key that signs cookies and makes the log's hashes: made once, kept beside the models, read by nobody else."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

NAME = "signing.key"
LENGTH = 32  # bytes


def signing_key(folder: Path) -> bytes:
    """The key of this folder; processes that share the folder share it. One that cannot be kept lasts until the end
    of the program."""
    new = secrets.token_bytes(LENGTH)
    try:
        if not (folder / NAME).exists():
            _keep(new, folder)
        key = (folder / NAME).read_bytes()
    except OSError:
        return new
    return key if len(key) == LENGTH else new


def _keep(new: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=NAME) as part:  # only its owner can read it
        part.write(new)
        part.flush()
        with suppress(FileExistsError):  # whole or not at all, and never in the place of another one
            os.link(part.name, folder / NAME)
