"""The handlers that keep a conversation: undo, clear, examples, export and import."""

from __future__ import annotations

import gradio as gr

from backends.core.errors import InvalidRequest
from backends.pictures.decoder import decode
from ui.conversation.markdown_export import to_markdown
from ui.conversation.pictures import attached, together
from ui.conversation.tabs import example_picture
from ui.conversation.texts import say_for
from ui.conversation.transcript import Transcript, album_of, read_conversation
from ui.screen.desk import Desk, Update, Values


class Keeping:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.panel = desk.panel

    def settle(self, values: Values, request: gr.Request) -> Update:
        """After what may take its time, and so knows nothing of what was done meanwhile: shows and keeps what is there
        now. A question that failed and is in `payload` has its pictures attached again."""
        transcript: Transcript = values[self.panel.transcript]
        free: Update = {}
        if self.desk.running(request) is None:  # whatever broke off cannot have said so
            free = {
                self.panel.composer: gr.update(submit_btn=True, stop_btn=False),
                self.panel.answer_now: gr.update(visible=False),
            }
        if (pictures := self.panel.pictures) is None:
            return {self.panel.saved: self.desk.save(values), **free}
        tray = self.desk.tray(values)
        if transcript.failed and values[self.panel.payload] == transcript.turns[-1].user:
            tray = together(transcript.turns[-1].pictures, tray)
            return self.desk.keep_pictures(values, tray, say_for(request)) | free
        update = self.desk.keep_pictures(values, tray, say_for(request))
        del update[pictures.tray]  # which another handler may be changing
        return update | free

    def undo(self, values: Values, event: gr.UndoData, request: gr.Request) -> Update:
        """Takes the last question back into the composer."""
        transcript: Transcript = values[self.panel.transcript]
        turn = self.desk.turn(transcript, event.index, say_for(request))
        taken = transcript.turns[turn]
        if pictures := self.panel.pictures:
            values = values | {pictures.tray: together(taken.pictures, self.desk.tray(values))}
        update = self.desk.replace(values, transcript.before(turn), request)
        if self.panel.transcript in update:
            words = dict.fromkeys((taken.user, values[self.panel.composer] or taken.user))
            update[self.panel.composer] = gr.update(value="\n".join(words))
        return update

    def clear(self, values: Values, request: gr.Request) -> Update:
        if pictures := self.panel.pictures:
            values = values | {pictures.tray: ()}
        return self.desk.replace(values, Transcript(), request)

    def example(self, values: Values, event: gr.SelectData, request: gr.Request) -> Update:
        """Fills the box and sets what belongs to the example; sending is the visitor's own act."""
        example = self.desk.spec.examples[int(event.index)]
        update: Update = {self.panel.options[name]: value for name, value in example.options.items()}
        update[self.panel.composer] = gr.update(value=example.text)
        if example.picture:
            tray = attached((), decode(example_picture(example.picture)))
            update |= self.desk.keep_pictures(values, tray, say_for(request))
        return update

    def export_json(self, values: Values) -> Update:
        """The payload is a file name, a line break, and the file's text: the page makes the download of it."""
        conversation = self.desk.saved(values, values[self.panel.transcript])
        album = album_of(conversation.transcript, conversation.tray)
        text = conversation.model_copy(update={"album": album}).model_dump_json(indent=2)
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
            conversation = read_conversation(text)
            transcript = conversation.transcript
        except InvalidRequest as exc:
            gr.Warning(exc.sentence)
            return {self.panel.payload: ""}
        if pictures := self.panel.pictures:
            values = values | {pictures.tray: conversation.attached}
        update = self.desk.replace(values, transcript, request)
        if self.panel.transcript in update:  # and not while an answer is being written
            gr.Info(say_for(request)("imported", n=len(transcript.turns)))
        return {self.panel.payload: "", **update}
