"""The handlers of the image tab: attach, remove, look closer at what was found, and what a picture costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

import gradio as gr

from backends.catalog import Card
from backends.errors import PlaygroundError
from backends.hardware import gigabytes, looking_bytes
from backends.pictures import decode
from ui.asking import Asking
from ui.desk import Desk, Update, Values
from ui.pictures import MOST_PICTURES, Picture, attached, cost, cropped
from ui.render import Say
from ui.texts import say_for
from ui.transcript import Transcript
from ui.uploads import uploaded_bytes, uploaded_name


class Looking:
    def __init__(self, desk: Desk, asking: Asking) -> None:
        assert desk.panel.pictures is not None
        self.desk, self.panel, self.pictures = desk, desk.panel, desk.panel.pictures
        self.asking = asking

    def attach(self, values: Values, request: gr.Request) -> Update:
        """Takes uploaded files into the tray; what is no picture is said and left out."""
        tray: tuple[Picture, ...] = values[self.pictures.tray]
        for file in values[self.pictures.upload] or ():
            try:
                tray = attached(tray, decode(uploaded_bytes(file), uploaded_name(file)))
            except PlaygroundError as exc:
                gr.Warning(exc.sentence)
                if len(tray) >= MOST_PICTURES:  # said once, not for each of a thousand files
                    break
        return {self.pictures.upload: None, **self.show_tray(values, tray, request)}

    def clicked(self, values: Values, request: gr.Request) -> Iterator[Update]:
        """What page.js says of a click on the stage: 'remove <id>' or 'closer <id> <x0> <y0> <x1> <y1>'."""
        verb, *words = str(values[self.panel.payload] or "").split() or [""]
        done: Update = {self.panel.payload: ""}
        if verb == "remove" and words:
            tray = tuple(picture for picture in values[self.pictures.tray] if picture.id != words[0])
            yield done | self.show_tray(values, tray, request)
        elif verb == "closer":
            yield done
            yield from self._look_closer(values, words, request)
        else:
            yield done

    def show_tray(self, values: Values, tray: tuple[Picture, ...], request: gr.Request) -> Update:
        """The stage with another tray, which is kept too."""
        transcript: Transcript = values[self.panel.transcript]
        values = values | {self.pictures.tray: tray}
        shown = self.desk.show_pictures(transcript, tray, say_for(request))
        return shown | {self.panel.saved: self.desk.save(values)}

    def _look_closer(self, values: Values, words: list[str], request: gr.Request) -> Iterator[Update]:
        """Cuts the place out of its picture, attaches the piece and asks what it is."""
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


def _is_number(wanted: object) -> TypeGuard[float]:
    return isinstance(wanted, int | float) and wanted == wanted  # not NaN


def price(card: Card, wanted: object, default: int, tray: tuple[Picture, ...], say: Say) -> dict[str, Any]:
    """The slider for this model at `wanted` or at the default, with what a picture costs there."""
    if card.eyes is None:
        return gr.update(interactive=False, info=say("visual_tokens_none"))  # type: ignore[no-any-return]
    eyes = card.eyes
    tokens = int(min(max(wanted, eyes.fewest), eyes.most)) if _is_number(wanted) else default
    needs = looking_bytes(card, tokens)
    memory = gigabytes(needs) if needs >= 1e8 else f"{max(1, needs / 1e6):.0f} MB"
    info = say("visual_tokens_price", tokens=f"{tokens:,}", memory=memory)
    if tray:
        info += " " + say("visual_tokens_now", n=f"{sum(cost(picture, eyes, tokens) for picture in tray):,}")
    return gr.update(  # type: ignore[no-any-return]
        minimum=eyes.fewest, maximum=eyes.most, value=tokens, interactive=eyes.most > eyes.fewest, info=info
    )
