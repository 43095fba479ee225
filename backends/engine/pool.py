"""The models of one engine: which one a task gets, what is loaded, one load for many waiters, and who must go.

Knows catalog, hardware and weights; learns of engines only through the `open_backend` it is given.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Protocol

from backends.catalog import choice as hardware
from backends.catalog.cards import Artefact, Card, Catalog
from backends.catalog.choice import Fit, Ranked
from backends.core.cancel import Cancel
from backends.core.errors import EngineError, OutOfMemory
from backends.core.types import Backend, Capabilities, Loading
from backends.engine.scheduler import Line
from backends.machine.machine import Machine

log = logging.getLogger(__name__)

OpenBackend = Callable[[Card, Fit], Backend]


class Model:
    """One card's place in the house: the line in front of it and, once loaded, its backend.

    `need_bytes` are of a graphics card's own memory where `on_gpu`; `promised` is that need while it is being loaded.
    """

    def __init__(self, card: Card, fit: Fit) -> None:
        self.card = card
        self.line = Line(fit.slots)
        self.need_bytes, self.on_gpu = fit.need_bytes, fit.on_gpu
        self.promised = 0
        self.last_used = time.monotonic()
        self.backend: Backend | None = None
        self.load: _Load | None = None

    @property
    def ready(self) -> bool:
        return self.backend is not None and self.backend.alive

    def unload(self) -> None:
        backend, self.backend = self.backend, None
        if backend is not None:
            backend.close()


class House:
    """This machine's memory and the models of every engine in it; `lock` guards what is loaded and promised."""

    def __init__(self, detect: Callable[[], Machine] = Machine.detect) -> None:
        self.lock = threading.RLock()
        self.models: list[Model] = []
        self._detect = detect
        self._seen: tuple[float, Machine] | None = None

    def idle(self) -> list[Model]:
        """What is loaded and answers nobody."""
        with self.lock:
            return [model for model in self.models if model.ready and model.line.running == 0]

    def machine(self, *, emptied: bool = False, max_age_s: float = 0.0) -> Machine:
        """This machine, less what models that are being loaded will take; `emptied`: as if what is idle were unloaded.

        What is at most `max_age_s` old is for showing, not for deciding: a page asks for each of its tabs.
        """
        now = time.monotonic()
        if (seen := self._seen) is None or now - seen[0] >= max_age_s:
            seen = self._seen = now, self._detect()
        machine = seen[1]
        with self.lock:
            change = {False: 0, True: 0}  # bytes of main memory, and of a graphics card's own
            for model in self.models:
                change[model.on_gpu] -= model.promised
            for model in self.idle() if emptied else ():
                change[model.on_gpu] += model.need_bytes
        gpus = (gpu if gpu.unified else replace(gpu, free=max(0, gpu.free + change[True])) for gpu in machine.gpus)
        return replace(machine, ram_available=max(0, machine.ram_available + change[False]), gpus=tuple(gpus))


class ModelPool(Protocol):
    """What local and remote models share. Nothing asks which of the two it has; `ours` says what there is to tell.

    `ours`: whether they lie in memory that the playground knows of. `place`: the host where they run, empty for this
    machine. `reached`: whether it has ever said what it has. `trouble`: why it cannot be used now.
    """

    catalog: Catalog
    engine: str
    ours: bool
    place: str
    trouble: EngineError | None

    @property
    def reached(self) -> bool: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def choose(self, task: str) -> Card: ...

    def ranked(self, task: str) -> list[Ranked]: ...

    def judge(self, card: Card, task: str) -> Ranked: ...

    def get(self, card: Card) -> Model: ...

    def ready(self, model: Model, cancel: Cancel) -> Generator[Loading, None, Backend | None]: ...

    def loaded(self) -> list[Model]: ...

    def visual_tokens(self, card: Card) -> int: ...

    def require_room_to_look(self, card: Card, visual_tokens: int) -> None: ...

    @property
    def hub_reachable(self) -> Callable[[], bool]: ...

    def close(self) -> None: ...


