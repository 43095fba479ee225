"""Pictures on both engines, with one small random model: what each promises, and that both see the same."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends.adapters.llama_cpp.adapter import LlamaCpp
from backends.core.cancel import Cancel
from backends.core.errors import PromptTooLong, UnsupportedModality
from backends.core.types import (
    Answer,
    Backend,
    Begun,
    Done,
    GenerationRequest,
    Image,
    Message,
    Sampling,
    Text,
    Thinking,
    TokenLogprob,
)  # fmt: skip
from tests.backends.adapters import random_models
from tests.backends.adapters.random_models import picture
from tests.patience import PATIENCE_S, ended, eventually

pytestmark = pytest.mark.model

CARD = random_models.card("image")
WHAT = Text("What is this?")
CONTEXT = 2048
NEAR = 0.05  # of a natural-log probability: 16-bit weights on one side, 32-bit ones on the other
SIZES = [(64, 64), (128, 128), (160, 96), (96, 192), (256, 256), (512, 384)]  # in pixels; 4 to 192 visual tokens


@dataclass(frozen=True)
class Heard:
    text: str
    tokens: tuple[TokenLogprob, ...]
    done: Done


def ask(*parts: Text | Image, earlier: tuple[Message, ...] = (), tokens: int = 10, **more: Any) -> GenerationRequest:
    """The likeliest answer."""
    sampling = Sampling(temperature=0.0, max_new_tokens=tokens)
    return GenerationRequest(CARD, (*earlier, Message("user", parts)), sampling, logprobs=5, **more)


def hear(backend: Backend, request: GenerationRequest, cancel: Cancel | None = None) -> Heard:
    *events, done = backend.stream(request, cancel or Cancel())
    answers = [event for event in events if isinstance(event, Answer)]
    assert isinstance(done, Done)
    return Heard("".join(a.text for a in answers), tuple(t for a in answers for t in a.logprobs), done)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random_models.need_torch()
    return random_models.seeing_model(tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def llama_cpp(folder: Path) -> Iterator[LlamaCpp]:
    with closing(LlamaCpp(random_models.Converted(folder), context=CONTEXT, slots=2, threads=1)) as engine:
        list(engine.load(CARD))
        yield engine


@pytest.fixture(scope="module")
def transformers(folder: Path) -> Iterator[Backend]:
    import torch

    from backends.adapters.hf_transformers import loading
    from backends.adapters.hf_transformers.adapter import HfTransformers

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loading, "_dtype", lambda cuda: torch.float32)
        with closing(HfTransformers(random_models.Folder(folder), context=CONTEXT, slots=2, threads=1)) as engine:
            list(engine.load(CARD))
            yield engine


@pytest.fixture(params=["llama_cpp", "transformers"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.getfixturevalue(request.param)
    return chosen


# --- what every engine that sees promises --------------------------------------------------------


def test_it_says_that_it_sees(backend: Backend) -> None:
    assert "image" in backend.capabilities.modalities


@pytest.mark.parametrize("size", SIZES)
def test_the_count_is_what_the_engine_reads_and_no_picture_is_resized(backend: Backend, size: tuple[int, int]) -> None:
    bare, seen = ask(WHAT), ask(picture(*size), WHAT, tokens=1)
    usage = hear(backend, seen).done.usage
    markers = 2
    assert usage.prompt == backend.count_tokens(seen)
    assert usage.prompt == backend.count_tokens(bare) + markers + size[0] * size[1] // 32**2


@pytest.mark.parametrize("begun", [Begun(answer="This"), Begun("Hm", closed=False), Begun("Hm", answer="This")])
def test_what_has_begun_is_counted_too(backend: Backend, begun: Begun) -> None:
    request = ask(picture(128, 128), WHAT, tokens=1, begun=begun, thinking=Thinking(bool(begun.thoughts)))
    assert hear(backend, request).done.usage.prompt == backend.count_tokens(request)


def test_several_pictures_are_told_apart(backend: Backend) -> None:
    """Each has its number, and another order is another prompt."""
    one, other = picture(128, 128, 1), picture(128, 128, 2)
    heard = [hear(backend, ask(*pair, WHAT)) for pair in ((one, other), (other, one), (one, one))]
    assert len({tuple(token.logprob for token in answer.tokens) for answer in heard}) == 3
    assert len({answer.done.usage.prompt for answer in heard}) == 1
    assert heard[0].done.usage.prompt == backend.count_tokens(ask(one, other, WHAT))


@pytest.mark.parametrize("typed", ["<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>", "<__media__>"])
def test_a_typed_picture_is_text(backend: Backend, typed: str) -> None:
    request = ask(picture(128, 128), Text(typed), tokens=1)
    assert hear(backend, request).done.usage.prompt == backend.count_tokens(request)
    assert backend.count_tokens(request) - backend.count_tokens(ask(picture(128, 128))) > 3 * typed.count("|>")


def test_the_second_turn_does_not_look_again(backend: Backend) -> None:
    shown = Message("user", (picture(256, 256, 3), WHAT))
    first = hear(backend, ask(*shown.parts))
    turns = (shown, Message.of("assistant", first.text))
    second = hear(backend, ask(Text("Why?"), earlier=turns))
    assert second.done.usage.cached >= first.done.usage.prompt - 8  # what opens the answer is not part of the past
    assert second.done.usage.cached > 64
    fresh = hear(backend, ask(picture(256, 256, 4), WHAT))
    assert fresh.done.usage.cached < 64


def test_a_picture_over_the_context_is_refused_and_the_next_one_read(backend: Backend) -> None:
    with pytest.raises(PromptTooLong):
        hear(backend, ask(*(picture(512, 512, seed) for seed in range(8)), WHAT))
    assert hear(backend, ask(picture(64, 64), WHAT)).tokens


# --- both see the same ---------------------------------------------------------------------------


def compared(here: Heard, there: Heard) -> int:
    """How many tokens were compared: all up to the first that the two chose differently, which they may between two
    that are as likely."""
    for place, (ours, theirs) in enumerate(zip(here.tokens, there.tokens, strict=False)):
        likely = dict(theirs.top)
        assert all(value == pytest.approx(likely[name], abs=NEAR) for name, value in ours.top if name in likely)
        if ours.token != theirs.token:
            best, second = (value for _, value in theirs.top[:2])
            assert best - second < 2 * NEAR
            return place
    return len(here.tokens)


@pytest.mark.parametrize("parts", [
    pytest.param((WHAT,), id="text alone"),
    *(pytest.param((picture(*size, seed=1), WHAT), id="x".join(map(str, size))) for size in SIZES),
    pytest.param((Text("See: "), picture(128, 128), Text(" and "), picture(160, 96), Text(" Which?")), id="two"),
])  # fmt: skip
def test_both_engines_see_the_same(llama_cpp: LlamaCpp, transformers: Backend, parts: tuple[Text | Image, ...]) -> None:
    here, there = (hear(engine, ask(*parts)) for engine in (llama_cpp, transformers))
    assert here.done.usage.prompt == there.done.usage.prompt
    assert compared(here, there) >= 3


# --- llama.cpp alone -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (64, 32), (32, 320)])
def test_not_even_the_smallest_picture_is_resized(llama_cpp: LlamaCpp, size: tuple[int, int]) -> None:
    request = ask(picture(*size), WHAT, tokens=1)
    assert hear(llama_cpp, request).done.usage.prompt == llama_cpp.count_tokens(request)


def test_the_largest_picture_of_a_card_is_read_in_many_batches(llama_cpp: LlamaCpp) -> None:
    request = ask(picture(1280, 1024), WHAT, tokens=2)
    assert hear(llama_cpp, request).done.usage.prompt == llama_cpp.count_tokens(request) > 1280


@pytest.mark.parametrize("missing", ["projector", "eyes"])
def test_a_card_without_eyes_refuses_a_picture_before_anything_loads(folder: Path, missing: str) -> None:
    blind = {
        "projector": {"artefacts": tuple(a for a in CARD.artefacts if a.role == "model")},
        "eyes": {"eyes": None, "modalities": frozenset({"text"})},
    }
    card = CARD.model_copy(update=blind[missing])
    with closing(LlamaCpp(random_models.Converted(folder), context=CONTEXT, slots=1, threads=1)) as unloaded:
        request = GenerationRequest(card, (Message("user", (picture(64, 64), WHAT)),), Sampling())
        with pytest.raises(UnsupportedModality):
            list(unloaded.stream(request, Cancel()))
        assert unloaded.pid is None


def test_who_cancels_while_a_picture_is_looked_at_does_not_wait_for_the_server(llama_cpp: LlamaCpp) -> None:
    """The server itself looks to the end: nothing of llama.cpp can break that off. Here it even stands still."""
    cancel = Cancel()

    def give_up() -> None:
        eventually(lambda: llama_cpp.busy_slots() == 1)
        os.kill(llama_cpp.pid or 0, signal.SIGSTOP)
        cancel()

    threading.Thread(target=give_up, daemon=True).start()
    try:
        heard = ended(lambda: hear(llama_cpp, ask(picture(1280, 1024, 7), WHAT, tokens=2), cancel))
    finally:
        os.kill(llama_cpp.pid or 0, signal.SIGCONT)
    assert heard.done.reason == "cancelled"
    assert heard.text == ""
    eventually(lambda: llama_cpp.busy_slots() == 0, 5 * PATIENCE_S)
    assert hear(llama_cpp, ask(WHAT)).tokens
