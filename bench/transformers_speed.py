"""The transformers engine beside the library's own `generate`: its speed, its cache between turns, several at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backends.adapters.hf_transformers.adapter import HfTransformers
from backends.catalog.cards import Catalog
from backends.core.cancel import Cancel
from backends.core.types import Answer, Done, GenerationRequest, Message, Sampling
from backends.host.settings import read_settings
from backends.weights.store import WeightStore
from bench.apps import STARTER
from bench.report import Figure, median
from bench.script import prose

TOKENS = 60
TOGETHER = 4
TURNS = 10
MODEL = "Qwen2.5-Coder 0.5B"
STORY = "Tell me a long story about a lighthouse keeper, in many paragraphs."
NAME = "transformers: "


def measure(quick: bool) -> Iterator[Figure]:
    card = Catalog.read().get(STARTER)
    store = WeightStore(read_settings([]).cache_dir, offline=True)  # the GGUF file, whether or not there is a hub
    backend = HfTransformers(store, context=4096, slots=TOGETHER, threads=2)
    for _ in backend.load(card):
        pass
    try:
        yield _rate(backend, _request(STORY), n=1 if quick else 9)
        yield _next_turn(backend, n=1 if quick else 5)
        yield _together(backend, n=1 if quick else 3)
    finally:
        backend.close()


def _request(text: str, *earlier: Message, tokens: int = TOKENS) -> GenerationRequest:
    sampling = Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=tokens, seed=1)
    return GenerationRequest(Catalog.read().get(STARTER), (*earlier, Message.of("user", text)), sampling)


def _ask(backend: HfTransformers, request: GenerationRequest) -> tuple[float, float, str, Done]:
    """Seconds to the first word and to the end, the answer, and the last event."""
    began, first, text, done = time.perf_counter(), 0.0, "", None
    for event in backend.stream(request, Cancel()):
        if isinstance(event, Answer):
            first = first or time.perf_counter() - began
            text += event.text
        elif isinstance(event, Done):
            done = event
    assert done is not None
    return first, time.perf_counter() - began, text, done


def _forget(backend: HfTransformers) -> None:
    assert backend._decoder is not None
    backend._decoder._store.shrink(0)


def _rate(backend: HfTransformers, request: GenerationRequest, n: int) -> Figure:
    """Alternately, without the cache in both; the ratio is taken pair by pair."""
    import torch

    assert backend._loaded is not None
    model, prompt = backend._loaded.model, torch.tensor([backend._loaded.chat.encode(request).ids])
    bare_options: dict[str, Any] = {
        "attention_mask": torch.ones_like(prompt), "max_new_tokens": TOKENS, "min_new_tokens": TOKENS,
        "do_sample": False, "temperature": None, "top_p": None, "top_k": None, "repetition_penalty": None,
    }  # fmt: skip
    ours, bare = [], []
    for _ in range(n + 1):
        _forget(backend)
        _, seconds, _, done = _ask(backend, request)
        assert done.usage.answer == TOKENS
        ours.append(TOKENS / seconds)
        with torch.inference_mode():
            began = time.perf_counter()
            model.generate(prompt, **bare_options)
            bare.append(TOKENS / (time.perf_counter() - began))
    ratio = median([a / b for a, b in zip(ours[1:], bare[1:], strict=True)])
    return Figure(
        f"{NAME}tokens a second, streamed",
        "a bare model.generate",
        f"{median(ours[1:]):.1f}",
        f"{median(bare[1:]):.1f}",
        f"{n} pairs",
        f"{ratio:.3f}",
        "at least 0.97",
        ratio >= 0.97,
        f"{MODEL} at 16 bit, {TOKENS} tokens, greedy, the prompt read anew each time; from the call to the end.",
    )


def _next_turn(backend: HfTransformers, n: int) -> Figure:
    """A chat is really held, and its last turn asked again and again with and without what was kept."""
    talk: list[Message] = []
    for turn in range(TURNS - 1):
        question = f"Part {turn + 1}: {prose(150, turn)} What is meant?"
        answer = _ask(backend, _request(question, *talk))[2]
        talk += [Message.of("user", question), Message.of("assistant", answer)]
    last = _request(f"Part {TURNS}: {prose(30, TURNS)} What is meant?", *talk, tokens=1)
    before = _request(talk[-2].text, *talk[:-2], tokens=1)
    warm, cold, prompt = [], [], 0
    for _ in range(n):
        _ask(backend, before)
        warm.append(_ask(backend, last)[0])
        _forget(backend)
        first, _, _, done = _ask(backend, last)
        assert done.usage.cached == 0
        cold.append(first)
        prompt = done.usage.prompt
        _forget(backend)
    return Figure(
        f"{NAME}time to first token at turn {TURNS}",
        "the same with nothing kept",
        f"{median(warm):.2f} s",
        f"{median(cold):.2f} s",
        str(n),
        f"{median(cold) / median(warm):.0f} times less",
        "5 times less",
        median(cold) >= 5 * median(warm),
        f"{MODEL} at 16 bit, a prompt of {prompt:,} tokens; the turn before was answered just before.",
    )


def _together(backend: HfTransformers, n: int) -> Figure:
    requests = [_request(f"Tell me a long story about {what}.") for what in ("a lamp", "the sea", "a cat", "a book")]
    at_once, in_turn = [], []
    for _ in range(n):
        began = time.perf_counter()
        with ThreadPoolExecutor(TOGETHER) as pool:
            made = sum(answer[3].usage.answer for answer in pool.map(lambda r: _ask(backend, r), requests))
        at_once.append(made / (time.perf_counter() - began))
        began = time.perf_counter()
        made = sum(_ask(backend, request)[3].usage.answer for request in requests)
        in_turn.append(made / (time.perf_counter() - began))
    return Figure(
        f"{NAME}tokens a second of {TOGETHER} answers at once",
        "one after the other",
        f"{median(at_once):.1f}",
        f"{median(in_turn):.1f}",
        str(n),
        f"{median(at_once) / median(in_turn):.1f} times more",
        note=f"{MODEL} at 16 bit; all answers share each forward pass.",
    )
