"""The handlers that ask: send, retry, edit; and the two that act on a running answer: stop, answer now."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from backends.catalog import Card
from backends.errors import PlaygroundError
from backends.special_tokens import has_control_tokens
from ui.choices import answers, check_message
from ui.desk import Desk, Update, Values, context_line
from ui.markdown import as_meant
from ui.render import Message, Say
from ui.texts import say_for
from ui.transcript import Transcript


class Asking:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.panel = desk.panel

    def send(self, values: Values, request: gr.Request) -> Iterator[Update]:
        transcript: Transcript = values[self.panel.transcript]
        if transcript.turns and transcript.turns[-1].failed:
            transcript = transcript.before(len(transcript.turns) - 1)  # what failed is asked anew, not twice
        yield from self._ask(values, request, transcript, values[self.panel.composer])

    def retry(self, values: Values, event: gr.RetryData, request: gr.Request) -> Iterator[Update]:
        transcript: Transcript = values[self.panel.transcript]
        turn = self.desk.turn(transcript, event.index, say_for(request))
        yield from self._ask(values, request, transcript.before(turn), transcript.turns[turn].user)

    def edit(self, values: Values, event: gr.EditData, request: gr.Request) -> Iterator[Update]:
        """Goes on from an edited message; what came after it is gone."""
        transcript: Transcript = values[self.panel.transcript]
        turn = self.desk.turn(transcript, event.index, say_for(request))
        text = event.value if isinstance(event.value, str) else str(event.value.get("text", ""))
        yield from self._ask(values, request, transcript.before(turn), as_meant(text))

    def stop(self, request: gr.Request) -> None:
        if controls := self.desk.running(request):
            controls.cancel()

    def answer_now(self, request: gr.Request) -> Update:
        if controls := self.desk.running(request):
            controls.answer_now()
        return {self.panel.answer_now: gr.update(visible=False)}

    def _ask(self, values: Values, request: gr.Request, earlier: Transcript, text: str) -> Iterator[Update]:
        """Checks, then answers. A refusal is one sentence; nothing is appended and what was typed stays."""
        desk, panel, say = self.desk, self.panel, say_for(request)
        page, tab = request.session_hash or "", desk.spec.id
        try:
            message = check_message(text)
            choices = desk.choices(values)
        except PlaygroundError as exc:
            gr.Warning(f"{exc.message} {exc.hint}")
            yield {panel.chatbot: desk.show(values[panel.transcript], say)}
            return
        controls = desk.sessions.start(page, tab)
        if controls is None:
            gr.Info(say("still_answering"))
            yield {panel.answer_now: gr.skip()}
            return
        if has_control_tokens(message):
            gr.Info(say("note_special_tokens"))
        transcript = earlier.ask(message, tuple(choices.instructions))
        before = desk.show(earlier, say)
        try:
            growing = answers(desk.engine(values), choices, transcript, controls, lambda: desk.sessions.interval)
            yield {
                panel.chatbot: before + desk.show_last(transcript, say),
                panel.composer: gr.update(value="", submit_btn=False, stop_btn=True),
                panel.saved: desk.save(values, transcript),
            }
            yield from self._stream(values, choices.card, growing, before, say)
        finally:
            controls.cancel()  # of no effect on an answer that has ended; ends one that nobody reads any more
            desk.sessions.end(page, tab)

    def _stream(
        self, values: Values, card: Card, growing: Iterator[Transcript], before: list[Message], say: Say
    ) -> Iterator[Update]:
        """The answer as it grows: only its own messages are made anew, `before` is what stands above it."""
        desk, panel = self.desk, self.panel
        thinking = False
        for transcript in growing:  # at least one: a request always has its last event
            update: Update = {panel.chatbot: before + desk.show_last(transcript, say)}
            if thinking != transcript.turns[-1].thinking:
                thinking = not thinking
                update[panel.answer_now] = gr.update(visible=thinking)
            yield update
        last = transcript.turns[-1]
        yield {
            panel.transcript: transcript,
            panel.composer: gr.update(submit_btn=True, stop_btn=False, **({"value": last.user} if last.failed else {})),
            panel.answer_now: gr.update(visible=False),
            panel.saved: desk.save(values, transcript),
            panel.context: context_line(transcript, say),
            panel.model_info: desk.model_info(desk.engine(values), card, say),
        }
