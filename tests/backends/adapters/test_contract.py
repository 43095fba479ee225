"""The promises that every engine keeps. Each test is one promise and runs on every adapter of `conftest.py`."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from backends.core.cancel import Cancel
from backends.core.errors import PromptTooLong, UnsupportedModality
from backends.core.special_tokens import WORD_JOINER
from backends.core.types import (
    Answer,
    Backend,
    Begun,
    Done,
    GenerationRequest,
    Image,
    Loading,
    Message,
    Sampling,
    Text,
    Thought,
)
from tests.patience import PATIENCE_S, eventually

if TYPE_CHECKING:
    from tests.backends.adapters.conftest import Adapter

MOST_PASSES = 3  # after a cancel: the one under way, and two of llama.cpp, which notices when it tells of the next
MODEL_PATIENCE_S = 5 * PATIENCE_S  # a busy machine takes ten seconds for a piece of a prompt
REPLACEMENT = "\ufffd"
MANY_SCRIPTS = "🦜 你好,世界 👩‍🚀 한국어 こんにちは"


@dataclass(frozen=True)
class Heard:
    """Everything that one request brought."""

    events: tuple[Loading | Thought | Answer | Done, ...]

    @property
    def deltas(self) -> list[Thought | Answer]:
        return [event for event in self.events if isinstance(event, Thought | Answer)]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Answer))

    @property
    def done(self) -> Done:
        last = self.events[-1]
        assert isinstance(last, Done)
        return last


def listen(backend: Backend, request: GenerationRequest) -> Heard:
    return Heard(tuple(backend.stream(request, Cancel())))


def without_loading(stream: Iterator[Any]) -> Iterator[Thought | Answer | Done]:
    return (event for event in stream if not isinstance(event, Loading))


def passes(adapter: Adapter) -> int:
    """How often the model has been run; 0 where that cannot be seen."""
    return adapter.work().passes if adapter.work else 0


def assert_idle(adapter: Adapter, cancelled_at: int | None = None) -> None:
    """Nothing is under way, and every slot takes a new request: as many as there are slots are sent together.

    `cancelled_at`: the passes at a cancel, after which the model was run no more than a few times.
    """
    if (work := adapter.work) is not None:
        eventually(lambda: work().busy == 0, MODEL_PATIENCE_S)
        assert cancelled_at is None or work().passes - cancelled_at <= MOST_PASSES
    parallel = adapter.backend.capabilities.parallel
    requests = [adapter.ask("Say hello.", max_new_tokens=1)] * parallel
    with ThreadPoolExecutor(parallel) as pool:
        answers = list(pool.map(lambda request: listen(adapter.backend, request), requests))
    assert all(answer.deltas for answer in answers)


# --- the shape of a stream -----------------------------------------------------------------------


def test_exactly_one_done_and_it_is_last(adapter: Adapter) -> None:
    events = listen(adapter.backend, adapter.repeat("The sea is blue.")).events
    assert [isinstance(event, Done) for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1].reason == "stop"


def test_every_delta_has_text_and_reading_comes_before_the_first(adapter: Adapter) -> None:
    heard = listen(adapter.backend, adapter.repeat("The sea is blue."))
    assert heard.deltas
    assert all(delta.text for delta in heard.deltas)
    assert list(heard.events[:-1])[-len(heard.deltas) :] == heard.deltas
    assert all(event.stage == "reading" for event in heard.events if isinstance(event, Loading))


def test_no_thoughts_unless_asked_for(adapter: Adapter) -> None:
    heard = listen(adapter.backend, adapter.ask("Why is the sky blue?", max_new_tokens=16))
    assert {type(delta) for delta in heard.deltas} == {Answer}


def test_usage_adds_up(adapter: Adapter) -> None:
    request = adapter.repeat("The sea is blue.")
    usage = listen(adapter.backend, request).done.usage
    counted = adapter.backend.count_tokens(request)
    assert 0 < usage.prompt <= counted
    assert usage.prompt == counted or not adapter.backend.capabilities.counts
    assert 0 <= usage.cached <= usage.prompt
    assert usage.answer > 0
    assert usage.thinking == 0


def test_max_new_tokens_is_kept_and_told_as_length(adapter: Adapter) -> None:
    done = listen(adapter.backend, adapter.ask("Describe the sea.", max_new_tokens=5)).done
    assert done.reason == "length"
    assert done.usage.thinking + done.usage.answer == 5


# --- characters ----------------------------------------------------------------------------------


def test_characters_of_many_scripts_arrive_whole(adapter: Adapter) -> None:
    heard = listen(adapter.backend, adapter.repeat(MANY_SCRIPTS))
    assert heard.text.strip() == MANY_SCRIPTS
    assert not any(REPLACEMENT in delta.text for delta in heard.deltas)


@pytest.mark.parametrize("limit", range(1, 7))
def test_an_answer_cut_within_a_character_ends_before_it(adapter: Adapter, limit: int) -> None:
    heard = listen(adapter.backend, adapter.repeat(MANY_SCRIPTS, max_new_tokens=limit))
    assert REPLACEMENT not in heard.text
    assert MANY_SCRIPTS.startswith(heard.text)
    assert heard.done.usage.answer == limit  # the tokens of a character that was cut were made all the same


TYPED = (
    r"re.sub(r'<think>.*?</think>', '', text)",
    "f'<|im_start|>{role}{text}<|im_end|>'",
    "<p><s>old</s> new</p>",
)


@pytest.mark.parametrize("typed", TYPED)
def test_nothing_that_guards_a_prompt_comes_out(adapter: Adapter, typed: str) -> None:
    """Code about control tokens comes back to the letter, and runs."""
    heard = listen(adapter.backend, adapter.repeat(typed))
    assert WORD_JOINER not in heard.text
    if adapter.stops_reading:  # elsewhere it reads a joiner, and a model so small may lose more than that
        assert heard.text.strip() == typed
    assert "".join(delta.text for delta in heard.deltas) == heard.text  # nor is any of it a thought


def test_typed_control_tokens_are_counted_as_the_text_that_they_are(adapter: Adapter) -> None:
    request = adapter.ask("a <|im_end|> b <think> c <tool_call>", max_new_tokens=1)
    usage = listen(adapter.backend, request).done.usage
    assert usage.prompt == adapter.backend.count_tokens(request) or not adapter.backend.capabilities.counts


# --- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 6])
def test_after_cancel_at_most_one_more_delta_and_the_engine_is_idle(adapter: Adapter, after: int) -> None:
    cancel = Cancel()
    stream = without_loading(adapter.backend.stream(adapter.count(), cancel))
    for _ in range(after):
        assert not isinstance(next(stream), Done)
    cancel()
    cancelled_at = passes(adapter)
    *more, last = stream
    assert isinstance(last, Done)
    assert last.reason == "cancelled"
    assert len(more) <= 1
    assert_idle(adapter, cancelled_at)


def test_cancel_from_another_thread_ends_the_reading_of_a_long_prompt(adapter: Adapter) -> None:
    if not adapter.stops_reading:
        pytest.skip("reads a prompt to its end")
    cancel = Cancel()
    words = f"{uuid.uuid4()} Find the odd one out: " + "apple pear " * (adapter.backend.context // 4)  # in no cache
    stream = adapter.backend.stream(adapter.ask(words), cancel)
    told = [next(stream) for _ in range(2)]
    assert all(isinstance(event, Loading) for event in told)
    stopper = threading.Thread(target=cancel)
    stopper.start()
    stopper.join()
    cancelled_at = passes(adapter)
    (last,) = stream  # no further piece is told, and no word of an answer
    assert last.reason == "cancelled"
    assert_idle(adapter, cancelled_at)


def test_closing_the_stream_early_frees_the_engine(adapter: Adapter) -> None:
    for _ in range(adapter.backend.capabilities.parallel):
        with closing(adapter.backend.stream(adapter.count(), Cancel())) as stream:
            next(without_loading(stream))
    assert_idle(adapter)


# --- sampling ------------------------------------------------------------------------------------


def test_every_sampling_field_is_honoured_or_ignored(adapter: Adapter) -> None:
    capabilities = adapter.backend.capabilities
    assert sorted((*capabilities.sampling, *capabilities.ignored)) == sorted(Sampling.model_fields)


def test_what_is_ignored_is_named_in_done(adapter: Adapter) -> None:
    done = listen(adapter.backend, adapter.ask("Say hello.", max_new_tokens=1)).done
    assert done.ignored == adapter.backend.capabilities.ignored


def test_the_same_seed_repeats_the_text(adapter: Adapter) -> None:
    if not adapter.backend.capabilities.seeded:
        pytest.skip("declares no seed")
    assert varied(adapter, seed=7) == varied(adapter, seed=7)


def test_another_seed_varies_the_text(adapter: Adapter) -> None:
    if not adapter.backend.capabilities.seeded:
        pytest.skip("declares no seed")
    assert len({varied(adapter, seed=seed) for seed in (1, 2, 3)}) > 1


def varied(adapter: Adapter, seed: int) -> str:
    request = adapter.ask(
        "Invent a sentence about the sea.", temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=24, seed=seed
    )
    return listen(adapter.backend, request).text


# --- going on with what has begun ----------------------------------------------------------------


def test_a_begun_answer_is_continued_not_repeated(adapter: Adapter) -> None:
    if not adapter.backend.capabilities.continues:
        pytest.skip("cannot continue a message")
    begun = Begun(answer="red orange yellow")
    heard = listen(adapter.backend, adapter.repeat("red orange yellow green blue violet", begun=begun))
    assert heard.text.split() == ["green", "blue", "violet"]


@pytest.mark.parametrize(("closed", "kind"), [(False, Thought), (True, Answer)])
def test_begun_thoughts_go_on_until_they_are_closed(adapter: Adapter, closed: bool, kind: type) -> None:
    if not adapter.backend.capabilities.continues:
        pytest.skip("cannot continue a message")
    begun = Begun(thoughts="The question", closed=closed)
    heard = listen(adapter.backend, adapter.ask("Why is the sky blue?", think=True, begun=begun, max_new_tokens=6))
    assert {type(delta) for delta in heard.deltas} == {kind}
    assert "The question" not in "".join(delta.text for delta in heard.deltas)


# --- several at once -----------------------------------------------------------------------------


def test_streams_at_the_same_time_do_not_mix(adapter: Adapter) -> None:
    if adapter.backend.capabilities.parallel < 2:
        pytest.skip("runs one request at a time")
    both_have_begun = threading.Barrier(2, timeout=MODEL_PATIENCE_S)

    def words(marker: str) -> set[str]:
        stream = without_loading(adapter.backend.stream(adapter.repeat(f"{marker} " * 12), Cancel()))
        first = next(stream)
        both_have_begun.wait()
        return set(Heard((first, *stream)).text.split())

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(words, ["apple", "river"])) == [{"apple"}, {"river"}]


# --- refusals ------------------------------------------------------------------------------------


def test_a_picture_for_a_text_model_is_refused_before_anything_loads(adapter: Adapter) -> None:
    assert "image" not in adapter.card.modalities
    picture = Message("user", (Text("What is this?"), Image(png=b"", width=1, height=1)))
    with closing(adapter.fresh()) as unloaded:
        with pytest.raises(UnsupportedModality):
            list(unloaded.stream(replace(adapter.ask(""), messages=(picture,)), Cancel()))
        assert not unloaded.alive
        assert unloaded.context == 0


def test_a_prompt_over_the_context_is_refused_and_the_next_one_answered(adapter: Adapter) -> None:
    with pytest.raises(PromptTooLong):
        listen(adapter.backend, adapter.ask("word " * (adapter.backend.context + 1)))
    assert_idle(adapter)


# --- loading and closing -------------------------------------------------------------------------


def test_loading_tells_how_far_it_is_and_never_goes_back(adapter: Adapter) -> None:
    fractions = [event.fraction for event in adapter.loading if event.stage == "loading" and event.fraction is not None]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert adapter.backend.alive
    assert adapter.backend.context > 0


def test_closing_twice_is_fine_and_what_is_closed_is_not_alive(adapter: Adapter) -> None:
    backend = adapter.fresh()
    list(backend.load(adapter.card))
    assert backend.alive
    backend.close()
    backend.close()
    assert not backend.alive
    assert backend.context == 0
