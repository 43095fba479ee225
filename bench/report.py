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


def section(group: str, figures: Sequence[Figure], busy: float, seconds: float, too_busy: bool) -> str:
    """What docs/benchmarks.md says of one group, between two marks by which `write` finds it again."""
    notes = "\n".join(f"- **{figure.what}**: {figure.note}" for figure in figures if figure.note)
    today = datetime.date.today()
    warning = "\n> **Preliminary**: the machine was busy with other work; measure again on a quiet one.\n"
    return f"""{_mark(group)}
## {group.capitalize()}
{warning if too_busy else ""}
`python -m bench --only {group}`, {today.day} {today:%B %Y}, {max(1, round(seconds / 60))} min. {machine(busy)}

{table(figures)}

{notes}
{_mark(f"end of {group}")}
"""


def write(group: str, text: str, file: Path = FILE) -> None:
    """Puts a section in the place of the group's old one, else behind all others."""
    page = file.read_text("utf-8")
    begin, end = page.find(_mark(group)), page.find(_mark(f"end of {group}"))
    if begin >= 0 and end >= 0:
        page = page[:begin] + text + page[end + len(_mark(f"end of {group}")) + 1 :]
    else:
        page = page.rstrip("\n") + "\n\n" + text
    file.write_text(page, "utf-8")


def _mark(name: str) -> str:
    return f"<!-- {name} -->"


def machine(busy: float) -> str:
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return (
        f"{psutil.cpu_count()} cores of {_cpu_name()}, {psutil.virtual_memory().total / 2**30:.0f} GiB RAM, "
        f"{platform.system()}, no GPU used. Others used at most "
        f"{busy:.0f} % of it meanwhile. "
        f"Python {sys.version.split()[0]}, {versions}."
    )


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
