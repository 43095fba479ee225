"""The model cards, read from `catalog.toml`. A new model is a change of data: no code asks what a name contains.

Knows nothing of engines or of this machine; `hardware.py` says what fits, `weights.py` fetches.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from backends.catalog.eyes import Eyes as Eyes
from backends.core.errors import UnknownModel
from backends.core.nearest import nearest, quoted
from backends.core.types import Sampling

OWN_FOLDER = r"^([a-z][a-z0-9_/]*)?$"
CATALOG_FILE = Path(__file__).with_name("catalog.toml")

Task = Literal["chat", "coding", "math", "multilingual", "image"]
Quantisation = Literal["", "8bit", "4bit"]
# Of the size at 16 bit. Estimates: bitsandbytes leaves embeddings, norms and the output layer as they are.
WEIGHT_SHARE: dict[Quantisation, float] = {"": 1.0, "8bit": 0.55, "4bit": 0.35}


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ThinkingRule(_Row):
    """How a model thinks.

    `switch`: its chat template has a switch. `always`: it cannot be turned off. `prompted`: it was never trained to
    think, and the playground asks it to. `history`: whether earlier thoughts go back to the model.
    """

    kind: Literal["switch", "always", "prompted"]
    default: bool = False
    history: Literal["drop", "keep"] = "drop"

    @model_validator(mode="after")
    def _default_is_possible(self) -> ThinkingRule:
        if self.kind == "always" and not self.default:
            raise ValueError("a model that always thinks has default = true")
        return self


class OfficialSampling(_Row):
    """Qwen's published values for one mode. A field set to None applies to every mode; the most specific row wins."""

    values: Sampling
    thinking: bool
    task: Task | None = None
    images: bool | None = None
    source: str = Field(min_length=1)
    verified: bool = True

    def capped(self, longest_answer: int) -> OfficialSampling:
        if self.values.max_new_tokens <= longest_answer:
            return self
        return self.model_copy(update={"values": self.values.model_copy(update={"max_new_tokens": longest_answer})})

    @property
    def conditions(self) -> int:
        return (self.task is not None) + (self.images is not None)

    def rivals(self, other: OfficialSampling) -> bool:
        """Whether some request is matched by both rows and neither is the more specific."""
        return (
            self.thinking == other.thinking
            and self.conditions == other.conditions
            and (None in (self.task, other.task) or self.task == other.task)
            and (None in (self.images, other.images) or self.images == other.images)
        )


class Wheels(_Row):
    """A file that the package registry holds in pieces: `package` has '{part}' where the number goes."""

    package: str = Field(pattern=r"\{part\}")
    version: str
    parts: int = Field(ge=1)


