"""Thoughts and answers: telling them apart in a text, and ending the thoughts in time.

Knows nothing of engines beyond the `Backend` protocol: a budget and the 'answer now' button rest on the one thing most
engines do, which is to continue a message of the assistant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from backends.catalog.prompts import with_reasoning_prompt
from backends.core.cancel import Cancel, Controls
from backends.core.types import Answer, Backend, Begun, Done, GenerationRequest, Loading, Thought, Usage
from backends.engine.lengths import kept_to_length

OPEN, CLOSE = "<think>", "</think>"

# Qwen's own words for a spent budget (Qwen3 docs, 'Thinking Budget'); the closing tag is the template's business.
CLOSING_SENTENCE = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly now.\n"
)

# A model that was never trained to think often ends its turn with the thoughts, the result among them; without these
# words it then goes on to verify instead of answering.
PROMPTED_CLOSING = "\n\nNow I write the complete final answer for the user.\n"


class Splitter:
    """Splits a text that arrives in pieces into ('thought' | 'answer', piece) pairs.

    Starts inside the thoughts where the prompt already opened them. A marker cut over several pieces is held back
    until it can be told. An opening marker counts only at the very start: later it is a word like any other.
    """

    def __init__(self, inside: bool) -> None:
        self._inside = inside
        self._at_start = True  # leading blank lines of either part are layout, not text
        self._may_open = not inside
        self._held = ""

    def feed(self, piece: str) -> Iterator[tuple[str, str]]:
        text, self._held = self._held + piece, ""
        while text:
            if self._at_start:
                text = text.lstrip("\n" if self._inside else " \n")
                if not text:
                    return
            if self._inside:
                before, marker, text = text.partition(CLOSE)
                if not marker:
                    yield from self._emit("thought", before, CLOSE)
                    return
                if before := before.rstrip("\n"):
                    yield "thought", before
                self._inside, self._may_open, self._at_start = False, False, True
            elif self._may_open and text.startswith(OPEN):
                text = text[len(OPEN) :]
                self._inside, self._at_start = True, True
            elif self._may_open and OPEN.startswith(text):
                self._held = text
                return
            else:
                self._may_open = self._at_start = False
                yield "answer", text
                return

    def flush(self) -> Iterator[tuple[str, str]]:
        """What was held back in vain, once the text has ended."""
        if self._held:
            yield ("thought" if self._inside else "answer"), self._held
            self._held = ""

    def _emit(self, kind: str, text: str, marker: str) -> Iterator[tuple[str, str]]:
        """Gives out `text` but for a tail that may be the start of `marker`, blank lines before it included."""
        keep = next((n for n in range(min(len(marker) - 1, len(text)), 0, -1) if marker.startswith(text[-n:])), 0)
        ready = text[: len(text) - keep].rstrip("\n")
        self._held = text[len(ready) :]
        if ready:
            self._at_start = False
            yield kind, ready


def prepare(request: GenerationRequest, continues: bool = True) -> GenerationRequest:
    """The request as it will be read: a model never trained to think gets a prompt for it and, where the engine
    `continues` what has begun, begins with '<think>'."""
    if not request.thinking.enabled or request.card.thinking.kind != "prompted":
        return request
    begun = Begun(closed=False) if continues else None
    return replace(request, messages=with_reasoning_prompt(request.messages), begun=begun)


def think_then_answer(
    backend: Backend, request: GenerationRequest, controls: Controls
) -> Iterator[Loading | Thought | Answer | Done]:
    """One answer with its thoughts, ended by the model, by the budget or by 'answer now', as one stream.

    On an engine that cannot continue what has begun only the model ends its thoughts.
    """
    continues = backend.capabilities.continues
    request = prepare(request, continues)
    if not request.thinking.enabled or not continues:
        yield from kept_to_length(backend, request, controls.cancel)
        return
    cut = Cancel()  # ends the thinking phase only, for whichever reason
    forget = [controls.cancel.on_cancel(cut), controls.answer_now.on_cancel(cut)]
    thoughts: list[str] = []
    thinking_tokens = 0
    answer: list[str] = []
    first: Done | None = None
    try:
        for event in kept_to_length(backend, request, cut):
            if isinstance(event, Thought):
                thoughts.append(event.text)
                thinking_tokens += event.tokens
                if request.thinking.budget is not None and thinking_tokens >= request.thinking.budget:
                    cut()
            elif isinstance(event, Answer):
                answer.append(event.text)
                if len(answer) == 1:
                    forget.pop()()  # too late for 'answer now': the answer is under way
            if isinstance(event, Done):
                first = event
            else:
                yield event
    finally:
        for undo in forget:
            undo()
    assert first is not None, "the adapter ended without Done"
    cut_short = first.reason == "cancelled"  # by the budget or by 'answer now'
    if controls.cancel.is_set() or first.reason == "length" or ("".join(answer).strip() and not cut_short):
        yield first
        return
    left = request.sampling.max_new_tokens - thinking_tokens - first.usage.answer
    if left < 1:
        yield replace(first, reason="length")
        return

    if not answer:
        closing = CLOSING_SENTENCE if cut_short else PROMPTED_CLOSING
        thoughts.append(closing)
        yield Thought(closing, tokens=0)
    again = replace(
        request,
        sampling=request.sampling.model_copy(update={"max_new_tokens": left}),
        begun=Begun(thoughts="".join(thoughts), closed=True, answer="".join(answer)),
    )
    for event in kept_to_length(backend, again, controls.cancel):
        if isinstance(event, Done):
            answer_tokens = first.usage.answer + event.usage.answer
            usage = Usage(first.usage.prompt, first.usage.cached, thinking_tokens, answer_tokens)
            yield replace(event, usage=usage)
        elif not isinstance(event, Thought):
            yield event
