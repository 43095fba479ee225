"""A playground that tests serve: the page on a scripted engine, with room for many."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, Catalog
from backends.core.types import GenerationRequest
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from backends.engine.room import Room
from backends.machine.machine import GIB, Machine
from ui.server.serving import serve


@dataclass(frozen=True)
class Served:
    """`url` ends in a slash."""

    url: str
    blocks: gr.Blocks
    engine: Engine


def scripted_engine(card: Card, script: Callable[[GenerationRequest], Script], room: Room | None = None) -> Engine:
    """An engine on a machine with four cores and 16 GiB."""
    models = LocalModels(
        Catalog((card,)),
        "scripted",
        Scripted().capabilities,
        lambda card, fit: Scripted(script, parallel=fit.slots, context=fit.context),
        lambda artefact: True,
        house=House(lambda: Machine(4, 4, 16 * GIB, 16 * GIB)),
    )
    return Engine(models, room)


@contextmanager
def serving(engine: Engine, **options: Any) -> Iterator[Served]:
    with leaks_of_gradio():
        blocks = serve({engine.name: engine}, **options)
    try:
        yield Served(blocks.local_url, blocks, engine)
    finally:
        with leaks_of_gradio():
            blocks.close(verbose=False)
            engine.models.close()
            del blocks


@contextmanager
def leaks_of_gradio() -> Iterator[None]:
    """Event loops and sockets are left to the garbage collector when a page is built and closed: it is run here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
