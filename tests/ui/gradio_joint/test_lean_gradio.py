"""LeanBlocks gives what gradio's own Blocks give, leaves alone what a handler leaves alone, and sleeps when idle."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio import processing_utils
from gradio.state_holder import SessionState
from gradio_client import Client

from ui.gradio_joint.lean_gradio import LeanBlocks, WokenQueue

NAMES = ("text", "chat", "state", "saved", "button")


@pytest.fixture(autouse=True)
def gradios_own_leaks() -> Iterator[None]:
    """Blocks that are never launched leave an event loop behind; collected here, so that no other test pays for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def processed(kind: type[gr.Blocks], given: tuple[str, ...]) -> list[Any]:
    """What the outputs of a handler that names only `given` come to."""
    with kind(analytics_enabled=False) as blocks:
        outputs = {
            "text": gr.Textbox(),
            "chat": gr.Chatbot(),
            "state": gr.State(0),
            "saved": gr.BrowserState(None, storage_key="k", secret="s"),
            "button": gr.Button(),
        }
        values = {
            "text": gr.update(value="new", submit_btn=True),
            "chat": [{"role": "user", "content": "hi"}],
            "state": 7,
            "saved": {"a": 1},
            "button": gr.update(visible=False),
        }
        outputs["text"].submit(lambda: None, None, list(outputs.values()))
    (function,) = blocks.fns.values()
    predictions = {outputs[name]: values[name] for name in given}

    def process() -> list[Any]:
        return asyncio.run(blocks.postprocess_data(function, predictions, SessionState(blocks)))

    with ThreadPoolExecutor(1) as thread:  # this one may be running the event loop of the browser's tests
        return thread.submit(process).result()


@pytest.mark.parametrize(
    "given",
    [
        ("text",),
        ("chat",),
        ("state", "chat"),
        ("text", "button", "saved"),
        ("text", "chat", "state", "saved", "button"),
    ],
    ids="-".join,
)
def test_what_is_named_comes_out_as_from_gradio_itself(given: tuple[str, ...]) -> None:
    lean, plain = processed(LeanBlocks, given), processed(gr.Blocks, given)
    for name, ours, theirs in zip(NAMES, lean, plain, strict=True):
        if name in given:
            assert ours == theirs, name
        else:
            assert ours in (None, {"__type__": "update"}), name


URL = "https://example.com/cat.png"
META = {"_type": "gradio.FileData"}


def taken(kind: type[gr.Blocks], given: list[Any]) -> list[Any]:
    """What a handler gets of what a caller sends for an upload and for plain data."""
    with kind(analytics_enabled=False) as blocks:
        inputs = [gr.UploadButton(file_count="multiple"), gr.JSON()]
        inputs[0].upload(lambda *values: None, inputs, None)
    (function,) = blocks.fns.values()

    def process() -> list[Any]:
        return asyncio.run(blocks.preprocess_data(function, given, SessionState(blocks)))

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(process).result()


def test_what_was_uploaded_comes_in_as_from_gradio_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "cat.png").write_bytes(b"a cat")
    given = [[{"path": str(tmp_path / "cat.png"), "meta": META}], {"a": [1, None, "x"]}]
    lean = taken(LeanBlocks, given)
    assert lean == taken(gr.Blocks, given)
    assert lean[0] == [str(tmp_path / "cat.png")]


def test_a_url_is_not_fetched_whatever_it_is_given_to(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    async def fetch(url: str, **more: Any) -> str:
        fetched.append(url)
        return "/tmp/cat.png"

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    file = {"path": URL, "url": URL, "meta": META}
    assert taken(LeanBlocks, [None, {"a": [file]}]) == [None, {"a": [{"path": URL, "url": URL}]}]
    with pytest.raises(ValueError, match="meta"):
        taken(LeanBlocks, [[file], None])
    assert fetched == []
    taken(gr.Blocks, [None, {"a": [file]}])
    assert fetched == [URL], "gradio does not do it any more: there is no need to take care"


@pytest.fixture
def served() -> Iterator[tuple[gr.Blocks, Client]]:
    """Two endpoints: one that takes everybody at once, and one that takes a single event at a time."""
    alone = threading.Lock()

    def one_by_one(number: int) -> int:
        assert alone.acquire(blocking=False), "two at once"
        time.sleep(0.02)
        alone.release()
        return number

    def at_once(number: int) -> int:
        return number

    with LeanBlocks(analytics_enabled=False) as blocks:
        gr.api(at_once, api_name="many", concurrency_limit=None)
        gr.api(one_by_one, api_name="single", concurrency_limit=1)
    blocks.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    client = Client(blocks.local_url, verbose=False)
    yield blocks, client
    client.close()
    blocks.close()


@pytest.mark.parametrize("endpoint", ["many", "single"])
def test_every_event_is_answered_whether_places_are_limited_or_not(
    served: tuple[gr.Blocks, Client], endpoint: str
) -> None:
    _, client = served
    jobs = [client.submit(number, api_name=f"/{endpoint}") for number in range(20)]
    assert [job.result(timeout=30) for job in jobs] == list(range(20))


def test_an_idle_queue_sleeps(served: tuple[gr.Blocks, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio's own looks five hundred times in half a second."""
    looks: list[float] = []
    monkeypatch.setattr(WokenQueue, "__len__", lambda queue: looks.append(time.monotonic()) or 0)
    time.sleep(0.5)
    assert len(looks) <= 5
