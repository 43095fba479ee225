"""From browser events to engine requests and back to the screen. Every handler returns updates by component.

The transcript is kept on the server for as long as the page is open and in the visitor's browser beyond that; what the
Chatbot shows is never read back, but for a message that the visitor has edited in place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from backends.catalog import Card
from backends.engine import Engine
from backends.errors import InvalidRequest, PlaygroundError
from backends.special_tokens import has_control_tokens
from ui import model_picker
from ui.choices import Choices, answers, check_message, choose
from ui.controls import changed, mark, read_sampling, source_line
from ui.panel import Panel
from ui.render import Look, Message, Say, as_meant, project, turn_of_message
from ui.sessions import Sessions
from ui.tabs import languages
from ui.texts import say_for
from ui.transcript import SavedConversation, Transcript, read_conversation, to_markdown

log = logging.getLogger(__name__)

Values = dict[Any, Any]
Update = dict[Any, Any]


class Handlers:
    """What one tab does. `panel` names its components, `sessions` knows which answers are being written."""

    def __init__(self, panel: Panel, engine: Engine, sessions: Sessions) -> None:
        self.panel = panel
        self.engine = engine
        self.sessions = sessions

    # --- asking ------------------------------------------------------------------------------------------------

    def send(self, values: Values, request: gr.Request) -> Iterator[Update]:
        text = values[self.panel.composer]
        transcript: Transcript = values[self.panel.transcript]
        if transcript.turns and all(r.state == "failed" and not r.answer for r in transcript.turns[-1].replies):
            transcript = transcript.before(len(transcript.turns) - 1)  # what failed is asked anew, not twice
        yield from self._ask(values, request, transcript, text)

    def retry(self, values: Values, event: gr.RetryData, request: gr.Request) -> Iterator[Update]:
        transcript: Transcript = values[self.panel.transcript]
        turn = self._turn(transcript, event.index, request)
        yield from self._ask(values, request, transcript.before(turn), transcript.turns[turn].user)

    def edit(self, values: Values, event: gr.EditData, request: gr.Request) -> Iterator[Update]:
        transcript: Transcript = values[self.panel.transcript]
        turn = self._turn(transcript, event.index, request)
        text = event.value if isinstance(event.value, str) else str(event.value.get("text", ""))
        yield from self._ask(values, request, transcript.before(turn), as_meant(text))

    def _ask(self, values: Values, request: gr.Request, earlier: Transcript, text: str) -> Iterator[Update]:
        """Checks, then answers. A refusal is one sentence; nothing is appended and what was typed stays."""
        panel, say = self.panel, say_for(request)
        page = request.session_hash or ""
        try:
            message = check_message(text)
            choices = self._choices(values)
        except PlaygroundError as exc:
            gr.Warning(f"{exc.message} {exc.hint}")
            yield {panel.chatbot: self._show(values[panel.transcript], say)}
            return
        controls = self.sessions.start(page, panel.spec.id)
        if controls is None:
            gr.Info(say("still_answering"))
            yield {panel.composer: gr.skip()}
            return
        if has_control_tokens(message):
            gr.Info(say("note_special_tokens"))
        transcript = earlier.ask(message, tuple(choices.instructions))
        before = self._show(earlier, say)
        try:
            yield {
                panel.transcript: transcript,
                panel.chatbot: before + self._show_last(transcript, say),
                panel.composer: gr.Textbox(value="", submit_btn=False, stop_btn=True),
                panel.saved: self._save(values, transcript),
            }
            yield from self._stream(choices, transcript, before, controls, say, values)
        finally:
            controls.cancel()  # of no effect on an answer that has ended; ends one that nobody reads any more
            self.sessions.end(page, panel.spec.id)

    def _stream(
        self, choices: Choices, transcript: Transcript, before: list[Message], controls: Any, say: Say, values: Values
    ) -> Iterator[Update]:
        panel = self.panel
        thinking = False
        for now_at in answers(self.engine, choices, transcript, controls, lambda: self.sessions.interval):
            transcript = now_at
            update: Update = {panel.chatbot: before + self._show_last(transcript, say)}
            if thinking != (now := any(reply.state == "thinking" for reply in transcript.turns[-1].replies)):
                thinking = now
                update[panel.answer_now] = gr.Button(visible=thinking)
            yield update
        last = transcript.turns[-1]
        failed = all(reply.state == "failed" and not reply.answer for reply in last.replies)
        yield {
            panel.transcript: transcript,
            panel.chatbot: before + self._show_last(transcript, say),
            panel.composer: gr.Textbox(submit_btn=True, stop_btn=False, **({"value": last.user} if failed else {})),
            panel.answer_now: gr.Button(visible=False),
            panel.saved: self._save(values, transcript),
            panel.context: context_line(transcript, say),
            panel.model_info: self._model_info(choices.card, say),
        }

    def stop(self, request: gr.Request) -> None:
        if controls := self.sessions.find(request.session_hash or "", self.panel.spec.id):
            controls.cancel()

    def answer_now(self, request: gr.Request) -> Update:
        if controls := self.sessions.find(request.session_hash or "", self.panel.spec.id):
            controls.answer_now()
        return {self.panel.answer_now: gr.Button(visible=False)}

    # --- the conversation ------------------------------------------------------------------------------------------

    def undo(self, values: Values, event: gr.UndoData, request: gr.Request) -> Update:
        """Takes the last question back into the composer."""
        transcript: Transcript = values[self.panel.transcript]
        turn = self._turn(transcript, event.index, request)
        update = self._replace(values, transcript.before(turn), request)
        if self.panel.transcript in update:
            update[self.panel.composer] = gr.Textbox(value=transcript.turns[turn].user)
        return update

    def clear(self, values: Values, request: gr.Request) -> Update:
        return self._replace(values, Transcript(), request)

    def example(self, event: gr.SelectData) -> Update:
        """Fills the box; sending is the visitor's own act."""
        return {self.panel.composer: gr.Textbox(value=self.panel.spec.examples[int(event.index)])}

    def export_json(self, values: Values) -> Update:
        text = self._saved(values, values[self.panel.transcript]).model_dump_json(indent=2)
        return {self.panel.payload: f"qwen-{self.panel.spec.id}.json\n{text}"}

    def export_markdown(self, values: Values, request: gr.Request) -> Update:
        title = f"{say_for(request)('title')}: {say_for(request)(f'tab_{self.panel.spec.id}')}"
        return {
            self.panel.payload: f"qwen-{self.panel.spec.id}.md\n{to_markdown(title, values[self.panel.transcript])}"
        }

    def import_json(self, values: Values, request: gr.Request) -> Update:
        """Replaces the conversation by one from a file; a file that is none changes nothing."""
        text = values[self.panel.payload]
        if not text:
            return {self.panel.payload: ""}
        try:
            transcript = read_conversation(text).transcript
        except InvalidRequest as exc:
            gr.Warning(f"{exc.message} {exc.hint}")
            return {self.panel.payload: ""}
        gr.Info(say_for(request)("imported", n=len(transcript.turns)))
        return {self.panel.payload: "", **self._replace(values, transcript, request)}

    def _replace(self, values: Values, transcript: Transcript, request: gr.Request) -> Update:
        panel, say = self.panel, say_for(request)
        if self.sessions.find(request.session_hash or "", panel.spec.id) is not None:
            gr.Info(say("still_answering"))
            return {panel.chatbot: self._show(values[panel.transcript], say)}
        return {
            panel.transcript: transcript,
            panel.chatbot: self._show(transcript, say),
            panel.saved: self._save(values, transcript),
            panel.context: context_line(transcript, say),
        }

    # --- the settings ----------------------------------------------------------------------------------------------

    def settings_changed(self, values: Values, request: gr.Request) -> Update:
        """Follows model and mode to their official values, keeps what the visitor changed, and remembers it all."""
        panel, say = self.panel, say_for(request)
        card = self._card(values[panel.model])
        enabled = card.thinks(bool(values[panel.thinking]))
        known = values[panel.official]
        kept = changed(self._sampling(values), known)
        return self._settings_update(card, enabled, kept, say) | {panel.saved: self._save(values, None)}

    def model_changed(self, values: Values, request: gr.Request) -> Update:
        """As `settings_changed`; the thinking switch follows the new model's own default."""
        card = self._card(values[self.panel.model])
        values[self.panel.thinking] = card.thinks(card.thinking.default)
        return self.settings_changed(values, request)

    def reset(self, values: Values, request: gr.Request) -> Update:
        card = self._card(values[self.panel.model])
        enabled = card.thinks(bool(values[self.panel.thinking]))
        values |= {self.panel.sampling[name]: None for name in self.panel.sampling}
        return self._settings_update(card, enabled, {}, say_for(request)) | {self.panel.saved: self._save(values, None)}

    def restore(self, saved: object, request: gr.Request) -> Update:
        """The tab as the visitor left it, from their browser; whatever cannot be read is left at its default."""
        panel, say = self.panel, say_for(request)
        try:
            conversation = SavedConversation.model_validate(saved or {})
        except ValueError:
            log.info("a saved conversation of the tab %s could not be read", panel.spec.id)
            conversation = SavedConversation()
        settings = conversation.settings
        transcript = conversation.transcript
        ranked = self.engine.models.ranked(panel.spec.id)
        model = settings.get("model", "")
        if model not in {card.id for card, _, _ in ranked}:
            model = ""
        card = self._card(str(model))
        thinking = settings.get("thinking")
        enabled = card.thinks(thinking if isinstance(thinking, bool) else card.thinking.default)
        sampling = settings.get("sampling")
        update = self._settings_update(card, enabled, self._valid(sampling), say)
        update |= {
            panel.model: gr.Dropdown(choices=model_picker.choices(ranked, self._choice(), say), value=model),
            panel.transcript: transcript,
            panel.chatbot: gr.Chatbot(self._show(transcript, say), placeholder=say(f"greeting_{panel.spec.id}")),
            panel.context: context_line(transcript, say),
            panel.system: settings.get("system", panel.spec.system),
            panel.budget: settings.get("budget", 0),
        }
        options = settings.get("options")
        given = options if isinstance(options, dict) else {}
        for option in panel.spec.options:
            try:
                value = panel.spec.check_options({option.name: given.get(option.name)})[option.name]
            except InvalidRequest:
                value = option.default
            update[panel.options[option.name]] = list(value) if isinstance(value, tuple) else value
        return update

    def _settings_update(self, card: Card, enabled: bool, kept: dict[str, Any], say: Say) -> Update:
        panel, rule = self.panel, card.thinking
        official = card.official(panel.spec.id, enabled)
        values = official.values.model_dump()
        update: Update = {
            panel.official: values,
            panel.source: source_line(official, say),
            panel.model_info: self._model_info(card, say),
            panel.thinking: gr.Checkbox(value=enabled, interactive=rule.kind != "always"),
            panel.thinking_kind: say(f"thinking_kind_{rule.kind}"),
        }
        capabilities = self.engine.models.capabilities
        for name, control in panel.sampling.items():
            value = kept.get(name, values[name])
            if name == "seed":
                update[control] = value
            else:
                update[control] = gr.Slider(value=value, info=mark(name, value, values[name], capabilities, say))
        return update

    # --- small shared steps ----------------------------------------------------------------------------------------

    def _choices(self, values: Values) -> Choices:
        panel = self.panel
        return choose(
            self.engine,
            panel.spec,
            model=values[panel.model] or "",
            system=values[panel.system],
            thinking=bool(values[panel.thinking]),
            thinking_budget=int(values[panel.budget] or 0),
            sampling=self._sampling(values),
            options={name: values[control] for name, control in panel.options.items()},
        )

    def _sampling(self, values: Values) -> dict[str, Any]:
        return read_sampling({name: values[control] for name, control in self.panel.sampling.items()})

    def _valid(self, sampling: object) -> dict[str, Any]:
        """Of saved sampling values those that are still within bounds."""
        from ui.choices import check_sampling

        known = sampling if isinstance(sampling, dict) else {}
        valid: dict[str, Any] = {}
        for name, value in known.items():
            try:
                check_sampling(self.engine.models.catalog.cards[0].sampling[0].values, {name: value})
            except InvalidRequest:
                continue
            valid[name] = value
        return valid

    def _choice(self) -> Card | None:
        """This machine's own choice for the tab; None where nothing can run."""
        try:
            return self.engine.models.choose(self.panel.spec.id)
        except PlaygroundError:
            return None

    def _card(self, model: str) -> Card:
        catalog = self.engine.models.catalog
        return catalog.get(model) if model else self._choice() or catalog.cards[0]

    def _model_info(self, card: Card, say: Say) -> str:
        return model_picker.describe(self.engine.models, self.panel.spec.id, card, say)

    def _saved(self, values: Values, transcript: Transcript) -> SavedConversation:
        panel = self.panel
        settings = {
            "model": values[panel.model],
            "thinking": values[panel.thinking],
            "budget": values[panel.budget],
            "sampling": changed(self._sampling(values), values[panel.official]),
            "system": values[panel.system],
            "options": {name: values[control] for name, control in panel.options.items()},
        }
        return SavedConversation(tab=panel.spec.id, settings=settings, turns=transcript.turns)

    def _save(self, values: Values, transcript: Transcript | None) -> dict[str, Any]:
        kept = values[self.panel.transcript] if transcript is None else transcript
        return self._saved(values, kept).model_dump(mode="json")

    def _turn(self, transcript: Transcript, index: Any, request: gr.Request) -> int:
        return turn_of_message(
            transcript, int(index if not isinstance(index, list | tuple) else index[0]), say_for(request)
        )

    def _look(self, say: Say) -> Look:
        names = {code: language.native for code, language in languages().items()} if self.panel.spec.columns else {}
        return Look(say, names, self.panel.spec.lift_boxed)

    def _show(self, transcript: Transcript, say: Say) -> list[Message]:
        return project(transcript, self._look(say))

    def _show_last(self, transcript: Transcript, say: Say) -> list[Message]:
        return self._show(Transcript(turns=transcript.turns[-1:]), say)


