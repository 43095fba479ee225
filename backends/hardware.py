"""What this machine has, and which model fits it. Knows nothing of downloads: the caller says what can be had.

Every size is in bytes. Speeds are estimates and named so wherever they are shown.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from backends.catalog import Artefact, Card, Catalog
from backends.errors import OutOfMemory, PlaygroundError, SourceUnreachable, WeightsError

GIB = 1024**3
UNKNOWN_RAM = 4 * GIB  # assumed where the system will not say how much it has
ZERO_GPU_BYTES = 74_600_000_000  # a ZeroGPU slice (H200 MIG 3g.71gb); it only shows itself inside a GPU call

# --- what the machine has ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gpu:
    """`unified`: it shares the machine's main memory (Apple silicon)."""

    name: str
    total: int
    free: int
    unified: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """`cores` are the logical ones that this process may use, as affinity and container quota leave them."""

    cores: int
    physical_cores: int
    ram_total: int
    ram_available: int
    gpus: tuple[Gpu, ...] = ()
    on_space: bool = False
    zero_gpu: bool = False

    @classmethod
    def detect(cls, env: Mapping[str, str] = os.environ) -> Machine:
        """Takes milliseconds, up to 2 s where `nvidia-smi` is slow. Never raises: what is not told is assumed small."""
        limits = cgroup_limits()
        total, available = _ram()
        total = min(total, limits.memory)
        available = min(available, limits.memory_free, total)
        cores = min(_logical_cores(), max(1, math.ceil(limits.cpus)))
        zero_gpu = env.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
        gpus = _nvidia_gpus(env)
        if _is_apple_silicon():
            gpus = (Gpu("Apple silicon", total, available, unified=True),)
        elif zero_gpu and not gpus:
            gpus = (Gpu("ZeroGPU", ZERO_GPU_BYTES, ZERO_GPU_BYTES),)
        return cls(cores, min(cores, _physical_cores(cores)), total, available, gpus, "SPACE_ID" in env, zero_gpu)


class Limits(NamedTuple):
    """What a container allows; `memory_free` counts page cache that can be dropped as free."""

    memory: int
    memory_free: int
    cpus: float


NO_LIMITS = Limits(2**63, 2**63, 2.0**16)


