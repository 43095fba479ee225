"""A prompt as tokens, by llama-server's own template and tokenizer, where messages would not do.

That is where a text that is not ours holds what looks like a control token, and where the template would put a system
prompt of its own where none is wanted. Everything else goes as messages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends.adapters.llama_cpp.placeholders import (
    Guard,
    Placeholders,
    fragments,
    has_system_message,
    has_typed_control_tokens,
    own_system_prompt,
)
from backends.core.errors import EngineBusy, EngineError, InvalidRequest
from backends.core.types import GenerationRequest
from backends.engine.thinking import OPEN

Post = Callable[[str, dict[str, Any]], dict[str, Any]]
Body = Callable[[GenerationRequest, Guard], dict[str, Any]]
BETWEEN = -1  # no token's number: what /tokenize is given as a number, it gives back


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """`ids` as the model reads them; `opened`: the thoughts are open at its end."""

    ids: list[int]
    opened: bool


class TokenPrompts:
    """For one model. `body` makes what a request is on the wire, with what is given in place of people's words."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._own: dict[bool, str] = {}  # by the thinking switch

    def make(self, request: GenerationRequest, post: Post) -> TokenPrompt | None:
        """None where the request can go as messages, and where the server does not offer the ways to do it."""
        if request.images:
            return None
        try:
            own = "" if has_system_message(request) else self._own_system_prompt(request, post)
            if not own and not has_typed_control_tokens(request):
                return None
            return self._made(request, own, post)
        except EngineBusy:
            raise
        except (EngineError, LookupError, TypeError, ValueError):  # a router in front of it may know the chat alone
            return None

    def _made(self, request: GenerationRequest, own: str, post: Post) -> TokenPrompt:
        marks = Placeholders()
        rendered = post("/apply-template", self._body(request, marks.put))["prompt"].removeprefix(own)
        parts = marks.cut(rendered)
        meant: list[str | int] = [word for part in parts if part.ours for word in (part.text, BETWEEN)]
        told = post("/tokenize", {"content": meant, "add_special": True, "parse_special": True})["tokens"]
        ends = [place for place, token in enumerate(told) if token == BETWEEN]
        starts = [0, *(end + 1 for end in ends)]
        ours = [told[start:end] for start, end in zip(starts, [*ends, len(told)], strict=True)][:-1]
        mixed: list[str | int] = []
        for number, part in enumerate(parts):  # every other one is the template's
            mixed += fragments(part.text) if number % 2 else ours[number // 2]
        ids = post("/tokenize", {"content": mixed, "add_special": False, "parse_special": False})["tokens"]
        begun = request.begun
        return TokenPrompt(ids, not begun.closed if begun else rendered.rstrip().endswith(OPEN))

    def _own_system_prompt(self, request: GenerationRequest, post: Post) -> str:
        switch = request.thinking.enabled
        if switch not in self._own:
            body = self._body(request, str)

            def render(messages: list[dict[str, Any]]) -> str:
                asked = body | {"messages": messages, "add_generation_prompt": False}
                asked.pop("continue_final_message", None)
                return str(post("/apply-template", asked)["prompt"])

            try:
                self._own[switch] = own_system_prompt(render)
            except InvalidRequest:  # a template that does not take two questions in a row
                self._own[switch] = ""
        return self._own[switch]
