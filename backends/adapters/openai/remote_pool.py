"""The models of one remote engine: what its server offers, as cards. A `ModelPool` without memory of its own.

A server is asked when someone looks at its models, at most every few seconds; while it is down, what it last offered
stays in the list with the reason why it cannot be used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from backends.adapters.openai.dialects import OPENAI, Dialect
from backends.adapters.openai.remote_engines import RemoteEngine
from backends.catalog.cards import Card, Catalog, OfficialSampling, ThinkingRule
from backends.catalog.choice import Fit, Ranked, suits
from backends.catalog.model_names import card_for
from backends.core.cancel import Cancel
from backends.core.errors import EngineError
from backends.core.nearest import nearest, quoted
from backends.core.types import Backend, Capabilities, Loading, Sampling
from backends.engine.pool import Model

LOOK_AGAIN_SECONDS = 10.0
NEUTRAL_CONTEXT = 8192
UNKNOWN_NOTE = "This model has no card here: the settings are neutral, not official."


@dataclass(frozen=True, slots=True)
class Served:
    """A model as its server names it; `root` is the name of its weights, `context` in tokens; '' and 0 where untold."""

    name: str
    root: str = ""
    context: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server is and has."""

    dialect: Dialect
    models: tuple[Served, ...]


Look = Callable[[], Offer]
"""Asks the server what it is and has. Raises `EngineError`."""

OpenRemote = Callable[[Offer, Served], Backend]


class RemoteModels:
    """What `entry`'s server offers; thread-safe. `known` are the playground's cards."""

    ours = False

    def __init__(
        self, known: Catalog, entry: RemoteEngine, look: Look, open_backend: OpenRemote, hang_up: Callable[[], None]
    ) -> None:
        self.entry = entry
        self.place = entry.host
        self.engine = entry.name
        self._known, self._look, self._open, self._hang_up = known, look, open_backend, hang_up
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._offer: Offer | None = None
        self._served: dict[str, Served] = {}
        self._models: dict[str, Model] = {}
        self.trouble: EngineError | None = None
        self.catalog = Catalog((neutral_card("model", "-"),)).capped(known.longest_answer)

    @property
    def capabilities(self) -> Capabilities:
        return (self._offer.dialect if self._offer else OPENAI).capabilities(self.entry.parallel)

    @property
    def reached(self) -> bool:
        """Whether the server has ever said what it has."""
        return self._offer is not None

    def probe(self) -> str:
        """What is wrong with the engine, in one sentence; empty where nothing is."""
        self._refresh()
        if self.trouble is not None:
            return f"{self.trouble.message} {self.trouble.hint}".strip()
        strangers = sorted(set(self.entry.models) - {model.name for model in self._served.values()})
        unknown = sorted(card for card in self.entry.models.values() if card_for(card, self._known) is None)
        if strangers:
            near = nearest(strangers[0], [model.name for model in self._served.values()])
            return f"The engine has no model called {quoted(strangers[0])}; correct it in 'models'{near}."
        if unknown:
            near = self._known.nearest(unknown[0])
            return f"There is no card {quoted(unknown[0])}; the ids stand in backends/catalog/catalog.toml{near}."
        return "" if self._served else "The engine offers no model; load one there."

    def choose(self, task: str) -> Card:
        """The first model offered that is good at the task, else the first that can do it. Raises `EngineError`."""
        self._refresh()
        if self.trouble is not None:
            raise self.trouble
        able = [card for card in self.catalog if card.id in self._served and suits(card, task)]
        if not able:
            raise EngineError(f"The engine {self.entry.name} has no model that can do this.", "Choose another engine.")
        return min(able, key=lambda card: task not in card.good_at)

    def ranked(self, task: str) -> list[Ranked]:
        self._refresh()
        rows = [self.judge(card, task) for card in self.catalog if card.id in self._served]
        return sorted(rows, key=lambda row: (row[2] != "", task not in row[0].good_at))

    def judge(self, card: Card, task: str) -> Ranked:
        fit = self._fit(card)
        if self.trouble is not None:
            return card, fit, "is on an engine that cannot be used now"
        return card, fit, "" if suits(card, task) else "reads only text"

    def get(self, card: Card) -> Model:
        with self._lock:
            if (model := self._models.get(card.id)) is None:
                model = self._models[card.id] = Model(card, self._fit(card))
            return model

    def ready(self, model: Model, cancel: Cancel) -> Generator[Loading, None, Backend | None]:
        """The way to the model, once its server says that it can answer. None once cancelled."""
        if model.backend is not None and self.trouble is None:
            return model.backend
        self._refresh()
        if self.trouble is not None:
            raise self.trouble
        offer, served = self._offer, self._served.get(model.card.id)
        if offer is None or served is None:
            raise EngineError(f"The engine {self.entry.name} does not have this model any more.", "Choose another one.")
        backend = self._open(offer, served)
        for progress in backend.load(model.card):
            if cancel.is_set():
                return None
            yield progress
        model.backend = backend
        return backend

    def loaded(self) -> list[Model]:
        with self._lock:
            return [model for model in self._models.values() if model.ready]

    def visual_tokens(self, card: Card) -> int:
        return card.eyes.default if card.eyes else 0

    def require_room_to_look(self, card: Card, visual_tokens: int) -> None:
        """The room is the server's business."""

    def hub_reachable(self) -> bool:
        return True

    def close(self) -> None:
        for model in self.loaded():
            model.unload()
        self._hang_up()

    def _fit(self, card: Card) -> Fit:
        return Fit(True, 0, card.context, self.entry.parallel, "")

    def _refresh(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked_at < LOOK_AGAIN_SECONDS:
                return
            try:
                offer = self._look()
            except EngineError as exc:
                self.trouble = exc
            else:
                self.trouble, self._offer = None, offer
                self._take(offer)
            self._looked_at = time.monotonic()

    def _take(self, offer: Offer) -> None:
        """Cards for what is offered; of two names for one card the first counts, the other gets a neutral card."""
        cards: dict[str, Card] = {}
        served: dict[str, Served] = {}
        for number, model in enumerate(offer.models, 1):
            card = self._card(model)
            if card is None or card.id in cards:
                card = neutral_card(f"served-{number}", model.name)
            if model.context:
                card = card.model_copy(update={"context": model.context})
            cards[card.id], served[card.id] = card, model
        if cards:
            self.catalog = Catalog(tuple(cards.values())).capped(self._known.longest_answer)
        self._served = served

    def _card(self, model: Served) -> Card | None:
        if (meant := self.entry.models.get(model.name)) is not None:
            return card_for(meant, self._known)
        return card_for(model.name, self._known) or (card_for(model.root, self._known) if model.root else None)


def neutral_card(card_id: str, name: str) -> Card:
    """For a model of which nothing is known but its name."""
    rows = tuple(
        OfficialSampling(values=Sampling(), thinking=thinking, source="neutral", verified=False)
        for thinking in (False, True)
    )
    return Card.model_construct(
        id=card_id,
        name=name[:80],
        family="unknown",
        parameters=1.0,
        active_parameters=None,
        modalities=frozenset({"text"}),
        eyes=None,
        context=NEUTRAL_CONTEXT,
        licence="unknown",
        licence_warning="",
        note=UNKNOWN_NOTE,
        thinking=ThinkingRule(kind="prompted"),
        kv_bytes_per_token=1,
        good_at=(),
        sampling=rows,
        artefacts=(),
        repositories=(),
        quantisation="",
        own_system_prompt=False,
        demo=False,
    )
