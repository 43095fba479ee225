"""Generation on a Space with ZeroGPU, where a graphics card is lent for one call at a time.

The card is there only inside a function that `spaces.GPU` wraps, which runs in a forked worker. Models are loaded in
the main process when the app starts; threads do not cross the fork, so each call has a loop of its own.
Written after the documentation of `spaces`; not run on a Space by the people who wrote it.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import spaces

from backends.adapters.hf_transformers.decoding import Decoder
from backends.adapters.hf_transformers.jobs import End, Job, Told
from backends.adapters.hf_transformers.prompts import Prompt
from backends.core.errors import EngineError
from backends.core.types import Sampling

log = logging.getLogger(__name__)

SECONDS_TO_START, SECONDS_A_TOKEN, MOST_SECONDS = 15, 0.04, 120  # what a call asks of the visitor's quota

_models: dict[int, tuple[Any, frozenset[int], int]] = {}  # seen by the worker as they were when it was forked


def _seconds(model: int, prompt: Prompt, sampling: Sampling, limit: int, logprobs: int) -> float:
    return min(MOST_SECONDS, SECONDS_TO_START + SECONDS_A_TOKEN * limit)


@spaces.GPU(duration=_seconds)  # type: ignore[untyped-decorator]
def _answer(model: int, prompt: Prompt, sampling: Sampling, limit: int, logprobs: int) -> Iterator[Told]:
    """In the worker: everything that the loop tells about one request."""
    loaded, ends, capacity = _models[model]
    decoder = Decoder(loaded, ends, 1, capacity)
    job = Job(prompt, sampling, limit, logprobs)
    try:
        decoder.submit(job)
        yield from job.events()
    finally:
        job.cancelled.set()
        decoder.close()


class ZeroGpuDecoder:
    """Stands where `Decoder` stands elsewhere; each request is a call of its own."""

    slots = 1

    def __init__(self, model: Any, ends: frozenset[int], slots: int, capacity: int) -> None:
        _models[id(self)] = model, ends, capacity

    def submit(self, job: Job) -> None:
        # The visitor's quota is told by the request that is being served, which travels in the context.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._relay, job), name="zero gpu", daemon=True).start()

    def close(self) -> None:
        _models.pop(id(self), None)

    def _relay(self, job: Job) -> None:
        last: Told = End("cancelled", 0)
        try:
            with closing(_answer(id(self), job.prompt, job.sampling, job.limit, job.logprobs)) as telling:
                for told in telling:
                    if isinstance(told, End | Exception):
                        last = told
                    elif not job.cancelled.is_set():
                        job.told.put(told)
                        continue
                    break
        except Exception as exc:  # the quota is spent, or no card is free
            log.warning("the Space lent no graphics card: %s", type(exc).__name__)
            last = EngineError("The Space lent no graphics card for this answer.", "Wait a while and send again.")
        job.told.put(last)
