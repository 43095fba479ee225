"""The engine for tests, benchmarks and screenshots: it says given tokens at given times.

It keeps every promise of a real engine, so whatever works with it meets nothing new in production. It knows no
tokenizer: a token is whatever string the script says it is, and a prompt is counted in words.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from backends.catalog.cards import Card
from backends.core import types
from backends.core.cancel import Cancel
from backends.core.errors import Busy, EngineDied, EngineError, PromptTooLong, UnsupportedModality
from backends.core.types import Answer, Begun, Capabilities, Done, GenerationRequest, Loading, Thought, Usage

_SENTENCE = (
    ("A good teacher", "A careful reader", "A patient engineer", "A curious student", "A small model"),
    ("explains", "checks", "reads", "repeats", "considers"),
    ("every step", "each example", "the whole question", "the last result", "a difficult idea"),
    ("before giving an answer.", "until it is clear.", "without any hurry.", "one line at a time.", "with fresh eyes."),
)

_Delta = Thought | Answer


@dataclass(frozen=True, slots=True)
class Script:
    """What one answer says, and when.

    Token k, counted from 0 over what is really said, thoughts first, is due `prompt_delay_s + k * interval_s` seconds
    after the request. `reads` are the fractions of the prompt to report, each in its place within the delay.
    `error` is raised where token `fail_after` would be due; at `die_after` the whole engine dies, with every other
    answer under way. An answer that ends earlier reaches neither.
    """

    thoughts: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    prompt_delay_s: float = 0.0
    interval_s: float = 0.0
    reads: tuple[float, ...] = ()
    fail_after: int | None = None
    error: Exception = field(default_factory=lambda: EngineError("The script ends in an error."))
    die_after: int | None = None


def tokens(text: str) -> tuple[str, ...]:
    """`text` as words, each with the space before it; Chinese, Japanese and Korean one character at a time."""
    return tuple(re.findall(r"\s*(?:[\u2e80-\ud7a3]|[^\s\u2e80-\ud7a3]+)|\s+", text))


def small_talk(request: GenerationRequest) -> Script:
    """The default script: a thought and three sensible sentences, the same ones for the same seed."""
    pick = Random(request.sampling.seed).choice
    answer = " ".join(pick(phrases) for _ in range(3) for phrases in _SENTENCE)
    return Script(tokens("The question is short, so a few plain sentences will do."), tokens(answer))


class Scripted(types.Backend):
    """`script` is the answer to every request, or a function that writes one for each.

    `load_steps` are (fraction, seconds) pairs: each fraction is reported after so many seconds more. A request beyond
    `parallel` is refused as `Busy`: whose turn it is has been settled before a request comes here.
    """

    alive = False

    def __init__(
        self,
        script: Script | Callable[[GenerationRequest], Script] = small_talk,
        *,
        load_steps: tuple[tuple[float, float], ...] = (),
        parallel: int = 1,
        context: int = 4096,
        modalities: frozenset[str] = frozenset({"text"}),
    ) -> None:
        # A script draws no token, so no field that shapes the distribution is honoured.
        honoured = {"max_new_tokens": "max_new_tokens", "seed": "seed"}
        self.capabilities = Capabilities("scripted", honoured, modalities, parallel=parallel)
        self._script, self._load_steps, self._context = script, load_steps, context
        self._slots = threading.BoundedSemaphore(parallel)

    def load(self, card: Card) -> Iterator[Loading]:
        for fraction, seconds in self._load_steps:
            time.sleep(seconds)
            yield Loading("loading", fraction, card.name)
        self.alive = True

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Loading | Thought | Answer | Done]:
        start = time.monotonic()
        if "image" not in self.capabilities.modalities and any(message.images for message in request.messages):
            raise UnsupportedModality("This engine reads text only, and the message holds a picture.")
        if (prompt := self.count_tokens(request)) > self._context:
            raise PromptTooLong(f"The text has {prompt:,} tokens, but at most {self._context:,} can be read here.")
        script = self._script if isinstance(self._script, Script) else self._script(request)
        said = _left_to_say(script, request)
        limit = min(len(said), request.sampling.max_new_tokens, self._context - prompt)
        spent = {Thought: 0, Answer: 0}
        if not self._slots.acquire(blocking=False):
            raise Busy("Every slot of this engine is taken.")
        try:
            for due_s, event in _schedule(script, said[:limit], prompt):
                if _cancelled_before(start + due_s, cancel):
                    break
                self.alive &= not isinstance(event, EngineDied)
                if isinstance(event, Exception):
                    raise event
                if not self.alive:
                    raise EngineDied("The engine is not running.")
                if not isinstance(event, Loading):
                    spent[type(event)] += 1
                yield event
        finally:
            self._slots.release()  # before Done: whoever stops listening there leaves nothing behind
        total = sum(spent.values())
        reason: types.Reason = "cancelled" if total < limit else "length" if limit < len(said) else "stop"
        yield Done(reason, Usage(prompt, 0, spent[Thought], spent[Answer]), ignored=self.capabilities.ignored)

    def count_tokens(self, request: GenerationRequest) -> int:
        begun = request.begun or Begun()
        texts = [text for message in request.messages for text in (message.text, message.thoughts)]
        eyes = request.card.eyes
        marked = (eyes.tokens(image.width, image.height) + 2 for image in request.images if eyes)  # 2: its markers
        return sum(marked) + sum(len(text.split()) for text in (*texts, begun.thoughts, begun.answer))

    @property
    def context(self) -> int:
        return self._context if self.alive else 0

    def close(self) -> None:
        self.alive = False


def _left_to_say(script: Script, request: GenerationRequest) -> list[_Delta]:
    begun = request.begun or Begun(closed=not request.thinking.enabled)
    thoughts = () if begun.closed else _after(begun.thoughts, script.thoughts)
    return [*map(Thought, thoughts), *map(Answer, _after(begun.answer, script.answer))]


def _after(said: str, pieces: tuple[str, ...]) -> list[str]:
    """The pieces that follow `said`, the first one perhaps in part; all where `said` is not how they begin."""
    skip = len(said) if "".join(pieces).startswith(said) else 0
    ends = accumulate(map(len, pieces))
    return [piece[-(end - skip) :] for piece, end in zip(pieces, ends, strict=True) if piece and end > skip]


def _schedule(script: Script, said: list[_Delta], prompt: int) -> Iterator[tuple[float, Loading | _Delta | Exception]]:
    """Every event with the second it is due, counted from the request: absolute, so that lateness never adds up."""
    for share in script.reads:
        yield share * script.prompt_delay_s, Loading("reading", share, done=round(share * prompt), total=prompt)
    for k, event in enumerate((*said, None)):
        due_s = script.prompt_delay_s + k * script.interval_s
        if k == script.die_after:
            yield due_s, EngineDied("The engine died in the middle of the answer.")
        if k == script.fail_after:
            yield due_s, script.error
        if event:
            yield due_s, event


def _cancelled_before(due: float, cancel: Cancel) -> bool:
    """Waits for the moment `due` of the monotonic clock; true as soon as `cancel` comes first."""
    while (left := due - time.monotonic()) > 0 and not cancel.wait(left):
        pass  # a wait may end a hair too early
    return cancel.is_set()
