"""How soon Stop frees the engine's slot, while it writes and while it reads, and whether any stop leaves one busy."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

from backends.adapters.llama_cpp.adapter import LlamaCpp
from backends.core.cancel import Controls
from backends.core.types import Answer, GenerationRequest, Loading, Message, Sampling
from backends.engine.engine import Engine
from bench.apps import STARTER
from bench.report import Figure, median, ms, p95
from bench.script import prose

QUESTION = "Tell me a long story about a lighthouse keeper, in many paragraphs."
GRACE_SECONDS = 0.1
POLL_SECONDS = 0.003


def measure_stops(engine: Engine, backend: LlamaCpp, writing: int, reading: int) -> Iterator[Figure]:
    """Stops at varied points of answers, and of long prompts, where the server looks up between two batches only."""
    random.seed(4)
    token_s = _seconds_per_token(engine)
    written = [_stop_while_writing(engine, backend, after=random.randint(1, 12)) for _ in range(writing)]
    read = [_stop_while_reading(engine, backend, k, share=random.uniform(0.05, 0.7)) for k in range(reading)]
    left = backend.busy_slots()
    limit = token_s + GRACE_SECONDS
    yield Figure(
        "Stop to slot free, while the answer is written",
        "one token and 100 ms",
        f"{ms(median(written))}, p95 {ms(p95(written))}, most {ms(max(written))}",
        ms(limit),
        str(writing),
        target="one token + 100 ms",
        met=max(written) <= limit,
        note="Qwen2.5-Coder 0.5B; from `cancel()` until the server says that no slot is busy, asked every "
        f"{1000 * POLL_SECONDS:.0f} ms, after 1 to 12 tokens; one token takes {ms(token_s)}. The slowest one counts.",
    )
    yield Figure(
        "Stop to slot free, while a long prompt is read",
        "",
        f"{ms(median(read))}, p95 {ms(p95(read))}, most {ms(max(read))}",
        "",
        str(reading),
        note="for information: a prompt of about 900 tokens, stopped after 5 to 70 % of it; llama.cpp looks between "
        "two batches of 64 tokens whether anyone still listens.",
    )
    yield Figure(
        f"slots still busy after {writing + reading} stops",
        "",
        str(left),
        "",
        str(writing + reading),
        target="none",
        met=left == 0 and not any(model.line.running for model in engine.models.loaded()),
        note="as the server says; the playground's own line in front of it must be empty, too.",
    )


def _request(engine: Engine, text: str) -> GenerationRequest:
    sampling = Sampling(temperature=0.7, max_new_tokens=400, seed=random.randrange(2**31))
    return GenerationRequest(engine.models.catalog.get(STARTER), (Message.of("user", text),), sampling)


def _seconds_per_token(engine: Engine) -> float:
    """Between two pieces of an answer that nobody stops."""
    times = [time.perf_counter() for e in engine.run(_request(engine, QUESTION), Controls()) if isinstance(e, Answer)]
    return median([after - before for before, after in pairwise(times)])


def _stop_while_writing(engine: Engine, backend: LlamaCpp, after: int) -> float:
    controls, answers = Controls(), 0
    reached = threading.Event()

    def reader() -> None:
        nonlocal answers
        for event in engine.run(_request(engine, QUESTION), controls):
            answers += isinstance(event, Answer)
            if answers == after:
                reached.set()

    return _stopped(reader, reached, random.uniform(0, 0.03), controls, backend)


def _stop_while_reading(engine: Engine, backend: LlamaCpp, k: int, share: float) -> float:
    controls, reached = Controls(), threading.Event()
    text = f"Text {k} {random.random()}: {prose(700, k)}"  # begins differently, so that nothing of it is cached

    def reader() -> None:
        for event in engine.run(_request(engine, text), controls):
            if isinstance(event, Loading) and event.stage == "reading" and (event.fraction or 0) >= share:
                reached.set()

    return _stopped(reader, reached, random.uniform(0, 0.3), controls, backend)


def _stopped(
    reader: Callable[[], None], reached: threading.Event, later_s: float, controls: Controls, backend: LlamaCpp
) -> float:
    """Seconds from cancelling, a little after `reached`, until no slot is busy."""
    thread = threading.Thread(target=reader)
    thread.start()
    if not reached.wait(60):
        raise RuntimeError("the answer ended before it could be stopped")
    time.sleep(later_s)
    started = time.perf_counter()
    controls.cancel()
    while backend.busy_slots():
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - started
    thread.join()
    return seconds
