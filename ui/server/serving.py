"""How the page is served: theme, stylesheet, script, and the doors and routes in front of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from backends.engine.engine import Engine
from backends.engine.gate import LAST_WORDS_SECONDS, Gate
from backends.pictures.decoder import MAX_BYTES
from ui.conversation.texts import dictionaries
from ui.gradio_joint import http_server as gradio_server
from ui.screen.labels import i18n
from ui.screen.page import build
from ui.server.doors import Doors
from ui.server.health import health_routes
from ui.server.routes import GRADIO, OwnRoute
from ui.server.sign_in import SignInPages
from ui.visitors import owners
from ui.visitors.people import People
from ui.visitors.sessions import Sessions
from ui.visitors.uploads import forget_broken_off

FOLDER = Path(__file__).resolve().parents[1] / "static"
THREADS = 256  # each answer that streams holds one; the rest is Gradio's own need
FONT = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Noto Sans Mono", "monospace"]
SWEEP_SECONDS = 60.0


def serve(
    engines: Mapping[str, Engine],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    people: People | None = None,
    trusted_hosts: tuple[str, ...] = (),
    frame_hosts: tuple[str, ...] = (),
) -> gr.Blocks:
    """The playground, served in threads of its own; `.local_url` says where. Loads no model.

    `port` 0 takes a free one. `trusted_hosts`: the names under which it may be reached, all where there are none;
    `frame_hosts`: the origins of pages that may show it in a frame.
    """
    people, sessions = people or People(alone=True), Sessions()
    own = [
        OwnRoute("/page.js", _script, "signed_in"),
        *health_routes(engines),
        *SignInPages(people, sessions).routes,
    ]
    gradio_server.install()
    blocks = build(engines, sessions, huggingface=people.sign_in.huggingface)
    blocks.launch(
        server_name=host,
        server_port=port or None,
        theme=theme(),
        css_paths=FOLDER / "style.css",
        i18n=i18n(),
        run_history=False,  # would list every visitor's texts to the next one at the same computer
        footer_links=[],
        max_threads=THREADS,
        max_file_size=2 * MAX_BYTES,  # what is a little too large gets our own sentence
        show_error=False,
        share=False,
        quiet=True,
        ssr_mode=False,
        prevent_thread_lock=True,
        app_kwargs={
            "routes": own,
            "middleware": [
                Middleware(Doors, people, (*(route.row for route in own), *GRADIO), trusted_hosts, frame_hosts)
            ],
        },
    )
    threading.Thread(target=_sweep, args=(blocks,), name="sweeper", daemon=True).start()
    return blocks


def stop(blocks: gr.Blocks, gate: Gate, grace_s: float) -> None:
    """Lets running answers end for `grace_s` seconds, tells the rest why they stop, and serves no more."""
    gate.close(grace_s)
    until = time.monotonic() + LAST_WORDS_SECONDS
    while not _all_told(blocks) and time.monotonic() < until:
        time.sleep(0.05)  # gradio tells nobody when it has sent what it had to send
    blocks.close(verbose=False)


def _all_told(blocks: gr.Blocks) -> bool:
    queue = blocks._queue
    unsent = (messages for messages in list(queue.pending_messages_per_session.values()))
    return not any(queue.active_jobs) and all(messages.empty() for messages in unsent)


def _sweep(blocks: gr.Blocks) -> None:
    """Forgets what nobody comes back to, for as long as the page is served."""
    while blocks.is_running:
        owners.sweep(blocks.app.state_holder)
        forget_broken_off()
        time.sleep(SWEEP_SECONDS)


def theme() -> gr.themes.Base:
    """Calm greys and one violet; fonts of the visitor's own machine, so that nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue="violet", neutral_hue="slate", radius_size="md", spacing_size="md", font=FONT, font_mono=MONO
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_border_width="0px",
        # Quiet, and still 4.5 to 1 on everything that they stand on.
        body_text_color_subdued="*neutral_600",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_400",
        block_title_text_color="*neutral_600",
        block_label_text_color="*neutral_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
    )


async def _script(request: Request) -> Response:
    """storage.js and page.js with the names of the buttons that gradio leaves unnamed, in every language."""
    keys = (
        "send", "stop", "download_code", "copy_code", "copy_text", "language", "theme", "take_photo", "close",
        "no_camera", "forget_me", "forget_sure", "restarting", "transcript", "asked", "answered", "keep_forbidden",
        "keep_full", "keep_second",
    )  # fmt: skip
    names = {code: {key: texts[key] for key in keys} for code, texts in dictionaries().items()}
    script = "".join((FOLDER / name).read_text("utf-8") for name in ("storage.js", "page.js"))
    text = script.replace("/* NAMES */ {}", json.dumps(names, ensure_ascii=False))
    return Response(text, media_type="text/javascript", headers={"cache-control": "no-cache"})
