"""Child processes to measure: started, found ready, looked at from outside, and ended."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 900  # the first run fetches the model
BUSY_PERCENT = 10.0  # of the whole machine; above it a figure is preliminary


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is up. `told` is what it said about itself when it was ready."""

    url: str
    process: psutil.Process
    told: Mapping[str, Any]

    def cpu_seconds(self) -> float:
        """Processor time that this process alone has used, its children not counted."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def serve(name: str, *arguments: str) -> Iterator[Served]:
    """One of `bench.apps.APPS` in a process of its own."""
    with tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, "-m", "bench.apps", name, *arguments]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            assert process.stdout is not None
            told: dict[str, Any] = {}
            while "url" not in told:  # other lines are a library's chatter
                line = process.stdout.readline()
                if not line:
                    errors.seek(0)
                    raise RuntimeError(f"{name} did not start:\n{errors.read()[-2000:]}")
                if line.startswith("{"):
                    told = json.loads(line)
            try:
                yield Served(told["url"], psutil.Process(process.pid), told)
            finally:
                process.kill()


@contextmanager
def started(command: list[str], port: int, extra: Mapping[str, str] | None = None) -> Iterator[tuple[float, int]]:
    """Seconds from the start of `command` to its first good answer at `port`, and its process id, while it runs."""
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"} | dict(extra or {})
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() - begun > READY_SECONDS:
                    output.seek(0)
                    raise RuntimeError(f"{command} did not start:\n{output.read()[-2000:]}")
                time.sleep(0.005)
            yield time.perf_counter() - begun, process.pid
        finally:
            process.kill()
            process.wait()


def keep_to(half: int) -> int:
    """Binds this process, and what it starts from now on, to one half of the processor; returns how many cores that is.

    As if the other half were another machine. Where the system knows no such binding, nothing happens.
    """
    cores = range(os.cpu_count() or 1)
    share = max(1, len(cores) // 2)
    if hasattr(os, "sched_setaffinity") and len(cores) > 1:
        os.sched_setaffinity(0, cores[:share] if half == 0 else cores[share:])
    return share


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def busy_percent() -> float:
    """How much of the machine others use, watched for two seconds."""
    return float(psutil.cpu_percent(interval=2.0))


def quiet(patience_s: float) -> float:
    """Waits until the machine is quiet, for `patience_s` at the most; returns how busy it is then, in percent."""
    until = time.monotonic() + patience_s
    while (busy := busy_percent()) > BUSY_PERCENT and time.monotonic() < until:
        time.sleep(5)
    return busy


class Others:
    """Watches, while it is entered, how much of the machine is used by anything but this run: `percent`."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._seconds: dict[int, float] = {}  # processor time of this process and each of its descendants
        self.percent = 0.0

    def __enter__(self) -> Others:
        self._begun, self._busy = time.monotonic(), _busy_seconds()
        self._look()
        self._own = sum(self._seconds.values())
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        ours = sum(self._seconds.values()) - self._own
        whole = (time.monotonic() - self._begun) * (psutil.cpu_count() or 1)
        self.percent = max(0.0, 100 * (_busy_seconds() - self._busy - ours) / whole)

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            self._look()

    def _look(self) -> None:
        this = psutil.Process()
        for process in (this, *this.children(recursive=True)):
            with suppress(psutil.Error):
                times = process.cpu_times()
                self._seconds[process.pid] = times.user + times.system


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
