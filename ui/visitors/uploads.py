"""Uploaded files, as bytes. The only place where a path that came from outside is opened."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from gradio.utils import get_upload_folder

from backends.core.errors import InvalidRequest
from backends.pictures.decoder import MAX_BYTES

FORGET_SECONDS = 600  # uploads lie in a folder of gradio's for this long; two people may upload the same one


def uploaded_bytes(file: object) -> bytes:
    """What was uploaded as `file`: a path, or the dict that gradio_client's `handle_file` makes.

    At most one byte more than a picture may have. Raises `InvalidRequest` on whatever does not lie in the folder of
    uploads, in the same words whether it exists or not.
    """
    path = file.get("path") if isinstance(file, dict) else file
    refused = InvalidRequest(
        "images must be a list of uploaded pictures, as gradio_client's handle_file makes them.", "Upload them again."
    )
    if not isinstance(path, str) or not path or "\0" in path:
        raise refused
    try:
        real, folder = Path(os.path.realpath(path)), Path(os.path.realpath(get_upload_folder()))
        if not real.is_relative_to(folder) or not stat.S_ISREG(real.stat().st_mode):
            raise refused
        with real.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        raise refused from exc


def forget_broken_off(now: float | None = None) -> int:
    """Deletes what uploads that were given up have left behind, which gradio does not count among its files; how many
    they were."""
    before, gone = (now or time.time()) - FORGET_SECONDS, 0
    for part in Path(get_upload_folder()).glob("tmp*"):
        with suppress(OSError):
            if part.is_file() and not part.is_symlink() and part.stat().st_mtime < before:
                part.unlink()
                gone += 1
    return gone


def uploaded_name(file: object) -> str:
    """What the visitor calls an uploaded file, behind a folder of gradio's: for `decode`, which leaves that out."""
    path = file.get("orig_name") or file.get("path") if isinstance(file, dict) else file
    return path if isinstance(path, str) else ""
