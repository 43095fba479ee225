"""The wire to every server that speaks OpenAI's chat completions: one code path, differences are rows of a table.

Knows nothing of processes or of weights. The llama.cpp adapter speaks through it to its child, `remote.py` to servers
elsewhere. Only allow-listed fields are ever sent (an unknown key reaches the engine's core: CVE-2026-21869), every
sampling value always is, since the servers' own defaults differ from Qwen's.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx

from backends.adapters.llama_cpp.placeholders import Guard, has_system_message, has_typed_control_tokens
from backends.adapters.llama_cpp.tokens import TokenPrompt, TokenPrompts
from backends.adapters.openai.answers import NO_ANSWER, AnswerReader, as_chat, chunks, refusal
from backends.adapters.openai.dialects import Dialect
from backends.adapters.openai.joiner import Unjoiner
from backends.adapters.openai.links import Link, Links
from backends.adapters.openai.messages import Show, as_counted, as_sent, more_tokens, wire_messages
from backends.core.cancel import Cancel
from backends.core.errors import EngineBusy, EngineDied, EngineError, EngineTimeout
from backends.core.special_tokens import defuse
from backends.core.types import Answer, Done, GenerationRequest, Loading, Message, Thought
from backends.engine.thinking import CLOSE, OPEN

PATH = "/v1/chat/completions"
TOKENS_PATH = "/completion"
BROKE_OFF = "The engine broke off in the middle of the answer."
ATTEMPTS = 4
"""How often a busy server is asked in all, before the first token; after it never again."""
WAIT_SECONDS = 5.0
"""Before the second attempt where the server does not say; doubled from one to the next."""
LONGEST_WAIT_SECONDS = 60.0
SYSTEM_OF_TEMPLATE = 32
"""Tokens at most of the system message that Qwen2.5's template adds where there is none."""
GRACE_SECONDS = 10.0
"""After which a client gives up by itself on a silence that `_Watch` should have ended."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until the first sign of an answer, and from one to the next."""

    first: float = 120.0
    between: float = 120.0