def cgroup_limits(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Limits:
    """The tightest limits of this process's control groups (versions 1 and 2) and of all groups above them."""
    folders = {root}  # inside a container the listed path may be the host's; the mounted root then is the container's
    for line in _read(membership).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        for name in controllers.split(","):  # version 2 names none, its groups hang directly under the root
            group_folder = root / name / group.lstrip("/")
            folders.update(f for f in (group_folder, *group_folder.parents) if f.is_relative_to(root))
    return Limits(*(min(values) for values in zip(NO_LIMITS, *map(_limits_of, folders), strict=True)))


def _limits_of(folder: Path) -> Limits:
    """Reads the files of both versions; those of the other one are missing and say nothing."""
    memory = _number(_read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes"))
    used = _number(_read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes"))
    stat = dict(line.partition(" ")[::2] for line in _read(folder / "memory.stat").splitlines())
    cache = _number(stat.get("total_inactive_file") or stat.get("inactive_file", ""))
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    cpus = _number(quota or _read(folder / "cpu.cfs_quota_us"))
    per = _number(period or _read(folder / "cpu.cfs_period_us"))
    return Limits(
        memory or NO_LIMITS.memory,
        max(0, memory - max(0, used - cache)) if memory else NO_LIMITS.memory_free,
        cpus / per if cpus and per else NO_LIMITS.cpus,
    )


def _number(text: str) -> int:
    """0 for 'max', '-1' and everything else that is no limit."""
    return int(text) if text.isdecimal() else 0


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""


def _ram() -> tuple[int, int]:
    try:
        memory = psutil.virtual_memory()
        return memory.total, memory.available
    except (psutil.Error, OSError, RuntimeError, ValueError):
        return UNKNOWN_RAM, UNKNOWN_RAM


def _logical_cores() -> int:
    with suppress(AttributeError, OSError):  # absent outside Linux
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _physical_cores(default: int) -> int:
    with suppress(psutil.Error, OSError, RuntimeError, ValueError):
        return psutil.cpu_count(logical=False) or default
    return default


def _is_apple_silicon() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def _nvidia_gpus(env: Mapping[str, str]) -> tuple[Gpu, ...]:
    """By `nvidia-smi`, so that asking does not import torch or take memory on the card."""
    program = shutil.which("nvidia-smi")
    if not program or env.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ()
    query = [program, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=2, check=True)  # noqa: S603
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()
    return tuple(_parse_gpus(answer.stdout))


def _parse_gpus(table: str) -> Iterator[Gpu]:
    for line in table.splitlines():
        name, total, free = [*map(str.strip, line.rsplit(",", 2)), "", ""][:3]
        if total.isdecimal() and free.isdecimal():  # '[N/A]' where a card does not tell its memory
            yield Gpu(name, int(total) * 1024**2, int(free) * 1024**2)


# --- what fits it ------------------------------------------------------------------------------------------------

MOST_CONTEXT = 8192  # of one conversation; more costs memory that most never use
LEAST_CONTEXT = 2048
CONTEXT_STEP = 256
RAM_RESERVE = GIB  # left to the system and to the playground itself
RAM_SHARE = 0.8  # of all memory, at most
MEMORY_BANDWIDTH = 25e9  # bytes a second: a desktop's main memory, two channels; every token reads all active weights
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
    "hf_transformers": Footprint(weights=1.2, overhead=1_000_000_000, most_slots=1, discrete_gpu=True),
}


@dataclass(frozen=True, slots=True)
class Fit:
    """`slots` requests at once, each with `context` tokens. `tokens_per_s`: a CPU's rough estimate, None on a GPU."""

    fits: bool
    need_bytes: int
    context: int
    slots: int
    reason: str
    tokens_per_s: float | None = None

    @property
    def slow(self) -> bool:
        return self.tokens_per_s is not None and self.tokens_per_s < SLOW_TOKENS_PER_S


def fit(card: Card, engine: str, machine: Machine, reclaimable: int = 0) -> Fit:
    """How `card` would run: context first, then slots shrink before it is said not to fit.

    `reclaimable`: bytes that the caller would free first, such as those of the model that is loaded now.
    """
    needs = FOOTPRINTS.get(engine, FOOTPRINTS["llama_cpp"])
    gpu = _gpu_for(needs, machine)
    budget = _budget(machine, gpu, reclaimable)
    weights = card.weight_bytes(engine)
    base = round(weights * needs.weights) + needs.overhead
    context, slots = _share_out((budget - base) // card.kv_bytes_per_token, card.context, machine.cores, needs)
    need = base + context * slots * card.kv_bytes_per_token
    read_per_token = weights * (card.active_parameters or card.parameters) / card.parameters
    speed = None if gpu else MEMORY_BANDWIDTH / read_per_token
    where = "the graphics card" if gpu and not gpu.unified else "this machine"
    reason = f"needs about {gigabytes(need)}, {where} has {gigabytes(max(0, budget))} free"
    if speed and speed < SLOW_TOKENS_PER_S and need <= budget:
        reason += f", but would be slow here: by estimate {speed:.1f} tokens a second"
    return Fit(need <= budget, need, context, slots, reason, speed)


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _gpu_for(needs: Footprint, machine: Machine) -> Gpu | None:
    """The one card that the engine would use, the freest; several are not added up."""
    usable = [gpu for gpu in machine.gpus if gpu.unified or needs.discrete_gpu]
    return max(usable, key=lambda gpu: gpu.free, default=None)


def _budget(machine: Machine, gpu: Gpu | None, reclaimable: int) -> int:
    total, free = (gpu.total, gpu.free) if gpu and not gpu.unified else (machine.ram_total, machine.ram_available)
    return min(int(total * RAM_SHARE), free - RAM_RESERVE + reclaimable)


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


def ranked(
    catalog: Catalog, machine: Machine, task: str, engine: str, obtainable: Obtainable, reclaimable: int = 0
) -> list[Ranked]:
    """All cards for the picker: those usable now first, then those good at the task, each in the catalog's order."""
    rows = [_judge(card, machine, task, engine, obtainable, reclaimable) for card in catalog]
    return sorted(rows, key=lambda row: (row[2] != "", task not in row[0].good_at))


def choose(
    catalog: Catalog, machine: Machine, task: str, engine: str, obtainable: Obtainable, reclaimable: int = 0
) -> Card:
    """This machine's choice: the first usable card good at the task, else the first usable one.

    Raises `WeightsError` (`SourceUnreachable` where only the hub is missing) or `OutOfMemory`.
    """
    refused = []
    for card in sorted(catalog, key=lambda card: task not in card.good_at):
        row = _judge(card, machine, task, engine, obtainable, reclaimable)  # one by one: it may ask the network
        if row[2] == "":
            return card
        refused.append(row)
    raise _none_usable(refused, task, engine)


def _judge(card: Card, machine: Machine, task: str, engine: str, obtainable: Obtainable, reclaimable: int) -> Ranked:
    result = fit(card, engine, machine, reclaimable)
    if not _suits(card, task):
        return card, result, "reads only text"
    if not card.sources(engine):
        return card, result, f"has no files for the engine {engine}"
    if not result.fits:
        return card, result, result.reason
    if not any(map(obtainable, card.sources(engine))):
        return card, result, "cannot be fetched: the hub cannot be reached"
    return card, result, ""


def _suits(card: Card, task: str) -> bool:
    return task != "image" or "image" in card.modalities


def _none_usable(refused: list[Ranked], task: str, engine: str) -> PlaygroundError:
    possible = [(card, result) for card, result, _ in refused if _suits(card, task) and card.sources(engine)]
    if not possible:
        return WeightsError(f"No model in the catalog can do this with the engine {engine}.")
    if any(result.fits for _, result in possible):
        return SourceUnreachable("No model that fits this machine can be fetched: the hub cannot be reached.")
    card, result = min(possible, key=lambda pair: pair[1].need_bytes)
    return OutOfMemory(f"Even the smallest model does not fit: {card.name} {result.reason}.")