def context_line(transcript: Transcript, say: Say) -> str:
    """How full the context is after the last answer, as a meter with its numbers."""
    stats = next((r.stats for t in reversed(transcript.turns) for r in t.replies if r.stats and r.stats.context), None)
    if stats is None:
        return ""
    used = stats.prompt_tokens + stats.thinking_tokens + stats.answer_tokens
    text = say("context", used=f"{used:,}", total=f"{stats.context:,}")
    return f"<meter min='0' max='{stats.context}' value='{used}' high='{stats.context * 0.8:.0f}'></meter> {text}"


def wire(handlers: Handlers) -> None:
    """Attaches one tab's handlers to its components."""
    panel = handlers.panel
    everything = {panel.transcript, panel.official, panel.composer, *panel.settings}
    screen = [panel.transcript, panel.chatbot, panel.composer, panel.answer_now, panel.saved, panel.context]
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    asking: dict[str, Any] = {
        **private, "inputs": everything, "outputs": [*screen, panel.model_info], "concurrency_limit": None,
    }  # fmt: skip
    panel.composer.submit(handlers.send, **asking)
    panel.chatbot.retry(handlers.retry, **asking)
    panel.chatbot.edit(handlers.edit, **asking)
    quick: dict[str, Any] = {**private, "queue": False}
    panel.composer.stop(handlers.stop, None, None, **quick)
    panel.answer_now.click(handlers.answer_now, None, [panel.answer_now], **quick)

    panel.chatbot.undo(handlers.undo, everything, screen, **quick)
    panel.chatbot.clear(handlers.clear, everything, screen, **quick)
    panel.clear.click(handlers.clear, everything, screen, **quick)
    panel.chatbot.example_select(handlers.example, None, [panel.composer], **quick)
    for button, export in (
        (panel.export_json, handlers.export_json),
        (panel.export_markdown, handlers.export_markdown),
    ):
        button.click(export, everything, [panel.payload], **quick).then(
            None, [panel.payload], None, js="(text) => window.playground.download(text)"
        )
    panel.import_json.click(None, None, [panel.payload], js="async () => await window.playground.pickFile()").then(
        handlers.import_json, everything | {panel.payload}, [*screen, panel.payload], **quick
    )

    controls = settings_outputs(panel)
    panel.model.input(handlers.model_changed, everything, controls, **quick)
    panel.reset.click(handlers.reset, everything, controls, **quick)
    triggers: list[Callable[..., Any]] = [panel.thinking.input, panel.budget.release, panel.system.blur]
    triggers += [c.change if isinstance(c, gr.Number) else c.input for c in panel.sampling.values()]
    triggers += [c.blur if isinstance(c, gr.Textbox) else c.input for c in panel.options.values()]
    gr.on(triggers, handlers.settings_changed, everything, controls, trigger_mode="always_last", **quick)


def settings_outputs(panel: Panel) -> list[Any]:
    """The components that show what was chosen and what follows from it."""
    return [
        panel.official, panel.source, panel.model_info, panel.thinking, panel.thinking_kind, panel.saved,
        *panel.sampling.values(),
    ]  # fmt: skip


def restored(panel: Panel) -> list[Any]:
    """What `Handlers.restore` may update."""
    own = [panel.model, panel.transcript, panel.chatbot, panel.context, panel.system, panel.budget]
    return [*settings_outputs(panel), *own, *panel.options.values()]
