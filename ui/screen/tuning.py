"""The handlers of the sidebar: settings follow model and mode to their official values and are remembered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from backends.catalog.cards import Card
from backends.catalog.choice import Ranked
from backends.core.errors import InvalidRequest
from backends.core.types import Sampling
from backends.engine.engine import Engine
from ui.conversation.choices import check_budget, check_sampling, check_system
from ui.conversation.render import Say
from ui.conversation.stage import exhibits, stage
from ui.conversation.texts import say_for
from ui.conversation.transcript import Growing, SavedConversation
from ui.screen import model_picker
from ui.screen.controls import changed, mark, source_line
from ui.screen.desk import Desk, Update, Values, context_line
from ui.screen.picture_panel import slider_for

log = logging.getLogger(__name__)
_Kept = TypeVar("_Kept", SavedConversation, Growing)


class Tuning:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.panel = desk.panel

    def changed(self, values: Values, request: gr.Request) -> Update:
        """Moves what stood at the old mode's official value to the new one's; what the visitor changed stays."""
        engine = self.desk.engine(values)
        card = self.desk.card(engine, values[self.panel.model])
        kept = changed(self.desk.sampling(values), values[self.panel.official])
        say, pictures = say_for(request), self.panel.pictures
        update = self._controls(engine, card, bool(values[self.panel.thinking]), kept, say)
        if pictures:
            default, wanted = engine.models.visual_tokens(card), values[pictures.visual_tokens]
            update[pictures.visual_tokens] = slider_for(card, wanted, default, values[pictures.tray], say)
        return update | {self.panel.saved: self.desk.save(values)}

    def model_changed(self, values: Values, request: gr.Request) -> Update:
        """As `changed`; the thinking switch and the visual tokens follow the new model's own defaults."""
        card = self.desk.card(self.desk.engine(values), values[self.panel.model])
        own: Values = {self.panel.thinking: card.thinking.default}
        if self.panel.pictures:
            own[self.panel.pictures.visual_tokens] = None
        return self.changed(values | own, request)

    def engine_changed(self, values: Values, request: gr.Request) -> Update:
        """Keeps the model where the new engine can run it, else takes this machine's choice there."""
        picker, engine = self.panel.model, self.desk.engine(values)
        ranked = engine.models.ranked(self.desk.spec.id)
        usable = {card.id for card, _, reason in ranked if not reason}
        model = values[picker] if values[picker] in usable else ""
        follow = self.changed if model == values[picker] else self.model_changed
        own: Values = {picker: model}
        if self.panel.pictures and not model:  # the choice there may be of another model
            own[self.panel.pictures.visual_tokens] = None
        update = follow(values | own, request)
        return update | {picker: self._picker(engine, ranked, model, say_for(request))}

    def reset(self, values: Values, request: gr.Request) -> Update:
        return self.changed(values | dict.fromkeys(self.panel.sampling.values()), request)

    def restore(self, saved: object, album: object, request: gr.Request, growing: object = None) -> Update:
        """The tab as the visitor left it, from their browser; whatever cannot be read is left at its default.

        `album` has its pictures, on a tab that has any; `growing` the answer that was being written, if there was one.
        """
        desk, panel, say = self.desk, self.panel, say_for(request)
        conversation = self._read(SavedConversation, saved) or SavedConversation()
        if growing and (grown := self._read(Growing, growing)):
            conversation = conversation.with_growth(grown)
        if isinstance(album, dict):
            conversation = conversation.model_copy(update={"album": album})
        settings, transcript = conversation.settings, conversation.transcript
        name = desk.engine_name(settings.get("engine"))
        engine = desk.engines[name]
        ranked = engine.models.ranked(desk.spec.id)
        model = next((card.id for card, _, _ in ranked if card.id == settings.get("model")), "")
        card = desk.card(engine, model)
        thinking, system, budget = settings.get("thinking"), settings.get("system"), settings.get("budget")
        return {
            **self._controls(
                engine,
                card,
                thinking if isinstance(thinking, bool) else card.thinking.default,
                _still_valid(card, settings.get("sampling")),
                say,
            ),
            **self._options(settings.get("options")),
            **self._pictures(engine, card, settings.get("visual_tokens"), conversation, say),
            panel.engine: name,
            panel.model: self._picker(engine, ranked, model, say),
            panel.transcript: transcript,
            panel.chatbot: gr.update(
                placeholder=say(f"greeting_{desk.spec.id}"),
                **({"value": desk.show(transcript, say)} if transcript.turns else {}),
            ),
            panel.context: context_line(transcript, say),
            panel.system: _valid(check_system, system, desk.spec.system),
            panel.budget: gr.update(
                value=_valid(check_budget, budget, None) or 0,
                interactive=engine.models.capabilities.continues,
            ),
        }

    def _pictures(
        self, engine: Engine, card: Card, wanted: object, conversation: SavedConversation, say: Say
    ) -> Update:
        """Stage, tray and slider of a tab with pictures."""
        if (pictures := self.panel.pictures) is None:
            return {}
        tray = conversation.attached
        return {
            pictures.stage: stage(exhibits(conversation.transcript, tray), say),
            pictures.tray: tray,
            pictures.visual_tokens: slider_for(card, wanted, engine.models.visual_tokens(card), tray, say),
        }

    def _picker(self, engine: Engine, ranked: list[Ranked], model: str, say: Say) -> Any:
        own_choice = self.desk.own_choice(engine)
        choices = model_picker.choices(ranked, own_choice, say, remote=not engine.models.ours)
        return gr.update(choices=choices, value=model)

    def _controls(self, engine: Engine, card: Card, thinking: bool, kept: dict[str, Any], say: Say) -> Update:
        """What follows from engine, model and mode. `kept`: the sampling values that the visitor changed."""
        panel, rule = self.panel, card.thinking
        thinks = card.thinks(thinking)
        official = card.official(self.desk.spec.id, thinks, images=self.desk.spec.pictures)
        values = official.values.model_dump()
        update: Update = {
            panel.official: values,
            panel.source: source_line(official, say),
            panel.model_info: self.desk.model_info(engine, card, say),
            panel.thinking: gr.update(value=thinks, interactive=rule.kind != "always"),
            panel.thinking_kind: say(f"thinking_kind_{rule.kind}"),
        }
        if panel.pictures:
            update[panel.pictures.notice] = say("demo_notice") if card.demo else ""
        capabilities = engine.models.capabilities
        update[panel.budget] = gr.update(interactive=capabilities.continues)
        for name, control in panel.sampling.items():
            value = kept.get(name, values[name])
            update[control] = gr.update(value=value, interactive=name in capabilities.sampling)
            if name != "seed":  # has no official value
                update[control]["info"] = mark(name, value, values[name], capabilities, say)
        return update

    def _read(self, kind: type[_Kept], kept: object) -> _Kept | None:
        try:
            return kind.model_validate(kept or {})
        except ValueError:
            log.info("a saved conversation of the tab %s could not be read", self.desk.spec.id)
            return None

    def _options(self, saved: object) -> Update:
        known = saved if isinstance(saved, dict) else {}
        update: Update = {}
        for option in self.desk.spec.options:
            value = _valid(option.check, known.get(option.name), option.default)
            update[self.panel.options[option.name]] = list(value) if isinstance(value, tuple) else value
        return update


def _valid(check: Callable[[object], Any], saved: object, otherwise: Any) -> Any:
    """What was saved, if it still is a value of its field."""
    try:
        return check(saved)
    except InvalidRequest:
        return otherwise


def _still_valid(card: Card, saved: object) -> dict[str, Any]:
    """Of saved sampling values those that are within today's bounds."""
    known, valid = saved if isinstance(saved, dict) else {}, {}
    for name in Sampling.model_fields.keys() & known:
        try:
            check_sampling(card.sampling[0].values, {name: known[name]})
        except InvalidRequest:
            continue
        valid[name] = known[name]
    return valid
