"""The vocabulary that every part of the playground speaks: messages, sampling, requests, events, backends.

Frozen dataclasses throughout; pydantic only where values come in from outside (`Sampling`). This module knows
nothing of engines, screens or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from backends.core.cancel import Cancel
from backends.core.errors import PlaygroundError

if TYPE_CHECKING:
    from backends.catalog.cards import Card

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text. `ours` marks the playground's own words, in which control tokens like '<think>' are meant."""

    text: str
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that the playground's own decoder made: PNG bytes and their size in pixels.

    `uploaded` is (width, height) in pixels as the visitor sent it, turned upright; None where that is the same size.
    """

    png: bytes
    width: int
    height: int
    uploaded: tuple[int, int] | None = None

    @property
    def size_as_uploaded(self) -> tuple[int, int]:
        return self.uploaded or (self.width, self.height)


Part = Text | Image


@dataclass(frozen=True, slots=True)
class Message:
    """One complete turn of a conversation. `thoughts` travels only where the card's history rule keeps thoughts."""

    role: Role
    parts: tuple[Part, ...]
    thoughts: str = ""

    @classmethod
    def of(cls, role: Role, text: str, thoughts: str = "") -> Message:
        return cls(role, (Text(text),), thoughts)

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(part for part in self.parts if isinstance(part, Image))

    @property
    def raw(self) -> Message:
        """The same, with the control tokens in its text meant."""
        parts = tuple(replace(part, ours=True) if isinstance(part, Text) else part for part in self.parts)
        return replace(self, parts=parts)


class Sampling(BaseModel):
    """How the next token is drawn. Bounds and help texts live here: sliders, API errors and docs derive from them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    temperature: float = Field(
        0.7, ge=0.0, le=2.0, description="Higher is more varied, lower more predictable; 0 always takes the likeliest."
    )
    top_p: float = Field(
        0.8, gt=0.0, le=1.0, description="Draw only from the likeliest tokens that together reach this probability."
    )
    top_k: int = Field(20, ge=0, le=1000, description="Draw only from this many likeliest tokens; 0 is no limit.")
    min_p: float = Field(
        0.0, ge=0.0, le=1.0, description="Drop tokens less likely than this share of the likeliest token."
    )
    presence_penalty: float = Field(
        0.0,
        ge=-2.0,
        le=2.0,
        description="Subtracted once from every token already written; curbs loops, but too much mixes languages.",
    )
    repetition_penalty: float = Field(
        1.0, ge=0.5, le=2.0, description="Divides the score of tokens already seen; 1 is off."
    )
    max_new_tokens: int = Field(
        2048, ge=1, le=81_920, description="Longest answer in tokens, thoughts included; an answer cut here says so."
    )
    seed: int | None = Field(
        None, ge=0, le=2**32 - 2, description="The same seed and settings repeat the same answer; empty is random."
    )


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether to think first, and for at most how many tokens (`None`: as long as the answer may be)."""

    enabled: bool = False
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """What the assistant has already said in the message that the engine must continue.

    While `closed` is false the engine goes on thinking after `thoughts`; afterwards it goes on after `answer`.
    """

    thoughts: str = ""
    closed: bool = True
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """`person`: the key under which turns are taken; `conversation`: that for engines which keep one on a replica;
    `address`: with whom they share places."""

    person: str = ""
    conversation: str = ""
    address: str = ""


NOBODY = Asker()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One question. `conversation` is the same for all questions of one, and tells nothing of whose it is; `person` is
    the key under which its asker waits for a turn, `address` whom they share places with; neither leaves the
    playground."""

    card: Card
    messages: tuple[Message, ...]
    sampling: Sampling
    thinking: Thinking = Thinking()
    logprobs: int = 0
    begun: Begun | None = None
    conversation: str = ""
    person: str = ""
    address: str = ""

    @property
    def images(self) -> tuple[Image, ...]:
        """All pictures of the conversation, the first one first."""
        return tuple(image for message in self.messages for image in message.images)


# --- events, in the order in which they may come -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Queued:
    """Waiting for a turn: `position` counts from 1 (next); `eta_s` in seconds where it can be told."""

    position: int
    eta_s: float | None = None


Stage = Literal["fetching", "checking", "loading", "waiting", "reading"]


@dataclass(frozen=True, slots=True)
class Loading:
    """Work before the first token. `fraction` in 0..1 or None; `done`/`total` in bytes, while 'reading' in tokens."""

    stage: Stage
    fraction: float | None = None
    detail: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token with its natural-log probability and the likeliest alternatives as (token, logprob)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the thoughts; `tokens` is how many tokens it took (0 where text was held back and joined later)."""

    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A piece of the answer, as `Thought`."""

    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `prompt` includes `cached`, the tokens that the engine did not have to read again."""

    prompt: int = 0
    cached: int = 0
    thinking: int = 0
    answer: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds, measured from acceptance: waiting, loading, to the first token after both, and generating."""

    queue_s: float = 0.0
    load_s: float = 0.0
    ttft_s: float = 0.0
    generate_s: float = 0.0


Reason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of an answer. `ignored` names the Sampling fields that the engine did not honour."""

    reason: Reason
    usage: Usage = Usage()
    timings: Timings = Timings()
    ignored: tuple[str, ...] = ()
    dropped_turns: int = 0
    context: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """The last event of a request that went wrong: one sentence for the user and what to do. `number`: the error's."""

    kind: str
    message: str
    hint: str = ""
    number: str = ""

    @classmethod
    def of(cls, error: PlaygroundError) -> Failure:
        return cls(error.kind, error.message, error.hint, error.number)


Event = Queued | Loading | Thought | Answer | Done | Failure


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, declared before anything is loaded.

    `sampling` maps each honoured Sampling field to the engine's own name for it; a field that is missing is named in
    `Done.ignored` and its slider is disabled. `counts`: tokens of a prompt are counted, not estimated from above.
    """

    engine: str
    sampling: Mapping[str, str]
    modalities: frozenset[str] = frozenset({"text"})
    logprobs: bool = False
    continues: bool = True
    seeded: bool = True
    parallel: int = 1
    counts: bool = True

    @property
    def ignored(self) -> tuple[str, ...]:
        return tuple(name for name in Sampling.model_fields if name not in self.sampling)


class Backend(Protocol):
    """One loaded model on one engine. Every adapter keeps the promises that `tests/adapters/` checks."""

    capabilities: Capabilities

    def load(self, card: Card) -> Iterator[Loading]:
        """Makes the model ready, telling how far it is. Raises `errors.PlaygroundError`."""
        ...

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Loading | Thought | Answer | Done]:
        """One answer: reading progress, deltas, then exactly one Done. Raises `errors.PlaygroundError`."""
        ...

    def count_tokens(self, request: GenerationRequest) -> int:
        """Length of the prompt in tokens as the engine will read it."""
        ...

    @property
    def context(self) -> int:
        """Most tokens, prompt and answer together, that one request may have; 0 while nothing is loaded."""
        ...

    @property
    def alive(self) -> bool:
        """False once the engine has died under us; the engine room then loads it again."""
        ...

    def close(self) -> None:
        """Frees everything the model holds. May be called twice."""
        ...
