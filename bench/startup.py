"""From start to the page served, the memory of the page's process, and what must not be imported for it."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.browser import Page, Site
from bench.processes import free_port, started
from bench.report import Figure, median

HELLO_WORLD = "hello-world Gradio app"
HEAVY = ("torch", "transformers")
SETTLE_SECONDS = 4.0  # the probe of the model hub, which looks for three, ends before memory is read
MIB = 2**20


def measure(quick: bool) -> Iterator[Figure]:
    ours: list[tuple[float, float, float]] = []
    hello: list[tuple[float, float, float]] = []
    n = 1 if quick else 7
    for k in range(n + 1):  # the first of each warms the disk's cache and is not counted
        for kind, results in (("app.py", ours), ("bench/hello.py", hello)):
            result = _run(kind)
            if k:
                results.append(result)
    seconds = [median([result[0] for result in results]) for results in (ours, hello)]
    yield Figure(
        "start to page served",
        HELLO_WORLD,
        f"{seconds[0]:.2f} s",
        f"{seconds[1]:.2f} s",
        str(n),
        f"{seconds[0] / seconds[1]:.2f}",
        "at most 1.25 times",
        seconds[0] <= 1.25 * seconds[1],
        "from the start of the process to the first good answer to `GET /`, asked for every 5 ms; files in the disk's "
        "cache, one start of each not counted.",
    )
    imported = _heavy_imports()
    yield Figure(
        "torch or transformers imported",
        "",
        ", ".join(imported) or "neither",
        "",
        "1",
        target="neither",
        met=not imported,
        note="the app is started and its page opened with decoys of both packages in front of the path, which tell "
        "when they are imported; the process's memory maps are searched too.",
    )
    for name, column in (("memory of the page's process (RSS)", 1), ("the same, its own pages only (USS)", 2)):
        ours_mib, hello_mib = (median([result[column] for result in results]) / MIB for results in (ours, hello))
        has_target = column == 1
        yield Figure(
            name,
            HELLO_WORLD,
            f"{ours_mib:.0f} MiB",
            f"{hello_mib:.0f} MiB",
            str(n),
            f"{ours_mib / hello_mib:.2f}",
            "at most 1.3 times" if has_target else "",
            ours_mib <= 1.3 * hello_mib if has_target else None,
            "no model loaded, after the page was opened once (`GET /`, `/config` and the page's load event)."
            if has_target
            else "",
        )


def _run(script: str) -> tuple[float, float, float]:
    """Seconds to the first page, then RSS and USS in bytes after a visitor has opened it."""
    with _opened(script) as (seconds, pid):
        memory = psutil.Process(pid).memory_full_info()
        return seconds, float(memory.rss), float(memory.uss)


@contextmanager
def _opened(script: str, extra: Mapping[str, str] | None = None) -> Iterator[tuple[float, int]]:
    """`script` running with its page opened once: seconds to the first answer, and its process id."""
    port = free_port()
    arguments = ["--port", str(port)] if script == "app.py" else [str(port)]
    with started([sys.executable, script, *arguments], port, extra) as (seconds, pid):
        site = Site(f"http://127.0.0.1:{port}")
        site.get("/")
        Page(site)
        time.sleep(SETTLE_SECONDS)
        yield seconds, pid


def _heavy_imports() -> list[str]:
    """Which heavy packages the app has imported by the time that its page is open."""
    with tempfile.TemporaryDirectory() as folder:
        for name in HEAVY:
            package = Path(folder, name)
            package.mkdir()
            (package / "__init__.py").write_text("from pathlib import Path\nPath(__file__).with_name('seen').touch()\n")
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        with _opened("app.py", {"PYTHONPATH": path}) as (_, pid):
            maps = Path(f"/proc/{pid}/maps")
            mapped = maps.read_text() if maps.exists() else ""
        return [name for name in HEAVY if Path(folder, name, "seen").exists() or f"/{name}/" in mapped]
