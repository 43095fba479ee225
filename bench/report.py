"""Figures, the table on the terminal, and docs/benchmarks.md."""

from __future__ import annotations

import datetime
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

FILE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
PACKAGES = ("gradio", "xllamacpp", "torch", "transformers", "httpx", "pydantic", "psutil")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. `met` is None where the figure is told for information and has no target."""

    what: str
    against: str
    ours: str
    theirs: str
    n: str
    ratio: str = ""
    target: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        return "" if self.met is None else "met" if self.met else "**missed**"

    @property
    def row(self) -> tuple[str, ...]:
        return (self.what, self.ours, self.against, self.theirs, self.ratio, self.n, self.target, self.verdict)


HEADER = ("figure", "playground", "against", "there", "ratio", "n", "target", "")


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def p95(values: Sequence[float]) -> float:
    """The smallest value that at least 95 % of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-95 * len(ordered) // 100) - 1)]


def ms(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"


def table(figures: Sequence[Figure]) -> str:
    """As GitHub reads it; narrow enough for a terminal, too."""
    rows = [HEADER, tuple("---" for _ in HEADER), *(figure.row for figure in figures)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def page(figures: Sequence[Figure], command: str, busy: float, seconds: float, preliminary: str = "") -> str:
    notes = "\n".join(f"- **{figure.what}**: {figure.note}" for figure in figures if figure.note)
    warning = f"\n> **Preliminary**: {preliminary}\n" if preliminary else ""
    today = f"{datetime.date.today():%d %B %Y}"
    return f"""# Benchmarks
{warning}
Written by `{command}` on {today}, in one run of {seconds / 60:.0f} minutes; do not edit by hand.
Both columns of a row were measured alternately in that run, each server in a process of its own, the client in
another. Values are medians of n unless the row says otherwise. Absolute values vary with the machine: compare ratios.

{machine(busy)}

{table(figures)}

## How each was measured

{notes}

To measure again: `make bench`, or `python -m bench`. `--only NAME` measures one group and `--quick` takes fewer
samples; both print the table and leave this file alone.
"""


def machine(busy: float) -> str:
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return (
        f"Machine: {psutil.cpu_count()} cores of {_cpu_name()}, {psutil.virtual_memory().total / 2**30:.0f} GiB RAM, "
        f"{platform.system()}, no GPU used. Others used at most "
        f"{busy:.0f} % of it while a group was measured.\n"
        f"Software: Python {sys.version.split()[0]}, {versions}."
    )


def write(text: str) -> None:
    FILE.write_text(text, "utf-8")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
