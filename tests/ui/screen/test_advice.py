"""What would help, read off the last answers: little is said early, nothing where all is well, and each thing once."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.engine.metrics import Answered
from ui.conversation.texts import LANGUAGES, dictionaries, speaker
from ui.screen.status.advice import (
    ENOUGH,
    FULL,
    LONG_FIRST_S,
    LONG_WAIT_S,
    SHARE_FAILED,
    SHARE_LOADED,
    SLOW_TOKENS_S,
    Advice,
    advice,
    median,
)

WELL = Answered(0.0, "llama_cpp", "small", "done", answer_tokens=101, generate_s=5.0, ttft_s=0.5)
KEYS = ["advice_memory", "advice_failed", "advice_wait", "advice_loads", "advice_slow", "advice_first"]


def told(*answers: Answered, memory: float = 0.5) -> dict[str, Advice]:
    return {one.key: one for one in advice(answers, memory)}


def of(**changed: Any) -> Answered:
    return replace(WELL, **changed)


seconds = st.floats(0, 1e4)
answers = st.builds(
    Answered,
    at=seconds,
    engine=st.just("llama_cpp"),
    model=st.sampled_from(["small", "large", "{n} <b>"]),
    outcome=st.sampled_from(["done", "cancelled", "refused", "failed"]),
    answer_tokens=st.integers(0, 10_000),
    queue_s=seconds,
    load_s=seconds,
    ttft_s=st.none() | seconds,
    generate_s=seconds,
)


@given(answers=st.lists(answers, max_size=30), memory=st.floats(0, 1))
def test_whatever_happened_each_thing_is_said_once_and_in_every_language(
    answers: list[Answered], memory: float
) -> None:
    said = list(advice(answers, memory))
    by_model = {"advice_slow", "advice_first"}
    times = Counter((one.key, one.values["model"] if one.key in by_model else "") for one in said)
    assert set(times.values()) <= {1}
    assert [one.key for one in said if one.key not in by_model] == [
        key for key in KEYS if key in {one.key for one in said} - by_model
    ]
    for language in LANGUAGES:
        for one in said:
            sentence = speaker(language)(one.key, **one.values)
            for value in one.values.values():
                assert str(value) in sentence


@given(answers=st.lists(answers, max_size=ENOUGH - 1))
def test_of_few_answers_nothing_is_said(answers: list[Answered]) -> None:
    assert list(advice(answers, 0.5)) == []


@given(answers=st.lists(st.just(WELL), max_size=100), memory=st.floats(0, FULL, exclude_max=True))
def test_where_all_is_well_nothing_is_said(answers: list[Answered], memory: float) -> None:
    assert list(advice(answers, memory)) == []


@pytest.mark.parametrize(("memory", "percent"), [(FULL, "92"), (0.954, "95"), (1.0, "100")])
def test_a_full_memory_is_said_at_once(memory: float, percent: str) -> None:
    assert told(memory=memory) == {"advice_memory": Advice("advice_memory", {"percent": percent})}


@given(failed=st.integers(0, 30), well=st.integers(0, 30))
def test_failures_are_said_where_they_are_many(failed: int, well: int) -> None:
    said = told(*[of(outcome="failed", ttft_s=None)] * failed, *[WELL] * well)
    many = failed + well >= ENOUGH and failed >= SHARE_FAILED * (failed + well)
    assert list(said) == (["advice_failed"] if many else [])
    if many:
        assert said["advice_failed"].values == {"n": failed, "all": failed + well}


@pytest.mark.parametrize("outcome", ["refused", "cancelled"])
def test_what_was_refused_or_stopped_has_not_failed(outcome: Any) -> None:
    assert told(*[of(outcome=outcome, ttft_s=None)] * 50) == {}


@pytest.mark.parametrize(("wait", "said"), [(LONG_WAIT_S, []), (LONG_WAIT_S + 1, ["advice_wait"])])
def test_long_waits_are_said(wait: float, said: list[str]) -> None:
    assert list(told(*[of(queue_s=wait)] * 9)) == said


def test_one_long_wait_is_not_what_people_wait() -> None:
    assert told(*[WELL] * 5, *[of(queue_s=1000.0)] * 4) == {}
    assert told(*[WELL] * 4, *[of(queue_s=61.4)] * 5)["advice_wait"].values == {"seconds": "61"}
    assert told(*[WELL] * 5, *[of(queue_s=1000.0, ttft_s=None)] * 20) == {}, "who left in line has not been heard"


@given(loaded=st.integers(0, 20), well=st.integers(0, 20))
def test_loading_in_turns_is_said_where_two_models_push_each_other_out(loaded: int, well: int) -> None:
    pushed = [of(load_s=9.0, model=("small", "large")[n % 2]) for n in range(loaded)]
    said = told(*pushed, *[WELL] * well)
    many = loaded + well >= ENOUGH and loaded >= SHARE_LOADED * (loaded + well) and loaded > 1
    assert list(said) == (["advice_loads"] if many else [])
    if many:
        assert said["advice_loads"].values == {"n": loaded, "all": loaded + well}


def test_one_model_that_is_loaded_again_and_again_is_no_quarrel() -> None:
    assert told(*[of(load_s=9.0)] * 20) == {}
    assert told(*[of(load_s=0.5, model=name) for name in ("small", "large") * 10]) == {}, "nor is a short load"


def test_slow_models_are_named_and_fast_ones_are_not() -> None:
    slow = of(model="large", answer_tokens=int(SLOW_TOKENS_S * 10), generate_s=10.0)
    assert told(*[WELL] * 5, *[slow] * 5) == {"advice_slow": Advice("advice_slow", {"model": "large", "speed": "4.9"})}
    assert told(*[WELL] * 5, *[of(model="large", answer_tokens=1, generate_s=60.0)] * 5) == {}, "one token is no speed"


def test_a_slow_start_is_said_of_the_model_that_has_it() -> None:
    late = of(model="large", ttft_s=LONG_FIRST_S + 2)
    assert told(*[WELL] * 5, *[late] * 5) == {
        "advice_first": Advice("advice_first", {"model": "large", "seconds": "7"})
    }
    assert told(*[WELL] * 5, *[of(model="large", ttft_s=LONG_FIRST_S)] * 5) == {}


def test_all_that_there_is_to_say_can_be_said_at_once() -> None:
    bad = [
        of(model=("small", "large")[n % 2], load_s=5.0, queue_s=50.0, ttft_s=20.0, generate_s=1000.0) for n in range(10)
    ]
    said = list(advice([*bad, *[of(outcome="failed", ttft_s=None)] * 5], 0.99))
    assert [one.key for one in said] == [*KEYS[:4], *KEYS[4:], *KEYS[4:]]
    assert [one.values["model"] for one in said[4:]] == ["large", "large", "small", "small"]


@given(values=st.lists(st.floats(-1e6, 1e6)))
def test_the_median_is_one_of_the_statistics_and_none_of_nothing(values: list[float]) -> None:
    assert median(values) == (statistics.median(values) if values else None)


def test_the_interface_has_words_for_this_advice_and_no_other() -> None:
    assert {key for key in dictionaries()["en"] if key.startswith("advice_")} == set(KEYS)
