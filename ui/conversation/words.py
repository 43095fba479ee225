"""The one way in for texts from outside, whatever field they come in. Knows nothing of gradio."""

from __future__ import annotations

import re

from backends.core.errors import InvalidRequest

MAX_MESSAGE = 2_000_000  # characters; far above any context, so that the tokens can still be counted and named
MAX_SYSTEM = 100_000
_HALF = re.compile("[\ud800-\udfff]")


def check_text(field: str, value: object, longest: int) -> str:
    """The text as it is. Raises `InvalidRequest` naming the field on what is none, too long, or no Unicode."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{field} must be a text.")
    if len(value) > longest:
        raise InvalidRequest(
            f"{field} has {len(value):,} characters; at most {longest:,} are allowed.", "Shorten it and send again."
        )
    if half := _HALF.search(value):
        raise InvalidRequest(
            f"{field} holds half a character (U+{ord(half[0]):04X} at place {half.start() + 1:,}), which is no text.",
            "Delete it and send again.",
        )
    return value


def whole(text: str) -> str:
    """The text with a replacement character for every half of one: for what has to be kept before it can be refused."""
    return _HALF.sub("\ufffd", text)
