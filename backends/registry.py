"""The engines by name. Adapters are imported here, lazily, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from backends.catalog import Card
from backends.hardware import Fit
from backends.machine import Machine
from backends.types import Backend, Capabilities
from backends.weights import WeightStore

PROMPT_CACHE_SHARE = 0.05  # of the machine's memory, for prompts that a slot had to give up


def _llama_cpp(store: WeightStore, machine: Machine) -> Callable[[Card, Fit], Backend]:
    from backends.adapters.llama_cpp import LlamaCpp

    cache_mib = int(machine.ram_total * PROMPT_CACHE_SHARE) >> 20
    return lambda card, fit: LlamaCpp(
        store, context=fit.context, slots=fit.slots, threads=machine.cores, cache_mib=cache_mib
    )


def _scripted(store: WeightStore, machine: Machine) -> Callable[[Card, Fit], Backend]:
    from backends.adapters.scripted import Scripted

    return lambda card, fit: Scripted(parallel=fit.slots, context=fit.context)


_ENGINES = {"llama_cpp": _llama_cpp, "scripted": _scripted}
ENGINES = tuple(_ENGINES)


def opener(engine: str, store: WeightStore, machine: Machine) -> Callable[[Card, Fit], Backend]:
    """What makes a backend of this engine for a card. `engine` is one of `ENGINES`."""
    return _ENGINES[engine](store, machine)


def capabilities(engine: str) -> Capabilities:
    """What the engine can do, known without loading anything."""
    if engine == "scripted":
        from backends.adapters.scripted import Scripted

        return Scripted().capabilities
    from backends.adapters.openai_compatible import LLAMA_SERVER

    return LLAMA_SERVER.capabilities(parallel=1)
