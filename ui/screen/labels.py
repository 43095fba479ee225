"""Labels that the browser translates, through gradio's I18n. Their texts are those of `ui.conversation.texts`."""

from __future__ import annotations

from functools import cache

import gradio as gr

from ui.conversation.texts import dictionaries


@cache
def i18n() -> gr.I18n:
    # Browsers report 'zh-CN' or 'de-DE'; gradio looks for that first and then for the part before the hyphen.
    return gr.I18n(**dictionaries())


def label(key: str) -> gr.I18nData:
    """A label that the browser translates. Raises KeyError on a key that English lacks."""
    dictionaries()["en"][key]
    return i18n()(key)
