"""People's words and the template's own, told apart in a rendered prompt.

A chat template is rendered with something unguessable in place of what people (and models, in what they said before)
have written. So the template sees none of it to obey or to trim by mistake, and each part is tokenised as what it is:
control tokens count in the template's own parts alone, and nothing has to be put into anybody's text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, pairwise
from typing import Any

from backends.core.special_tokens import has_control_tokens
from backends.core.types import GenerationRequest, Part, Text

Guard = Callable[[str], str]
"""What stands in a message for words that are not ours."""
Render = Callable[[list[dict[str, Any]]], str]
"""A chat template without its switch: messages to text, with nothing added for the answer to begin."""

# Letters that end the name of something in angle brackets. Added tokens that are no control tokens ('<tool_call>') are
# found by tokenizers wherever they stand whole; a word's end is where they would cut an ordinary text, too.
_NAME_ENDS = re.compile(r"<[^<>\s]*[^\W_](?=(?:[^\w\s<>]|_)*>)")


class Placeholders:
    """What stands in for the texts of one prompt."""

    def __init__(self) -> None:
        self._key = secrets.token_hex(8)
        self._texts: list[str] = []

    def put(self, text: str) -> str:
        """In place of `text`: white space around it stays, since templates trim it."""
        if not (core := text.strip()):
            return text
        self._texts.append(core)
        return text.replace(core, f"q{self._key}q{len(self._texts) - 1}q", 1)

    def cut(self, rendered: str) -> list[Text]:
        """The rendered prompt in parts, the template's (`ours`) first and last and between any two of others.

        White space goes where a tokenizer takes it along: spaces with the word after them, line ends with what is
        before. So the tokens are those of the whole prompt, but for control tokens that someone typed.
        """
        found = re.split(rf"([^\S\r\n]*)q{self._key}q(\d+)q((?:\s*[\r\n])?)", rendered)
        parts = [Text(found[0], ours=True)]
        for before, number, after, rest in zip(found[1::4], found[2::4], found[3::4], found[4::4], strict=True):
            parts += [Text(before + self._texts[int(number)] + after), Text(rest, ours=True)]
        return parts


def fragments(text: str) -> list[str]:
    """Someone's text in pieces none of which holds a token that stands in angle brackets."""
    ends = [0, *(name.end() for name in _NAME_ENDS.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(ends) if end > start]


def own_system_prompt(render: Render) -> str:
    """What a template writes at the start of a conversation that has no system message, where it is a system prompt of
    its own accord: it has the surroundings that a given one has. Empty for most."""
    marks = Placeholders()
    system, first, second = (marks.put(name) for name in ("system", "first", "second"))
    talk = [{"role": "user", "content": text} for text in (first, second)]
    without = re.split(f"{first}|{second}", render(talk))
    given = re.split(f"{system}|{first}", render([{"role": "system", "content": system}, *talk]))
    if len(without) != 3 or len(given) != 3:
        return ""
    before, between, closing = without
    opening = between.removeprefix(closing)  # of a user's message
    own, (head, tail) = before.removesuffix(opening), (given[0], given[1].removesuffix(opening))
    surrounded = own.startswith(head) and own.endswith(tail) and len(own) >= len(head) + len(tail)
    return own if surrounded else ""


def runs(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, with texts in a row that are of the same kind as one: a control token may lie across two."""
    for kind, run in groupby(parts, key=lambda part: part.ours if isinstance(part, Text) else None):
        if kind is None:
            yield from run
        else:
            yield Text("".join(part.text for part in run if isinstance(part, Text)), ours=kind)


def words(parts: Iterable[Part], guard: Guard) -> str:
    """All the text of the parts, with `guard` for what is not ours."""
    texts = (part for part in runs(parts) if isinstance(part, Text))
    return "".join(part.text if part.ours else guard(part.text) for part in texts)


def has_typed_control_tokens(request: GenerationRequest) -> bool:
    """Whether words that are not ours hold what the engine would take for a control token."""
    found: list[bool] = []

    def look(text: str) -> str:
        found.append(has_control_tokens(text))
        return text

    for message in request.messages:
        words(message.parts, look)
        look(message.thoughts)
    if request.begun:
        look(request.begun.thoughts)
        look(request.begun.answer)
    return any(found)


def has_system_message(request: GenerationRequest) -> bool:
    return bool(request.messages) and request.messages[0].role == "system"
