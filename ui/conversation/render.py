"""Events into a reply, and a transcript onto Chatbot messages. Pure: no clock, no gradio, no engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from backends.core.types import Answer, Done, Event, Failure, Loading, Queued, Thought
from backends.pictures import boxes
from ui.conversation.formulas import boxed
from ui.conversation.markdown import Growth, as_formula, as_text, as_typed, blocks
from ui.conversation.pictures import THUMBNAIL_SIDE, Picture, shown
from ui.conversation.transcript import Reply, Stats, Transcript

Say = Callable[..., str]
"""A text of the interface in the visitor's language: say(key, **values)."""

Message = dict[str, Any]

Growths = dict[tuple[str, str], Growth]
"""What was made of the texts that are being written, by language and kind."""


def fold(reply: Reply, event: Event, elapsed_s: float) -> Reply:
    """The reply after `event`; `elapsed_s` is the time since its first event, in seconds."""
    change: dict[str, Any]
    match event:
        case Queued():
            change = {"state": "queued", "progress": event}
        case Loading():
            change = {"state": "loading", "progress": event}
        case Thought():
            change = {
                "state": "thinking",
                "progress": None,
                "thoughts": reply.thoughts + event.text,
                "thinking_tokens": reply.thinking_tokens + event.tokens,
            }
        case Answer():
            change = {"state": "answering", "progress": None, "answer": reply.answer + event.text}
        case Done():
            state = "stopped" if event.reason == "cancelled" else "done"
            change = {"state": state, "progress": None, "cut": event.reason == "length"}
            change["stats"] = _stats(reply.stats or Stats(), event)
            if reply.thoughts:
                change["thinking_tokens"] = event.usage.thinking
        case Failure():
            change = {"state": "failed", "progress": None, "failure": event}
    if reply.state == "thinking" and not isinstance(event, Thought) and reply.thinking_s is None:
        change["thinking_s"] = elapsed_s
    return reply.model_copy(update=change)


def _stats(known: Stats, done: Done) -> Stats:
    usage, timings = done.usage, done.timings
    tokens = usage.thinking + usage.answer
    return known.model_copy(
        update={
            "queue_s": round(timings.queue_s, 3),
            "load_s": round(timings.load_s, 3),
            "ttft_s": round(timings.ttft_s, 3) if tokens else None,
            "prompt_tokens": usage.prompt,
            "cached_tokens": usage.cached,
            "thinking_tokens": usage.thinking,
            "answer_tokens": usage.answer,
            # The first token is the end of reading, not of writing: the speed is that of the others.
            "tokens_per_s": round((tokens - 1) / timings.generate_s, 1)
            if tokens > 1 and timings.generate_s > 0
            else None,
            "ignored": done.ignored,
            "dropped_turns": done.dropped_turns,
            "context": done.context,
        }
    )


@dataclass(frozen=True, slots=True)
class Look:
    """How a tab's transcript is shown. `names`: languages by code where replies stand side by side, else empty.

    `earlier` is how many pictures came before the first turn; with `places` set, JSON that names places is not shown.
    `growths` is kept by who shows one turn again and again while it is being written.
    """

    say: Say
    names: Mapping[str, str] = field(default_factory=dict)
    lift_boxed: bool = False
    places: bool = False
    earlier: int = 0
    growths: Growths = field(default_factory=dict)


def project(transcript: Transcript, look: Look) -> list[Message]:
    """The Chatbot's messages for a transcript, oldest first."""
    return [message for message, _ in _rows(transcript, look)]


def turn_of_message(transcript: Transcript, index: int, look: Look) -> int:
    """Which turn the Chatbot's message at `index` belongs to."""
    turns = [turn for _, turn in _rows(transcript, look)]
    return turns[min(index, len(turns) - 1)]


