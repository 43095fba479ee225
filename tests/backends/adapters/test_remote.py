"""Engines elsewhere, through the whole way from a request to its last event: every misbehaviour has its sentence, what
was received stays, and nothing that the server says about itself comes through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from backends.adapters import registry
from backends.adapters.openai import client as openai_compatible
from backends.adapters.openai import remote as remote_adapter
from backends.adapters.openai.remote_engines import RemoteEngine
from backends.adapters.openai.remote_pool import RemoteModels
from backends.catalog.cards import Catalog
from backends.core.cancel import Controls
from backends.core.types import (
    Answer,
    Done,
    Event,
    Failure,
    GenerationRequest,
    Loading,
    Message,
    Sampling,
    Thinking,
    Thought,
)
from backends.engine.engine import Engine
from backends.engine.lengths import LONGEST_TOKEN
from tests.backends.adapters.misbehaving import MODEL, Handler, Misbehaving, chunk, data, finish, misbehaving
from tests.patience import PATIENCE_S

START = chunk("So far")
SECRET = "secret /srv/path hf_token"


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with misbehaving() as server:
        yield server


Remote = Callable[[RemoteEngine], RemoteModels]
Ask = Callable[..., list[Event]]


@pytest.fixture
def remote() -> Iterator[Callable[[RemoteEngine], RemoteModels]]:
    opened: list[RemoteModels] = []

    def remote(entry: RemoteEngine) -> RemoteModels:
        opened.append(registry.remote(entry, Catalog.read()))
        return opened[-1]

    yield remote
    for models in opened:
        models.close()


@pytest.fixture
def engine(server: Misbehaving, remote: Remote, patience: SimpleNamespace) -> Engine:
    return Engine(remote(RemoteEngine(name="lab", url=server.url, parallel=2)))


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What every engine of the test has, at each moment: long, unless a test asks for less."""
    patience = SimpleNamespace(first=PATIENCE_S, between=PATIENCE_S)
    monkeypatch.setattr(remote_adapter, "Patience", lambda first, between: patience)
    return patience


@pytest.fixture
def ask(engine: Engine) -> Ask:
    def ask(text: str = "Hello?", *, think: bool = False, controls: Controls | None = None) -> list[Event]:
        card = engine.models.choose("chat")
        messages = (Message.of("user", text),)
        request = GenerationRequest(card, messages, Sampling(), Thinking(think), conversation="c0ffee")
        return list(engine.run(request, controls or Controls()))

    return ask


def text(events: list[Event], kind: type = Answer) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def test_a_model_is_known_by_its_name_and_answers_with_its_official_settings(server: Misbehaving, ask: Ask) -> None:
    events = ask()
    assert text(events) == "Hello there"
    assert isinstance(events[-1], Done)
    (body,) = server.bodies
    assert body["model"] == MODEL
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert (body["user"], server.heads[0]["x-session-id"]) == ("c0ffee", "c0ffee")
    assert body["seed"] is not None


def test_counts_at_the_end_are_those_of_the_answer(server: Misbehaving, ask: Ask) -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 16}}
    server.act = lambda h: h.stream(chunk("Hello"), chunk(" there"), finish(), data(choices=[], usage=usage))
    done = ask()[-1]
    assert isinstance(done, Done)
    assert (done.usage.prompt, done.usage.cached, done.usage.answer) == (30, 16, 7)


def test_missing_counts_are_no_fault(server: Misbehaving, ask: Ask) -> None:
    done = ask()[-1]
    assert isinstance(done, Done)
    assert (done.usage.prompt, done.usage.answer) == (0, 2)


# --- thoughts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        (chunk(reasoning="Hm."), chunk("Yes.")),
        (chunk(reasoning_content="Hm."), chunk("Yes.")),
        (chunk(reasoning="Hm.", reasoning_content="Hm."), chunk("Yes.")),
        (chunk("<think>\nHm."), chunk("\n</think>\n\nYes.")),
        (chunk("<th"), chunk("ink>Hm.</thi"), chunk("nk>Yes.")),
    ],
    ids=["reasoning", "reasoning_content", "both", "in the text", "in the text, cut"],
)
def test_thoughts_are_told_from_the_answer_wherever_they_come(
    server: Misbehaving, ask: Ask, pieces: tuple[bytes, ...]
) -> None:
    server.act = lambda h: h.stream(*pieces, finish())
    events = ask(think=True)
    assert (text(events, Thought), text(events)) == ("Hm.", "Yes.")


COUNTING = {"no counts": {}, "a count that stays at 0": {"usage": {"prompt_tokens": 3, "completion_tokens": 0}}}


