"""The panel of one tab without a browser, and a visitor in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from backends.engine.engine import Engine
from ui.conversation.tabs import tab
from ui.gradio_joint.lean_gradio import LeanBlocks
from ui.screen.desk import Values
from ui.screen.panel import Panel, build_panel

VISITOR: Any = SimpleNamespace(cookies={}, headers={}, session_hash="a page")


def panel_of(engines: Mapping[str, Engine], tab_id: str = "chat") -> Panel:
    """Made while an event loop runs: gradio would else make some and leave them to the garbage collector."""

    async def made() -> Panel:
        with LeanBlocks(analytics_enabled=False):
            return build_panel(tab(tab_id), engines)

    with ThreadPoolExecutor(1) as thread:  # this one may be running the event loop of the browser's tests
        return thread.submit(asyncio.run, made()).result()


def standing(panel: Panel, **changed: Any) -> Values:
    """What the components of a fresh page stand at, but for those `changed` by name."""
    values = {component: component.value for component in panel.everything}
    return values | {getattr(panel, name): value for name, value in changed.items()}
