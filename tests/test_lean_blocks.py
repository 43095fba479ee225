"""LeanBlocks gives what gradio's own Blocks give, and leaves alone what a handler leaves alone."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from ui.lean_blocks import LeanBlocks

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
