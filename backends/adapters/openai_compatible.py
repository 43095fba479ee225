"""The wire to every server that speaks OpenAI's chat completions: one code path, differences are rows of a table.

Knows nothing of processes or of weights. The llama.cpp adapter speaks through it to its child; remote engines add a
`Dialect` each and nothing else. Only allow-listed fields are ever sent (an unknown key reaches the engine's core:
CVE-2026-21869), every sampling value always is, since the servers' own defaults differ from Qwen's.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from backends.adapters.openai_messages import Show, as_counted, as_sent, more_tokens, wire_messages
from backends.cancel import Cancel
from backends.errors import EngineDied, EngineError, EngineTimeout, InvalidRequest, PromptTooLong
from backends.special_tokens import defuse
from backends.thinking import CLOSE, OPEN, Splitter
from backends.types import (
    Answer,
    Capabilities,
    Done,
    GenerationRequest,
    Loading,
    Reason,
    Thought,
    TokenLogprob,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server spells things.

    `sampling`: Sampling field -> the server's name. `thinking_switch`: path of the template's switch.
    `thought_fields`: where thoughts may arrive. `extra`: constant fields of every request. `modalities`: what it reads.
    """

    name: str
    sampling: Mapping[str, str]
    thinking_switch: tuple[str, ...] = ("chat_template_kwargs", "enable_thinking")
    thought_fields: tuple[str, ...] = ("reasoning_content", "reasoning")
    extra: Mapping[str, Any] = field(default_factory=dict)
    modalities: frozenset[str] = frozenset({"text"})

    def capabilities(self, parallel: int) -> Capabilities:
        return Capabilities(self.name, self.sampling, self.modalities, logprobs=True, parallel=parallel)


LLAMA_SERVER = Dialect(
    name="llama.cpp",
    sampling={
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "min_p": "min_p",
        "presence_penalty": "presence_penalty",
        "repetition_penalty": "repeat_penalty",
        "max_new_tokens": "max_tokens",
        "seed": "seed",
    },
    # return_progress is what lets the server notice, between two batches of a prompt, that nobody listens any more.
    extra={"cache_prompt": True, "timings_per_token": True, "return_progress": True, "reasoning_format": "deepseek"},
    modalities=frozenset({"text", "image"}),
)


class Wire:
    """One model on one server. `client` carries the base URL, the key and the time-outs; it may be shared."""

    def __init__(self, client: httpx.Client, dialect: Dialect, model: str) -> None:
        self._client = client
        self._dialect = dialect
        self._model = model

    def body(self, request: GenerationRequest) -> dict[str, Any]:
        """The JSON sent for `request`: nothing but allow-listed fields."""
        body: dict[str, Any] = {"model": self._model, "stream": True, **self._dialect.extra, **self._prompt(request)}
        for ours, theirs in self._dialect.sampling.items():
            if (value := getattr(request.sampling, ours)) is not None:
                body[theirs] = value
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
        return body

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Loading | Thought | Answer | Done]:
        """As `Backend.stream`. Closing the generator or cancelling ends the request on the server too."""
        if cancel.is_set():
            yield Done("cancelled", ignored=self._ignored)
            return
        answer = _AnswerReader(request, self._dialect, self._ignored)
        line = _Line()
        undo = cancel.on_cancel(line.hang_up)
        try:
            with self._client.stream(
                "POST", "/v1/chat/completions", json=self.body(request), extensions={"trace": line.trace}
            ) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, response.read())
                for chunk in _events(response):
                    yield from answer.read(chunk)
                    if cancel.is_set():
                        break
        except httpx.TimeoutException as exc:
            if not cancel.is_set():
                raise EngineTimeout("The engine stopped answering in the middle of its work.") from exc
        except httpx.HTTPError as exc:
            if not cancel.is_set():
                raise EngineDied("The engine broke off in the middle of the answer.") from exc
        finally:
            undo()
        if not answer.finished and not cancel.is_set():
            raise EngineDied("The engine broke off in the middle of the answer.")
        yield from answer.end(cancelled=cancel.is_set())

    def count_tokens(self, request: GenerationRequest) -> int:
        """Tokens of the rendered prompt, by the server's own template and tokenizer (llama-server's endpoints)."""
        try:
            rendered = self._post("/apply-template", self._prompt(request, as_counted))["prompt"]
            tokens = self._post("/tokenize", {"content": rendered, "add_special": True, "parse_special": True})
        except httpx.HTTPError as exc:
            raise EngineDied("The engine broke off while it counted the tokens of the message.") from exc
        return len(tokens["tokens"]) + more_tokens(request)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._client.post(path, json=body)
        if response.status_code != 200:
            raise _refusal(response.status_code, response.content)
        result: dict[str, Any] = response.json()
        return result

    def _prompt(self, request: GenerationRequest, show: Show = as_sent) -> dict[str, Any]:
        """The messages, the thinking switch and, where the answer has begun, how it is to be continued."""
        body: dict[str, Any] = {"messages": wire_messages(request.messages, show)}
        kind = request.card.thinking.kind
        if kind == "switch":
            target = body
            for key in self._dialect.thinking_switch[:-1]:
                target = target.setdefault(key, {})
            target[self._dialect.thinking_switch[-1]] = request.thinking.enabled
        if (begun := request.begun) is not None:
            thoughts, said = defuse(begun.thoughts), defuse(begun.answer)
            last = {"role": "assistant", "content": said}
            part = "content"
            if kind != "prompted" and (thoughts or not begun.closed):
                last["reasoning_content"] = thoughts
                part = "content" if begun.closed else "reasoning_content"
            elif thoughts or not begun.closed:  # the template knows no thoughts: they are text like any other
                last["content"] = f"{OPEN}\n{thoughts}" + (f"\n{CLOSE}\n\n{said}" if begun.closed else "")
            body |= {"continue_final_message": part, "add_generation_prompt": False}
            body["messages"].append(last)
        return body

    @property
    def _ignored(self) -> tuple[str, ...]:
        return self._dialect.capabilities(1).ignored


