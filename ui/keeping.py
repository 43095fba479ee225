"""The handlers that keep a conversation: undo, clear, examples, export and import."""

from __future__ import annotations

import gradio as gr

from backends.errors import InvalidRequest
from ui.desk import Desk, Update, Values
from ui.texts import say_for
from ui.transcript import Transcript, read_conversation, to_markdown


class Keeping:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.panel = desk.panel

    def undo(self, values: Values, event: gr.UndoData, request: gr.Request) -> Update:
        """Takes the last question back into the composer."""
        transcript: Transcript = values[self.panel.transcript]
        turn = self.desk.turn(transcript, event.index, say_for(request))
        update = self.desk.replace(values, transcript.before(turn), request)
        if self.panel.transcript in update:
            update[self.panel.composer] = gr.update(value=transcript.turns[turn].user)
        return update

    def clear(self, values: Values, request: gr.Request) -> Update:
        return self.desk.replace(values, Transcript(), request)

    def example(self, event: gr.SelectData) -> Update:
        """Fills the box and sets what belongs to the example; sending is the visitor's own act."""
        example = self.desk.spec.examples[int(event.index)]
        options = {self.panel.options[name]: value for name, value in example.options.items()}
        return {self.panel.composer: gr.update(value=example.text)} | options

    def export_json(self, values: Values) -> Update:
        """The payload is a file name, a line break, and the file's text: the page makes the download of it."""
        text = self.desk.saved(values, values[self.panel.transcript]).model_dump_json(indent=2)
        return {self.panel.payload: f"qwen-{self.desk.spec.id}.json\n{text}"}

    def export_markdown(self, values: Values, request: gr.Request) -> Update:
        say = say_for(request)
        text = to_markdown(f"{say('title')}: {say(f'tab_{self.desk.spec.id}')}", values[self.panel.transcript])
        return {self.panel.payload: f"qwen-{self.desk.spec.id}.md\n{text}"}

    def import_json(self, values: Values, request: gr.Request) -> Update:
        """Replaces the conversation by one from a file; a file that is none changes nothing."""
        text = values[self.panel.payload]
        if not text:  # the visitor closed the file dialogue
            return {self.panel.payload: ""}
        try:
            transcript = read_conversation(text).transcript
        except InvalidRequest as exc:
            gr.Warning(f"{exc.message} {exc.hint}")
            return {self.panel.payload: ""}
        gr.Info(say_for(request)("imported", n=len(transcript.turns)))
        return {self.panel.payload: "", **self.desk.replace(values, transcript, request)}
