"""One request from acceptance to its last event; the only place where exceptions become events.

Waits for a turn, loads the model if need be, fits the conversation into the context, and relays the answer. Knows
nothing of screens, and of engines only what `Backend` says.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from backends.cancel import Controls
from backends.catalog import Card
from backends.errors import PlaygroundError, PromptTooLong, UnsupportedModality
from backends.models import Models
from backends.remote_models import RemoteModels
from backends.thinking import prepare, think_then_answer
from backends.types import Answer, Backend, Done, Event, Failure, GenerationRequest, Image, Message, Thought, Timings

log = logging.getLogger(__name__)

ANSWER_SHARE = 4  # a quarter of the context is kept free for the answer, unless it is to be shorter anyway
LEAST_ANSWER = 64  # tokens; a prompt that leaves less is refused
TOKENS_A_PICTURE = 16  # its two markers and its label
TOKENS_A_MESSAGE = 16  # what a chat template adds at the most, for the estimate that saves counting


class Engine:
    """The way from a request to its events. `models` holds what is loaded and decides what may be."""

    def __init__(self, models: Models | RemoteModels) -> None:
        self.models = models

    @property
    def place(self) -> str:
        """The host that the text goes to; empty where it stays on this machine."""
        return self.models.place

    @property
    def label(self) -> str:
        """What the picker calls it: people have to know where their text goes."""
        remote = isinstance(self.models, RemoteModels)
        return f"{self.models.engine} · {self.place or 'localhost'}" if remote else self.name

    @property
    def name(self) -> str:
        """What the figures under an answer call the engine."""
        return self.models.capabilities.engine

    def run(self, request: GenerationRequest, controls: Controls) -> Iterator[Event]:
        """Any number of events, the last of which is the only Done or Failure. Never raises."""
        try:
            yield from self._run(request, controls)
        except PlaygroundError as exc:
            log.info("request failed: %s", exc.kind)
            yield Failure(exc.kind, exc.message, exc.hint)
        except Exception:
            log.exception("a fault of the playground itself")
            yield Failure("internal", "Something went wrong inside the playground.", "Send again, or reload the page.")

    def _run(self, request: GenerationRequest, controls: Controls) -> Iterator[Event]:
        card, cancel = request.card, controls.cancel
        seen = card.modalities & self.models.capabilities.modalities
        if any(message.images for message in request.messages) and "image" not in seen:
            raise UnsupportedModality(f"{card.name} reads text only; it cannot see pictures.")
        if request.sampling.seed is None:  # drawn here, so that every engine gets one and none its own default
            seeded = request.sampling.model_copy(update={"seed": secrets.randbelow(2**32 - 1)})
            request = replace(request, sampling=seeded)

        clock = _Clock()
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
            request, dropped = fit_into_context(backend, request)
            for event in think_then_answer(backend, request, controls):
                if isinstance(event, Thought | Answer) and clock.first is None:
                    clock.first = time.monotonic()
                elif isinstance(event, Done):
                    event = replace(event, timings=clock.timings(), dropped_turns=dropped, context=backend.context)
                yield event
        finally:
            model.last_used = time.monotonic()
            model.line.give_back(turn)


def fit_into_context(backend: Backend, request: GenerationRequest) -> tuple[GenerationRequest, int]:
    """The request without its oldest complete turns, as many as the context asks for, and how many that were.

    Raises `PromptTooLong` where even the last turn alone does not fit: never a silent cut inside a message.
    """
    answer = min(request.sampling.max_new_tokens, backend.context // ANSWER_SHARE)
    room = backend.context - max(LEAST_ANSWER, answer)
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
    if tokens > backend.context - LEAST_ANSWER:
        raise _too_long(without(low), tokens, backend.context - LEAST_ANSWER)
    return without(low), low


def _too_long(request: GenerationRequest, tokens: int, limit: int) -> PromptTooLong:
    pictures = [_visual_tokens(image, request.card) for message in request.messages for image in message.images]
    if not pictures:
        return PromptTooLong(f"The text has {tokens:,} tokens, but this model can read at most {limit:,} of them here.")
    return PromptTooLong(
        f"The message has {tokens:,} tokens, {max(pictures):,} of them for a picture, but this model can read at most"
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
    pictures = [image for message in request.messages for image in message.images]
    return max((_visual_tokens(image, request.card) for image in pictures), default=0)


def _visual_tokens(image: Image, card: Card) -> int:
    return image.width * image.height // card.eyes.side**2 if card.eyes else 0


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
