"""The page as a whole: head, tabs, theme, and how it is launched."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from backends.engine import Engine
from backends.pictures import MAX_BYTES
from ui import api
from ui.desk import Desk, Update, Values
from ui.doors import Doors
from ui.handlers import QUICK, restored, wire
from ui.lean_gradio import LeanBlocks
from ui.panel import build_panel
from ui.people import People
from ui.sessions import Sessions
from ui.tabs import TABS
from ui.texts import LANGUAGES, dictionaries, i18n, label, say_for
from ui.uploads import FORGET_SECONDS

FOLDER = Path(__file__).parent
LOOPBACK = ("localhost", "127.0.0.1", "::1")
THREADS = 256  # each answer that streams holds one; the rest is Gradio's own need
FONT = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Noto Sans Mono", "monospace"]


def theme() -> gr.themes.Base:
    """Calm greys and one violet; fonts of the visitor's own machine, so that nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue="violet", neutral_hue="slate", radius_size="md", spacing_size="md", font=FONT, font_mono=MONO
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_border_width="0px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
    )


def build(engines: Mapping[str, Engine]) -> gr.Blocks:
    """The playground's Blocks, ready to launch; the first engine is the default. Loads no model."""
    sessions = Sessions()
    forget = (FORGET_SECONDS // 2, FORGET_SECONDS)  # how often uploads are looked at, and how old they may get
    with LeanBlocks(title="Qwen playground", analytics_enabled=False, fill_height=True, delete_cache=forget) as blocks:
        with gr.Row(elem_classes="masthead"):
            where = _head()
        desks: list[Desk] = []
        tabs: list[gr.Tab] = []
        with gr.Tabs(elem_classes="tabs"):
            for spec in TABS:
                with gr.Tab(label(f"tab_{spec.id}"), id=spec.id, elem_id=f"tab-{spec.id}") as tab:
                    tabs.append(tab)
                    desks.append(Desk(build_panel(spec, engines), engines, sessions))
        for state in (state for desk in desks for state in desk.panel.kept):
            state.render()  # a tab's own would not be read before the tab is looked at
        tunings = [wire(desk) for desk in desks]

        def restore(values: Values, request: gr.Request) -> Update:
            say = say_for(request)  # tabs do not follow a change of language by themselves
            host = request.url.hostname or ""
            text = say("where_here") if host in LOOPBACK else say("where_host", host=host)
            if any(engine.place for engine in engines.values()):
                text = say("where_engines")
            updates: Update = {where: f"<p>{html.escape(text)}</p>"}
            updates |= {tab: gr.update(label=say(f"tab_{tab.id}")) for tab in tabs}
            for tuning in tunings:
                pictures = tuning.panel.pictures
                album = values[pictures.album] if pictures else None
                updates |= tuning.restore(values[tuning.panel.saved], album, request)
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


def launch_options(host: str, port: int, proxies: int = 0) -> dict[str, Any]:
    """The arguments of `Blocks.launch`. `proxies`: how many of the host's own stand in front of this server."""
    return {
        "server_name": host,
        "server_port": port or None,
        "theme": theme(),
        "css_paths": FOLDER / "style.css",
        "head": f"<script>{_script()}</script>",
        "i18n": i18n(),
        "run_history": False,  # would list every visitor's texts to the next one at the same computer
        "footer_links": [],
        "max_threads": THREADS,
        "max_file_size": 2 * MAX_BYTES,  # what is a little too large gets our own sentence
        "show_error": False,
        "share": False,
        "quiet": True,
        "ssr_mode": False,
        "app_kwargs": {"routes": [Route("/healthz", _healthz)], "middleware": [Middleware(Doors, People(proxies))]},
    }


async def _healthz(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


def _stands_at(component: Any, update: Any) -> bool:
    """Whether a page that has just been opened shows this already; every update that is left out saves time."""
    is_update = isinstance(update, dict) and "__type__" in update
    given = {name: value for name, value in update.items() if name != "__type__"} if is_update else {"value": update}
    return all(getattr(component, name, None) == value for name, value in given.items())


def _script() -> str:
    """page.js with the names of the buttons that gradio leaves unnamed, in every language."""
    keys = ("send", "stop", "download_code", "language", "theme", "take_photo", "close", "no_camera")
    names = {code: {key: texts[key] for key in keys} for code, texts in dictionaries().items()}
    script = (FOLDER / "page.js").read_text("utf-8")
    return script.replace("/* NAMES */ {}", json.dumps(names, ensure_ascii=False))


def _head() -> gr.HTML:
    """Name, where the text goes (returned), language, light or dark; gradio translates one label in each piece."""
    options = "".join(f"<option value='{code}'>{html.escape(name)}</option>" for code, name in LANGUAGES.items())
    gr.HTML(f"<h1>{label('title')}</h1>")
    where = gr.HTML(elem_classes="where")
    gr.HTML(f"<select id='language-picker'>{options}</select>")
    gr.HTML("<button id='theme-toggle' type='button'>◐</button>")
    return where
