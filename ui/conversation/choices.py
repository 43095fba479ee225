"""What a person has chosen beside the text, checked and turned into engine requests. Knows nothing of gradio."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from backends.catalog.cards import Card
from backends.catalog.eyes import fitted_size
from backends.catalog.prompts import with_system
from backends.core.cancel import Controls
from backends.core.errors import Fault, InvalidRequest
from backends.core.logs import logger
from backends.core.nearest import nearest, quoted
from backends.core.special_tokens import has_control_tokens
from backends.core.types import (
    NOBODY,
    Answer,
    Asker,
    Event,
    Failure,
    GenerationRequest,
    Message,
    Sampling,
    Thinking,
    Thought,
)
from backends.engine.engine import Engine
from backends.pictures import boxes
from ui.conversation.pace import Tagged, paced
from ui.conversation.pictures import Picture, check_pictures
from ui.conversation.render import fold
from ui.conversation.tabs import Instructions, TabSpec
from ui.conversation.transcript import MAX_NAME, Reply, Stats, Transcript
from ui.conversation.words import MAX_MESSAGE, MAX_SYSTEM, check_text, whole

log = logger(__name__)

MAX_BUDGET = 32_768
_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")  # Unicode's categories of what leaves no mark on the screen


@dataclass(frozen=True, slots=True)
class Choices:
    """Checked choices for one question. `visual_tokens`: the most that one picture may cost; `raw`: control tokens in
    the texts are meant."""

    card: Card
    system: str
    sampling: Sampling
    thinking: Thinking
    instructions: Instructions
    visual_tokens: int = 0
    raw: bool = False

    def control_tokens(self, message: str) -> bool:
        """Whether anything that was typed for this question looks like one."""
        parts = (part for parts in self.instructions.values() for part in parts)
        typed = (message, self.system, *(part.text for part in parts if not part.ours))
        return any(map(has_control_tokens, typed))

    def request(self, transcript: Transcript, language: str, asker: Asker = NOBODY) -> GenerationRequest:
        messages = transcript.messages(self.card, language, self.visual_tokens)
        if self.system.strip():
            messages = (Message.of("system", self.system), *messages)
        messages = with_system(messages, self.instructions[language])
        if self.raw:
            messages = tuple(message.raw for message in messages)
        return GenerationRequest(
            self.card,
            messages,
            self.sampling,
            self.thinking,
            conversation=asker.conversation,
            person=asker.person,
            address=asker.address,
        )


def choose(
    engine: Engine,
    spec: TabSpec,
    *,
    model: str = "",
    system: str | None = None,
    thinking: bool | None = None,
    thinking_budget: int | None = None,
    sampling: Mapping[str, Any],
    options: Mapping[str, object],
    pictures: tuple[Picture, ...] = (),
    visual_tokens: object = None,
) -> Choices:
    """Checks everything; whatever is None is the official value or the tab's default. Raises `InvalidRequest`."""
    card = engine.models.catalog.get(check_text("model", model, 200)) if model else engine.models.choose(spec.id)
    if thinking is not None and not isinstance(thinking, bool):
        raise InvalidRequest(f"thinking must be true or false; it was {quoted(thinking)}.")
    enabled = card.thinks(card.thinking.default if thinking is None else thinking)
    return Choices(
        card=card,
        system=spec.system if system is None else check_system(system),
        sampling=check_sampling(
            card.official(spec.id, enabled, images=spec.pictures).values,
            sampling,
            engine.models.catalog.longest_answer,
        ),
        thinking=Thinking(enabled, check_budget(thinking_budget)),
        instructions=spec.instructions(spec.check_options(options)),
        visual_tokens=check_pictures(
            pictures,
            card,
            engine.models.visual_tokens(card) if visual_tokens is None else visual_tokens,
            engine.room.limits.rules.pictures_per_message,
        ),
        raw=engine.room.raw_control_tokens,
    )


def check_message(text: object) -> str:
    """The message, if there is one. Raises `InvalidRequest` on an empty or endless one."""
    message = check_text("message", text, MAX_MESSAGE)
    if all(unicodedata.category(character) in _UNSEEN for character in message):
        raise InvalidRequest("The message is empty: write something first.", "Nothing was sent.")
    return message


def check_system(text: object) -> str:
    return check_text("system", text, MAX_SYSTEM)


