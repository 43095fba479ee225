"""Gathers the events of running answers into batches, so that the screen is drawn as often as an eye can follow.

The first word of an answer goes out at once, so do its end and every sign of progress; between them a batch is at
least `interval()` seconds after the last one, and drawing takes at most a fifth of the time. Knows nothing of what the
events mean beyond that.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from backends.core.errors import Fault
from backends.core.logs import logger
from backends.core.types import Answer, Event, Failure, Thought

log = logger(__name__)

Tagged = tuple[str, Event]

REST = 4.0
"""How many times as long as it took to draw a batch the next one waits: one processor also writes the answer."""
LONGEST_REST_SECONDS = 2.0


def paced(sources: Mapping[str, Iterator[Event]], interval: Callable[[], float]) -> Iterator[list[Tagged]]:
    """Events of all sources, tagged with their source's name, in order within a source, in batches.

    Each source runs in a thread of its own, from this call on, and is read to its end even if the caller stops early:
    the caller cancels it by the means that its events have.
    """
    events: queue.SimpleQueue[tuple[str, Event | None]] = queue.SimpleQueue()
    for name, source in sources.items():
        work = contextvars.copy_context().run  # what belongs to the visitor's request goes along
        threading.Thread(target=work, args=(_pump, name, source, events), name=f"answer {name}", daemon=True).start()
    return _batches(events, len(sources), interval)


def _batches(
    events: queue.SimpleQueue[tuple[str, Event | None]], running: int, interval: Callable[[], float]
) -> Iterator[list[Tagged]]:
    started: set[str] = set()  # sources whose first word is out
    last = drawn_s = 0.0

    def due() -> float:
        return last + max(interval(), min(REST * drawn_s, LONGEST_REST_SECONDS))

    batch: list[Tagged] = []
    while running:
        wait = max(0.0, due() - time.monotonic()) if batch else None
        try:
            name, event = events.get(timeout=wait)
        except queue.Empty:
            event, name = None, ""
        else:
            if event is None:
                running -= 1
            else:
                batch.append((name, event))
                is_word = isinstance(event, Thought | Answer)
                urgent = not is_word or name not in started
                if is_word:
                    started.add(name)
                if not urgent and time.monotonic() < due():
                    continue
        if batch:
            began = time.monotonic()
            yield batch
            batch, last = [], time.monotonic()
            drawn_s = last - began


def _pump(name: str, source: Iterator[Event], events: queue.SimpleQueue[tuple[str, Event | None]]) -> None:
    try:
        for event in source:
            events.put((name, event))
    except Exception:  # engines promise that it never comes to that
        fault = Fault()
        log.exception("a fault of the playground itself", number=fault.number)
        events.put((name, Failure.of(fault)))
    finally:
        events.put((name, None))
