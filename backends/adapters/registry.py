"""The engines by name. Adapters are imported here, lazily, and nowhere else."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from backends.adapters.openai.remote_engines import RemoteEngine
from backends.adapters.openai.remote_pool import RemoteModels
from backends.catalog.cards import Card, Catalog
from backends.catalog.choice import Fit
from backends.core.types import Backend, Capabilities
from backends.machine.machine import Machine
from backends.weights.store import WeightStore

PROMPT_CACHE_SHARE = 0.05  # of the machine's memory, for prompts that a slot had to give up


def _llama_cpp(store: WeightStore, machine: Machine) -> Callable[[Card, Fit], Backend]:
    from backends.adapters.llama_cpp.adapter import LlamaCpp

    cache_mib = int(machine.ram_total * PROMPT_CACHE_SHARE) >> 20
    return lambda card, fit: LlamaCpp(
        store, context=fit.context, slots=fit.slots, threads=machine.cores, cache_mib=cache_mib
    )


def _transformers(store: WeightStore, machine: Machine) -> Callable[[Card, Fit], Backend]:
    from backends.adapters.hf_transformers.adapter import HfTransformers

    return lambda card, fit: HfTransformers(
        store, context=fit.context, slots=fit.slots, threads=machine.cores, zero_gpu=machine.zero_gpu
    )


SEEING = frozenset({"text", "image"})


def _scripted(store: WeightStore, machine: Machine) -> Callable[[Card, Fit], Backend]:
    from backends.adapters.scripted import Scripted

    return lambda card, fit: Scripted(parallel=fit.slots, context=fit.context, modalities=SEEING)


_ENGINES = {"llama_cpp": _llama_cpp, "transformers": _transformers, "scripted": _scripted}
_LIBRARIES = {
    "llama_cpp": ("xllamacpp",),
    "transformers": ("torch", "transformers", "accelerate", "torchvision", "qwen_vl_utils", "gguf"),
    "scripted": (),
}
ENGINES = tuple(_ENGINES)


def installed(engine: str) -> bool:
    """Whether the engine's libraries are there; imports none of them."""
    return all(map(_found, _LIBRARIES[engine]))


def automatic(machine: Machine) -> str:
    """The engine for this machine: transformers where it is installed and has a graphics card of its own memory, else
    llama.cpp, which also computes on Apple's."""
    has_card = any(not gpu.unified for gpu in machine.gpus)
    return "transformers" if has_card and installed("transformers") else "llama_cpp"


def quantises(engine: str, machine: Machine) -> bool:
    """Whether the engine can load 16-bit weights at 8 or 4 bit: bitsandbytes does, on a card with its own memory."""
    return engine == "transformers" and _found("bitsandbytes") and not all(gpu.unified for gpu in machine.gpus)


def opener(engine: str, store: WeightStore, machine: Machine) -> Callable[[Card, Fit], Backend]:
    """What makes a backend of this engine for a card. `engine` is one of `ENGINES`."""
    return _ENGINES[engine](store, machine)


def capabilities(engine: str) -> Capabilities:
    """What the engine can do, known without loading anything."""
    if engine == "scripted":
        from backends.adapters.scripted import Scripted

        return Scripted(modalities=SEEING).capabilities
    if engine == "transformers":
        from backends.adapters.hf_transformers.adapter import CAPABILITIES

        return CAPABILITIES
    from backends.adapters.openai.dialects import LLAMA_SERVER

    return LLAMA_SERVER.capabilities(parallel=1)


def remote(entry: RemoteEngine, known: Catalog) -> RemoteModels:
    """What the server of `entry` offers; nothing is asked of it yet. `known` are the playground's cards."""
    from backends.adapters.openai.remote import Remote, Server

    server = Server(entry)
    return RemoteModels(
        known, entry, server.look, lambda offer, served: Remote(server, offer.dialect, served), server.close
    )


def _found(library: str) -> bool:
    return importlib.util.find_spec(library) is not None
