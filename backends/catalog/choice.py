"""Which model fits this machine, and which one it would choose. What can be had is for the caller to say.

Every size is in bytes. Speeds are estimates and named so wherever they are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backends.catalog.cards import Artefact, Card, Catalog
from backends.core.errors import OutOfMemory, PlaygroundError, SourceUnreachable, WeightsError
from backends.machine.machine import GIB, Gpu, Machine

MOST_CONTEXT = 8192  # of one conversation; more costs memory that most never use
LEAST_CONTEXT = 2048
CONTEXT_STEP = 256
RAM_RESERVE = GIB  # left to the system and to the playground itself
RAM_SHARE = 0.8  # of all memory, at most
MEMORY_BANDWIDTH = 25e9  # bytes a second: a desktop's main memory, two channels; every token reads all active weights
PROCESSOR_VISUAL_TOKENS = 256  # eyes of Qwen3-VL 2B's size took 22 s for so many on two cores (random weights)
LARGEST_UNASKED = 9.0  # thousand million parameters: a first message should not fetch more than some 18 GB
SLOW_TOKENS_PER_S = 3.5  # slower than most people read; a dense model of about 11e9 parameters at 4 bit


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an engine needs besides the weights' own size: `weights` factor, `overhead` bytes, requests at once."""

    weights: float
    overhead: int
    most_slots: int
    discrete_gpu: bool


FOOTPRINTS = {
    # Overhead: compute buffers and the process itself. The prebuilt wheel computes on the CPU (Apple: on its GPU).
    "llama_cpp": Footprint(weights=1.0, overhead=350_000_000, most_slots=8, discrete_gpu=False),
    # Qwen3-VL's README: real use is at least 1.2 times the weights. Overhead: the torch and CUDA contexts.
    "transformers": Footprint(weights=1.2, overhead=1_000_000_000, most_slots=4, discrete_gpu=True),
}


@dataclass(frozen=True, slots=True)
class Fit:
    """`slots` requests at once, each with `context` tokens. `tokens_per_s`: a CPU's rough estimate, None on a GPU.

    `on_gpu`: `need_bytes` are of a graphics card's own memory, not of main memory.
    """

    fits: bool
    need_bytes: int
    context: int
    slots: int
    reason: str
    tokens_per_s: float | None = None
    on_gpu: bool = False

    @property
    def slow(self) -> bool:
        return self.tokens_per_s is not None and self.tokens_per_s < SLOW_TOKENS_PER_S


