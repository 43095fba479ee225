"""What comes back from a server that speaks OpenAI's chat completions: chunks into events, refusals into errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from backends.adapters.openai.dialects import Dialect
from backends.core.errors import EngineBusy, EngineError, InvalidRequest, PromptTooLong
from backends.core.types import Answer, Done, GenerationRequest, Loading, Reason, Thought, TokenLogprob, Usage
from backends.engine.thinking import Splitter

MOST_LINE_BYTES = 2_000_000
"""A chunk of one token with twenty alternatives has some 2 kB; what is far beyond is no answer."""
NO_ANSWER = "The engine sent something that is not an answer."


class AnswerReader:
    """Turns the chunks of one response into events.

    Tokens are counted as the server reports them; where it reports them at the end only, a delta counts as one until
    then. Thoughts are taken from their field; from the text only where no field has brought any. `opened`: whether the
    prompt ends in open thoughts, where it was made here; else that is gathered from the request.
    """

    def __init__(self, request: GenerationRequest, dialect: Dialect, opened: bool | None = None) -> None:
        begun, kind = request.begun, request.card.thinking.kind
        self._dialect = dialect
        new = request.thinking.enabled and begun is None
        if opened is None:
            # A server that does not know the template leaves thoughts in the text; 'always' templates open them.
            left = begun is not None and not begun.closed and kind == "prompted"  # the prompt itself opened them
            opened = left or (new and kind == "always" and not dialect.parses_thoughts)
        self._splitter = Splitter(inside=opened) if opened or new else None
        self._exact = False  # whether the server says with every chunk how many tokens there are
        self._predicted = 0  # tokens that the server says it has made
        self._told = 0  # tokens that have left here with a delta
        self._fresh = True  # whether nothing of the present chunk has been counted: where it is split, it counts once
        self._spent = {"thought": 0, "answer": 0}
        self._speaking = "answer"
        self._prompt = self._cached = 0
        self._reason: Reason = "stop"
        self.begun = False  # whether anything of the answer has come
        self.finished = False  # whether the server itself said that this is the end

    def read(self, chunk: dict[str, Any]) -> Iterator[Loading | Thought | Answer]:
        if "error" in chunk:
            raise EngineError("The engine reported an error in the middle of the answer.")
        if (progress := chunk.get("prompt_progress")) is not None:
            yield _reading(progress)
        self._count(chunk)
        self._fresh = True
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            thought = next((delta[name] for name in self._dialect.thought_fields if delta.get(name)), "")
            if thought:
                self._splitter = None
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
        if self._predicted:
            self._settle()
        usage = Usage(self._prompt, self._cached, self._spent["thought"], self._spent["answer"])
        ignored = self._dialect.capabilities(1).ignored
        yield Done("cancelled" if cancelled else self._reason, usage, ignored=ignored)

    def _settle(self) -> None:
        """Makes the parts add up to what the server counted."""
        if self._exact or not self._spent["thought"]:
            # A token whose character never came whole was made all the same.
            self._spent[self._speaking] += self._predicted - sum(self._spent.values())
            return
        share = self._spent["thought"] / sum(self._spent.values())
        self._spent["thought"] = round(self._predicted * share)
        self._spent["answer"] = self._predicted - self._spent["thought"]

    def _event(self, kind: str, text: object, logprobs: tuple[TokenLogprob, ...]) -> Thought | Answer:
        if not isinstance(text, str):
            raise EngineError(NO_ANSWER)
        self.begun = True
        tokens = max(0, self._predicted - self._told) if self._exact else int(self._fresh)
        self._fresh = False
        self._told += tokens
        self._spent[kind] += tokens
        self._speaking = kind
        return Thought(text, tokens) if kind == "thought" else Answer(text, tokens, logprobs)

    def _count(self, chunk: dict[str, Any]) -> None:
        if timings := chunk.get("timings"):
            self._exact = True
            self._predicted = timings.get("predicted_n", self._predicted)
            self._cached = timings.get("cache_n", self._cached)
            self._prompt = self._cached + timings.get("prompt_n", 0)
        elif usage := chunk.get("usage"):
            self._exact = self._exact or not self.begun  # counts that come before the end come with every chunk
            self._predicted = usage.get("completion_tokens") or 0
            self._prompt = usage.get("prompt_tokens") or 0
            self._cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def as_chat(chunk: dict[str, Any]) -> dict[str, Any]:
    """A chunk of llama.cpp's own /completion as one of chat completions; an error stays one."""
    if "content" not in chunk:
        return chunk
    choice: dict[str, Any] = {"delta": {"content": chunk["content"]}}
    if rows := chunk.get("completion_probabilities"):
        choice["logprobs"] = {"content": rows}
    if chunk.get("stop"):
        choice["finish_reason"] = "length" if chunk.get("stop_type") == "limit" else "stop"
    return chunk | {"choices": [choice]}


def chunks(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON of each 'data:' line. Lines end at a line feed and nowhere else: answers may hold U+2028 and its kin."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield from _chunk(line)
        if len(rest) > MOST_LINE_BYTES:
            raise EngineError(NO_ANSWER)
    yield from _chunk(rest)  # a server that goes away without a last line feed


def _chunk(line: bytes) -> Iterator[dict[str, Any]]:
    if line.startswith(b"error:"):
        raise EngineError("The engine reported an error in the middle of the answer.")
    if len(line) > MOST_LINE_BYTES:
        raise EngineError(NO_ANSWER)
    if line.startswith(b"data:") and (data := line[5:].strip()).startswith(b"{"):
        try:
            yield json.loads(data)
        except ValueError as exc:
            raise EngineError(NO_ANSWER) from exc


def refusal(status: int, body: bytes, retry_after: str = "") -> Exception:
    """The error for an answer that is none. The server's own words stay out of it: they may quote the prompt."""
    try:
        error = json.loads(body).get("error", {})
    except (ValueError, AttributeError):
        error = {}
    if (too_long := _too_long(error if isinstance(error, dict) else {})) is not None:
        return too_long
    if status in (401, 403):
        return EngineError(
            "The engine refused the playground's key.", "Whoever runs the playground has to check the engine's key."
        )
    if status == 404:
        return EngineError("The engine does not have this model.", "Choose another model.")
    if status in (429, 503):
        said = "is busy" if status == 429 else "is still loading, or busy"
        return EngineBusy(f"The engine {said}.", seconds=_seconds(retry_after))
    if status in (400, 422):
        return InvalidRequest("The engine refused the request.", "Reset the settings to the official values and send.")
    return EngineError(f"The engine answered with status {status}.")


def _too_long(error: dict[str, Any]) -> PromptTooLong | None:
    """llama-server gives both numbers as numbers, vLLM and its kin in a sentence."""
    if error.get("type") == "exceed_context_size_error":
        tokens, limit = int(error.get("n_prompt_tokens", 0)), int(error.get("n_ctx", 0))
        return PromptTooLong(f"The text has {tokens:,} tokens, but this model can read at most {limit:,} of them here.")
    words = str(error.get("message", ""))
    if limits := re.search(r"context length (?:is|of) (?:only )?(\d+)", words):
        limit = int(limits.group(1))
        return PromptTooLong(f"The text has more tokens than this model can read here: at most {limit:,}.")
    return None


def _seconds(retry_after: str) -> float | None:
    """What a Retry-After header says, where it is a number; a date is left to our own patience."""
    return min(float(retry_after), 3600.0) if re.fullmatch(r"\d{1,6}(\.\d+)?", retry_after.strip()) else None


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