@pytest.mark.parametrize("think", [False, True])
@pytest.mark.parametrize("counting", COUNTING.values(), ids=COUNTING)
def test_a_server_that_knows_no_limit_is_cut_at_it_and_hung_up_on(
    server: Misbehaving, engine: Engine, counting: dict[str, Any], think: bool
) -> None:
    server.act = lambda h: h.talk(data(choices=[{"delta": {"reasoning" if think else "content": "on "}}], **counting))
    card = engine.models.choose("chat")
    sampling = Sampling(max_new_tokens=12)
    request = GenerationRequest(card, (Message.of("user", "Hello?"),), sampling, Thinking(think))
    events = list(engine.run(request, Controls()))
    done = events[-1]
    assert isinstance(done, Done)
    assert done.reason == "length"
    assert done.usage.thinking + done.usage.answer == (0 if counting else 12)
    spoken = text(events, Thought if think else Answer)
    assert spoken == "on " * 12 or (counting and len(spoken) <= 12 * LONGEST_TOKEN)
    assert server.hung_up.wait(PATIENCE_S), "the server writes on for nobody"


def test_a_chunk_that_holds_the_last_thought_and_the_first_word_counts_once(server: Misbehaving, ask: Ask) -> None:
    server.act = lambda h: h.stream(chunk("<think>Hm."), chunk("</think>Yes"), chunk("."), finish())
    done = ask(think=True)[-1]
    assert isinstance(done, Done)
    assert done.usage.thinking + done.usage.answer == 3


# --- what goes wrong ------------------------------------------------------------------------------------------------


def _slow(handler: Handler) -> None:
    handler.begin()
    handler.hang()


def _drip(handler: Handler) -> None:
    handler.begin()
    for piece in (START + finish() + b"data: [DONE]\n\n").split(b" "):
        handler.wfile.write(piece + b" ")
        handler.wfile.flush()
    handler.close_connection = True


def _stalls(handler: Handler) -> None:
    handler.begin()
    handler.wfile.write(START)
    handler.wfile.flush()
    handler.hang()


