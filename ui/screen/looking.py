"""The handlers of the image tab: attach, remove, look closer at what was found."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from backends.core.errors import PlaygroundError
from backends.pictures.decoder import decode
from backends.pictures.formats import is_animated
from ui.conversation.pictures import MOST_PICTURES, Picture, attached, cropped
from ui.conversation.texts import say_for
from ui.conversation.transcript import Transcript
from ui.screen.asking import Asking
from ui.screen.desk import Desk, Update, Values
from ui.visitors.uploads import uploaded_bytes, uploaded_name


class Looking:
    def __init__(self, desk: Desk, asking: Asking) -> None:
        assert desk.panel.pictures is not None
        self.desk, self.panel, self.pictures = desk, desk.panel, desk.panel.pictures
        self.asking = asking

    def attach(self, values: Values, request: gr.Request) -> Update:
        """Takes uploaded files into the tray; what is no picture is said and left out."""
        tray: tuple[Picture, ...] = values[self.pictures.tray]
        animated = False
        for file in values[self.pictures.upload] or ():
            try:
                data = uploaded_bytes(file)
                tray = attached(tray, decode(data, uploaded_name(file)))
                animated = animated or is_animated(data)
            except PlaygroundError as exc:
                gr.Warning(exc.sentence)
                if len(tray) >= MOST_PICTURES:  # said once, not for each of a thousand files
                    break
        if animated:
            gr.Info(say_for(request)("note_animated"))
        return {self.pictures.upload: None, self.pictures.tray: tray}

    def remove(self, values: Values) -> Update:
        """What page.js says of a click on a button: 'remove <id>'."""
        verb, *words = str(values[self.panel.payload] or "").split() or [""]
        tray: tuple[Picture, ...] = values[self.pictures.tray]
        return {self.pictures.tray: tuple(p for p in tray if verb != "remove" or [p.id] != words)}

    def look_closer(self, values: Values, request: gr.Request) -> Iterator[Update]:
        """What page.js says of a click on a mark: 'closer <id> <x0> <y0> <x1> <y1>'. Cuts the place out of its picture,
        attaches the piece and asks what it is."""
        verb, *words = str(values[self.panel.payload] or "").split() or [""]
        yield {self.panel.payload: ""}
        if verb != "closer":
            return
        transcript: Transcript = values[self.panel.transcript]
        try:
            name, *corners = words
            picture = next(p for p in reversed(transcript.pictures) if p.id == name)
            x0, y0, x1, y1 = (int(corner) for corner in corners)
            piece = cropped(picture, (x0, y0, x1, y1))
        except PlaygroundError as exc:
            gr.Warning(exc.sentence)
            return
        except (ValueError, StopIteration):  # not from our page
            return
        asked = say_for(request)("ask_describe")
        plainly = values | {self.panel.options["task"]: "answer"}
        yield from self.asking.ask(plainly, request, asked, (piece,))
