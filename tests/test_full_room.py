"""Thirty-two people at once: everybody is served and nobody gets somebody else's (that turns go round between them is a
promise of the line, see test_scheduler.py, and how long they wait a figure of `make bench`). And two thousand turns, on
pages that come and go and through the endpoint: nothing of them piles up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from gradio_client import Client
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from bench.crowd import PEOPLE, QUESTIONS, Person, Room, crowd, kept_after_a_round, room
from tests.patience import eventually
from tests.served import leaks_of_gradio

MOST_GROWTH = 1.05
STOPS = 200
SLACK = {"threads": 8, "files": 8}  # idle threads of pools and connections that are kept alive come and go

pytestmark = pytest.mark.crowd


def samples(url: str, name: str) -> list[Sample]:
    """What /metrics tells under a name."""
    families = text_string_to_metric_families(httpx.get(f"{url}metrics").text)
    return [sample for family in families for sample in family.samples if sample.name == name]


def check(url: str, people: list[Person]) -> None:
    (people_here,) = samples(url, "playground_people")
    assert people_here.value == PEOPLE, "cookies were mixed up"
    markers = {person.marker for person in people}
    for person in people:
        assert [final["state"] for final in person.finals] == ["done"] * QUESTIONS
        told = str(person.finals)
        assert not [marker for marker in markers - {person.marker} if marker in told], "somebody else's words"
    with leaks_of_gradio():
        for person in people:
            person.client.close()
            del person.client


def test_everybody_is_served_and_gets_their_own() -> None:
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


def test_two_hundred_stops_leave_no_slot_taken() -> None:
    """Eight people, each of whom closes the connection after the first token, twenty-five times."""

    def stop_again_and_again(served: Room) -> None:
        with httpx.Client(base_url=served.url, timeout=60) as client:
            client.get("config").raise_for_status()  # which gives a seat of their own
            for _ in range(STOPS // 8):
                answer = client.post("gradio_api/call/v2/chat", json={"message": "What?"}).raise_for_status()
                with client.stream("GET", f"gradio_api/call/v2/chat/{answer.json()['event_id']}") as stream:
                    next(line for line in stream.iter_lines() if '"answering"' in line)

    with room("scripted") as served:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(stop_again_and_again, [served] * 8))
        eventually(lambda: not served.kept()["waiting"])
        ended = {s.labels["outcome"]: s.value for s in samples(served.url, "playground_requests_total")}
    assert ended == {"cancelled": STOPS}


@pytest.mark.model
def test_an_engine_that_is_killed_in_the_middle_is_back_with_the_next_question_and_repeats_nothing() -> None:
    given = {"temperature": 0.0, "max_new_tokens": 1500}
    with room("real") as served, leaks_of_gradio():
        client = Client(served.url, verbose=False)
        items, killed = [], False
        for item in client.submit("Write a very long story about the sea, in ten chapters.", api_name="/chat", **given):
            items.append(item)
            if len(item["answer"]) > 40 and not killed:
                _engine_of(served.pid).kill()
                killed = True
        assert items[-1]["state"] == "failed"
        assert len(items[-1]["answer"]) > 40, "what was written is kept"
        assert "Send again" in items[-1]["error"]["hint"]

        *_, item = client.submit("What is the capital of Japan?", api_name="/chat", **given)
        assert (item["state"], "Tokyo" in item["answer"]) == ("done", True)
        ended = {s.labels["outcome"]: s.value for s in samples(served.url, "playground_requests_total")}
        assert ended == {"done": 1, "failed": 1}
        client.close()
        del client


def _engine_of(pid: int) -> psutil.Process:
    """The llama.cpp server of a playground."""
    return next(child for child in psutil.Process(pid).children() if "llama_cpp.child" in " ".join(child.cmdline()))