def _rows(transcript: Transcript, look: Look) -> Iterator[tuple[Message, int]]:
    pictures = look.earlier
    for number, turn in enumerate(transcript.turns):
        for picture in turn.pictures:
            pictures += 1
            yield _message("user", _attached(picture, look.say("picture_n", n=pictures))), number
        yield _message("user", as_typed(turn.user)), number
        if look.names:  # one message, one part a language: the stylesheet puts the parts side by side
            yield _message("assistant", *("".join(_column(reply, look)) for reply in turn.replies)), number
            continue
        for reply in turn.replies:
            if reply.thoughts:
                yield _thoughts(reply, look), number
            *written, known = _answer(reply, look)
            yield _message("assistant", *(_prose(block) for block in written), known), number


def _message(role: str, *parts: str) -> Message:
    """As dicts: gradio would take the indent off a text, and an address of a file in it for its own."""
    return {"role": role, "content": [{"type": "text", "text": part} for part in parts if part] or ""}


_finished: WeakKeyDictionary[Reply, dict[tuple[str, str], list[str]]] = WeakKeyDictionary()
"""What was made of a reply's texts, for as long as there is the reply: each question shows all those before it."""


def _blocks(text: str, kind: str, reply: Reply, look: Look, grows: bool) -> list[str]:
    """What a model wrote, block by block. One that grows ends without the tags that would close it."""
    if reply.over:
        made = _finished.setdefault(reply, {})
        if (kind, text) not in made:
            made[kind, text] = blocks(text)
        return made[kind, text]
    growth = look.growths.setdefault((reply.language, kind), Growth())
    if grows:
        return blocks(text, growth)
    if growth.whole[0] != text:  # thoughts, while the answer is being written
        growth.whole = text, blocks(text)
    return growth.whole[1]


def _prose(*written: str) -> str:
    """Blocks in the page's typography; what follows has to close it, or the end of its part does."""
    return f"<div class='prose'>{''.join(written)}"


def _attached(picture: Picture, name: str) -> str:
    """A small picture with its label, as a message of its own: the text after it can be edited."""
    small = f"<img src='{shown(picture.image, THUMBNAIL_SIDE)}' alt=''>" if picture.image else ""
    return f"<span class='attached'>{small}<small>{as_text(name)}</small></span>"


def _thoughts(reply: Reply, look: Look) -> Message:
    say = look.say
    metadata: Message = {
        "title": _thoughts_title(reply, say),
        "log": say("tokens", n=reply.thinking_tokens),
        "status": "pending" if reply.state == "thinking" else "done",
    }
    if reply.thinking_s is not None:
        metadata["duration"] = round(reply.thinking_s, 1)
    written = _blocks(reply.thoughts.strip(), "thoughts", reply, look, reply.state == "thinking")
    return _message("assistant", _prose(*written)) | {"metadata": metadata}


def _thoughts_title(reply: Reply, say: Say) -> str:
    return say("thoughts_prompted" if reply.prompted else "thoughts")


def _column(reply: Reply, look: Look) -> Iterator[str]:
    """One language: its name, its thoughts folded away, then as any answer."""
    name = as_text(look.names.get(reply.language, reply.language))
    yield f"<div class='prose'><p><strong class='column-name'>{name}</strong></p></div>"
    if reply.thoughts:
        thinks = reply.state == "thinking"
        summary = f"{_thoughts_title(reply, look.say)} · {look.say('tokens', n=reply.thinking_tokens)}"
        yield f"<details{' open' if thinks else ''}><summary>{as_text(summary)}</summary>"
        yield _prose(*_blocks(reply.thoughts.strip(), "thoughts", reply, look, thinks))
        yield "" if thinks else "</div></details>"
    *written, known = _answer(reply, look)
    yield _prose(*written)
    yield f"</div>{known}" if known else ""


def _answer(reply: Reply, look: Look) -> list[str]:
    """The parts of one answer: its blocks, and at the end what is known of it."""
    reading = boxes.read(reply.answer, finished=reply.over) if look.places else boxes.Reading(reply.answer)
    return [*_blocks(reading.prose, "answer", reply, look, not reply.over), "".join(_known(reply, reading, look))]