class LocalModels:
    """All models that this machine may run on `engine`; thread-safe.

    `choice` is a card id that a host has fixed for every task that it suits, or empty for the machine's own choice.
    Engines that are served together share their `house`.
    """

    ours, place, reached = True, "", True
    trouble: EngineError | None = None

    def __init__(
        self,
        catalog: Catalog,
        engine: str,
        capabilities: Capabilities,
        open_backend: OpenBackend,
        obtainable: Callable[[Artefact], bool],
        *,
        choice: str = "",
        hub_reachable: Callable[[], bool] = lambda: True,
        house: House | None = None,
    ) -> None:
        self.catalog = catalog
        self.engine = engine
        self.capabilities = capabilities
        self._open = open_backend
        self._obtainable = obtainable
        self._choice = choice
        self.hub_reachable = hub_reachable
        self._house = house or House()
        self._models: dict[str, Model] = {}
        self._chosen: dict[str, Card] = {}
        self._choosing = threading.Lock()  # not the house's: a choice may wait for the network

    def choose(self, task: str) -> Card:
        """This machine's model for `task`; the answer stays the same while the page is up."""
        if self._choice and hardware.suits(fixed := self.catalog.get(self._choice), task):
            return fixed
        with self._choosing:
            if task not in self._chosen:
                machine = self._house.machine(emptied=True)
                self._chosen[task] = hardware.choose(self.catalog, machine, task, self.engine, self._obtainable)
            return self._chosen[task]

    def ranked(self, task: str) -> list[Ranked]:
        """Every card for `task`, those that can run here first; the others with the reason why not."""
        return hardware.ranked(self.catalog, self._lately(), task, self.engine, self._obtainable)

    def judge(self, card: Card, task: str) -> Ranked:
        """One row of `ranked`, without the work for the others."""
        return hardware.judge(card, self._lately(), task, self.engine, self._obtainable)

    def get(self, card: Card) -> Model:
        """The place of this card. Raises `OutOfMemory` where it cannot fit even with everything else unloaded."""
        with self._house.lock:
            if (model := self._models.get(card.id)) is None:
                fit = _fitting(card, hardware.fit(card, self.engine, self._house.machine(emptied=True)))
                model = self._models[card.id] = Model(card, fit)
                self._house.models.append(model)
            return model

    def visual_tokens(self, card: Card) -> int:
        """What a picture may cost here unless the visitor says otherwise; 0 for a model without eyes."""
        return hardware.visual_tokens(card, self.engine, self._lately())

    def require_room_to_look(self, card: Card, visual_tokens: int) -> None:
        """Raises `OutOfMemory` where a picture of so many visual tokens would take more memory than is free."""
        if not visual_tokens:
            return
        machine = self._house.machine()
        need, free = hardware.looking_bytes(card, visual_tokens), hardware.free_bytes(self.engine, machine)
        if need > free:
            raise OutOfMemory(
                f"A picture of {visual_tokens:,} visual tokens needs about {hardware.gigabytes(need)} while"
                f" {card.name} looks at it, and {hardware.gigabytes(max(0, free))} are free.",
                "Lower 'Visual tokens per picture', or choose a smaller model.",
            )

    def loaded(self) -> list[Model]:
        with self._house.lock:
            return [model for model in self._models.values() if model.ready]

    def ready(self, model: Model, cancel: Cancel) -> Generator[Loading, None, Backend | None]:
        """The model's backend, loaded if need be; whoever comes while it loads joins in. None once cancelled."""
        with self._house.lock:
            if model.backend is not None and model.ready:
                return model.backend
            if model.load is None or model.load.over:
                model.unload()  # what is left of an engine that died
                model.load = _Load(lambda tell: self._load(model, tell))
            load = model.load
        yield from load.watch(cancel)
        return None if cancel.is_set() else model.backend

    def close(self) -> None:
        """Unloads everything of this engine; for the end of the program."""
        with self._house.lock:
            for model in self._models.values():
                model.unload()

    def _load(self, model: Model, tell: Callable[[Loading], None]) -> None:
        with self._house.lock:
            fit = self._make_room(model)
            model.promised = model.need_bytes = fit.need_bytes
        backend = self._open(model.card, fit)
        try:
            for progress in backend.load(model.card):
                tell(progress)
        except BaseException:
            backend.close()
            raise
        finally:
            model.promised = 0
        model.line.capacity = backend.capabilities.parallel
        model.backend = backend
        model.last_used = time.monotonic()

    def _lately(self) -> Machine:
        return self._house.machine(emptied=True, max_age_s=1.0)

    def _make_room(self, wanted: Model) -> Fit:
        """Unloads idle models of any engine, the longest unused first, until `wanted` fits; called with the lock."""
        while True:
            fit = hardware.fit(wanted.card, self.engine, self._house.machine())
            if fit.fits and fit.slots >= wanted.line.capacity:
                return fit
            idle = [m for m in self._house.idle() if m is not wanted and m.on_gpu == fit.on_gpu]
            if not idle:
                return _fitting(wanted.card, fit)
            oldest = min(idle, key=lambda m: m.last_used)
            log.info("unloading %s to make room for %s", oldest.card.id, wanted.card.id)
            oldest.unload()


def _fitting(card: Card, fit: Fit) -> Fit:
    if not fit.fits:
        raise OutOfMemory(f"{card.name} {fit.reason}.")
    return fit


class _Load:
    """One load in a thread of its own, watched by any number of waiters; late ones see the newest progress."""

    def __init__(self, work: Callable[[Callable[[Loading], None]], None]) -> None:
        self._changed = threading.Condition()
        self._latest: Loading | None = None
        self._error: BaseException | None = None
        self.over = False
        threading.Thread(target=self._run, args=(work,), name="load", daemon=True).start()

    def _run(self, work: Callable[[Callable[[Loading], None]], None]) -> None:
        try:
            work(self._tell)
        except BaseException as exc:  # carried to every waiter
            self._error = exc
        with self._changed:
            self.over = True
            self._changed.notify_all()

    def _tell(self, progress: Loading) -> None:
        with self._changed:
            self._latest = progress
            self._changed.notify_all()

    def watch(self, cancel: Cancel) -> Iterator[Loading]:
        """Progress as it comes, until the load is over (raising what it raised) or the caller has cancelled."""
        undo = cancel.on_cancel(self._wake)
        told: Loading | None = None
        try:
            while True:
                with self._changed:
                    if self._latest is told and not self.over and not cancel.is_set():
                        self._changed.wait()
                    latest, over = self._latest, self.over
                if cancel.is_set():
                    return
                if over:
                    if self._error is not None:
                        raise self._error
                    return
                if latest is not None and latest is not told:
                    told = latest
                    yield latest
        finally:
            undo()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
