"""One request from acceptance to its last event; the only place where exceptions become events.

Waits for a turn, loads the model if need be, fits the conversation into the context, and relays the answer. Knows
nothing of screens, and of engines only what `Backend` says.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from backends.catalog.cards import Card
from backends.core.cancel import Controls
from backends.core.errors import (
    Busy,
    Closing,
    Fault,
    InvalidRequest,
    PlaygroundError,
    PromptTooLong,
    UnsupportedModality,
)
from backends.core.logs import logger
from backends.core.types import (
    Answer,
    Backend,
    Done,
    Event,
    Failure,
    GenerationRequest,
    Image,
    Message,
    Sampling,
    Thought,
    Timings,
    Usage,
)
from backends.engine.metrics import Answered, Outcome
from backends.engine.pool import ModelPool
from backends.engine.room import Room
from backends.engine.thinking import prepare, think_then_answer

log = logger(__name__)

ANSWER_SHARE = 4  # a quarter of the context is kept free for the answer, unless it is to be shorter anyway
LEAST_ANSWER = 64  # tokens; a prompt that leaves less is refused
TOKENS_A_PICTURE = 16  # its two markers and its label
TOKENS_A_MESSAGE = 16  # what a chat template adds at the most, for the estimate that saves counting


class Engine:
    """The way from a request to its events. `models` holds what is loaded and decides what may be; `room` is what
    this engine shares with the others. `last_token_at`: time.monotonic() of the last token that anybody was given."""

    def __init__(self, models: ModelPool, room: Room | None = None) -> None:
        self.models = models
        self.room = room or Room()
        self.last_token_at: float | None = None

    @property
    def place(self) -> str:
        """The host that the text goes to; empty where it stays on this machine."""
        return self.models.place

    @property
    def label(self) -> str:
        """What the picker calls it: people have to know where their text goes."""
        return self.name if self.models.ours else f"{self.models.engine} · {self.place or 'localhost'}"

    @property
    def name(self) -> str:
        """What the figures under an answer call the engine."""
        return self.models.capabilities.engine

    def run(self, request: GenerationRequest, controls: Controls) -> Iterator[Event]:
        """Any number of events, the last of which is the only Done or Failure. Never raises."""
        story = _Story()
        try:
            with self.room.gate.passing(controls.cancel):
                self.room.limits.admit(request.person, request.address)
                for event in self._run(request, controls, story.clock):
                    if isinstance(event, Thought | Answer):
                        self.last_token_at = time.monotonic()
                    elif isinstance(event, Done) and event.reason == "cancelled" and self.room.gate.closed:
                        raise Closing("The playground is being restarted.")
                    story.hear(event)
                    yield event
        except PlaygroundError as exc:
            story.error = exc
            yield Failure.of(exc)
        except Exception:
            story.error = Fault()
            log.exception("a fault of the playground itself", number=story.error.number)
            yield Failure.of(story.error)
        finally:
            self._record(request, story)

    def probe(self) -> PlaygroundError | None:
        """Asks for one token of what is loaded, else of this machine's choice; what went wrong, None if nothing did.

        It stands in line like anybody's question, but counts for nobody.
        """
        controls = Controls()
        try:
            loaded = self.models.loaded()
            card = loaded[0].card if loaded else self.models.choose("chat")
            sampling = Sampling(max_new_tokens=1, temperature=0.0)
            request = GenerationRequest(card, (Message.of("user", "Hi"),), sampling)
            for event in self._run(request, controls, _Clock()):
                held_back = isinstance(event, Done) and event.usage.thinking + event.usage.answer > 0
                if isinstance(event, Thought | Answer) or held_back:  # one token may be a marker, or half a character
                    self.last_token_at = time.monotonic()
        except PlaygroundError as exc:
            return exc
        except Exception:
            fault = Fault()
            log.exception("a fault of the playground itself", number=fault.number)
            return fault
        finally:
            controls.cancel()
        return None

    def _record(self, request: GenerationRequest, story: _Story) -> None:
        """For the limits, the figures and the log, which learns of no text and knows the person by a daily hash."""
        answered = story.answered(self.name, request.card.id)
        self.room.limits.spend(request.person, answered.thinking_tokens + answered.answer_tokens)
        self.room.metrics.record(answered)
        log.info(
            "answered",
            person=request.person,
            number=story.error.number if story.error else None,
            messages=len(request.messages),
            characters=sum(len(message.text) for message in request.messages),
            pictures=sum(len(message.images) for message in request.messages),
            max_new_tokens=request.sampling.max_new_tokens,
            thinking=request.thinking.enabled,
            **{name: _rounded(value) for name, value in asdict(answered).items() if name != "at"},
        )

    def _run(self, request: GenerationRequest, controls: Controls, clock: _Clock) -> Iterator[Event]:
        card, cancel = request.card, controls.cancel
        seen = card.modalities & self.models.capabilities.modalities
        if any(message.images for message in request.messages) and "image" not in seen:
            raise UnsupportedModality(f"{card.name} reads text only; it cannot see pictures.")
        if request.sampling.seed is None:  # drawn here, so that every engine gets one and none its own default
            seeded = request.sampling.model_copy(update={"seed": secrets.randbelow(2**32 - 1)})
            request = replace(request, sampling=seeded)

        model = self.models.get(card)
        if (turn := (yield from model.line.wait(cancel, request.person))) is None:
            yield Done("cancelled", timings=clock.timings())
            return
        clock.turn = turn.taken_at
        try:
            backend = yield from self.models.ready(model, cancel)
            clock.ready = time.monotonic()
            if backend is None:
                yield Done("cancelled", timings=clock.timings())
                return
            self.models.require_room_to_look(card, _largest_picture(request))
            request, dropped = fit_into_context(backend, request, self.room.limits.rules.longest_prompt)
            for event in think_then_answer(backend, request, controls):
                if isinstance(event, Thought | Answer) and clock.first is None:
                    clock.first = time.monotonic()
                elif isinstance(event, Done):
                    event = replace(event, timings=clock.timings(), dropped_turns=dropped, context=backend.context)
                yield event
        finally:
            model.last_used = time.monotonic()
            model.line.give_back(turn)


def fit_into_context(backend: Backend, request: GenerationRequest, most: int = 0) -> tuple[GenerationRequest, int]:
    """The request without its oldest complete turns, as many as the context asks for, and how many that were.

    `most`: tokens that the host allows a prompt; 0 is no limit. Raises `PromptTooLong` where even the last turn alone
    does not fit: never a silent cut inside a message.
    """
    answer = min(request.sampling.max_new_tokens, backend.context // ANSWER_SHARE)
    limit = min(backend.context - LEAST_ANSWER, most or backend.context)
    room = min(backend.context - max(LEAST_ANSWER, answer), limit)
    read = partial(prepare, continues=backend.capabilities.continues)
    if sum(_most_tokens(message, request.card) for message in read(request).messages) <= room:
        return request, 0
    system = tuple(message for message in request.messages[:1] if message.role == "system")
    starts = [i for i, message in enumerate(request.messages) if message.role == "user"]

    def without(turns: int) -> GenerationRequest:
        return replace(request, messages=system + request.messages[starts[turns] :]) if turns else request

    low, high = 0, len(starts) - 1  # the fewest turns to drop, found by halving: counting is not free
    while low < high:
        middle = (low + high) // 2
        if backend.count_tokens(read(without(middle))) <= room:
            high = middle
        else:
            low = middle + 1
    tokens = backend.count_tokens(read(without(low)))
    if tokens > limit:
        raise _too_long(without(low), tokens, limit)
    return without(low), low


def _too_long(request: GenerationRequest, tokens: int, limit: int) -> PromptTooLong:
    largest = _largest_picture(request)
    if not largest:
        return PromptTooLong(f"The text has {tokens:,} tokens, but this model can read at most {limit:,} of them here.")
    return PromptTooLong(
        f"The message has {tokens:,} tokens, {largest:,} of them for a picture, but this model can read at most"
        f" {limit:,} of them here.",
        "Lower 'Visual tokens per picture', or send fewer pictures.",
    )


def _most_tokens(message: Message, card: Card) -> int:
    """An upper bound that costs nothing: a token is never shorter than a byte; defusing adds three to a '<'."""
    text = message.text + message.thoughts
    seen = sum(_visual_tokens(image, card) + TOKENS_A_PICTURE for image in message.images)
    return len(text.encode()) + 3 * text.count("<") + TOKENS_A_MESSAGE + seen


def _largest_picture(request: GenerationRequest) -> int:
    """In visual tokens; 0 without pictures. Pictures come in the size in which the model sees them."""
    return max((_visual_tokens(image, request.card) for image in request.images), default=0)


def _visual_tokens(image: Image, card: Card) -> int:
    return card.eyes.tokens(image.width, image.height) if card.eyes else 0


@dataclass(slots=True)
class _Clock:
    """When the stations of one request were reached, in seconds of time.monotonic."""

    accepted: float = field(default_factory=time.monotonic)
    turn: float | None = None
    ready: float | None = None
    first: float | None = None

    def timings(self) -> Timings:
        now = time.monotonic()
        turn = self.turn or now
        ready = self.ready or now
        first = self.first or now
        return Timings(turn - self.accepted, ready - turn, first - ready, now - first)


@dataclass(slots=True)
class _Story:
    """What is known of a request when it is over, however it ended; without Done or error its reader had left."""

    clock: _Clock = field(default_factory=_Clock)
    began: float = field(default_factory=time.time)
    done: Done | None = None
    error: PlaygroundError | None = None
    thinking_tokens: int = 0
    answer_tokens: int = 0

    def hear(self, event: Event) -> None:
        if isinstance(event, Thought):
            self.thinking_tokens += event.tokens
        elif isinstance(event, Answer):
            self.answer_tokens += event.tokens
        elif isinstance(event, Done):
            self.done = event

    def answered(self, engine: str, model: str) -> Answered:
        usage = self.done.usage if self.done else Usage(thinking=self.thinking_tokens, answer=self.answer_tokens)
        timings = self.done.timings if self.done else self.clock.timings()
        return Answered(
            self.began,
            engine,
            model,
            self._outcome(),
            self.error.kind if self.error else "",
            usage.prompt,
            usage.cached,
            usage.thinking,
            usage.answer,
            timings.queue_s,
            timings.load_s,
            None if self.clock.first is None else timings.ttft_s,
            timings.generate_s,
        )

    def _outcome(self) -> Outcome:
        if isinstance(self.error, Closing) and self.clock.turn is not None:
            return "cancelled"
        if self.error is not None:
            return "refused" if isinstance(self.error, InvalidRequest | Busy | Closing) else "failed"
        return "cancelled" if self.done is None or self.done.reason == "cancelled" else "done"


def _rounded(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value
