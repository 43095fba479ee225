"""What the image tab has beside the talk: the stage with the pictures, the way in for new ones, and their price."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from backends.eyes import Eyes
from ui.texts import label

ACCEPTED = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"]


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
    """The column beside the talk, within the Row that is open. page.js pastes, drops and photographs into `upload`."""
    with gr.Column(elem_classes="gallery"):
        stage = gr.HTML(empty, elem_id=f"stage-{tab}")
        with gr.Row(elem_classes="ways-in"):
            upload = gr.UploadButton(
                label("picture_add"), file_count="multiple", file_types=ACCEPTED, size="sm", elem_classes="upload"
            )
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