class _AnswerReader:
    """Turns the chunks of one response into events; counts tokens as the server reports them."""

    def __init__(self, request: GenerationRequest, dialect: Dialect, ignored: tuple[str, ...]) -> None:
        begun = request.begun
        self._fields = dialect.thought_fields
        self._ignored = ignored
        inside = begun is not None and not begun.closed
        prompted = request.card.thinking.kind == "prompted"
        # Only where the prompt itself opened the thoughts does the text of the answer have to be split.
        self._splitter = Splitter(inside=True) if inside and prompted else None
        self._predicted = 0  # tokens that the server says it has made
        self._told = 0  # tokens that have left here with a delta
        self._spent = {"thought": 0, "answer": 0}
        self._speaking = "answer"
        self._prompt = self._cached = 0
        self._reason: Reason = "stop"
        self.finished = False  # whether the server itself said that this is the end

    def read(self, chunk: dict[str, Any]) -> Iterator[Loading | Thought | Answer]:
        if "error" in chunk:
            raise EngineError("The engine reported an error in the middle of the answer.")
        if (progress := chunk.get("prompt_progress")) is not None:
            yield _reading(progress)
        self._count(chunk)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            thought = next((delta[name] for name in self._fields if delta.get(name)), "")
            if thought:
                yield self._event("thought", thought, ())
            if text := delta.get("content"):
                logprobs = _logprobs(choice.get("logprobs"))
                pieces = self._splitter.feed(text) if self._splitter else [("answer", text)]
                for kind, piece in pieces:
                    yield self._event(kind, piece, logprobs if kind == "answer" else ())
            if reason := choice.get("finish_reason"):
                self.finished = True
                self._reason = "length" if reason == "length" else "stop"

    def end(self, cancelled: bool) -> Iterator[Thought | Answer | Done]:
        if self._splitter and not cancelled:
            for kind, piece in self._splitter.flush():
                yield self._event(kind, piece, ())
        # A token whose character never came whole was made all the same.
        self._spent[self._speaking] += max(0, self._predicted - self._told)
        usage = Usage(self._prompt, self._cached, self._spent["thought"], self._spent["answer"])
        yield Done("cancelled" if cancelled else self._reason, usage, ignored=self._ignored)

    def _event(self, kind: str, text: str, logprobs: tuple[TokenLogprob, ...]) -> Thought | Answer:
        tokens = max(0, self._predicted - self._told)
        self._told += tokens
        self._spent[kind] += tokens
        self._speaking = kind
        return Thought(text, tokens) if kind == "thought" else Answer(text, tokens, logprobs)

    def _count(self, chunk: dict[str, Any]) -> None:
        if timings := chunk.get("timings"):
            self._predicted = timings.get("predicted_n", self._predicted)
            self._cached = timings.get("cache_n", self._cached)
            self._prompt = self._cached + timings.get("prompt_n", 0)


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON of each 'data:' line. Lines end at a line feed and nowhere else: answers may hold U+2028 and its kin."""
    rest = b""
    for piece in response.iter_raw():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"error:"):
                raise EngineError("The engine reported an error in the middle of the answer.")
            if line.startswith(b"data: {"):
                try:
                    yield json.loads(line[6:])
                except ValueError as exc:
                    raise EngineError("The engine sent something that is not an answer.") from exc


def _reading(progress: dict[str, Any]) -> Loading:
    total, cached = int(progress.get("total", 0)), int(progress.get("cache", 0))
    done = int(progress.get("processed", 0))
    fresh, read = total - cached, done - cached
    seconds = progress.get("time_ms", 0) / 1000
    left = seconds / read * (fresh - read) if read > 0 and seconds else None
    return Loading("reading", done / total if total else None, done=done, total=total, seconds_left=left)


def _logprobs(block: dict[str, Any] | None) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            row["token"],
            row["logprob"],
            tuple((top["token"], top["logprob"]) for top in row.get("top_logprobs") or ()),
        )
        for row in (block or {}).get("content") or ()
    )


class _Line:
    """The connection of one request, to be cut from another thread at any time, before the first byte too."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._cut = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """For httpcore, which calls it at every step of a request."""
        if event == "connection.connect_tcp.complete":
            self._socket = info["return_value"].get_extra_info("socket")
            if self._cut:
                self.hang_up()

    def hang_up(self) -> None:
        self._cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _refusal(status: int, body: bytes) -> Exception:
    """The error for an answer that is none. The server's own words stay out of it: they may quote the prompt."""
    try:
        error = json.loads(body).get("error", {})
    except (ValueError, AttributeError):
        error = {}
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        tokens, limit = int(error.get("n_prompt_tokens", 0)), int(error.get("n_ctx", 0))
        return PromptTooLong(f"The text has {tokens:,} tokens, but this model can read at most {limit:,} of them here.")
    if status in (401, 403):
        return EngineError("The engine refused the playground's key.", "Check the key in the engine's settings.")
    if status == 503:
        return EngineError("The engine is still loading.", "Wait a moment and send again.")
    if status == 400:
        return InvalidRequest("The engine refused the request.", "Reset the settings to the official values and send.")
    return EngineError(f"The engine answered with status {status}.")