def _resets(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(START)
    handler.wfile.flush()
    handler.close_connection = True


ERROR = {"error": {"message": SECRET, "code": 500}}
TOO_LONG = {"error": {"message": f"maximum context length is 4096 tokens. However {SECRET}", "param": "input_tokens"}}
CASES: dict[str, tuple[Callable[[Handler], None], str, str]] = {
    # name: what the server does, the kind of the failure, what stays of the answer
    "no first token": (_slow, "engine_timeout", ""),
    "silence in the middle": (_stalls, "engine_timeout", "So far"),
    "a reset in the middle": (_resets, "engine_died", "So far"),
    "cut": (lambda h: h.stream(START, done=False), "engine_died", "So far"),
    "401": (lambda h: h.say(401, ERROR), "engine", ""),
    "404": (lambda h: h.say(404, ERROR), "engine", ""),
    "400": (lambda h: h.say(400, ERROR), "invalid_request", ""),
    "422": (lambda h: h.say(422, ERROR), "invalid_request", ""),
    "400 context": (lambda h: h.say(400, TOO_LONG), "prompt_too_long", ""),
    "500": (lambda h: h.say(500, ERROR), "engine", ""),
    "HTML": (lambda h: h.say(200, f"<html>{SECRET}</html>".encode()), "engine_died", ""),
    "HTML 502": (lambda h: h.say(502, f"<html>{SECRET}</html>".encode()), "engine", ""),
    "JSON that is no stream": (lambda h: h.say(200, {"choices": []}), "engine_died", ""),
    "an error in the middle": (lambda h: h.stream(START, data(**ERROR)), "engine", "So far"),
    "an error as a text": (lambda h: h.stream(START, b'data: {"error": "secret"}\n\n'), "engine", "So far"),
    "broken JSON": (lambda h: h.stream(START, b"data: {broken\n\n"), "engine", "So far"),
    "broken UTF-8": (lambda h: h.stream(START, b'data: {"choices": "\xff\xfe"}\n\n'), "engine", "So far"),
    "a chunk of 10 MB": (lambda h: h.stream(START, chunk("x" * 10_000_000)), "engine", "So far"),
    "a line without end": (lambda h: h.stream(START, b"x" * 10_000_000), "engine", "So far"),
    "something else": (lambda h: h.stream(START, data(choices=[1, 2])), "engine", "So far"),
    "numbers for words": (lambda h: h.stream(START, chunk(content=3)), "engine", "So far"),
}


@pytest.mark.parametrize(("act", "kind", "kept"), CASES.values(), ids=CASES)
def test_every_misbehaviour_has_its_sentence_and_what_was_received_stays(
    server: Misbehaving, ask: Ask, patience: SimpleNamespace, act: Callable[[Handler], None], kind: str, kept: str
) -> None:
    server.act = act
    if kind == "engine_timeout":
        patience.between, patience.first = 0.2, PATIENCE_S if kept else 0.2
    events = ask()
    patience.first = patience.between = PATIENCE_S
    failure = events[-1]
    assert isinstance(failure, Failure)
    assert failure.kind == kind
    assert text(events) == kept
    assert failure.message.endswith(".")
    assert failure.hint
    assert "secret" not in failure.message + failure.hint
    assert len(server.bodies) == 1, "nothing is sent twice"
    server.act = lambda h: h.stream(chunk("Again"), finish())
    assert text(ask()) == "Again", "the next question finds everything in order"


def test_a_drip_is_an_answer(server: Misbehaving, ask: Ask) -> None:
    server.act = _drip
    assert text(ask()) == "So far"


def test_an_answer_without_done_but_with_its_reason_is_whole(server: Misbehaving, ask: Ask) -> None:
    server.act = lambda h: h.stream(START, finish("length"), done=False)
    done = ask()[-1]
    assert isinstance(done, Done)
    assert done.reason == "length"


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_engine_is_asked_again_when_it_says_with_a_countdown(
    monkeypatch: pytest.MonkeyPatch, server: Misbehaving, ask: Ask, status: int
) -> None:
    monkeypatch.setattr(openai_compatible.random, "uniform", lambda low, high: low)

    def once(handler: Handler) -> None:
        if len(server.bodies) == 1:
            handler.say(status, ERROR, Retry_After="1")
        else:
            handler.stream(chunk("Now"), finish())

    server.act = once
    began = time.monotonic()
    events = ask()
    assert text(events) == "Now"
    assert time.monotonic() - began >= 1
    waits = [event for event in events if isinstance(event, Loading) and event.stage == "waiting"]
    assert waits
    assert 0 < (waits[0].seconds_left or 0) <= 1


def test_an_engine_that_stays_busy_is_given_up_with_a_sentence(server: Misbehaving, ask: Ask) -> None:
    server.act = lambda h: h.say(429, ERROR, Retry_After="0.01")
    failure = ask()[-1]
    assert isinstance(failure, Failure)
    assert failure.kind == "engine_busy"
    assert len(server.bodies) == openai_compatible.ATTEMPTS


def test_a_wait_that_nobody_would_sit_out_is_told_at_once(server: Misbehaving, ask: Ask) -> None:
    server.act = lambda h: h.say(429, ERROR, Retry_After="900")
    (failure,) = ask()  # no wait is told
    assert isinstance(failure, Failure)
    assert len(server.bodies) == 1


def test_stop_ends_a_wait(server: Misbehaving, engine: Engine) -> None:
    server.act = lambda h: h.say(429, ERROR, Retry_After="30")
    controls = Controls()
    request = GenerationRequest(engine.models.choose("chat"), (Message.of("user", "Hello?"),), Sampling())
    events = engine.run(request, controls)
    assert isinstance(next(events), Loading)
    controls.cancel()
    done = list(events)[-1]
    assert isinstance(done, Done)
    assert done.reason == "cancelled"


def test_stop_hangs_up_before_the_first_token_and_on_a_kept_connection_too(
    server: Misbehaving, ask: Ask, engine: Engine
) -> None:
    ask()  # so that there is a connection from before
    server.act = _stalls
    controls = Controls()
    request = GenerationRequest(engine.models.choose("chat"), (Message.of("user", "Hello?"),), Sampling())
    events = engine.run(request, controls)
    while not isinstance(next(events), Answer):
        pass
    controls.cancel()
    assert isinstance(list(events)[-1], Done)
    assert server.hung_up.wait(PATIENCE_S)


# --- the server itself ------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_a_sentence(remote: Remote) -> None:
    gone = RemoteEngine(name="gone", url="http://127.0.0.1:9/v1", connect_seconds=1)
    models = remote(gone)
    assert models.probe().startswith("The engine cannot be reached.")
    assert models.ranked("chat") == []
    assert models.catalog.cards, "the page can be built all the same"


@pytest.mark.parametrize(
    ("status", "listed", "said"),
    [
        (401, ERROR, "refused the playground's key"),
        (503, ERROR, "loading, or busy"),
        (500, ERROR, "status 500"),
        (200, {"data": "x"}, "offers no model"),
        (200, [], "did not say which models"),
        (200, {"data": []}, "offers no model"),
    ],
)
def test_what_is_wrong_with_a_server_is_told(
    server: Misbehaving, engine: Engine, status: int, listed: object, said: str
) -> None:
    server.listed_status, server.listed = status, listed
    trouble = engine.models.probe()
    assert said in trouble
    assert "secret" not in trouble


def test_a_loading_server_is_waited_for(server: Misbehaving, ask: Ask) -> None:
    server.unhealthy = 2
    events = ask()
    assert any(isinstance(event, Loading) and event.stage == "loading" for event in events)
    assert text(events) == "Hello there"


def test_an_unknown_model_gets_a_neutral_card_that_says_so(server: Misbehaving, ask: Ask, engine: Engine) -> None:
    server.listed = {"data": [{"id": "our-own-finetune", "owned_by": "vllm"}]}
    card = engine.models.choose("chat")
    assert (card.name, card.thinking.kind) == ("our-own-finetune", "prompted")
    assert "neutral" in card.note
    assert text(ask()) == "Hello there"
    assert server.bodies[0]["model"] == "our-own-finetune"


def test_weights_tell_what_a_made_up_name_does_not(server: Misbehaving, engine: Engine) -> None:
    server.listed = {"data": [{"id": "class-model", "root": "Qwen/Qwen3-4B", "owned_by": "vllm"}]}
    assert engine.models.choose("chat").id == "qwen3-4b"


def test_the_hosts_own_map_wins(server: Misbehaving, remote: Remote) -> None:
    server.listed = {"data": [{"id": "default", "owned_by": "vllm"}]}
    entry = RemoteEngine(name="lab", url=server.url, models={"default": "qwen3-14b"})
    models = remote(entry)
    assert models.choose("chat").id == "qwen3-14b"
    assert models.probe() == ""
    wrong = remote(entry.model_copy(update={"models": {"other": "qwen3-14b"}}))
    assert "'other'" in wrong.probe()


@pytest.mark.parametrize(
    ("owner", "dialect"),
    [
        ("vllm", "vLLM"),
        ("sglang", "SGLang"),
        ("llamacpp", "llama.cpp"),
        ("library", "Ollama"),
        ("x", "OpenAI-compatible"),
    ],
)
def test_a_server_is_recognised(server: Misbehaving, remote: Remote, owner: str, dialect: str) -> None:
    server.listed = {"data": [{"id": MODEL, "owned_by": owner}]}
    models = remote(RemoteEngine(name="lab", url=server.url))
    models.ranked("chat")
    assert models.capabilities.engine == dialect


def test_what_an_engine_cannot_do_is_named_and_not_sent(server: Misbehaving, ask: Ask) -> None:
    server.listed = {"data": [{"id": "qwen3:8b", "owned_by": "library"}]}
    done = ask()[-1]
    assert isinstance(done, Done)
    assert set(done.ignored) == {"top_k", "min_p", "repetition_penalty"}
    (body,) = server.bodies
    assert {"top_k", "min_p", "repetition_penalty", "chat_template_kwargs"}.isdisjoint(body)
    assert body["reasoning_effort"] == "none"


def test_the_key_is_sent_and_shows_nowhere(
    monkeypatch: pytest.MonkeyPatch, server: Misbehaving, remote: Remote
) -> None:
    monkeypatch.setenv("LAB_KEY", "hush")
    engine = Engine(remote(RemoteEngine(name="lab", url=server.url, key_env="LAB_KEY")))
    request = GenerationRequest(engine.models.choose("chat"), (Message.of("user", "Hello?"),), Sampling())
    assert text(list(engine.run(request, Controls()))) == "Hello there"
    assert server.heads[0]["authorization"] == "Bearer hush"
    assert "hush" not in repr(server.bodies)


def test_without_a_conversation_nothing_is_said_of_one(server: Misbehaving, engine: Engine) -> None:
    request = GenerationRequest(engine.models.choose("chat"), (Message.of("user", "Hello?"),), Sampling())
    list(engine.run(replace(request, conversation=""), Controls()))
    assert "user" not in server.bodies[0]
    assert "x-session-id" not in server.heads[0]


@pytest.mark.parametrize("counted", [None, 900])
def test_no_more_is_asked_for_than_the_context_has_room_for(
    server: Misbehaving, engine: Engine, counted: int | None
) -> None:
    """vLLM refuses such a request; how long the prompt is it tells at /tokenize, where that can be reached."""
    server.counted = counted
    card = engine.models.choose("chat")
    request = GenerationRequest(card, (Message.of("user", "Hello?" * 20),), Sampling(max_new_tokens=32_768))
    assert isinstance(list(engine.run(request, Controls()))[-1], Done)
    asked = server.bodies[0]["max_tokens"]
    assert asked == 4096 - 900 if counted else 3900 < asked < 4096