class Wire:
    """One model on one server. `links` lead to it and may be shared."""

    def __init__(self, links: Links, dialect: Dialect, model: str, patience: Patience = Patience()) -> None:
        self._links = links
        self._dialect = dialect
        self._model = model
        self._patience = patience
        self._token_prompts = TokenPrompts(lambda request, guard: self._prompt(request, guard=guard))

    def body(self, request: GenerationRequest, tokens: TokenPrompt | None = None) -> dict[str, Any]:
        """The JSON sent for `request`, as `tokens` where there are: nothing but allow-listed fields."""
        dialect = self._dialect
        # What marks thoughts must come as text, even where it is a control token: it is told apart here.
        prompt = {"prompt": tokens.ids, "preserved_tokens": [OPEN, CLOSE]} if tokens else self._messages(request)
        body: dict[str, Any] = {"model": self._model, "stream": True, **dialect.extra, **prompt}
        packed: dict[str, Any] = {}
        for ours, theirs in dialect.sampling.items():
            if (value := getattr(request.sampling, ours)) is not None:
                (packed if dialect.packed_into and ours not in dialect.unpacked else body)[theirs] = value
        if dialect.packed_into:
            greedy = packed.get("temperature") == 0
            if greedy:
                packed = {}
            body[dialect.packed_into] = json.dumps({"do_sample": not greedy, **packed})
        if request.logprobs and dialect.logprobs:
            body |= {"n_probs": request.logprobs} if tokens else {"logprobs": True, "top_logprobs": request.logprobs}
        if request.conversation and dialect.takes_user:
            body["user"] = request.conversation
        return body

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Loading | Thought | Answer | Done]:
        """As `Backend.stream`. Closing the generator or cancelling ends the request on the server too.

        A busy server is asked again, with the seconds told, until the first sign of an answer; then never.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                yield from self._answer(request, cancel)
                return
            except EngineBusy as busy:
                wait = busy.seconds if busy.seconds is not None else WAIT_SECONDS * 2 ** (attempt - 1)
                if attempt == ATTEMPTS or wait > LONGEST_WAIT_SECONDS:
                    raise
            yield from _wait(wait * random.uniform(1.0, 1.25), cancel)  # not all of a class at the same instant

    def _answer(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Loading | Thought | Answer | Done]:
        answer, joiner = AnswerReader(request, self._dialect), Unjoiner(joined=False)
        if cancel.is_set():
            yield from answer.end(cancelled=True)
            return
        with self._links.borrow() as link:
            watch = _Watch(self._patience, link.hang_up)
            undo = cancel.on_cancel(link.hang_up)
            try:
                if (tokens := self._tokens(request, link)) is not None:
                    answer = AnswerReader(request, self._dialect, tokens.opened)
                joiner = Unjoiner(tokens is None and has_typed_control_tokens(request))
                path, body = TOKENS_PATH if tokens else PATH, self.body(request, tokens)
                with link.client.stream(
                    "POST", path, json=body, headers=_headers(request), extensions=link.extensions
                ) as response:
                    if response.status_code != 200:
                        raise refusal(response.status_code, response.read(), response.headers.get("retry-after", ""))
                    for chunk in chunks(watch.heard(response.iter_raw())):
                        try:
                            yield from joiner.clean(answer.read(as_chat(chunk) if tokens else chunk))
                        except (AttributeError, KeyError, TypeError, ValueError) as exc:
                            raise EngineError(NO_ANSWER) from exc
                        if cancel.is_set():
                            break
                if not answer.finished and not cancel.is_set():
                    raise httpx.RemoteProtocolError(BROKE_OFF)
            except httpx.HTTPError as exc:
                if not cancel.is_set():
                    raise _broken(exc, watch, answer) from exc
            finally:
                undo()
                watch.end()
        yield from joiner.clean(answer.end(cancelled=cancel.is_set()))

    def count_tokens(self, request: GenerationRequest) -> int:
        """Tokens of the rendered prompt, by the server's own template and tokenizer where it offers them; else an
        estimate from above: Qwen's tokens have three bytes and more."""
        try:
            if self._dialect.counting:
                with self._links.borrow() as link:
                    if (counted := self._counted(request, link)) is not None:
                        return counted + more_tokens(request)
        except httpx.HTTPError as exc:
            raise EngineDied("The engine broke off while it counted the tokens of the message.") from exc
        except (KeyError, TypeError, ValueError) as exc:
            raise EngineError(NO_ANSWER) from exc
        text = sum(len((message.text + message.thoughts).encode()) for message in request.messages)
        return text // 3 + 16 * len(request.messages) + SYSTEM_OF_TEMPLATE + more_tokens(request)

    def _counted(self, request: GenerationRequest, link: Link) -> int | None:
        if (tokens := self._tokens(request, link)) is not None:
            return len(tokens.ids)
        prompt = self._messages(request, as_counted)
        if self._dialect.counting == "llama":
            rendered = _post(link, "/apply-template", prompt)["prompt"]
            whole = {"content": rendered, "add_special": True, "parse_special": True}
            return len(_post(link, "/tokenize", whole)["tokens"])
        with suppress(EngineError):  # a router in front of it may not know the way
            return int(_post(link, "/tokenize", {"model": self._model, **prompt})["count"])
        return None

    def _tokens(self, request: GenerationRequest, link: Link) -> TokenPrompt | None:
        """The prompt as tokens, where it has to be and the server takes it so."""
        return self._token_prompts.make(request, partial(_post, link)) if self._dialect.counting == "llama" else None

    def _messages(self, request: GenerationRequest, show: Show = as_sent) -> dict[str, Any]:
        """The prompt as messages. An empty system message is the nearest to none that a template with a system prompt
        of its own can be told."""
        if request.card.own_system_prompt and not has_system_message(request):
            request = replace(request, messages=(Message.of("system", ""), *request.messages))
        return self._prompt(request, show)

    def _prompt(self, request: GenerationRequest, show: Show = as_sent, guard: Guard = defuse) -> dict[str, Any]:
        """The messages, the thinking switch and, where the answer has begun, how it is to be continued."""
        dialect, kind = self._dialect, request.card.thinking.kind
        body: dict[str, Any] = {"messages": wire_messages(request.messages, show, guard)}
        value = dialect.thinking_values[request.thinking.enabled]
        if kind == "switch" and dialect.thinking_switch and value is not None:
            target = body
            for key in dialect.thinking_switch[:-1]:
                target = target.setdefault(key, {})
            target[dialect.thinking_switch[-1]] = value
        if (begun := request.begun) is not None:
            thoughts, said = guard(begun.thoughts), guard(begun.answer)
            last = {"role": "assistant", "content": said}
            part: str | bool = True
            if dialect.continues == "parts":
                part = "content"
            if thoughts or not begun.closed:
                if dialect.continues == "parts" and kind != "prompted":
                    last["reasoning_content"] = thoughts
                    part = "content" if begun.closed else "reasoning_content"
                else:  # the template, or the server, knows no thoughts: they are text like any other
                    last["content"] = f"{OPEN}\n{thoughts}" + (f"\n{CLOSE}\n\n{said}" if begun.closed else "")
            body |= {"continue_final_message": part, "add_generation_prompt": False}
            body["messages"].append(last)
        return body


def _post(link: Link, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = link.client.post(path, json=body, extensions=link.extensions)
    if response.status_code != 200:
        raise refusal(response.status_code, response.content)
    result: dict[str, Any] = response.json()
    return result


def _headers(request: GenerationRequest) -> dict[str, str]:
    """The key of the conversation is for routers that keep it on the replica whose cache knows it."""
    session = {"x-session-id": request.conversation} if request.conversation else {}
    return {"Accept-Encoding": "identity"} | session


def _broken(exc: httpx.HTTPError, watch: _Watch, answer: AnswerReader) -> EngineError:
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        return EngineDied("The engine cannot be reached.", "Try again, or choose another engine or model.")
    if isinstance(exc, httpx.TimeoutException) or watch.expired:
        when = "stopped answering in the middle of its work" if answer.begun else "did not answer in time"
        return EngineTimeout(f"The engine {when}.")
    return EngineDied(BROKE_OFF)


def _wait(seconds: float, cancel: Cancel) -> Iterator[Loading]:
    """Counts down once a second; ends at once when cancelled."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not cancel.is_set():
        yield Loading("waiting", seconds_left=left)
        cancel.wait(min(1.0, left))


class _Watch:
    """Hangs up where nothing has been heard for longer than `patience` allows."""

    def __init__(self, patience: Patience, hang_up: Callable[[], None]) -> None:
        self._patience = patience
        self._hang_up = hang_up
        self._changed = threading.Condition()
        self._over = False
        self._deadline = time.monotonic() + patience.first
        self.expired = False
        threading.Thread(target=self._watch, name="patience", daemon=True).start()

    def heard(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces, each of which renews the patience, however long it takes to be used."""
        for piece in pieces:
            self._deadline = float("inf")
            yield piece
            self._deadline = time.monotonic() + self._patience.between

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._over and (left := self._deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, self._patience.between))
            if not self._over:
                self.expired = True
                self._hang_up()
