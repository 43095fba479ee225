"""A conversation as OpenAI's chat completions spell it: text, and pictures as data URIs.

Knows nothing of servers. A picture is sent only as the bytes that the playground's own decoder made: nothing that came
in from outside can name an address for an engine to open.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from backends.adapters.llama_cpp.placeholders import Guard, words
from backends.core.special_tokens import defuse
from backends.core.types import GenerationRequest, Image, Message, Text

Wire = dict[str, Any]
Show = Callable[[Image], Wire]


def as_sent(picture: Image) -> Wire:
    data = base64.b64encode(picture.png).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def as_counted(picture: Image) -> Wire:
    """In place of a picture, what stands in the prompt around it and one token for all of what it shows."""
    return _text("<|vision_start|><|image_pad|><|vision_end|>")


def more_tokens(request: GenerationRequest) -> int:
    """What the pictures cost above the one token that `as_counted` gives to each, in the size in which they are."""
    if (eyes := request.card.eyes) is None:
        return 0
    return sum(eyes.tokens(picture.width, picture.height) - 1 for picture in request.images)


def wire_messages(messages: tuple[Message, ...], show: Show = as_sent, guard: Guard = defuse) -> list[Wire]:
    """Typed control tokens become plain text by `guard`. Several pictures are numbered, in the words of Qwen's own
    templates, which llama-server keeps from doing it: they see a picture as text."""
    several = sum(len(message.images) for message in messages) > 1
    labels = (f"Picture {number}: " if several else "" for number in count(1))
    return [_message(message, labels, show, guard) for message in messages]


def _message(message: Message, labels: Iterator[str], show: Show, guard: Guard) -> Wire:
    if message.images:
        content: str | list[Wire] = list(_parts(message, labels, show, guard))
    else:
        content = words(message.parts, guard)
    wire: Wire = {"role": message.role, "content": content}
    return wire | {"reasoning_content": guard(message.thoughts)} if message.thoughts else wire


def _parts(message: Message, labels: Iterator[str], show: Show, guard: Guard) -> Iterator[Wire]:
    """Text and pictures in their order, with all the text between two pictures in one part."""
    between: list[Text] = []
    for part in message.parts:
        if isinstance(part, Text):
            between.append(part)
            continue
        if text := words([*between, Text(next(labels), ours=True)], guard):
            yield _text(text)
        between = []
        yield show(part)
    if text := words(between, guard):
        yield _text(text)


def _text(text: str) -> Wire:
    return {"type": "text", "text": text}
