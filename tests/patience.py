"""How long a test waits for what must come: far more than anything takes, so that only a broken one gets there.

What a test asks is the thing itself: what was read, written, said or let go of, and in which order. How long something
takes on a quiet machine is measured by `make bench`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE_S = 60.0
FOREVER_S = 3600.0  # for what is not to come by itself: whoever waits for it is found out after `PATIENCE_S`


def eventually(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Returns once it is so."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def ended(work: Callable[[], Result]) -> Result:
    """What the work comes to, in a thread of its own: work that hangs fails its test instead of holding it up."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future.result(PATIENCE_S)


def grows_in_proportion(work: Callable[[int], object], length: int) -> None:
    """Four times the length takes less than eight times as long; what is quadratic takes sixteen times.

    In seconds of this thread's own work, the best of three, so that neither a slow machine nor a busy one matters.
    """
    short, long = (min(_worked(work, times * length + more) for more in range(3)) for times in (1, 4))  # none is cached
    assert long < 8 * short + 0.02, f"{short:.3f} s, and {long:.3f} s for four times the length"


def _worked(work: Callable[[int], object], length: int) -> float:
    began = time.thread_time()
    work(length)
    return time.thread_time() - began
