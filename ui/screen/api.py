"""The named endpoints: the same answers as the page gives, as a stream of cumulative dicts, the last one final.

The parameters of every endpoint are read off what checks them, the Sampling fields and the tab's options, so that the
documentation, the client's types and the errors cannot disagree. See docs/api.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import gradio as gr
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from backends.core.cancel import Controls
from backends.core.errors import Fault, InvalidRequest, PlaygroundError
from backends.core.logs import logger
from backends.core.types import NOBODY, Asker, Failure, Sampling
from backends.engine.engine import Engine
from backends.pictures.boxes import as_json
from backends.pictures.decoder import decode
from ui.conversation.choices import answers, check_message, choose
from ui.conversation.pictures import Picture, attached, check_count
from ui.conversation.tabs import TABS, TabSpec
from ui.conversation.transcript import MAX_TURNS, Reply, Stats, Transcript, Turn
from ui.conversation.words import MAX_MESSAGE, check_text
from ui.visitors.people import asker
from ui.visitors.uploads import uploaded_bytes, uploaded_name

log = logger(__name__)

INTERVAL_SECONDS = 0.08
STATS = (
    "model", "engine", "queue_s", "load_s", "ttft_s", "prompt_tokens", "cached_tokens", "thinking_tokens",
    "answer_tokens", "tokens_per_s", "ignored",
)  # fmt: skip
COMMON: dict[str, tuple[Any, Any]] = {
    "history": (list[dict[str, str]], []),
    "system": (str | None, None),
    "model": (str, ""),
    "thinking": (bool | None, None),
    "thinking_budget": (int | None, None),
} | {name: (field.annotation | None, None) for name, field in Sampling.model_fields.items() if field.annotation}

PICTURES: dict[str, tuple[Any, Any]] = {"images": (list[Any], []), "visual_tokens": (int | None, None)}


class _HistoryMessage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["user", "assistant"]
    content: str


_HISTORY = TypeAdapter(list[_HistoryMessage])


def attach(engine: Engine) -> None:
    """Registers an endpoint for every tab with the Blocks context that is open."""
    for spec in TABS:
        gr.api(_endpoint(engine, spec), api_name=spec.id, concurrency_limit=None)


def _endpoint(engine: Engine, spec: TabSpec) -> Callable[..., Iterator[dict[str, Any]]]:
    """A generator function whose signature names the message, the common parameters and the tab's own options."""
    own = {
        option.name: (list[str], list(option.default)) if option.kind == "languages" else (str, option.default)
        for option in spec.options
    }
    seeing = PICTURES if spec.pictures else {}
    parameters = {"message": (str, inspect.Parameter.empty), **seeing, **own, **COMMON}

    def endpoint(*arguments: Any) -> Iterator[dict[str, Any]]:
        request, *given = arguments
        yield from ask(engine, spec, dict(zip(parameters, given, strict=True)), asker(request))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    endpoint.__name__ = spec.id
    endpoint.__doc__ = f"Ask the {spec.id} tab; streams the answer so far, the last item is final."
    whose = {"request": (gr.Request, inspect.Parameter.empty)}  # gradio's own part, in no documentation
    endpoint.__annotations__ = {name: hint for name, (hint, _) in (whose | parameters).items()} | {
        "return": Iterator[dict[str, Any]]
    }
    endpoint.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, kind, default=default, annotation=hint)
            for name, (hint, default) in (whose | parameters).items()
        ],
        return_annotation=Iterator[dict[str, Any]],
    )
    return endpoint


