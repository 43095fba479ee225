"""Thirty-two people at once: everybody is served, nobody waits much longer than the others or gets somebody else's. And
two thousand turns, on pages that come and go and through the endpoint: nothing of them piles up."""

from __future__ import annotations

import statistics

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.crowd import PEOPLE, QUESTIONS, Person, crowd, kept_after_a_round, room
from tests.served import leaks_of_gradio

LONGEST_WAIT = 1.5  # times the median
MOST_GROWTH = 1.05
SLACK = {"threads": 8, "files": 8}  # idle threads of pools and connections that are kept alive come and go

pytestmark = pytest.mark.crowd


def check(url: str, people: list[Person]) -> None:
    figures = {family.name: family for family in text_string_to_metric_families(httpx.get(f"{url}metrics").text)}
    assert figures["playground_people"].samples[0].value == PEOPLE, "cookies were mixed up"
    markers = {person.marker for person in people}
    for person in people:
        assert [final["state"] for final in person.finals] == ["done"] * QUESTIONS
        told = str(person.finals)
        assert not [marker for marker in markers - {person.marker} if marker in told], "somebody else's words"
    waits = [wait for person in people for wait in person.waits]
    middle = statistics.median(waits)
    assert max(waits) <= LONGEST_WAIT * middle, f"{max(waits):.2f} s where the median is {middle:.2f} s"
    with leaks_of_gradio():
        for person in people:
            person.client.close()
            del person.client


def test_everybody_is_served_alike_and_gets_their_own() -> None:
    with room("scripted") as served:
        people = crowd(served.url, "What?", lambda n: {"seed": n, "system": f"You are number {n}."})
        check(served.url, people)
    for n, person in enumerate(people):
        for number, final in enumerate(person.finals):
            assert final["answer"].startswith(f"You are number {n}. | {person.marker} {number}: What? | {n} ")


@pytest.mark.model
def test_on_the_real_model_too() -> None:
    given = {"temperature": 0.0, "max_new_tokens": 8}
    with room("real") as served:
        people = crowd(served.url, "Write three words about the sea.", lambda n: given | {"seed": n})
        check(served.url, people)


def test_after_two_thousand_turns_everything_is_back_at_its_level() -> None:
    with room("quick") as served:
        before = kept_after_a_round(served)  # pools are as large as they get, and memory has been at its height
        kept_after_a_round(served)
        after = kept_after_a_round(served)
    for what in ("sessions", "iterators", "events", "streams", "waiting"):
        assert after[what] <= before[what] + 2, (what, before, after)
    for what, slack in SLACK.items():
        assert after[what] <= before[what] + slack, (what, before, after)
    assert after["bytes"] <= MOST_GROWTH * before["bytes"], (before, after)
