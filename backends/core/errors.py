"""What can go wrong, as one tree. Every error carries a sentence for the user and a hint what to do.

PlaygroundError
├── InvalidRequest          a value out of its bounds, an empty message, a forged history
│   ├── UnknownModel
│   ├── UnsupportedModality a picture for a model that only reads text
│   └── PromptTooLong
├── WeightsError            the model's files cannot be had
│   ├── NotEnoughDisk
│   ├── DamagedFile
│   └── SourceUnreachable
├── EngineError             the engine cannot or did not answer
│   ├── EngineMissing       its library is not installed
│   ├── EngineDied
│   ├── EngineTimeout
│   ├── EngineBusy          it says so itself
│   └── OutOfMemory
├── Busy                    the line is full
│   └── LimitReached        the host allows no more for now
├── Closing                 the playground is being stopped
└── Fault                   of the playground itself

Foreign exceptions are translated where they arise, always `from exc`; `engine.run` is the only place where
exceptions become events. Neither message nor hint ever holds a path, a token or a stack trace.
"""

from __future__ import annotations

import secrets


class PlaygroundError(Exception):
    """Base of the tree. `kind` is a stable machine-readable name, `message` one sentence, `hint` what to do.

    `number` tells this one from all others: a visitor sees it, and the host finds it in the log.
    """

    kind = "error"
    default_hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.number = secrets.token_hex(4)

    @property
    def sentence(self) -> str:
        """For a toast, where there is no other place for hint and number."""
        return f"{self.message} {self.hint} (#{self.number})"


class InvalidRequest(PlaygroundError):
    kind = "invalid_request"
    default_hint = "Change the value and send again."


class UnknownModel(InvalidRequest):
    kind = "unknown_model"
    default_hint = "Choose a model from the list, or leave the field empty for this machine's choice."


class UnsupportedModality(InvalidRequest):
    kind = "unsupported_modality"
    default_hint = "Choose a Qwen-VL model to ask about pictures."


class PromptTooLong(InvalidRequest):
    kind = "prompt_too_long"
    default_hint = "Shorten the message, or split it into several."


class WeightsError(PlaygroundError):
    kind = "weights"
    default_hint = "Try again, or choose another model."


class NotEnoughDisk(WeightsError):
    kind = "not_enough_disk"
    default_hint = "Free some disk space, or choose a smaller model."


class DamagedFile(WeightsError):
    kind = "damaged_file"
    default_hint = "Send again to fetch it anew."


class SourceUnreachable(WeightsError):
    kind = "source_unreachable"
    default_hint = "Check the network connection, or choose a model that is already on this machine."


class EngineError(PlaygroundError):
    kind = "engine"
    default_hint = "Try again; if it happens again, choose another model."


class EngineMissing(EngineError):
    kind = "engine_missing"
    default_hint = "Run 'make setup' to install it."


class EngineDied(EngineError):
    kind = "engine_died"
    default_hint = "Send again: the model is loaded anew. What was written so far is kept."


class EngineTimeout(EngineError):
    kind = "engine_timeout"
    default_hint = "Try again with a shorter message, or choose a smaller model."


class EngineBusy(EngineError):
    """`seconds`: when the engine wants to be asked again, where it says so."""

    kind = "engine_busy"
    default_hint = "Wait a moment and send again, or choose another model."

    def __init__(self, message: str, hint: str = "", seconds: float | None = None) -> None:
        super().__init__(message, hint)
        self.seconds = seconds


class OutOfMemory(EngineError):
    kind = "out_of_memory"
    default_hint = "Choose a smaller model, or close other programs."


class Busy(PlaygroundError):
    kind = "busy"
    default_hint = "Wait a moment and send again."


class LimitReached(Busy):
    kind = "limit_reached"


class Closing(PlaygroundError):
    kind = "closing"
    default_hint = "What was written is kept. Send again in a minute."


class Fault(PlaygroundError):
    """What nobody foresaw. What it was stands in the log, under its number."""

    kind = "internal"
    default_hint = "Send again, or reload the page."

    def __init__(self, message: str = "Something went wrong inside the playground.", hint: str = "") -> None:
        super().__init__(message, hint)