class Artefact(_Row):
    """One file of weights and every place that it can come from. Sizes in bytes.

    `git_blob` is the checksum of a small file that the hub has no SHA-256 of; `revision` is the hub's. `folder` is one
    of the playground itself, from its root: the file came with it.
    """

    engine: str
    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    role: Literal["model", "projector", "repository"] = "model"
    bytes: int = Field(gt=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    git_blob: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    hub: str | None = None
    revision: str = "main"
    modelscope: str | None = None
    wheels: Wheels | None = None
    folder: str = Field(default="", pattern=OWN_FOLDER)
    size_estimated: bool = False

    @property
    def checksum(self) -> str | None:
        return self.sha256 or self.git_blob

    @model_validator(mode="after")
    def _can_be_had(self) -> Artefact:
        if not (self.hub or self.modelscope or self.wheels or self.folder):
            raise ValueError(f"{self.file}: names no place to fetch it from")
        if self.wheels and not self.sha256:
            raise ValueError(f"{self.file}: wheels come from third parties and need a sha256")
        return self


class Repository(_Row):
    """A whole repository of 16-bit weights on the hub, for an engine that loads one by its name.

    `gguf` names a file among the card's artefacts that the engine can unpack to 16 bit where the hub is out of reach.
    `folder` is one of the playground itself that holds the whole.
    """

    engine: str
    hub: str = ""
    folder: str = Field(default="", pattern=OWN_FOLDER)
    gguf: str | None = None

    @model_validator(mode="after")
    def _can_be_had(self) -> Repository:
        if not (self.hub or self.folder):
            raise ValueError("a repository names no place to fetch it from")
        return self

    @property
    def config(self) -> Artefact:
        """The file that stands for the whole: asked about it, the store answers for all files."""
        return Artefact(
            engine=self.engine,
            role="repository",
            file="config.json",
            bytes=2_000,
            size_estimated=True,
            hub=self.hub,
            folder=self.folder,
        )


class Card(_Row):
    """What the playground knows of one model.

    `parameters` in thousand millions; `active_parameters` are those that one token passes through where only a part of
    the model works on each (mixture of experts). `kv_bytes_per_token` is the KV cache's cost of one token at 16 bit.
    `quantisation` is what an engine is to do to the weights of a repository while it loads them. `own_system_prompt`:
    the chat template puts one in where there is none, which an engine that takes messages has to be told not to.
    `demo` marks a model of our own that is offered only for what it is good at, and is called what it is wherever it
    answers.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    name: str
    family: str
    parameters: float = Field(gt=0)
    active_parameters: float | None = Field(default=None, gt=0)
    modalities: frozenset[Literal["text", "image"]] = frozenset({"text"})
    eyes: Eyes | None = None
    context: int = Field(gt=0)
    licence: str
    licence_warning: str = ""
    note: str = ""
    thinking: ThinkingRule
    kv_bytes_per_token: int = Field(gt=0)
    good_at: tuple[Task, ...] = ()
    sampling: tuple[OfficialSampling, ...]
    artefacts: tuple[Artefact, ...] = ()
    repositories: tuple[Repository, ...] = ()
    quantisation: Quantisation = ""
    own_system_prompt: bool = False
    demo: bool = False

    def official(self, task: str, thinking: bool, images: bool = False) -> OfficialSampling:
        """The published values for this task and mode: the matching row that names the most conditions."""
        rows = [
            row
            for row in self.sampling
            if row.thinking == thinking and row.task in (None, task) and row.images in (None, images)
        ]
        return max(rows, key=lambda row: row.conditions)

    def thinks(self, wanted: bool) -> bool:
        """Whether it will think, given what was asked for."""
        return wanted or self.thinking.kind == "always"

    def artefact(self, engine: str, role: str = "model") -> Artefact | None:
        return next((a for a in self.artefacts if a.engine == engine and a.role == role), None)

    def repository(self, engine: str) -> Repository | None:
        return next((r for r in self.repositories if r.engine == engine), None)

    def sources(self, engine: str) -> tuple[Artefact, ...]:
        """Every way for `engine` to get this model, the preferred first; empty where it cannot run it.

        A repository is stood for by its config, to be asked about, not to be loaded.
        """
        model, repository = self.artefact(engine), self.repository(engine)
        unpacked = (a for a in self.artefacts if repository and a.file == repository.gguf)
        return tuple(a for a in (model, repository and repository.config, *unpacked) if a)

    def weight_bytes(self, engine: str) -> int:
        """What the weights take once loaded, projector included; estimated from `parameters` for a repository."""
        files = [a.bytes for role in ("model", "projector") if (a := self.artefact(engine, role))]
        return sum(files) if files else round(self.parameters * 1e9 * 2 * WEIGHT_SHARE[self.quantisation])

    def quantised(self, quantisation: Quantisation, engine: str) -> Card:
        """A card of its own for the same model with fewer bits."""
        card = self.model_copy(update={"quantisation": quantisation})
        saved = (self.weight_bytes(engine) - card.weight_bytes(engine)) / 1e9
        suffix = quantisation.replace("bit", "-bit")
        note = f"{self.note} {suffix}: by estimate {saved:.1f} GB less memory than at 16 bit.".lstrip()
        return card.model_copy(
            update={"id": f"{self.id}-{quantisation}", "name": f"{self.name} · {suffix}", "note": note}
        )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Card:
        faults = []
        modes = {row.thinking for row in self.sampling if row.conditions == 0}
        needed = {True} if self.thinking.kind == "always" else {True, False}
        if missing := needed - modes:
            faults.append(f"no general sampling row for thinking = {sorted(missing)}")
        if any(a.rivals(b) for a, b in combinations(self.sampling, 2)):
            faults.append("two sampling rows match the same request and neither is more specific")
        if ("image" in self.modalities) != (self.eyes is not None):
            faults.append("a model that reads pictures has eyes, and no other has")
        if not (self.artefacts or self.repositories):
            faults.append("no artefact and no repository")
        if stray := {r.gguf for r in self.repositories if r.gguf} - {a.file for a in self.artefacts}:
            faults.append(f"a repository names a file that is no artefact: {sorted(stray)}")
        if self.licence != "Apache-2.0" and not self.licence_warning:
            faults.append(f"the licence {self.licence!r} needs a licence_warning")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Catalog:
    """All cards in the order of the file, which is the order of preference.

    `longest_answer`: tokens that the host allows an answer, by which the cards' own values are held; 0 is no limit.
    """

    def __init__(self, cards: tuple[Card, ...], longest_answer: int = 0) -> None:
        self.cards, self.longest_answer = cards, longest_answer
        if len(self._by_id) != len(cards):
            raise ValueError("two cards have the same id")

    @cached_property
    def _by_id(self) -> dict[str, Card]:
        return {card.id: card for card in self.cards}

    def __iter__(self) -> Iterator[Card]:
        return iter(self.cards)

    def get(self, card_id: str) -> Card:
        """Raises `UnknownModel`, which names the nearest; never guesses another one."""
        try:
            return self._by_id[card_id]
        except KeyError:
            sentence = f"There is no model with the id {quoted(card_id)} in the catalog{self.nearest(card_id)}."
            raise UnknownModel(sentence) from None

    def nearest(self, name: str) -> str:
        """The end of a sentence that names the ids of the cards that may be meant."""
        return nearest(name, {alias: card.id for card in self for alias in (card.name, card.id)})

    def with_quantised(self, engine: str) -> Catalog:
        """With every 16-bit repository of `engine` also at 8 and at 4 bit, after the card itself."""
        cards: list[Card] = []
        for card in self:
            cards.append(card)
            if card.repository(engine) and not card.quantisation:
                cards += [card.quantised("8bit", engine), card.quantised("4bit", engine)]
        return Catalog(tuple(cards), self.longest_answer)

    def capped(self, longest_answer: int) -> Catalog:
        """With no official answer longer than the host allows; 0 changes nothing."""
        cards = self.cards
        if longest_answer:
            cards = tuple(
                card.model_copy(update={"sampling": tuple(row.capped(longest_answer) for row in card.sampling)})
                for card in cards
            )
        return Catalog(cards, longest_answer)

    @classmethod
    def read(cls, path: Path = CATALOG_FILE) -> Catalog:
        """Raises ValueError with every fault of the file in one report."""
        data = tomllib.loads(path.read_text("utf-8"))
        return cls.of(data)

    @classmethod
    def of(cls, data: dict[str, Any]) -> Catalog:
        """`data`: {"profile": {name: [sampling rows]}, "model": [cards that name a profile or hold rows]}."""
        profiles: dict[str, list[dict[str, Any]]] = data.get("profile", {})
        cards: list[Card] = []
        faults = [f"{name}: no such table" for name in sorted(data.keys() - {"profile", "model"})]
        for row in data.get("model", []):
            name, rows = row.get("id", "(no id)"), row.get("sampling")
            if isinstance(rows, str):
                if rows not in profiles:
                    faults.append(f"{name}: there is no profile {quoted(rows)}{nearest(rows, profiles.keys())}")
                    continue
                row = {**row, "sampling": profiles[rows]}
            try:
                cards.append(Card.model_validate(row))
            except ValidationError as exc:
                faults += [f"{name}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()]
        faults += [f"{name}: this id is used twice" for name, n in Counter(card.id for card in cards).items() if n > 1]
        if faults:
            raise ValueError("The catalog has faults:\n" + "\n".join(faults))
        return cls(tuple(cards))
