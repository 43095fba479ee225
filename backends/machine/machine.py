"""What this machine has: cores, memory, graphics cards. Looks without importing any of their libraries.

Every size is in bytes.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
"""Its names in an address."""
GIB = 1024**3
UNKNOWN_RAM = 4 * GIB  # assumed where the system will not say how much it has
ZERO_GPU_BYTES = 74_600_000_000  # a ZeroGPU slice (H200 MIG 3g.71gb); it only shows itself inside a GPU call


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
