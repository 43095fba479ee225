"""What is said of a model that fails while it answers."""

from __future__ import annotations

import logging

import torch

from backends.core.errors import EngineDied, EngineError, OutOfMemory

log = logging.getLogger(__name__)

_NO_MEMORY = (  # the last one is all that oneDNN says of it
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "could not create a primitive",
)


def told(exc: Exception) -> Exception:
    """The error for the visitor: none of the library's own words, which may quote paths."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if is_out_of_memory(exc):
        return OutOfMemory(
            "There was not enough memory for this conversation.",
            "Send a shorter message, start a new conversation, or choose a smaller model.",
        )
    log.error("the model failed", exc_info=exc)
    return EngineError("The model failed in the middle of the answer.")


def unloaded() -> EngineDied:
    return EngineDied("The model was unloaded in the middle of the answer.")


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether torch, on whatever device, or Python could not get the memory."""
    if isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(exc, RuntimeError) and any(words in str(exc) for words in _NO_MEMORY)
