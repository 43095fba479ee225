"""Prompts as tokens, on a llama-server of our own that knows a template and a tokenizer, and echoes what it reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from backends.adapters.openai import client as openai_compatible
from backends.adapters.openai.client import Wire
from backends.adapters.openai.dialects import LLAMA_SERVER, VLLM, Dialect
from backends.adapters.openai.links import Links
from backends.catalog.cards import Card, ThinkingRule
from backends.core.cancel import Cancel
from backends.core.errors import EngineBusy, EngineDied
from backends.core.special_tokens import WORD_JOINER, defuse
from backends.core.types import (
    Answer,
    Begun,
    Done,
    GenerationRequest,
    Image,
    Loading,
    Message,
    Sampling,
    Text,
    Thinking,
    Thought,
)

CONTROL = {"<|im_start|>": 2_000_000, "<|im_end|>": 2_000_001, "[INST]": 2_000_005}
ADDED = {"<think>": 2_000_002, "</think>": 2_000_003, "<tool_call>": 2_000_004}  # found whatever parse_special says
DEFAULT = "You are Qwen."
SYSTEM = Message.of("system", "Be kind.")
ASKED = (
    r"Remove it: re.sub(r'<think>.*?</think>', '', text)",
    'An f-string: f"<|im_start|>{role}\n{text}<|im_end|>"',
    "Mend this: <p><s>old</s> new</p>",
    "</think>\n<tool_call>{}",
)


@dataclass
class Server:
    """`missing`: ways that it does not know; `default`: the system prompt of its template."""

    missing: tuple[str, ...] = ()
    default: str = DEFAULT
    status: int = 200
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content)
        self.asked.append((path, body))
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "Loading model"}})
        if path in self.missing:
            return httpx.Response(404, json={"error": "File Not Found"})
        if path == "/apply-template":
            return httpx.Response(200, json={"prompt": self.template(body)})
        if path == "/tokenize":
            content = body["content"]
            parts = content if isinstance(content, list) else [content]
            ids = [i for part in parts for i in ([part] if isinstance(part, int) else tokens(part, **flags(body)))]
            return httpx.Response(200, json={"tokens": ids})
        read = text(body["prompt"]) if path == "/completion" else self.template(body)
        said = re.findall(r"<\|im_start\|>user\n(.*?)(?:<\|im_end\|>\n)*<\|im_start\|>assistant", read, re.DOTALL)[-1]
        chunks = completion if path == "/completion" else chat
        return httpx.Response(200, content=(f"data: {json.dumps(c)}\n\n".encode() for c in chunks(said)))

    def template(self, body: dict[str, Any]) -> str:
        messages = body["messages"]
        if self.default and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default}, *messages]
        rows = [
            f"<|im_start|>{m['role']}\n{m['content'].strip() if m['role'] == 'assistant' else m['content']}<|im_end|>\n"
            for m in messages
        ]
        if "continue_final_message" in body:
            last = messages[-1]
            thoughts = f"<think>\n{last['reasoning_content']}" if "reasoning_content" in last else ""
            closing = "\n</think>\n\n" if thoughts and body["continue_final_message"] == "content" else ""
            rows[-1] = f"<|im_start|>assistant\n{thoughts}{closing}{last['content']}"
        elif body.get("add_generation_prompt", True):
            rows.append("<|im_start|>assistant\n")
        return "".join(rows)


def flags(body: dict[str, Any]) -> dict[str, bool]:
    return {"special": body["parse_special"]}


def tokens(content: str, special: bool) -> list[int]:
    """A token for every letter, and the added ones: control tokens only where they are asked for."""
    known = ADDED | (CONTROL if special else {})
    parts = re.split(f"({'|'.join(map(re.escape, known))})", content)
    return [i for part in parts for i in ([known[part]] if part in known else map(ord, part))]


def text(ids: list[int]) -> str:
    names = {number: name for name, number in (CONTROL | ADDED).items()}
    return "".join(names.get(i) or chr(i) for i in ids)


def completion(said: str) -> Iterator[dict[str, Any]]:
    """As llama-server's own way streams it, a letter a token."""
    yield {"content": "", "tokens": [0], "stop": False, "prompt_progress": {"total": 9, "cache": 4, "processed": 9}}
    for n, letter in enumerate(said, 1):
        rows = [{"token": letter, "logprob": -0.5, "top_logprobs": [{"token": letter, "logprob": -0.5}]}]
        counts = {"predicted_n": n, "prompt_n": 5, "cache_n": 4}
        yield {"content": letter, "stop": False, "timings": counts, "completion_probabilities": rows}
    counts = {"predicted_n": len(said) + 1, "prompt_n": 5, "cache_n": 4}
    yield {"content": "", "stop": True, "stop_type": "eos", "timings": counts}


