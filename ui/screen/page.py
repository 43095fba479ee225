"""The page as a whole: its head, its tabs, and what happens when it is opened and left."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import gradio as gr

from backends.engine.engine import Engine
from backends.machine.machine import THIS_MACHINE
from ui.conversation.tabs import TABS
from ui.conversation.texts import LANGUAGES, say_for
from ui.gradio_joint.lean_gradio import LeanBlocks
from ui.screen import api
from ui.screen.desk import Desk, Update, Values
from ui.screen.handlers import QUICK, restored, wire
from ui.screen.labels import label
from ui.screen.panel import build_panel
from ui.screen.status.tab import Status
from ui.visitors.people import visitor
from ui.visitors.sessions import Sessions
from ui.visitors.uploads import FORGET_SECONDS


def build(engines: Mapping[str, Engine], sessions: Sessions | None = None, *, huggingface: bool = False) -> gr.Blocks:
    """The playground's Blocks, ready to launch; the first engine is the default. Loads no model.

    `huggingface`: people sign in with it, for which gradio wants to see its button.
    """
    sessions = sessions or Sessions()
    forget = (FORGET_SECONDS // 2, FORGET_SECONDS)  # how often uploads are looked at, and how old they may get
    with LeanBlocks(title="Qwen playground", analytics_enabled=False, fill_height=True, delete_cache=forget) as blocks:
        with gr.Row(elem_classes="masthead"):
            where = _head()
            if huggingface:
                gr.LoginButton(visible="hidden")
        desks: list[Desk] = []
        tabs: list[gr.Tab] = []
        with gr.Tabs(elem_classes="tabs"):
            for spec in TABS:
                with gr.Tab(label(f"tab_{spec.id}"), id=spec.id, elem_id=f"tab-{spec.id}") as tab:
                    tabs.append(tab)
                    desks.append(Desk(build_panel(spec, engines), engines, sessions))
            with gr.Tab(label("tab_status"), id="status", elem_id="tab-status") as status_tab:
                status = Status(engines)
        status.wire(status_tab, tabs, QUICK)
        tabs = [*tabs, status_tab]
        for state in (state for desk in desks for state in desk.panel.kept):
            state.render()  # a tab's own would not be read before the tab is looked at
        tunings = [wire(desk) for desk in desks]

        def restore(values: Values, request: gr.Request) -> Update:
            say = say_for(request)  # tabs do not follow a change of language by themselves
            host = request.url.hostname or ""
            text = say("where_here") if host in THIS_MACHINE else say("where_host", host=host)
            if any(engine.place for engine in engines.values()):
                text = say("where_engines")
            if name := visitor(request).name:
                text = f"{name} · {text}"
            updates: Update = {where: f"<p>{html.escape(text)}</p>"}
            updates |= {tab: gr.update(label=say(f"tab_{tab.id}")) for tab in tabs}
            for tuning in tunings:
                pictures = tuning.panel.pictures
                album = values[pictures.album] if pictures else None
                saved, growing = values[tuning.panel.saved], values[tuning.panel.growing]
                updates |= tuning.restore(saved, album, request, growing)
            return {component: update for component, update in updates.items() if not _stands_at(component, update)}

        blocks.load(
            restore,
            {state for desk in desks for state in desk.panel.kept},
            [where, *tabs, *(component for desk in desks for component in restored(desk.panel))],
            **QUICK,
        )

        def leave(request: gr.Request) -> None:
            sessions.close(request.session_hash or "")

        blocks.unload(leave)
        blocks.queue(api_open=False, default_concurrency_limit=None)  # nobody passes the line by a direct call
        api.attach(next(iter(engines.values())))
    return blocks


def _stands_at(component: Any, update: Any) -> bool:
    """Whether a page that has just been opened shows this already; every update that is left out saves time."""
    is_update = isinstance(update, dict) and "__type__" in update
    given = {name: value for name, value in update.items() if name != "__type__"} if is_update else {"value": update}
    return all(getattr(component, name, None) == value for name, value in given.items())


def _head() -> gr.HTML:
    """Name, where the text goes (returned), language, light or dark; gradio translates one label in each piece."""
    options = "".join(f"<option value='{code}'>{html.escape(name)}</option>" for code, name in LANGUAGES.items())
    gr.HTML(f"<h1>{label('title')}</h1>")
    where = gr.HTML(elem_classes="where")
    gr.HTML(f"<select id='language-picker'>{options}</select>")
    gr.HTML("<button id='forget-me' type='button'>⏏</button><button id='theme-toggle' type='button'>◐</button>")
    return where
