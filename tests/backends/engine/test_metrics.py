"""What is counted is what happened, in words that Prometheus reads, and no label is anybody's name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from backends.engine.metrics import RECENT, Answered, Metrics, Outcome

LABELS = {"engine", "model", "outcome", "kind", "le"}
DONE = Answered(
    1.0, "llama_cpp", "test-model", "done", prompt_tokens=20, cached_tokens=5, thinking_tokens=3, answer_tokens=8,
    queue_s=0.3, load_s=1.0, ttft_s=0.6, generate_s=2.0,
)  # fmt: skip

seconds = st.just(0.0) | st.floats(1e-9, 1e6)  # a clock knows no less than a billionth
tokens = st.integers(0, 10**6)
answered = st.builds(
    Answered, at=seconds, engine=st.sampled_from(["llama_cpp", "here"]), model=st.sampled_from(["a", "b"]),
    outcome=st.sampled_from(get_args(Outcome)), kind=st.sampled_from(["", "busy", "engine_died"]),
    prompt_tokens=tokens, cached_tokens=tokens, thinking_tokens=tokens, answer_tokens=tokens,
    queue_s=seconds, load_s=seconds, ttft_s=st.none() | seconds, generate_s=seconds,
)  # fmt: skip


def samples(metrics: Metrics) -> list[Sample]:
    """As Prometheus reads them, but for the moments in which counting began."""
    families = text_string_to_metric_families(metrics.text().decode())
    return [sample for family in families for sample in family.samples if not sample.name.endswith("_created")]


def total(metrics: Metrics, name: str, **labels: str) -> float:
    """Of all samples of that name with these labels."""
    return sum(
        sample.value
        for sample in samples(metrics)
        if sample.name == f"playground_{name}" and labels.items() <= sample.labels.items()
    )


def recorded(*all_answered: Answered) -> Metrics:
    metrics = Metrics()
    for one in all_answered:
        metrics.record(one)
    return metrics


# --- what Prometheus reads -----------------------------------------------------------------------


def test_an_answer_is_counted_with_everything_that_is_known_of_it() -> None:
    metrics = recorded(DONE)
    whose = {"engine": "llama_cpp", "model": "test-model"}
    assert total(metrics, "requests_total", **whose, outcome="done") == 1
    assert total(metrics, "problems_total") == 0
    assert total(metrics, "prompt_tokens_total", **whose) == 20
    assert total(metrics, "cached_prompt_tokens_total", **whose) == 5
    assert total(metrics, "written_tokens_total", **whose) == 11
    for name, value in {"queue_seconds": 0.3, "first_token_seconds": 0.6, "tokens_per_second": 5.0}.items():
        assert total(metrics, f"{name}_count", **whose) == 1
        assert total(metrics, f"{name}_sum", **whose) == pytest.approx(value)


@settings(max_examples=40)
@given(st.lists(answered, max_size=5))
def test_the_figures_add_up_over_whatever_happened(happened: list[Answered]) -> None:
    metrics = recorded(*happened)
    assert total(metrics, "requests_total") == len(happened)
    for outcome in get_args(Outcome):
        assert total(metrics, "requests_total", outcome=outcome) == sum(one.outcome == outcome for one in happened)
    assert total(metrics, "problems_total") == sum(one.kind != "" for one in happened)
    assert total(metrics, "prompt_tokens_total") == sum(one.prompt_tokens for one in happened)
    written = sum(one.thinking_tokens + one.answer_tokens for one in happened)
    assert total(metrics, "written_tokens_total") == written
    assert total(metrics, "queue_seconds_count") == sum(one.outcome != "refused" for one in happened)
    assert total(metrics, "first_token_seconds_count") == sum(one.ttft_s is not None for one in happened)
    assert total(metrics, "tokens_per_second_count") == sum(one.tokens_per_s is not None for one in happened)


@settings(max_examples=40)
@given(st.lists(answered, max_size=6))
def test_labels_tell_of_engines_models_and_ends_alone(happened: list[Answered]) -> None:
    for sample in samples(recorded(*happened)):
        assert sample.name.startswith("playground_")
        assert set(sample.labels) <= LABELS
        assert {"engine", "model"} <= set(sample.labels)


@pytest.mark.parametrize("name", ['"', "\\", "\n", 'a"} 1\nplayground_requests_total{engine="b', "模型 · 4-bit", ""])
def test_whatever_a_model_is_called_the_text_can_be_read(name: str) -> None:
    metrics = recorded(replace(DONE, model=name, engine=name))
    assert total(metrics, "requests_total", engine=name, model=name) == total(metrics, "requests_total") == 1


def test_what_was_refused_has_not_stood_in_line() -> None:
    refused = Answered(1.0, "llama_cpp", "test-model", "refused", "limit_reached")
    metrics = recorded(refused)
    assert total(metrics, "problems_total", kind="limit_reached") == 1
    assert total(metrics, "queue_seconds_count") == 0


def test_before_anything_happened_there_is_a_text_to_read() -> None:
    assert samples(Metrics()) == []


def test_two_playgrounds_in_one_process_count_for_themselves() -> None:
    first, second = recorded(DONE), Metrics()
    assert total(first, "requests_total") == 1
    assert total(second, "requests_total") == 0


def test_answers_that_end_in_the_same_moment_are_all_counted() -> None:
    metrics = Metrics()
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(metrics.record, [DONE] * 150):
            pass
    assert total(metrics, "requests_total") == len(metrics.recent) == 150
    assert total(metrics, "written_tokens_total") == 150 * 11


# --- what is true at the moment ------------------------------------------------------------------


def test_what_is_watched_is_asked_for_whenever_prometheus_asks() -> None:
    metrics, waiting = Metrics(), [0]

    def now() -> Iterator[Metric]:
        waiting[0] += 1
        yield GaugeMetricFamily("playground_waiting", "Requests in line", waiting[0])

    metrics.watch(now)
    before = waiting[0]
    for look in (1, 2, 3):
        assert total(metrics, "waiting") == before + look


def test_what_several_watch_stands_side_by_side_with_what_was_counted() -> None:
    metrics = recorded(DONE)
    for name, value in {"waiting": 4, "people": 2}.items():
        metrics.watch(lambda name=name, value=value: [GaugeMetricFamily(f"playground_{name}", name, value)])
    assert (total(metrics, "waiting"), total(metrics, "people"), total(metrics, "requests_total")) == (4, 2, 1)


# --- the last answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [0, 1, RECENT, RECENT + 1, 2 * RECENT + 7])
def test_the_last_answers_are_kept_in_order_and_no_more_than_are_shown(answers: int) -> None:
    happened = [replace(DONE, at=float(n)) for n in range(answers)]
    assert recorded(*happened).recent == tuple(happened[-RECENT:])


def test_what_was_read_of_the_last_answers_stays_as_it_is() -> None:
    metrics = recorded(DONE)
    before = metrics.recent
    metrics.record(DONE)
    assert (len(before), len(metrics.recent)) == (1, 2)


# --- speed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "speed"),
    [
        ({"thinking_tokens": 0, "answer_tokens": 0, "generate_s": 2.0}, None),
        ({"thinking_tokens": 0, "answer_tokens": 1, "generate_s": 2.0}, None),
        ({"thinking_tokens": 1, "answer_tokens": 0, "generate_s": 2.0}, None),
        ({"thinking_tokens": 1, "answer_tokens": 1, "generate_s": 2.0}, 0.5),
        ({"thinking_tokens": 0, "answer_tokens": 11, "generate_s": 2.0}, 5.0),
        ({"thinking_tokens": 5, "answer_tokens": 6, "generate_s": 2.0}, 5.0),
        ({"thinking_tokens": 0, "answer_tokens": 11, "generate_s": 0.0}, None),
    ],
)
def test_speed_is_from_the_first_token_to_the_last(how: dict[str, Any], speed: float | None) -> None:
    assert replace(DONE, **how).tokens_per_s == speed


@given(answered)
def test_speed_is_a_number_above_nothing_or_untold(one: Answered) -> None:
    speed = one.tokens_per_s
    assert speed is None or (speed > 0 and math.isfinite(speed))
