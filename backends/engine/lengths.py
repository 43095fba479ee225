"""An engine's answer, held to the length that was asked for: the one place where an engine's word is not enough.

Tokens are those that the events tell. A server that counts at the end only is taken to make a token a delta: servers
join tokens into one delta, and do not spread one over several. So an engine that keeps to the limit is never cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from backends.core.cancel import Cancel
from backends.core.logs import logger
from backends.core.types import Answer, Backend, Done, GenerationRequest, Loading, Thought, Usage

log = logger(__name__)

LONGEST_TOKEN = 256  # characters; no vocabulary has a longer one. For a server whose count stays at 0.
LAST_EVENTS = 64  # that an engine may still send after its cancel, before its Done


def kept_to_length(
    backend: Backend, request: GenerationRequest, cancel: Cancel
) -> Iterator[Loading | Thought | Answer | Done]:
    """`backend.stream`, cancelled and done with 'length' as soon as it goes on beyond `max_new_tokens`."""
    most = request.sampling.max_new_tokens
    spent = {Thought: 0, Answer: 0}
    characters = 0
    cut = Cancel()
    undo = cancel.on_cancel(cut)
    try:
        stream = backend.stream(request, cut)
        for event in stream:
            if not isinstance(event, Thought | Answer):
                yield event
                continue
            left = most - sum(spent.values())
            characters += len(event.text)
            if event.tokens <= left and characters <= most * LONGEST_TOKEN:
                spent[type(event)] += event.tokens
                yield event
                continue
            cut()
            log.warning("an engine went on beyond max_new_tokens", engine=backend.capabilities.engine, most=most)
            if text := event.text[: len(event.text) * left // event.tokens] if event.tokens else "":
                spent[type(event)] += left
                yield _shortened(event, text, left)
            told = next((last for last in islice(stream, LAST_EVENTS) if isinstance(last, Done)), Done("length"))
            usage = Usage(told.usage.prompt, told.usage.cached, spent[Thought], spent[Answer])
            yield replace(told, reason="cancelled" if cancel.is_set() else "length", usage=usage)
            return
    finally:
        undo()


def _shortened(event: Thought | Answer, text: str, tokens: int) -> Thought | Answer:
    """A delta of which only so many tokens are allowed; where they end in its text can only be estimated."""
    if isinstance(event, Thought):
        return Thought(text, tokens)
    return Answer(text, tokens, event.logprobs[:tokens])