def _known(reply: Reply, reading: boxes.Reading, look: Look) -> Iterator[str]:
    """What is shown with an answer: places, its boxed result, what became of it, the line of figures, its source."""
    say = look.say
    if reply.marks:
        names = dict.fromkeys(mark.label or say("mark_unnamed") for mark in reply.marks)
        yield f"<p class='places'>{as_text(say('found_places', n=len(reply.marks), names=', '.join(names)))}</p>"
    if look.lift_boxed and reply.over and (result := boxed(reply.answer)):
        formula = as_formula(f"\\boxed{{{result}}}")
        yield f"<p class='final'><span class='result'>{as_text(say('final_answer'))}</span> {formula}</p>"
    if not reply.answer and reply.state in ("queued", "loading"):
        yield f"<span class='waiting'>{as_text(waiting(reply, say))}</span>"
    if (failure := reply.failure) is not None:
        number = f" <small>#{failure.number}</small>" if failure.number else ""
        sentence, hint = as_text(failure.message), as_text(failure.hint)
        yield f"<p class='failure' role='alert'><strong>{sentence}</strong> {hint}{number}</p>"
    notes = _notes(reply, say)
    if reading.marks and reply.over and not reply.marks:
        notes.append(say("note_off_picture"))
    if notes:
        yield f"<small class='note'>{as_text(' '.join(notes))}</small>"
    if reply.over and reply.stats is not None and reply.stats.ttft_s is not None:
        yield f"<small class='figures'>{as_text(figures(reply.stats, say))}</small>"
    if reply.over and reply.answer:
        yield f"<span class='copy'><span class='source'>{as_typed(reply.answer)}</span></span>"  # a button comes in


def _notes(reply: Reply, say: Say) -> list[str]:
    notes = []
    if reply.state == "stopped":
        notes.append(say("note_stopped"))
    if reply.cut:
        notes.append(say("note_cut"))
    if reply.stats is not None and reply.stats.dropped_turns:
        notes.append(say("note_dropped", n=reply.stats.dropped_turns))
    if reply.state == "done" and not reply.answer.strip():
        notes.append(say("note_empty"))
    return notes


def waiting(reply: Reply, say: Say) -> str:
    """Where a reply stands before its first word, in words with numbers."""
    match reply.progress:
        case Queued(position, None):
            return say("waiting_queued", position=position)
        case Queued(position, float(eta)):
            return say("waiting_queued_eta", position=position, seconds=max(1, round(eta)))
        case Loading("fetching", _, detail, 0, 0):
            return detail or say("waiting_fetching_start")
        case Loading("fetching", _, _, done, total, left):
            text = say("waiting_fetching", done=round(done / 1e6), total=round(total / 1e6))
            return text + (", " + say("seconds_left", seconds=max(1, round(left))) if left is not None else "")
        case Loading("checking", fraction):
            return say("waiting_checking", percent=round(100 * (fraction or 0)))
        case Loading("loading", fraction):
            return say("waiting_loading", percent=round(100 * (fraction or 0)))
        case Loading("waiting", seconds_left=float(left)):
            return say("waiting_busy", seconds=max(1, round(left)))
        case Loading("reading", fraction):
            return say("waiting_reading", percent=round(100 * (fraction or 0)))
    return say("waiting")


def figures(stats: Stats, say: Say) -> str:
    """One quiet line: model, engine, time to first token, tokens read (and from the cache) and written, speed."""
    parts = [stats.model, stats.engine]
    if stats.ttft_s is not None:
        parts.append(say("figure_ttft", seconds=f"{stats.ttft_s:.2f}"))
    parts.append(say("figure_prompt", n=stats.prompt_tokens, cached=stats.cached_tokens))
    if stats.thinking_tokens:
        parts.append(say("figure_thinking", n=stats.thinking_tokens))
    parts.append(say("figure_answer", n=stats.answer_tokens))
    if stats.tokens_per_s is not None:
        parts.append(say("figure_speed", speed=f"{stats.tokens_per_s:.1f}"))
    if stats.ignored:
        parts.append(say("figure_ignored", names=", ".join(stats.ignored)))
    return " · ".join(parts)
