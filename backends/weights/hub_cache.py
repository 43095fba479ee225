"""The hub's own cache on this machine, which other programs fill too. Linked to, never written.

It names its blobs by their checksums, and each snapshot of a repository holds links to them.
"""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from backends.catalog.cards import Artefact
from backends.weights.files import beside


def hub_cached(artefact: Artefact) -> Path | None:
    """The file in the latest snapshot; None where it is of another version."""
    cached = try_to_load_from_cache(artefact.hub, artefact.file) if artefact.hub else None
    if not isinstance(cached, str):
        return None
    claimed = blob_checksum(Path(cached))
    return Path(cached) if None in (claimed, artefact.checksum) or claimed == artefact.checksum else None


def blob_checksum(cached: Path) -> str | None:
    """The checksum that the cache claims: a SHA-256 or git's id. None where the file system knows no links."""
    name = cached.resolve().name
    return name if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", name) else None


def linked(found: Path, file: Path) -> Path:
    """A link to `found` beside `file`, so that the disk holds it once. Raises OSError where links are not allowed."""
    if found == file:
        return file
    link = beside(file, ".link")
    link.unlink(missing_ok=True)
    link.symlink_to(found.resolve())
    return link