def fit(card: Card, engine: str, machine: Machine) -> Fit:
    """How `card` would run: context first, then slots shrink before it is said not to fit."""
    needs = FOOTPRINTS.get(engine, FOOTPRINTS["llama_cpp"])
    gpu = _gpu_for(needs, machine)
    on_gpu = gpu is not None and not gpu.unified
    budget = _budget(machine, gpu)
    weights = card.weight_bytes(engine)
    base = round(weights * needs.weights) + needs.overhead
    context, slots = _share_out((budget - base) // card.kv_bytes_per_token, card.context, machine.cores, needs)
    need = base + context * slots * card.kv_bytes_per_token
    read_per_token = weights * (card.active_parameters or card.parameters) / card.parameters
    speed = None if gpu else MEMORY_BANDWIDTH / read_per_token
    where = "the graphics card" if on_gpu else "this machine"
    reason = f"needs about {gigabytes(need)}, {where} has {gigabytes(max(0, budget))} free"
    if speed and speed < SLOW_TOKENS_PER_S and need <= budget:
        reason += f", but would be slow here: by estimate {speed:.1f} tokens a second"
    return Fit(need <= budget, need, context, slots, reason, speed, on_gpu)


def looking_bytes(card: Card, visual_tokens: int) -> int:
    """By estimate, what one picture takes while it is looked at: 2 x 2 patches a token, their states, the attention
    between all of them (an engine that never holds it whole needs less), and the KV cache of its tokens."""
    patches = 4 * visual_tokens
    wide = min(1.0, card.parameters)  # the eyes of the smallest Qwen-VL are about as wide as those of the others
    return round(wide * (patches * 100_000 + patches**2 * 16 * 4)) + visual_tokens * card.kv_bytes_per_token


def visual_tokens(card: Card, engine: str, machine: Machine) -> int:
    """What a picture may cost unless the visitor says otherwise: the card's default, less where a processor looks."""
    if card.eyes is None:
        return 0
    on_processor = _gpu_for(FOOTPRINTS.get(engine, FOOTPRINTS["llama_cpp"]), machine) is None
    return max(card.eyes.fewest, min(card.eyes.default, PROCESSOR_VISUAL_TOKENS)) if on_processor else card.eyes.default


def free_bytes(engine: str, machine: Machine) -> int:
    """What is free now where the engine's models lie: a graphics card's own memory, or main memory."""
    gpu = _gpu_for(FOOTPRINTS.get(engine, FOOTPRINTS["llama_cpp"]), machine)
    return gpu.free if gpu and not gpu.unified else machine.ram_available


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _gpu_for(needs: Footprint, machine: Machine) -> Gpu | None:
    """The one card that the engine would use, the freest; several are not added up."""
    usable = [gpu for gpu in machine.gpus if gpu.unified or needs.discrete_gpu]
    return max(usable, key=lambda gpu: gpu.free, default=None)


def _budget(machine: Machine, gpu: Gpu | None) -> int:
    total, free = (gpu.total, gpu.free) if gpu and not gpu.unified else (machine.ram_total, machine.ram_available)
    return min(int(total * RAM_SHARE), free - RAM_RESERVE)


def _share_out(tokens: int, card_context: int, cores: int, needs: Footprint) -> tuple[int, int]:
    """(context, slots) for a KV cache of `tokens`; the least of both where even that is too little."""
    most, least = min(card_context, MOST_CONTEXT), min(card_context, LEAST_CONTEXT)
    for slots in range(min(2 * cores, needs.most_slots), 0, -1):
        context = min(most, tokens // slots // CONTEXT_STEP * CONTEXT_STEP)
        if context >= least:
            return context, slots
    return least, 1


# --- which one to take -------------------------------------------------------------------------------------------

Obtainable = Callable[[Artefact], bool]  # whether the file is here or can be fetched now
Ranked = tuple[Card, Fit, str]  # the string says why it cannot be used now; empty where it can


def ranked(catalog: Catalog, machine: Machine, task: str, engine: str, obtainable: Obtainable) -> list[Ranked]:
    """All cards for the picker: those usable now first, then those good at the task, each in the catalog's order."""
    rows = [judge(card, machine, task, engine, obtainable) for card in catalog]
    return sorted(rows, key=lambda row: (row[2] != "", task not in row[0].good_at))


def choose(catalog: Catalog, machine: Machine, task: str, engine: str, obtainable: Obtainable) -> Card:
    """This machine's choice: the first usable card good at the task, else the first usable one; on a graphics card the
    largest like it that fits.

    Raises `WeightsError` (`SourceUnreachable` where only the hub is missing) or `OutOfMemory`.
    """
    refused = []
    for card in sorted(catalog, key=lambda card: task not in card.good_at):
        row = judge(card, machine, task, engine, obtainable)  # one by one: it may ask the network
        if row[2] == "":
            return _larger(catalog, row, machine, task, engine, obtainable) if row[1].on_gpu else card
        refused.append(row)
    raise _none_usable(refused, task, engine)


def _larger(catalog: Catalog, chosen: Ranked, machine: Machine, task: str, engine: str, obtainable: Obtainable) -> Card:
    """The largest of the chosen card's family that a graphics card carries, up to what may be fetched unasked."""
    card = chosen[0]
    alike = [
        other
        for other in catalog
        if other.family == card.family
        and other.thinking.kind == card.thinking.kind
        and other.quantisation == card.quantisation
        and task in other.good_at
        and card.parameters < other.parameters <= LARGEST_UNASKED
    ]
    for other in sorted(alike, key=lambda other: -other.parameters):
        if judge(other, machine, task, engine, obtainable)[2] == "":
            return other
    return card


def judge(card: Card, machine: Machine, task: str, engine: str, obtainable: Obtainable) -> Ranked:
    """How one card would do, and why it cannot be used now."""
    result = fit(card, engine, machine)
    if not suits(card, task):
        return card, result, "is a demo for pictures only" if card.demo else "reads only text"
    if not card.sources(engine):
        return card, result, f"has no files for the engine {engine}"
    if not result.fits:
        return card, result, result.reason
    if not any(map(obtainable, card.sources(engine))):
        return card, result, "cannot be fetched: the hub cannot be reached"
    return card, result, ""


def suits(card: Card, task: str) -> bool:
    """Whether the model can do this at all: only some see, and a demo is for what it is good at."""
    return task in card.good_at if card.demo else task != "image" or "image" in card.modalities


def _none_usable(refused: list[Ranked], task: str, engine: str) -> PlaygroundError:
    possible = [(card, result) for card, result, _ in refused if suits(card, task) and card.sources(engine)]
    if not possible:
        return WeightsError(f"No model in the catalog can do this with the engine {engine}.")
    if any(result.fits for _, result in possible):
        return SourceUnreachable("No model that fits this machine can be fetched: the hub cannot be reached.")
    card, result = min(possible, key=lambda pair: pair[1].need_bytes)
    return OutOfMemory(f"Even the smallest model does not fit: {card.name} {result.reason}.")
