"""The handlers that ask: send, retry, edit; and the two that act on a running answer: stop, answer now.

A question that failed is left in `payload`: the page puts it back into the composer, if nothing is typed by then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import gradio as gr

from backends.catalog.cards import Card
from backends.core.errors import EngineError, PlaygroundError
from backends.core.types import Failure
from ui.conversation.choices import answers, check_message
from ui.conversation.pictures import Picture
from ui.conversation.render import Growths, Message, Say, fold
from ui.conversation.texts import say_for
from ui.conversation.transcript import Growing, Reply, Transcript, check_turns
from ui.screen.desk import Desk, Update, Values, context_line
from ui.visitors.people import asker

KEEP_SECONDS = 1.0  # between two times that the visitor's browser is given what was written by then


class Asking:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.panel = desk.panel

    def send(self, values: Values, request: gr.Request) -> Iterator[Update]:
        text, tray = values[self.panel.composer], self.desk.tray(values)
        if tray and not str(text).strip():
            text = say_for(request)(f"ask_{values[self.panel.options['task']]}")  # a picture alone is a question
        yield from self.ask(values, request, text, tray)

    def ask(self, values: Values, request: gr.Request, text: str, pictures: tuple[Picture, ...]) -> Iterator[Update]:
        """A new question. What is attached and not among its pictures stays attached, and so does what is typed and
        not asked."""
        transcript: Transcript = values[self.panel.transcript]
        if transcript.failed:
            transcript = transcript.before(len(transcript.turns) - 1)  # what failed is asked anew, not twice
        yield from self._ask(values, request, transcript, text, pictures)

    def retry(self, values: Values, event: gr.RetryData, request: gr.Request) -> Iterator[Update]:
        transcript: Transcript = values[self.panel.transcript]
        turn = self.desk.turn(transcript, event.index, say_for(request))
        asked = transcript.turns[turn]
        yield from self._ask(values, request, transcript.before(turn), asked.user, asked.pictures)

    def edit(self, values: Values, event: gr.EditData, request: gr.Request) -> Iterator[Update]:
        """Goes on from an edited message; what came after it is gone."""
        transcript: Transcript = values[self.panel.transcript]
        turn = self.desk.turn(transcript, event.index, say_for(request))
        text = event.value if isinstance(event.value, str) else str(event.value.get("text", ""))
        pictures = transcript.turns[turn].pictures
        yield from self._ask(values, request, transcript.before(turn), text, pictures)

    def stop(self, request: gr.Request) -> None:
        if controls := self.desk.running(request):
            controls.cancel()

    def answer_now(self, request: gr.Request) -> Update:
        if controls := self.desk.running(request):
            controls.answer_now()
        return {self.panel.answer_now: gr.update(visible=False)}

    def _ask(
        self, values: Values, request: gr.Request, earlier: Transcript, text: str, pictures: tuple[Picture, ...]
    ) -> Iterator[Update]:
        """Checks, then answers. A refusal is one sentence; nothing is appended and what was typed stays."""
        desk, panel, say = self.desk, self.panel, say_for(request)
        page, tab = request.session_hash or "", desk.spec.id
        try:
            message = check_message(text)
            check_turns(earlier)
            choices = desk.choices(values, pictures)
        except EngineError as exc:
            yield self._failed(values, earlier.ask(text, ("",), pictures), exc, say)
            return
        except PlaygroundError as exc:
            gr.Warning(exc.sentence)
            yield {panel.chatbot: desk.show(values[panel.transcript], say), panel.payload: ""}
            return
        with desk.sessions.answering(page, tab) as controls:
            if controls is None:
                gr.Info(say("still_answering"))
                yield {panel.payload: ""}
                return
            earlier = earlier.at_rest
            transcript = earlier.ask(message, tuple(choices.instructions), pictures)
            if any(choices.card.eyes is None or picture.image is None for picture in transcript.pictures):
                gr.Info(say("note_unseen_pictures"))
            if choices.control_tokens(message):
                gr.Info(say("note_raw_tokens" if choices.raw else "note_special_tokens"))
            asked = {picture.id for picture in pictures}
            tray = tuple(picture for picture in desk.tray(values) if picture.id not in asked)
            draft = "" if text == values[panel.composer] else values[panel.composer]
            values = values | {panel.composer: draft} | ({panel.pictures.tray: tray} if panel.pictures else {})
            before = desk.show(earlier, say)
            who = asker(request, desk.sessions.conversation(page, tab))
            growing = answers(desk.engine(values), choices, transcript, controls, lambda: desk.sessions.interval, who)
            yield {
                panel.chatbot: before + desk.show_last(transcript, say),
                panel.composer: gr.update(submit_btn=False, stop_btn=True, **({} if draft else {"value": ""})),
                panel.transcript: transcript,
                panel.saved: desk.save(values, transcript),
                panel.growing: {},
                **desk.show_pictures(values, transcript, tray, say),
            }
            yield from self._stream(values, choices.card, growing, before, say)

    def _failed(self, values: Values, asked: Transcript, exc: EngineError, say: Say) -> Update:
        """An engine that cannot even be asked: that stands where the answer would, with a way to try again."""
        transcript = asked.with_replies((fold(Reply(), Failure.of(exc), 0.0),))
        return {
            self.panel.chatbot: self.desk.show(transcript, say),
            self.panel.transcript: transcript,
            self.panel.payload: asked.turns[-1].user,
            self.panel.saved: self.desk.save(values, transcript),
        }

    def _stream(
        self, values: Values, card: Card, growing: Iterator[Transcript], before: list[Message], say: Say
    ) -> Iterator[Update]:
        """The answer as it grows: only its own messages are made anew, `before` is what stands above it."""
        desk, panel = self.desk, self.panel
        thinking, texts, kept = False, Growths(), time.monotonic()
        for transcript in growing:  # at least one: a request always has its last event
            update: Update = {panel.chatbot: before + desk.show_last(transcript, say, texts)}
            if time.monotonic() - kept >= KEEP_SECONDS:
                update[panel.growing], kept = Growing.of(transcript).model_dump(mode="json"), time.monotonic()
                update[panel.transcript] = transcript  # what breaks from here on cannot take it away
            if thinking != transcript.turns[-1].thinking:
                thinking = not thinking
                continues = desk.engine(values).models.capabilities.continues
                update[panel.answer_now] = gr.update(visible=thinking and continues)
            yield update
        yield {
            panel.transcript: transcript,
            panel.composer: gr.update(submit_btn=True, stop_btn=False),
            panel.payload: transcript.turns[-1].user if transcript.failed else "",
            panel.answer_now: gr.update(visible=False),
            panel.saved: desk.save(values, transcript),
            panel.growing: {},
            panel.context: context_line(transcript, say),
            panel.model_info: desk.model_info(desk.engine(values), card, say),
        }
