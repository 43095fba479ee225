"""What the playground keeps of the real engine's speed, and what the prompt cache saves."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from backends.adapters.llama_cpp.adapter import LlamaCpp
from backends.adapters.openai.client import Wire
from backends.adapters.openai.dialects import LLAMA_SERVER
from backends.adapters.openai.links import Links
from backends.catalog.cards import Catalog
from backends.core.types import GenerationRequest, Message, Sampling
from backends.engine.engine import Engine
from bench.apps import STARTER, loaded_engine
from bench.browser import Page, Site, events
from bench.processes import serve
from bench.report import Figure, median
from bench.script import prose
from bench.stops import measure_stops
from ui.conversation.tabs import tab

TOKENS = 200
STORY = "Tell me a long story about a lighthouse keeper, in many paragraphs."
TURNS = 10
MODEL = "Qwen2.5-Coder 0.5B"


def measure(quick: bool) -> Iterator[Figure]:
    yield _throughput(pairs=1 if quick else 21)
    engine, backend = loaded_engine()
    try:
        yield _cache(engine, backend, n=1 if quick else 5)
        yield from measure_stops(engine, backend, writing=5 if quick else 150, reading=2 if quick else 50)
    finally:
        engine.models.close()


@dataclass(frozen=True, slots=True)
class Direct:
    """One answer of the server itself. `first_s`: seconds to the first piece of text."""

    whole_s: float
    first_s: float
    text: str
    tokens: int
    prompt: int
    cached: int


def ask_directly(server: str, key: str, body: dict[str, Any]) -> Direct:
    """Streams one answer from llama.cpp with nothing in between but HTTP."""
    started, first_s, text = time.perf_counter(), 0.0, ""
    timings: dict[str, Any] = {}
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=300)
    headers = {"Content-Type": "application/json", "Authorization": key}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    for line in events(connection.getresponse()):
        if line.startswith(b"[DONE]"):
            break
        chunk = json.loads(line)
        timings = chunk.get("timings") or timings
        piece = "".join((choice.get("delta") or {}).get("content") or "" for choice in chunk.get("choices", ()))
        if piece and not text:
            first_s = time.perf_counter() - started
        text += piece
    connection.close()
    whole_s, cached = time.perf_counter() - started, timings["cache_n"]
    return Direct(whole_s, first_s, text, timings["predicted_n"], cached + timings["prompt_n"], cached)


# --- tokens per second -------------------------------------------------------------------------------------------


def _throughput(pairs: int) -> Figure:
    """Alternately through the page and past it; the ratio is taken pair by pair, as the machine's pace drifts."""
    card = Catalog.read().get(STARTER)
    greedy = {"temperature": 0.0, "max_new_tokens": TOKENS, "seed": 1}
    sampling = card.official("chat", False).values.model_copy(update=greedy)
    messages = (Message.of("system", tab("chat").system), Message.of("user", STORY))
    with serve("real") as served, httpx.Client() as unused:
        body = Wire(Links(lambda: unused), LLAMA_SERVER, card.id).body(GenerationRequest(card, messages, sampling))
        site, server, key = Site(served.url), served.told["server"], served.told["key"]
        direct_s = [ask_directly(server, key, body)]  # fills the prompt cache, as does the next line: not counted
        page_s = [seconds_through(opened_page(site, greedy), STORY, TOKENS)]
        for _ in range(pairs):
            direct_s.append(ask_directly(server, key, body))
            page_s.append(seconds_through(opened_page(site, greedy), STORY, TOKENS))
    direct = [TOKENS / answer.whole_s for answer in direct_s[1:]]
    page = [TOKENS / seconds for seconds in page_s[1:]]
    if any(answer.tokens != TOKENS for answer in direct_s):
        raise RuntimeError("the server did not make as many tokens as it was asked for")
    ratio = median([ours / theirs for ours, theirs in zip(page, direct, strict=True)])
    return Figure(
        "tokens a second, one user",
        "the same llama.cpp server, asked directly",
        f"{median(page):.1f}",
        f"{median(direct):.1f}",
        f"{pairs} pairs" if pairs > 1 else "1 pair",
        f"{ratio:.3f}",
        "at least 0.97",
        ratio >= 0.97,
        f"{MODEL}, {TOKENS} tokens, greedy, the same body and prompt, which both find in the cache; tokens over the "
        "time from just before the post to the end of the stream, through the page as a browser drives it. The ratio "
        "is the median over the pairs.",
    )


def opened_page(site: Site, sampling: Mapping[str, float]) -> Page:
    """A new visitor's page with these values set."""
    page = Page(site)
    (send,) = site.triggered(site.composer(), "submit")
    for name, value in sampling.items():
        page.values[site.input_labelled(send, f"sampling_{name}")] = value
    return page


def seconds_through(page: Page, text: str, tokens: int) -> float:
    """For the whole answer; raises unless it had so many tokens."""
    answered = page.ask(text, first='"process_completed"')
    saved = next(output for output in answered.final if isinstance(output, dict) and "turns" in output)
    if saved["turns"][-1]["replies"][0]["stats"]["answer_tokens"] != tokens:
        raise RuntimeError("the playground's answer had another length")
    return answered.done_s


# --- the prompt cache --------------------------------------------------------------------------------------------


def _cache(engine: Engine, backend: LlamaCpp, n: int) -> Figure:
    """A chat is really held, turn by turn, and its last turn asked again and again with and without the cache."""
    card = engine.models.catalog.get(STARTER)
    sampling = Sampling(temperature=0.0, max_new_tokens=150, seed=1)
    assert backend._client is not None
    client = backend._client
    server, key = str(client.base_url), client.headers["Authorization"]
    wire = Wire(Links(lambda: client), LLAMA_SERVER, card.id)
    messages = [Message.of("system", tab("chat").system)]
    bodies = []
    for turn in range(TURNS):
        words = 30 if turn == TURNS - 1 else 150
        messages.append(Message.of("user", f"Part {turn + 1}: {prose(words, turn)} What is meant?"))
        bodies.append(wire.body(GenerationRequest(card, tuple(messages), sampling)))
        messages.append(Message.of("assistant", ask_directly(server, key, bodies[-1]).text))
    with_cache, without = [], []
    for _ in range(n):
        ask_directly(server, key, bodies[-2])  # brings the slot back to where turn 9 left it
        with_cache.append(ask_directly(server, key, bodies[-1] | {"max_tokens": 1}))
        without.append(ask_directly(server, key, bodies[-1] | {"max_tokens": 1, "cache_prompt": False}))
    if any(answer.cached for answer in without):
        raise RuntimeError("the cache was not off")
    on_s, off_s = (median([answer.first_s for answer in answers]) for answers in (with_cache, without))
    return Figure(
        f"time to first token at turn {TURNS}",
        "the same with the cache off",
        f"{on_s:.2f} s",
        f"{off_s:.2f} s",
        str(n),
        f"{off_s / on_s:.0f} times less",
        "10 times less",
        off_s >= 10 * on_s,
        f"{MODEL}; asked directly of the playground's server with the playground's own body, without the cache with "
        f"`cache_prompt: false` in it. The prompt has {without[-1].prompt:,} tokens, of which "
        f"{with_cache[-1].cached:,} are found in the cache: all but the last question.",
    )
