"""llama.cpp in a child process: the default engine of a machine without a GPU.

A crash of native code never takes the page down, unloading is ending the child, and the child dies with its parent.
Speaks to the child through `openai_compatible`, as to any remote engine. Never imports xllamacpp itself.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Protocol

import httpx
import psutil

from backends.adapters.openai.client import GRACE_SECONDS, Patience, Wire
from backends.adapters.openai.dialects import LLAMA_SERVER
from backends.adapters.openai.links import Links
from backends.catalog.cards import Artefact, Card, Repository
from backends.core.cancel import Cancel
from backends.core.errors import EngineDied, EngineError, EngineMissing, EngineTimeout, OutOfMemory, UnsupportedModality
from backends.core.types import Answer, Done, GenerationRequest, Loading, Thought

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[3]
# Tokens read between two looks at whether anyone still listens; also bounds how long a long prompt holds up everyone
# else's next token. The speed of reading is that of a large batch (docs/benchmarks.md).
BATCH = 64
LOAD_SECONDS = 600  # a large model on a slow disk
SILENCE_SECONDS = 120  # longest pause between two signs of life of a running request
# The same for a model with eyes: while it looks at one picture, the server tells nobody anything.
LOOKING_SECONDS = 900


class Files(Protocol):
    """What this adapter needs of `weights.WeightStore`."""

    def fetch(self, artefact: Artefact, cancel: Cancel) -> Generator[Loading, None, Path]: ...

    def check_again(self, wanted: Artefact | Repository, cancel: Cancel) -> Iterator[Loading]: ...


class LlamaCpp:
    """One model in one child process. Sizes: `context` tokens a slot, `cache_mib` MiB for the prompt cache."""

    engine = "llama_cpp"

    def __init__(self, files: Files, *, context: int, slots: int, threads: int, cache_mib: int = 512) -> None:
        self.capabilities = LLAMA_SERVER.capabilities(parallel=slots)
        self._files = files
        self._settings = {"slots": slots, "threads": threads, "batch": BATCH, "cache_mib": cache_mib}
        self._context = context
        self._process: subprocess.Popen[str] | None = None
        self._client: httpx.Client | None = None
        self._links: Links | None = None
        self._wire: Wire | None = None
        self._closed = Cancel()
        self._last_words: deque[str] = deque(maxlen=40)

    def load(self, card: Card) -> Iterator[Loading]:
        if importlib.util.find_spec("xllamacpp") is None:
            raise EngineMissing("The llama.cpp engine is not installed.")
        artefact = card.artefact(self.engine)
        if artefact is None:
            raise EngineError(f"{card.name} has no file for the llama.cpp engine.", "Choose another model.")
        model = yield from self._files.fetch(artefact, self._closed)
        projector = None
        if (extra := self._projector(card)) is not None:
            projector = yield from self._files.fetch(extra, self._closed)
        yield Loading("loading", 0.0)
        try:
            yield from self._start(card, model, projector)
        except EngineDied:
            for file in filter(None, (artefact, extra)):
                yield from self._files.check_again(file, self._closed)
            raise

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Loading | Thought | Answer | Done]:
        if self._projector(request.card) is None and any(message.images for message in request.messages):
            raise UnsupportedModality(f"{request.card.name} reads text only on this engine.")
        yield from self._ready().stream(request, cancel)

    def count_tokens(self, request: GenerationRequest) -> int:
        return self._ready().count_tokens(request)

    @property
    def context(self) -> int:
        return self._context if self._wire is not None else 0

    @property
    def alive(self) -> bool:
        return self._wire is not None and self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def busy_slots(self) -> int:
        """How many slots are reading or writing at this moment, as the server itself says."""
        if self._client is None:
            return 0
        return sum(bool(slot["is_processing"]) for slot in self._client.get("/slots").json())

    def close(self) -> None:
        self._closed()
        self._wire = None
        if (client := self._client) is not None:
            self._client = None
            client.close()
        if (links := self._links) is not None:
            self._links = None
            links.close()
        if (process := self._process) is not None:
            _end(process)

    def _projector(self, card: Card) -> Artefact | None:
        """The file with the model's eyes, where it has any on this engine."""
        return card.artefact(self.engine, "projector") if card.eyes else None

    def _ready(self) -> Wire:
        if not self.alive or self._wire is None:
            raise EngineDied("The engine is not running.")
        return self._wire

    def _start(self, card: Card, model: Path, projector: Path | None) -> Iterator[Loading]:
        key = secrets.token_urlsafe(24)
        config = {"model": str(model), "projector": str(projector or ""), "key": key, "context": self._context}
        config["visual_tokens"] = card.eyes.most if card.eyes else 0
        process = subprocess.Popen(
            [sys.executable, "-m", "backends.adapters.llama_cpp.child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._process = process
        assert process.stdin is not None
        assert process.stderr is not None
        with suppress(BrokenPipeError):  # one that died at once is found out below
            process.stdin.write(json.dumps(config | self._settings) + "\n")
            process.stdin.flush()
        threading.Thread(target=self._listen, args=(process.stderr,), daemon=True).start()
        address: list[str] = []
        reader = threading.Thread(target=lambda: address.append(_first_line(process)), daemon=True)
        reader.start()
        grown, started = self._grown_bytes(card, model, projector), time.monotonic()
        while reader.is_alive():
            reader.join(0.1)
            if self._closed.is_set() or time.monotonic() - started > LOAD_SECONDS:
                _end(process)
                raise EngineTimeout(f"Loading {card.name} was given up.")
            yield Loading("loading", min(_resident(process.pid) / grown, 0.99))
        if not address or not address[0]:
            _end(process)
            raise self._stillborn(card)
        silence = LOOKING_SECONDS if projector else SILENCE_SECONDS
        connect = partial(
            httpx.Client,
            base_url=json.loads(address[0])["address"],
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(10, read=silence + GRACE_SECONDS),
            # The server closes a connection after a streamed answer: one that is kept fails the next request.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,  # loopback: a proxy in the environment must not see it
            verify=httpx.create_ssl_context(trust_env=False),  # made once: it is never used
        )
        self._client, self._links = connect(), Links(connect)
        self._wire = Wire(self._links, LLAMA_SERVER, card.id, Patience(silence, silence))

    def _grown_bytes(self, card: Card, model: Path, projector: Path | None) -> float:
        """About what the child holds once loaded: the weights, a share of them repacked for the CPU, the KV cache."""
        weights = 1.4 * model.stat().st_size + (projector.stat().st_size if projector else 0)
        return weights + self._context * self._settings["slots"] * card.kv_bytes_per_token + 2e8

    def _listen(self, stderr: IO[str]) -> None:
        with stderr:
            for line in stderr:
                self._last_words.append(line)
                log.debug("llama.cpp: %s", line.rstrip())

    def _stillborn(self, card: Card) -> EngineError:
        words = " ".join(self._last_words)
        if "failed to allocate" in words or "bad_alloc" in words or "unable to allocate" in words:
            return OutOfMemory(f"There is not enough memory to load {card.name}.")
        return EngineDied(f"The engine could not load {card.name}.", "Try again, or choose another model.")


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 once it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the child now: there is nothing in it to save."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