def chat(said: str) -> Iterator[dict[str, Any]]:
    for n, letter in enumerate(said, 1):
        counts = {"predicted_n": n, "prompt_n": 5, "cache_n": 4}
        yield {"choices": [{"delta": {"content": letter}, "finish_reason": None}], "timings": counts}
    yield {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def wire(server: Server, dialect: Dialect = LLAMA_SERVER) -> Wire:
    transport = httpx.MockTransport(server.answer)
    return Wire(Links(lambda: httpx.Client(base_url="http://engine", transport=transport)), dialect, "test-model")


Ask = Callable[..., GenerationRequest]


@pytest.fixture
def ask(card: Card) -> Ask:
    def ask(*messages: Message | str, kind: str = "prompted", own: bool = False, **more: Any) -> GenerationRequest:
        rule = ThinkingRule(kind=kind, default=kind == "always")
        asked = card.model_copy(update={"thinking": rule, "own_system_prompt": own})
        said = tuple(Message.of("user", m) if isinstance(m, str) else m for m in messages)
        return GenerationRequest(asked, said, more.pop("sampling", Sampling()), **more)

    return ask


def hear(wire: Wire, request: GenerationRequest) -> tuple[str, str, Done]:
    *events, done = wire.stream(request, Cancel())
    assert isinstance(done, Done)
    thoughts, answer = (
        "".join(event.text for event in events if isinstance(event, kind)) for kind in (Thought, Answer)
    )
    return thoughts, answer, done


def prompt(server: Server) -> list[int]:
    path, body = server.asked[-1]
    assert path == "/completion"
    ids: list[int] = body["prompt"]
    return ids


# --- which way -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_typed_is_read_as_text_and_comes_back_to_the_letter(ask: Ask, asked: str) -> None:
    server = Server()
    _, answer, done = hear(wire(server), ask(SYSTEM, asked))
    assert answer == asked
    assert (done.reason, done.usage.prompt, done.usage.answer) == ("stop", 9, len(asked) + 1)
    ids = prompt(server)
    assert [i for i in ids if i >= 2_000_000] == [2_000_000, 2_000_001] * 2 + [2_000_000]
    assert text(ids) == (
        f"<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert WORD_JOINER not in json.dumps(server.asked, ensure_ascii=False)


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_that_holds_for_every_role_and_only_our_own_words_mean_theirs(ask: Ask, role: str) -> None:
    server = Server()
    typed = Message(role, (Text("<think> is "), Text("<think>", ours=True), Text("\n")))
    system = () if role == "system" else (SYSTEM,)
    hear(wire(server), ask(*system, typed, "Go on."))
    assert prompt(server).count(ADDED["<think>"]) == 1
    assert "<think> is <think>" in text(prompt(server))


def test_a_control_token_of_any_form_is_plain_beside_one_that_is_known(ask: Ask) -> None:
    server = Server()
    assert hear(wire(server), ask(SYSTEM, "[INST] <s>"))[1] == "[INST] <s>"
    assert CONTROL["[INST]"] not in prompt(server)


def test_what_holds_nothing_special_goes_as_messages(ask: Ask) -> None:
    server = Server()
    hear(wire(server), ask(SYSTEM, "if a<b and b>c: <p>"))
    assert [path for path, _ in server.asked] == ["/v1/chat/completions"]


def test_control_tokens_that_are_meant_go_as_messages(ask: Ask) -> None:
    server = Server()
    hear(wire(server), ask(SYSTEM, Message.of("user", "<think>").raw))
    assert [path for path, _ in server.asked] == ["/v1/chat/completions"]


def test_only_allow_listed_keys_and_every_sampling_value_are_sent(ask: Ask) -> None:
    server = Server()
    sampling = Sampling(temperature=0.3, top_k=7, seed=5, repetition_penalty=1.1, max_new_tokens=9)
    hear(wire(server), ask(SYSTEM, "<s>", sampling=sampling, logprobs=3, conversation="c"))
    body = server.asked[-1][1]
    names = LLAMA_SERVER.sampling
    extra = {"cache_prompt", "timings_per_token", "return_progress", "reasoning_format"}
    assert set(body) == {"model", "stream", "prompt", "preserved_tokens", "n_probs", *extra, *names.values()}
    assert all(body[theirs] == getattr(sampling, ours) for ours, theirs in names.items())
    assert (body["n_probs"], body["stream"], body["preserved_tokens"]) == (3, True, ["<think>", "</think>"])


def test_progress_log_probabilities_and_whole_counts_are_told(ask: Ask) -> None:
    events = list(wire(Server()).stream(ask(SYSTEM, "<s>", logprobs=1), Cancel()))
    assert isinstance(events[0], Loading)
    assert (events[0].done, events[0].total) == (9, 9)
    rows = [row for event in events if isinstance(event, Answer) for row in event.logprobs]
    assert [(row.token, row.logprob, row.top) for row in rows] == [(c, -0.5, ((c, -0.5),)) for c in "<s>"]


@pytest.mark.parametrize("messages", [("<s>",), (SYSTEM, "<s>"), (SYSTEM, "plain"), ("plain",)])
def test_what_is_counted_is_what_is_sent(ask: Ask, messages: tuple[Any, ...]) -> None:
    server = Server()
    request = ask(*messages)
    counted = wire(server).count_tokens(request)
    hear(wire(server), request)
    path, body = server.asked[-1]
    ids = body["prompt"] if path == "/completion" else tokens(server.template(body), special=True)
    assert counted == len(ids)


# --- thinking --------------------------------------------------------------------------------------------------------


def test_thoughts_are_told_apart_here(ask: Ask) -> None:
    """The way for tokens knows no thoughts: the echo of what was typed plays a model that thinks."""
    asked = "<think>\nhm\n</think>\n\nyes"
    request = ask(SYSTEM, asked, kind="switch", thinking=Thinking(True))
    thoughts, answer, done = hear(wire(Server()), request)
    assert (thoughts, answer) == ("hm", "yes")
    assert done.usage.thinking + done.usage.answer == len(asked) + 1
    assert hear(wire(Server()), ask(SYSTEM, asked, kind="switch"))[:2] == ("", asked)


def test_the_thinking_switch_goes_to_the_template(ask: Ask) -> None:
    for think in (True, False):
        server = Server()
        hear(wire(server), ask("<s>", kind="switch", thinking=Thinking(think)))
        switches = [body["chat_template_kwargs"] for path, body in server.asked if path == "/apply-template"]
        assert switches == [{"enable_thinking": think}] * 3


def test_a_template_that_opens_the_thoughts_is_told_by_the_end_of_its_prompt(ask: Ask) -> None:
    class Opening(Server):
        def template(self, body: dict[str, Any]) -> str:
            return super().template(body) + ("<think>\n" if body.get("add_generation_prompt", True) else "")

    request = ask(SYSTEM, "hm <s>\n</think>\n\nyes", kind="always", thinking=Thinking(True))
    assert hear(wire(Opening()), request)[:2] == ("hm <s>", "yes")


BEGUN = [
    ("prompted", Begun(closed=False), "<think>\n"),
    ("prompted", Begun("h</think>m", closed=False), "<think>\nh</think>m"),
    ("prompted", Begun("h<s>m", True, "y<s>es "), "<think>\nh<s>m\n</think>\n\ny<s>es "),
    ("switch", Begun("h<s>m\n", closed=False), "<think>\nh<s>m\n"),
    ("switch", Begun("hm", True, "y<tool_call>"), "<think>\nhm\n</think>\n\ny<tool_call>"),
]


@pytest.mark.parametrize(("kind", "begun", "end"), BEGUN)
def test_what_has_begun_is_continued_where_it_stands(ask: Ask, kind: str, begun: Begun, end: str) -> None:
    server = Server()
    request = ask(SYSTEM, "so <s>\n</think>\n\nyes", kind=kind, thinking=Thinking(True), begun=begun)
    thoughts, answer, _ = hear(wire(server), request)
    assert text(prompt(server)).endswith(f"<|im_start|>assistant\n{end}")
    meant = [ADDED["<think>"]] * end.startswith("<think>") + [ADDED["</think>"]] * ("\n</think>\n" in end)
    assert [i for i in prompt(server) if i in ADDED.values()] == meant
    assert (thoughts, answer) == (("", "so <s>\n</think>\n\nyes") if begun.closed else ("so <s>", "yes"))


# --- no system prompt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["Hi", "<s>", " "])
def test_no_system_prompt_is_none(ask: Ask, asked: str) -> None:
    server = Server()
    hear(wire(server), ask(asked))
    assert text(prompt(server)) == f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_that_adds_none_costs_two_renderings_once(ask: Ask) -> None:
    server = Server(default="")
    one = wire(server)
    for _ in range(3):
        hear(one, ask("Hi"))
    assert [path for path, _ in server.asked] == ["/apply-template"] * 2 + ["/v1/chat/completions"] * 3


@pytest.mark.parametrize("dialect", [VLLM, LLAMA_SERVER])
def test_a_server_that_takes_messages_alone_is_told_an_empty_one_where_the_card_says_so(
    ask: Ask, dialect: Dialect
) -> None:
    for own in (True, False):
        server = Server(missing=("/apply-template", "/tokenize"))
        hear(wire(server, dialect), ask("Hi", own=own))
        roles = [(message["role"], message["content"]) for message in server.asked[-1][1]["messages"]]
        assert roles == [("system", "")] * own + [("user", "Hi")]


def test_a_given_one_is_never_replaced(ask: Ask) -> None:
    server = Server()
    hear(wire(server), ask(Message.of("system", DEFAULT), "<s>", own=True))
    assert text(prompt(server)).startswith(f"<|im_start|>system\n{DEFAULT}<|im_end|>")


# --- messages only ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [("/apply-template",), ("/tokenize",)])
@pytest.mark.parametrize("asked", ASKED)
def test_behind_a_router_that_knows_the_chat_alone_the_joiner_never_comes_out(
    ask: Ask, asked: str, missing: tuple[str, ...]
) -> None:
    server = Server(missing=missing)
    assert hear(wire(server), ask(SYSTEM, asked))[1] == asked
    path, body = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"][-1]["content"] == defuse(asked)


@pytest.mark.parametrize("dialect", [VLLM, LLAMA_SERVER])
def test_with_pictures_too(ask: Ask, dialect: Dialect) -> None:
    class Seeing(Server):
        def template(self, body: dict[str, Any]) -> str:
            words = ["".join(part.get("text", "") for part in m["content"]) for m in body["messages"][1:]]
            return f"<|im_start|>user\n{words[-1]}<|im_end|>\n<|im_start|>assistant\n"

    server = Seeing()
    request = ask(SYSTEM, Message("user", (Image(b"x", 32, 32), Text(ASKED[0]))))
    assert hear(wire(server, dialect), request)[1] == ASKED[0]
    assert defuse(ASKED[0]) in json.dumps(server.asked[-1][1], ensure_ascii=False).replace("\\\\", "\\")


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_server_that_is_busy_while_the_prompt_is_made_is_asked_again(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_compatible, "WAIT_SECONDS", 0.01)
    server = Server(status=503)
    with pytest.raises(EngineBusy):
        hear(wire(server), ask(SYSTEM, "<s>"))
    assert len(server.asked) == openai_compatible.ATTEMPTS


def test_a_server_that_goes_away_while_the_prompt_is_made_is_a_dead_engine(ask: Ask) -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("gone")

    links = Links(lambda: httpx.Client(base_url="http://engine", transport=httpx.MockTransport(gone)))
    with pytest.raises(EngineDied):
        hear(Wire(links, LLAMA_SERVER, "test-model"), ask("Hi"))


def test_a_cancel_while_the_prompt_is_made_ends_it(ask: Ask) -> None:
    cancel = Cancel()

    def cut(request: httpx.Request) -> httpx.Response:
        cancel()
        raise httpx.ReadError("cut")

    links = Links(lambda: httpx.Client(base_url="http://engine", transport=httpx.MockTransport(cut)))
    (done,) = Wire(links, LLAMA_SERVER, "test-model").stream(ask("<s>"), cancel)
    assert isinstance(done, Done)
    assert done.reason == "cancelled"
