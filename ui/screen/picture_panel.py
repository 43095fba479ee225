"""What the image tab has beside the talk: the stage with the pictures, the way in for new ones, and their price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import gradio as gr

from backends.catalog.cards import Card
from backends.catalog.choice import gigabytes, looking_bytes
from backends.catalog.eyes import Eyes
from ui.conversation.pictures import Picture, cost
from ui.conversation.render import Say
from ui.screen.labels import label


@dataclass(frozen=True, eq=False)
class PicturePanel:
    """`tray`: pictures that are attached and not sent yet. `album`: all pictures, in the visitor's browser. `notice`:
    what must be known of a model that is only a demonstration."""

    stage: gr.HTML
    tray: gr.State
    album: gr.BrowserState
    upload: gr.UploadButton
    notice: gr.Markdown
    visual_tokens: gr.Slider


def build_stage(
    tab: str, storage_secret: str, empty: str
) -> tuple[gr.HTML, gr.State, gr.BrowserState, gr.UploadButton, gr.Markdown]:
    """The column beside the talk, within the Row that is open. page.js pastes, drops and photographs into `upload`.

    Every file is let in: what is a picture is told from its content, and a sentence says so where it is none.
    """
    with gr.Column(elem_classes="gallery"):
        stage = gr.HTML(empty, elem_id=f"stage-{tab}")
        with gr.Row(elem_classes="ways-in"):
            upload = gr.UploadButton(label("picture_add"), file_count="multiple", size="sm", elem_classes="upload")
            gr.Button(label("picture_camera"), size="sm", elem_classes="camera")
        notice = gr.Markdown(elem_classes="notice")
    album = gr.BrowserState({}, storage_key=f"qwen-playground-{tab}-album", secret=storage_secret, render=False)
    return stage, gr.State(()), album, upload, notice


def visual_tokens_slider(eyes: Eyes | None) -> gr.Slider:
    """How finely a picture is looked at; what that costs stands in its info.

    Its bounds follow the model. Gradio would hold a value against new bounds that the page has not heard of yet, and
    lose what the visitor did: `check_pictures` holds it against those of the model that is asked. Without eyes no
    model of the page sees, and there is nothing to choose.
    """
    least, most, value = (eyes.fewest, eyes.most, eyes.default) if eyes else (0, 1, 0)
    name, movable = label("visual_tokens"), eyes is not None
    slider = gr.Slider(least, most, value, step=1, label=name, interactive=movable, buttons=[])
    slider.preprocess = lambda payload: payload
    return slider


def slider_for(card: Card, wanted: object, default: int, tray: tuple[Picture, ...], say: Say) -> dict[str, Any]:
    """The slider for this model at `wanted` or at the default, with what a picture costs there."""
    if (eyes := card.eyes) is None:
        return gr.update(interactive=False, info=price(card, wanted, default, tray, say))  # type: ignore[no-any-return]
    return gr.update(  # type: ignore[no-any-return]
        minimum=eyes.fewest,
        maximum=eyes.most,
        value=_within(eyes, wanted, default),
        interactive=eyes.most > eyes.fewest,
        info=price(card, wanted, default, tray, say),
    )


def price(card: Card, wanted: object, default: int, tray: tuple[Picture, ...], say: Say) -> str:
    """What a picture costs with `wanted` visual tokens, and what those that are attached cost together."""
    if (eyes := card.eyes) is None:
        return say("visual_tokens_none")
    tokens = _within(eyes, wanted, default)
    needs = looking_bytes(card, tokens)
    memory = gigabytes(needs) if needs >= 1e8 else f"{max(1, needs / 1e6):.0f} MB"
    info = say("visual_tokens_price", tokens=f"{tokens:,}", memory=memory)
    if tray:
        info += " " + say("visual_tokens_now", n=f"{sum(cost(picture, eyes, tokens) for picture in tray):,}")
    return info


def _within(eyes: Eyes, wanted: object, default: int) -> int:
    return int(min(max(wanted, eyes.fewest), eyes.most)) if _is_number(wanted) else default


def _is_number(wanted: object) -> TypeGuard[float]:
    return isinstance(wanted, int | float) and wanted == wanted  # not NaN
