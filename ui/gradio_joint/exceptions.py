"""Whatever is raised while the page is served, as the one sentence with a number that its visitor sees."""

from __future__ import annotations

import gradio as gr
from gradio.exceptions import ComponentProcessingError, InvalidPathError
from pydantic import ValidationError

from backends.core.errors import Fault, InvalidRequest, PlaygroundError
from backends.core.logs import logger
from ui.conversation.words import whole

log = logger(__name__)

LONGEST = 500  # characters


class Unfit(ValueError):
    """Too few or too many values: no visitor of the page can send that, and gradio answers it by itself."""


def refusal(exc: Exception) -> gr.Error:
    """For gradio, which shows the sentence of its own errors and of no others."""
    if isinstance(exc, gr.Error):
        exc.message = whole(str(exc.message))[:LONGEST]  # gradio quotes what it was given
        return exc
    if isinstance(exc, ComponentProcessingError | ValidationError | InvalidPathError):
        told = exc.args[0] if isinstance(exc, ComponentProcessingError) else "A value of this request cannot be read."
        exc = InvalidRequest(str(told))
    elif not isinstance(exc, PlaygroundError):
        fault = Fault()
        log.error("a handler of the page failed", exc_info=exc, number=fault.number)
        exc = fault
    return gr.Error(exc.sentence, print_exception=False)
