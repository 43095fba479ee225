"""Which files a whole repository of weights consists of: the hub's word, its own local cache's, or our own.

Only what transformers reads, and of that nothing that can hold code: safetensors, never pickles, from the top folder.
Knows nothing of how a file is fetched or checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backends.catalog.cards import Artefact, Repository
from backends.core.cancel import Cancel
from backends.core.errors import WeightsError
from backends.weights.downloads import Address, text
from backends.weights.files import GIT_BLOB_LENGTH, read_state, write_state
from backends.weights.hub_cache import blob_checksum, hub_cached

WEIGHTS = ".safetensors"
INDEX = "model.safetensors.index.json"
# One dot only, but for the index: so no file of the hub has the name of what the store keeps beside another.
WANTED = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]*\.(safetensors|json|jinja)|merges\.txt|{re.escape(INDEX)}")


class _Lfs(BaseModel):
    sha256: str


class _Sibling(BaseModel):
    """One file in the hub's answer. `blob_id` is git's id of it, or of the pointer to it where there is `lfs`."""

    rfilename: str
    size: int
    blob_id: str = Field(alias="blobId")
    lfs: _Lfs | None = None


class _Answer(BaseModel):
    sha: str = Field(pattern=r"^[0-9a-f]{40}$")
    siblings: tuple[_Sibling, ...]


class _Index(BaseModel):
    weight_map: dict[str, str]


class Listing(BaseModel):
    """The files of a repository at one revision, the weights last."""

    model_config = ConfigDict(frozen=True)

    repository: Repository
    files: tuple[Artefact, ...]

    @classmethod
    def of(cls, repository: Repository, revision: str, rows: Iterable[tuple[str, int, str]]) -> Listing:
        """`rows`: name, size, and SHA-256 or git's id. Raises `WeightsError`, ValueError."""
        files = [
            Artefact(
                engine=repository.engine,
                role="repository",
                file=name,
                bytes=size,
                **{"git_blob" if len(checksum) == GIT_BLOB_LENGTH else "sha256": checksum},
                hub=repository.hub,
                revision=revision,
            )
            for name, size, checksum in rows
            if size and WANTED.fullmatch(name)
        ]
        if not any(artefact.file.endswith(WEIGHTS) for artefact in files):
            raise WeightsError(f"{repository.hub} has no weights as safetensors, and nothing else is loaded.")
        files.sort(key=lambda artefact: (artefact.file.endswith(WEIGHTS), artefact.file))
        return cls(repository=repository, files=tuple(files))

    @classmethod
    def on_hub(cls, repository: Repository, cancel: Cancel) -> Listing:
        """Raises `Cancelled`, `WeightsError`."""
        try:
            answer = _Answer.model_validate_json(text(Address.of_listing(repository.hub), cancel))
            rows = ((s.rfilename, s.size, s.lfs.sha256 if s.lfs else s.blob_id) for s in answer.siblings)
            return cls.of(repository, answer.sha, rows)
        except ValidationError as exc:
            raise WeightsError(f"What the model hub says of {repository.hub} cannot be understood.") from exc

    @classmethod
    def in_cache(cls, repository: Repository) -> Listing | None:
        """What the hub's own local cache holds; None where something is missing, as far as can be told."""
        if not (config := hub_cached(repository.config)):
            return None
        try:
            files = {file.name: file for file in config.parent.iterdir()}
            rows = ((name, file.stat().st_size, blob_checksum(file) or "") for name, file in files.items())
            listing = cls.of(repository, config.parent.name, rows)
            if INDEX in files:
                listing.require_named(files[INDEX])
        except (OSError, ValueError, WeightsError):
            return None
        return listing if "tokenizer_config.json" in files else None  # a program may have fetched the weights alone

    @classmethod
    def remembered(cls, file: Path) -> Listing | None:
        try:
            return cls.model_validate(read_state(file))
        except ValidationError:
            return None

    def remember(self, file: Path) -> None:
        write_state(file, self.model_dump(mode="json", exclude_defaults=True))

    @property
    def bytes(self) -> int:
        return sum(artefact.bytes for artefact in self.files)

    @property
    def _names(self) -> set[str]:
        return {artefact.file for artefact in self.files}

    def require_named(self, index: Path) -> None:
        """Raises `WeightsError` unless every file of weights that the index names is among these."""
        try:
            named = set(_Index.model_validate_json(index.read_bytes()).weight_map.values())
        except ValidationError as exc:
            raise WeightsError(f"The index of the weights of {self.repository.hub} cannot be understood.") from exc
        if not named <= self._names:
            raise WeightsError(f"{self.repository.hub} lacks weights that its own index names.")

    def strays(self, folder: Path) -> Iterator[Path]:
        """Files in `folder` that transformers might read though they are not of this revision."""
        names = self._names
        return (file for file in folder.iterdir() if WANTED.fullmatch(file.name) and file.name not in names)
