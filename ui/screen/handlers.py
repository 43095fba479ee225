"""Which event of a panel calls which handler, with what it reads and what it may change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ui.screen.asking import Asking
from ui.screen.desk import Desk
from ui.screen.keeping import Keeping
from ui.screen.looking import Looking
from ui.screen.panel import Panel
from ui.screen.tuning import Tuning

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
QUICK: dict[str, Any] = {**QUIET, "queue": False}
SPEAKING: dict[str, Any] = {**QUIET, "concurrency_limit": None}  # only what is queued can send a toast


def wire(desk: Desk) -> Tuning:
    """Attaches the handlers of one tab to its components; returns those that restore it."""
    panel = desk.panel
    everything, screen = panel.everything, panel.screen

    asking = Asking(desk)
    looking = Looking(desk, asking) if panel.pictures else None
    asked = [*screen, panel.model_info, panel.payload]

    keeping = Keeping(desk)

    def give_back(answered: Any) -> None:
        """A question that failed, unless something else is typed by then; its pictures too."""
        returned: dict[str, Any] = {"inputs": [panel.composer, panel.payload], "outputs": [panel.composer]}
        settle(answered.then(None, **returned, js="(typed, failed) => window.playground.returned(typed, failed)"))

    def settle(changed: Any) -> None:
        changed.then(keeping.settle, everything | {panel.payload}, screen, trigger_mode="always_last", **QUICK)

    for event, handler in (
        (panel.composer.submit, asking.send),
        (panel.chatbot.retry, asking.retry),
        (panel.chatbot.edit, asking.edit),
    ):
        give_back(event(handler, everything, asked, **SPEAKING))
    panel.composer.stop(asking.stop, None, None, **QUICK)
    panel.answer_now.click(asking.answer_now, None, [panel.answer_now], **QUICK)

    panel.chatbot.undo(keeping.undo, everything, screen, **SPEAKING)
    panel.chatbot.clear(keeping.clear, everything, screen, **SPEAKING)
    panel.clear.click(keeping.clear, everything, screen, **SPEAKING)
    panel.chatbot.example_select(keeping.example, everything, [*screen, *panel.options.values()], **QUICK)
    for button, export in (
        (panel.export_json, keeping.export_json),
        (panel.export_markdown, keeping.export_markdown),
    ):
        button.click(export, everything, [panel.payload], **QUICK).then(
            None, [panel.payload], [panel.payload], js="(payload) => window.playground.download(payload)"
        )
    panel.import_json.click(None, None, [panel.payload], js="async () => await window.playground.pickFile()").then(
        keeping.import_json, everything | {panel.payload}, [*screen, panel.payload], **SPEAKING
    )

    if looking:
        pictures = looking.pictures
        brought = [pictures.upload, pictures.tray]
        attached = pictures.upload.upload(looking.attach, set(brought), brought, **SPEAKING)
        settle(attached.then(None, None, None, js="() => window.playground.brought()"))
        clicked = pictures.stage.click(None, None, [panel.payload], js="() => window.playground.clicked()")
        removed = clicked.then(looking.remove, {pictures.tray, panel.payload}, [pictures.tray], **QUICK)
        settle(removed)
        give_back(removed.then(looking.look_closer, everything | {panel.payload}, asked, **SPEAKING))

    tuning = Tuning(desk)
    follows = _follows(panel)
    panel.engine.input(tuning.engine_changed, everything, [*follows, panel.model], **QUICK)
    panel.model.input(tuning.model_changed, everything, follows, **QUICK)
    panel.reset.click(tuning.reset, everything, follows, **QUICK)
    gr.on(_settings_events(panel), tuning.changed, everything, follows, trigger_mode="always_last", **QUICK)
    return tuning


def restored(panel: Panel) -> list[Any]:
    """The components that `Tuning.restore` sets."""
    own = [panel.engine, panel.model, panel.transcript, panel.chatbot, panel.context, panel.system, panel.budget]
    own.append(panel.growing)
    if panel.pictures:
        own += [panel.pictures.stage, panel.pictures.tray]
    return [*_follows(panel), *own, *panel.options.values()]


def _follows(panel: Panel) -> list[Any]:
    """The components that follow from what was chosen."""
    shown = [panel.official, panel.source, panel.model_info, panel.thinking, panel.thinking_kind, panel.saved]
    if panel.pictures:
        shown += [panel.pictures.visual_tokens, panel.pictures.notice]
    return [*shown, *panel.sampling.values()]


def _settings_events(panel: Panel) -> list[Callable[..., Any]]:
    """A text counts when it is left, a slider while it moves."""
    texts = [panel.system, *(c for c in panel.options.values() if isinstance(c, gr.Textbox))]
    others = [c for c in panel.settings if c not in (panel.engine, panel.model, *texts)]
    return [text.blur for text in texts] + [control.input for control in others]