def check_sampling(official: Sampling, given: Mapping[str, Any], longest_answer: int = 0) -> Sampling:
    """The official values with those given put in. Raises `InvalidRequest` naming field, bounds and value.

    `longest_answer`: tokens that the host allows; 0 is no limit.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    try:
        sampling = Sampling.model_validate(official.model_dump() | wanted)
    except ValidationError as exc:
        fault = exc.errors()[0]
        field = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            near = nearest(field, Sampling.model_fields.keys())
            raise InvalidRequest(f"There is no setting called {quoted(field)}{near}.") from exc
        kind, low, high = bounds(field)
        number = "a whole number" if kind is int else "a number"
        above = any(hasattr(rule, "gt") for rule in Sampling.model_fields[field].metadata)
        limits = f"above {low:.10g} and up to {high:.10g}" if above else f"from {low:.10g} to {high:.10g}"
        raise InvalidRequest(f"{field} must be {number} {limits}; it was {quoted(wanted.get(field))}.") from exc
    if longest_answer and sampling.max_new_tokens > longest_answer:
        raise InvalidRequest(
            f"max_new_tokens must be a whole number from 1 to {longest_answer}, as the host of this playground has set;"
            f" it was {sampling.max_new_tokens}."
        )
    return sampling


def bounds(field: str) -> tuple[type, float, float]:
    """(int or float, least, most) of a Sampling field, read off the model that checks it."""
    info = Sampling.model_fields[field]
    limits = {name: getattr(rule, name) for rule in info.metadata for name in ("ge", "gt", "le") if hasattr(rule, name)}
    kind = float if info.annotation is float else int
    return kind, limits.get("ge", limits.get("gt", 0)), limits["le"]


def answers(
    engine: Engine,
    choices: Choices,
    transcript: Transcript,
    controls: Controls,
    interval: Callable[[], float],
    asker: Asker = NOBODY,
) -> Iterator[Transcript]:
    """The transcript as its last turn's replies grow, at a pace for the eye; the last one is final.

    The engines start with the call, not with the first look at what it returns.
    """
    started = time.monotonic()
    prompted = choices.thinking.enabled and choices.card.thinking.kind == "prompted"
    stats = Stats(model=choices.card.name[:MAX_NAME], engine=engine.name[:MAX_NAME])
    replies = {
        reply.language: Reply(language=reply.language, prompted=prompted, stats=stats)
        for reply in transcript.turns[-1].replies
    }
    sources = {language: engine.run(choices.request(transcript, language, asker), controls) for language in replies}
    return _grown(transcript, replies, paced(sources, interval), started, choices)


def _grown(
    transcript: Transcript, replies: dict[str, Reply], batches: Iterator[list[Tagged]], started: float, choices: Choices
) -> Iterator[Transcript]:
    seen = next((picture for picture in reversed(transcript.pictures) if picture.image), None)
    try:
        for batch in batches:
            for language, event in batch:
                reply = fold(replies[language], _whole(event), time.monotonic() - started)
                replies[language] = _located(reply, seen, choices) if seen and reply.over else reply
            yield transcript.with_replies(tuple(replies.values()))
    except Exception:  # what was written so far is kept, and says so
        fault = Fault()
        log.exception("a fault of the playground itself", number=fault.number)
        failed = (r if r.over else fold(r, Failure.of(fault), time.monotonic() - started) for r in replies.values())
        yield transcript.with_replies(tuple(failed))


def _whole(event: Event) -> Event:
    """A server may cut a character in two; half of one could neither be shown nor kept."""
    if isinstance(event, Thought | Answer) and not event.text.isascii():
        return replace(event, text=whole(event.text))
    return event


def _located(reply: Reply, seen: Picture, choices: Choices) -> Reply:
    """The reply with the places that it names on the newest picture."""
    eyes, image = choices.card.eyes, seen.image
    if eyes is None or image is None:
        return reply
    found = boxes.read(reply.answer).marks
    size = fitted_size(image.width, image.height, eyes, choices.visual_tokens)
    return reply.model_copy(update={"marks": boxes.in_pixels(found, eyes, size, (seen.width, seen.height))})


def check_budget(value: object) -> int | None:
    """0 and None mean that the thoughts have no limit of their own."""
    if value is None or (value == 0 and not isinstance(value, bool)):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_BUDGET:
        raise InvalidRequest(
            f"thinking_budget must be a whole number from 0 to {MAX_BUDGET:,}; it was {quoted(value)}."
        )
    return value
