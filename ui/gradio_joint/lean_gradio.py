"""Gradio without five costs that a small machine feels while a model writes on it, fetching nothing for anybody, and
telling the log no words of anybody's.

- An output that a handler leaves alone is made anew at every step of a stream, its signature and JSON schema included.
- The queue looks for new events every millisecond, and for the progress of `gr.Progress` every ten.
- Every step looks through the whole import path for matplotlib, twice, where it is not installed.
- Every page has its own copy of everything that it shows, anew at every step, for links that nobody can make.
- Every answer makes a table of the last ten thousand with pandas, for a dashboard that is switched off.
- Whatever a caller sends in the shape of a file is looked for, and fetched where its path is a URL.
- An exception in a handler is printed as it is, and many of gradio's own quote the value that they refuse; the visitor
  is told 'Error' (see `ui/gradio_joint/exceptions.py`).

Each reaches into Gradio 6.31; tests hold them against the original, and without them everything works, only slower.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from types import SimpleNamespace
from typing import Any

import gradio as gr
import gradio.queueing
import gradio.route_utils
import gradio.routes
import gradio.state_holder
import orjson
from gradio.blocks import Block
from gradio.i18n import I18nData
from gradio.queueing import Queue
from gradio.state_holder import SessionState
from gradio.utils import safe_aclose_iterator, set_task_name
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse

from backends.core.logs import logger
from ui.conversation.texts import speaker
from ui.gradio_joint.exceptions import Unfit, refusal
from ui.visitors.owners import KEPT_SECONDS, is_theirs, new_page
from ui.visitors.people import NAMELESS, visitor

log = logger(__name__)


def _log_exception() -> None:
    log.error("a handler of the page failed", exc_info=True)


for module in (gradio.queueing, gradio.routes, gradio.route_utils):
    module.traceback = SimpleNamespace(print_exc=_log_exception)

IDLE_SECONDS = 1.0  # between two looks while nothing waits; also how long the queue takes to notice its end

if importlib.util.find_spec("matplotlib") is None:
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # Python's own way to remember that it is missing


_running: ContextVar[Any] = ContextVar("running", default=None)
"""The iterator of the handler that takes its next step, to be closed if what it gave cannot be shown."""


class LeanBlocks(gr.Blocks):  # type: ignore[misc]
    def queue(self, *args: Any, **kwargs: Any) -> LeanBlocks:
        super().queue(*args, **kwargs)
        self._queue.__class__ = WokenQueue
        self._queue.pushed = asyncio.Event()
        self._queue.ANALYTICS_MAX_EVENTS = 1
        self._queue.progress_update_sleep_when_free = IDLE_SECONDS
        return self

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As gradio's, for the owner of the session alone, whichever way it was named."""
        request = kwargs.get("request")
        page, asker = getattr(request, "session_hash", None), visitor(request)
        if page and asker is not NAMELESS and not is_theirs(page, asker):
            raise PermissionError("this page is somebody else's")
        running = _running.set(kwargs.get("iterator"))
        try:
            done: dict[str, Any] = await super().process_api(*args, **kwargs)
            orjson.dumps(done["data"], default=str)  # or it would break the stream that all of a page's answers share
            return done
        except Unfit:
            raise
        except Exception as exc:
            if (iterator := _running.get()) is not None:
                await safe_aclose_iterator(iterator)  # nobody else knows it yet, if this was its first step
            raise refusal(exc) from exc
        finally:
            _running.reset(running)

    async def call_function(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        called: dict[str, Any] = await super().call_function(*args, **kwargs)
        _running.set(called["iterator"])
        return called

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        try:
            super().validate_inputs(block_fn, inputs)
        except ValueError as exc:
            raise Unfit(*exc.args) from exc

    @staticmethod
    def _format_processing_error(
        block_fn: Any, index: int, block: Any, value: Any, is_input: bool, original_error: Exception
    ) -> str:
        """One sentence for a visitor, where gradio writes a report for a developer."""
        if not is_input:
            raise original_error
        return f"{_name(block)} cannot be {value!r:.40}."

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """As gradio's, to which only an upload is a file; what else has the shape of one comes in as plain data."""
        plain = [_plain(value, block) for value, block in zip(inputs, block_fn.inputs, strict=False)]
        left = inputs[len(plain) :]  # too few or too many are gradio's to refuse
        try:
            return await super().preprocess_data(block_fn, plain + left, *args, **kwargs)  # type: ignore[no-any-return]
        except gr.Error as exc:
            for value, block in zip(plain, block_fn.inputs, strict=False):
                if not block.stateful and _refuses(block, value):
                    raise gr.Error(f"{_name(block)}: {exc.message}", print_exception=False) from exc
            raise

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list[Any]:
        """As gradio's, for those outputs only that a dict of updates names."""
        by_block = isinstance(predictions, dict) and predictions and all(isinstance(key, Block) for key in predictions)
        if not by_block or len(predictions) == len(block_fn.outputs):
            return await super().postprocess_data(block_fn, predictions, state)  # type: ignore[no-any-return]
        given = {block._id: value for block, value in predictions.items()}
        touched = copy(block_fn)
        touched.outputs = [block for block in block_fn.outputs if block._id in given]
        values = [given[block._id] for block in touched.outputs]
        done = await super().postprocess_data(touched, values if len(values) > 1 else values[0], state)
        by_id = dict(zip((block._id for block in touched.outputs), done, strict=True))
        return [by_id.get(block._id, None if block.stateful else {"__type__": "update"}) for block in block_fn.outputs]


def _name(block: Any) -> str:
    """What a visitor knows a component by."""
    label = getattr(block, "label", None)
    return speaker("en")(label.key) if isinstance(label, I18nData) else str(label or block.get_block_name())


def _refuses(block: Any, value: Any) -> bool:
    try:
        block.preprocess(value)
    except gr.Error:
        return True
    except Exception:
        return False
    return False


def _plain(value: Any, block: Any) -> Any:
    """`value` without the mark by which gradio tells a file, where that is none of this component's or a URL."""
    takes_files = getattr(block, "data_model", None) is not None

    def is_no_file(found: Any) -> bool:
        return is_file_obj_with_meta(found) and (not takes_files or is_http_url_like(found["path"]))

    return traverse(value, lambda found: {k: v for k, v in found.items() if k != "meta"}, is_no_file)


class LeanSession(SessionState):  # type: ignore[misc]
    """What the server keeps of a page: the values of its states, and the components that were changed for it."""

    def __init__(self, blocks: gr.Blocks) -> None:
        self.blocks_config = copy(blocks.default_config)
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = KEPT_SECONDS

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        self.config_values.clear()

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


gradio.state_holder.SessionState = LeanSession


class WokenQueue(Queue):  # type: ignore[misc]
    """Woken by what is put into it. Only while something waits for a place does it look again by itself."""

    pushed: asyncio.Event
    stopped: bool

    def compute_analytics_summary(self, records: list[Any]) -> dict[str, Any]:
        """Gradio's own, of nothing."""
        return {"functions": {}}

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """As gradio's; a call that names no session gets one of its caller's, instead of the event's own name."""
        asker = getattr(request.state, "visitor", NAMELESS)
        if not body.session_hash and asker is not NAMELESS:
            body.session_hash = new_page(asker)
        try:
            return await super().push(body, request, username)
        finally:
            self.pushed.set()

    async def start_processing(self) -> None:
        try:
            while not self.stopped:
                with suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(self.pushed.wait(), self.sleep_when_free if len(self) else IDLE_SECONDS)
                self.pushed.clear()
                async with self.delete_lock:
                    while None in self.active_jobs and (batch := self.get_events()):
                        self._begin(*batch)
        finally:
            self.stopped = True
            self._cancel_asyncio_tasks()

    def _begin(self, events: list[Any], batch: bool, concurrency_id: str) -> None:
        """The bookkeeping of gradio's own loop."""
        began, fn, line = time.time(), events[0].fn, self.event_queue_per_concurrency_id[concurrency_id]
        self.active_jobs[self.active_jobs.index(None)] = events
        line.current_concurrency += 1
        line.start_times_per_fn[fn].add(began)
        for event in events:
            if (analytics := self.event_analytics.get(event._id)) is not None:
                analytics["status"] = "processing"
        task = asyncio.create_task(self.process_events(events, batch, began, fn))
        set_task_name(task, events[0].session_hash, fn._id, events[0]._id, batch)
        self._asyncio_tasks.add(task)
        task.add_done_callback(self._asyncio_tasks.discard)
        if self.live_updates:
            self.broadcast_estimations(concurrency_id)