def ask(engine: Engine, spec: TabSpec, given: Mapping[str, Any], asker: Asker = NOBODY) -> Iterator[dict[str, Any]]:
    """The endpoint of `spec` as a plain generator. A refusal is one item with state 'failed'; never raises."""
    controls = Controls()
    try:
        message = check_message(given["message"])
        pictures = _pictures(given.get("images")) if spec.pictures else ()
        choices = choose(
            engine,
            spec,
            model=given["model"] or "",
            system=given["system"],
            thinking=given["thinking"],
            thinking_budget=given["thinking_budget"],
            sampling={name: given[name] for name in Sampling.model_fields},
            options={option.name: given[option.name] for option in spec.options},
            pictures=pictures,
            visual_tokens=given.get("visual_tokens"),
        )
        earlier = _transcript(given["history"] or [], tuple(choices.instructions))
        transcript = earlier.ask(message, tuple(choices.instructions), pictures)
        for now in answers(engine, choices, transcript, controls, lambda: INTERVAL_SECONDS, asker):
            yield _item(spec, now.turns[-1].replies)
    except PlaygroundError as exc:
        log.info("refused", person=asker.person, kind=exc.kind, number=exc.number)
        yield _refusal(spec, exc)
    except Exception:
        fault = Fault()
        log.exception("a fault of the playground itself", number=fault.number)
        yield _refusal(spec, fault)
    finally:
        controls.cancel()  # a caller that is gone frees the engine


def _pictures(images: object) -> tuple[Picture, ...]:
    """Uploaded pictures, decoded. Raises `InvalidRequest` on the first that is none."""
    if not isinstance(images, list | None):
        raise InvalidRequest("images must be a list of uploaded pictures.")
    check_count(len(images or ()))
    tray: tuple[Picture, ...] = ()
    for file in images or ():
        tray = attached(tray, decode(uploaded_bytes(file), uploaded_name(file)))
    return tray


def _transcript(history: object, languages: tuple[str, ...]) -> Transcript:
    """The history as turns; an answer counts for every language that is asked for now. Raises `InvalidRequest`."""
    if isinstance(history, list) and len(history) > 2 * MAX_TURNS:
        raise InvalidRequest(f"history has {len(history):,} messages; at most {2 * MAX_TURNS:,} are allowed.")
    try:
        messages = _HISTORY.validate_python(history)
    except ValidationError as exc:
        raise InvalidRequest(
            "history must be a list of messages with a role, 'user' or 'assistant', and a content that is a text."
        ) from exc
    for number, message in enumerate(messages):
        check_text(f"history[{number}].content", message.content, MAX_MESSAGE)
    turns: list[Turn] = []
    for message in messages:
        if message.role == "user":
            turns.append(Turn(user=message.content))
        elif not turns:
            raise InvalidRequest("history must begin with a message of the user.")
        else:
            replies = tuple(Reply(language=code, answer=message.content, state="done") for code in languages)
            turns[-1] = Turn(user=turns[-1].user, replies=replies)
    return Transcript(turns=tuple(turns))


def _item(spec: TabSpec, replies: tuple[Reply, ...]) -> dict[str, Any]:
    """What is known so far. With several replies the slowest gives the state and the first one the answer."""
    order = ("queued", "loading", "thinking", "answering", "failed", "stopped", "done")
    slowest = min(replies, key=lambda reply: order.index(reply.state))
    first = replies[0]
    failure = next((reply.failure for reply in replies if reply.failure is not None), None)
    item: dict[str, Any] = {
        "state": slowest.state,
        "thinking": first.thoughts.strip(),
        "answer": first.answer,
        "error": _error(failure) if failure else None,
        "stats": (slowest.stats or Stats()).model_dump(mode="json", include=set(STATS)),
    }
    if spec.columns:
        item["answers"] = {reply.language: reply.answer for reply in replies if reply.language}
    if spec.pictures:
        item["boxes"] = as_json(first.marks)
    return item


def _refusal(spec: TabSpec, exc: PlaygroundError) -> dict[str, Any]:
    """As the item of an answer of which nothing came."""
    return _item(spec, (Reply(state="failed", failure=Failure.of(exc)),))


def _error(failure: Failure) -> dict[str, str]:
    return {"message": failure.message, "hint": failure.hint, "number": failure.number}
