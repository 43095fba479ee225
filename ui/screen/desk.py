"""What the handlers of one tab share: reading its controls, showing its transcript, saving both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr

from backends.catalog.cards import Card
from backends.core.cancel import Controls
from backends.core.errors import PlaygroundError
from backends.engine.engine import Engine
from ui.conversation.choices import Choices, choose
from ui.conversation.pictures import Picture
from ui.conversation.render import Growths, Look, Message, Say, project, turn_of_message
from ui.conversation.stage import exhibits, stage
from ui.conversation.tabs import languages
from ui.conversation.texts import say_for
from ui.conversation.transcript import SavedConversation, Transcript, album_of
from ui.conversation.words import whole
from ui.screen import model_picker
from ui.screen.controls import as_whole, changed, read_sampling
from ui.screen.panel import Panel
from ui.screen.picture_panel import price
from ui.visitors.sessions import Sessions

Values = dict[Any, Any]
"""What the components stood at when an event came, by component."""

Update = dict[Any, Any]
"""What components are to show now, by component; those left out stay as they are."""


class Desk:
    """One tab. `panel` names its components, `sessions` knows which answers are being written.

    `engines` are those on offer by name, the default first.
    """

    def __init__(self, panel: Panel, engines: Mapping[str, Engine], sessions: Sessions) -> None:
        self.panel = panel
        self.spec = panel.spec
        self.engines = engines
        self.sessions = sessions
        self._names = {code: language.native for code, language in languages().items()} if self.spec.columns else {}

    # --- the transcript ----------------------------------------------------------------------------------------

    def show(self, transcript: Transcript, say: Say) -> list[Message]:
        return project(transcript, self._look(say))

    def show_last(self, transcript: Transcript, say: Say, growths: Growths | None = None) -> list[Message]:
        """The last turn; `growths` is kept from one state of its replies to the next."""
        earlier = len(Transcript(turns=transcript.turns[:-1]).pictures)
        look = self._look(say, earlier) if growths is None else replace(self._look(say, earlier), growths=growths)
        return project(Transcript(turns=transcript.turns[-1:]), look)

    def tray(self, values: Values) -> tuple[Picture, ...]:
        """What is attached to the next message."""
        return values[self.panel.pictures.tray] if self.panel.pictures else ()

    def show_pictures(self, values: Values, transcript: Transcript, tray: tuple[Picture, ...], say: Say) -> Update:
        """Stage, tray, album and price for another state of the conversation; nothing on a tab without pictures."""
        if (pictures := self.panel.pictures) is None:
            return {}
        card, default = self._sight(values)
        wanted = values[pictures.visual_tokens]
        return {
            pictures.stage: stage(exhibits(transcript, tray), say),
            pictures.tray: tray,
            pictures.album: album_of(transcript, tray),
            pictures.visual_tokens: gr.update(info=price(card, wanted, default, tray, say)),
        }

    def keep_pictures(self, values: Values, tray: tuple[Picture, ...], say: Say) -> Update:
        """Another tray beside the same conversation, on the screen and in the visitor's browser."""
        assert self.panel.pictures is not None
        shown = self.show_pictures(values, values[self.panel.transcript], tray, say)
        return shown | {self.panel.saved: self.save(values | {self.panel.pictures.tray: tray})}

    def turn(self, transcript: Transcript, index: int | tuple[int, ...] | list[int], say: Say) -> int:
        """The turn of the message that an event of the Chatbot names; gradio gives a number or a pair."""
        message = index if isinstance(index, int) else index[0]
        return turn_of_message(transcript, message, self._look(say))

    def running(self, request: gr.Request) -> Controls | None:
        """The switches of the answer that is being written for this page in this tab, if there is one."""
        return self.sessions.find(request.session_hash or "", self.spec.id)

    def replace(self, values: Values, transcript: Transcript, request: gr.Request) -> Update:
        """Puts another transcript in the place of this one, unless an answer is being written."""
        say = say_for(request)
        if self.running(request) is not None:
            gr.Info(say("still_answering"))
            return {self.panel.chatbot: self.show(values[self.panel.transcript], say)}
        return {
            self.panel.transcript: transcript,
            self.panel.chatbot: self.show(transcript, say),
            self.panel.saved: self.save(values, transcript),
            self.panel.growing: {},
            self.panel.context: context_line(transcript, say),
            **self.show_pictures(values, transcript, self.tray(values), say),
        }

    def _look(self, say: Say, earlier: int = 0) -> Look:
        return Look(say, self._names, self.spec.lift_boxed, self.spec.pictures, earlier)

    # --- the controls ------------------------------------------------------------------------------------------

    def choices(self, values: Values, pictures: tuple[Picture, ...] = ()) -> Choices:
        """Raises `PlaygroundError` where a control stands at something that cannot be."""
        panel = self.panel
        visual_tokens = values[panel.pictures.visual_tokens] if panel.pictures else None
        return choose(
            self.engine(values),
            self.spec,
            model=values[panel.model] or "",
            system=values[panel.system],
            thinking=bool(values[panel.thinking]),
            thinking_budget=as_whole(values[panel.budget]),
            sampling=self.sampling(values),
            options={name: values[control] for name, control in panel.options.items()},
            pictures=pictures,
            visual_tokens=visual_tokens,
        )

    def sampling(self, values: Values) -> dict[str, Any]:
        return read_sampling({name: values[control] for name, control in self.panel.sampling.items()})

    def engine_name(self, chosen: object) -> str:
        """`chosen` comes from the browser; whatever names no engine is the default."""
        return str(chosen) if str(chosen) in self.engines else next(iter(self.engines))

    def engine(self, values: Values) -> Engine:
        """The engine that the picker stands at."""
        return self.engines[self.engine_name(values[self.panel.engine])]

    def card(self, engine: Engine, model: str) -> Card:
        """The card that the picker stands at; the empty id is this machine's choice."""
        return engine.models.catalog.get(model) if model else self.own_choice(engine) or engine.models.catalog.cards[0]

    def _sight(self, values: Values) -> tuple[Card, int]:
        """The model, and what a picture costs there in visual tokens unless the visitor says otherwise."""
        engine = self.engine(values)
        card = self.card(engine, values[self.panel.model])
        return card, engine.models.visual_tokens(card)

    def own_choice(self, engine: Engine) -> Card | None:
        """This machine's own choice for the tab; None where nothing can run."""
        try:
            return engine.models.choose(self.spec.id)
        except PlaygroundError:
            return None

    def model_info(self, engine: Engine, card: Card, say: Say) -> str:
        return model_picker.describe(engine.models, self.spec.id, card, say)

    # --- the visitor's browser -----------------------------------------------------------------------------------

    def saved(self, values: Values, transcript: Transcript) -> SavedConversation:
        panel = self.panel
        settings = {
            "engine": values[panel.engine],
            "model": values[panel.model],
            "thinking": values[panel.thinking],
            "budget": values[panel.budget],
            "sampling": changed(self.sampling(values), values[panel.official]),
            "system": values[panel.system],
            "options": {name: values[control] for name, control in panel.options.items()},
        }
        if panel.pictures:
            (_, default), chosen = self._sight(values), values[panel.pictures.visual_tokens]
            settings["visual_tokens"] = None if chosen == default else chosen
        kept, tray = _keepable(settings), self.tray(values)
        return SavedConversation(tab=self.spec.id, settings=kept, turns=transcript.turns, tray=tray)

    def save(self, values: Values, transcript: Transcript | None = None) -> dict[str, Any]:
        """What BrowserState is to hold; without a transcript the one that is on the screen."""
        kept = values[self.panel.transcript] if transcript is None else transcript
        return self.saved(values, kept).model_dump(mode="json")


def _keepable(setting: Any) -> Any:
    """What stands in a field may be refused only when it is used, and must not stop anything else from being kept."""
    match setting:
        case dict():
            return {whole(str(name)): _keepable(value) for name, value in setting.items()}
        case list() | tuple():
            return [_keepable(value) for value in setting]
        case str():
            return whole(setting)
        case int() | float() if not abs(setting) <= 2**53:  # nor is NaN
            return None
    return setting


def context_line(transcript: Transcript, say: Say) -> str:
    """How full the context is after the last answer, as a meter with its numbers."""
    stats = next((r.stats for t in reversed(transcript.turns) for r in t.replies if r.stats and r.stats.context), None)
    if stats is None:
        return ""
    used = stats.prompt_tokens + stats.thinking_tokens + stats.answer_tokens
    text = say("context", used=f"{used:,}", total=f"{stats.context:,}")
    bounds = f"min='0' max='{stats.context}' value='{used}' high='{stats.context * 0.8:.0f}'"
    return f"<meter aria-hidden='true' {bounds}></meter> {text}"  # the text tells the same
