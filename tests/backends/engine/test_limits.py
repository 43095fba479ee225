"""A host's limits hold for each person by themselves, say until when, and are never in the way where counting fails."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from inspect import signature
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits.storage import MemoryStorage, memory
from structlog.testing import capture_logs

from backends.adapters.scripted import Script
from backends.catalog.cards import Card
from backends.core.errors import LimitReached
from backends.engine import limits
from backends.engine.limits import GONE_SECONDS, Limits, Rules
from backends.engine.room import Room
from tests.patience import PATIENCE_S
from tests.served import Served, scripted_engine, serving
from ui.visitors.people import People

people = st.text(min_size=1, max_size=9)


class Hours:
    """A clock for what is counted by the hour, and for who is here."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Hours:
    hours = Hours()
    for module in (limits, memory):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=hours, monotonic=hours))
    return hours


@pytest.fixture
def threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def admitted(limits: Limits, person: str, times: int = 1) -> int:
    """How many of so many questions in a row are let in."""
    return sum(not refused(limits, person) for _ in range(times))


def refused(limits: Limits, person: str) -> bool:
    try:
        limits.admit(person)
    except LimitReached:
        return True
    return False


def refusal(limits: Limits, person: str) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        limits.admit(person)
    return caught.value


def at_once(work: Callable[[int], int], threads: int) -> int:
    """What so many threads, let go in the same moment, come to together; what one of them raises is raised."""
    ready = threading.Barrier(threads)

    def run(number: int) -> int:
        ready.wait(PATIENCE_S)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(run, range(threads)))


# --- by the hour ---------------------------------------------------------------------------------


@settings(max_examples=40)
@given(rules=st.builds(Rules, answers_per_hour=st.integers(1, 5)), asked=st.lists(people, max_size=20))
def test_everybody_gets_the_answers_of_an_hour_whatever_others_ask(rules: Rules, asked: list[str]) -> None:
    limits = Limits(rules)
    got = dict.fromkeys(asked, 0)
    for person in asked:
        got[person] += admitted(limits, person)
    assert got == {person: min(asked.count(person), rules.answers_per_hour) for person in got}


@settings(max_examples=40)
@given(most=st.integers(1, 1000), spent=st.lists(st.integers(0, 400), max_size=9))
def test_who_has_spent_the_tokens_of_an_hour_is_refused_and_nobody_else(most: int, spent: list[int]) -> None:
    limits = Limits(Rules(tokens_per_hour=most))
    total = 0
    for tokens in spent:
        assert refused(limits, "ann") == (total >= most)
        assert not refused(limits, "bob")
        limits.spend("ann", tokens)  # the last answer may go over: it had begun
        total += tokens
    assert refused(limits, "ann") == (total >= most)


def test_without_rules_nobody_is_refused_however_much_they_ask() -> None:
    limits = Limits()
    assert admitted(limits, "ann", 200) == 200
    limits.spend("ann", 10**9)
    assert not refused(limits, "ann")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (Rules(answers_per_hour=1200), "You had 1,200 answers in this hour"),
        (Rules(tokens_per_hour=60_000), "Your answers of this hour have 60,000 tokens"),
    ],
)
def test_a_refusal_says_which_limit_and_until_when(clock: Hours, rules: Rules, told: str) -> None:
    limits = Limits(rules, clock=clock)
    admitted(limits, "ann", rules.answers_per_hour)
    limits.spend("ann", rules.tokens_per_hour)
    clock.now += 600
    error = refusal(limits, "ann")
    assert error.kind == "limit_reached"
    assert error.message.startswith(told)
    assert error.message.endswith(".")
    assert error.hint == "Send again in 50 min."
    clock.now += 2960
    assert refusal(limits, "ann").hint == "Send again in 40 s."


@pytest.mark.parametrize("rules", [Rules(answers_per_hour=2), Rules(tokens_per_hour=100)])
def test_when_the_time_told_is_over_the_next_hour_begins(clock: Hours, rules: Rules) -> None:
    limits = Limits(rules, clock=clock)
    for _ in range(2):
        assert admitted(limits, "ann", 2) == 2
        limits.spend("ann", 100)
        assert refused(limits, "ann")
        minutes = re.fullmatch(r"Send again in (\d+) min\.", refusal(limits, "ann").hint)
        assert minutes is not None
        clock.now += 60 * int(minutes[1]) + 1


def test_asking_again_does_not_put_the_end_of_the_hour_off(clock: Hours) -> None:
    limits = Limits(Rules(answers_per_hour=1), clock=clock)
    limits.admit("ann")
    for _ in range(59):
        clock.now += 60
        assert refused(limits, "ann")
    clock.now += 61
    assert not refused(limits, "ann")


def test_both_limits_hold_and_the_one_that_was_reached_is_named() -> None:
    rules = Rules(answers_per_hour=2, tokens_per_hour=10)
    few_words, many_words = Limits(rules), Limits(rules)
    assert admitted(few_words, "ann", 3) == 2
    assert "2 answers" in refusal(few_words, "ann").message
    many_words.admit("ann")
    many_words.spend("ann", 10)
    assert "10 tokens" in refusal(many_words, "ann").message


# --- people at once ------------------------------------------------------------------------------


def test_as_many_people_as_the_host_allows_are_here_and_the_next_is_told_when(clock: Hours) -> None:
    limits = Limits(Rules(people_at_once=2), clock=clock)
    for person in ("ann", "bob"):
        limits.admit(person)
        clock.now += 60
    error = refusal(limits, "cy")
    assert error.message.startswith("2 people use the playground already")
    assert error.hint == "A place may be free in 8 min; send again then."
    assert limits.people == 2
    clock.now += 8 * 60 + 1
    limits.admit("cy")
    assert limits.people == 2, "the one who has asked nothing for long has gone"


def test_who_is_here_stays_as_long_as_they_ask_or_are_answered(clock: Hours) -> None:
    limits = Limits(Rules(people_at_once=1), clock=clock)
    limits.admit("ann")
    for again in (limits.admit, lambda person: limits.spend(person, 5)) * 3:
        clock.now += GONE_SECONDS - 1
        again("ann")
        assert refused(limits, "bob")
    clock.now += GONE_SECONDS + 1
    assert limits.people == 0
    assert not refused(limits, "bob")


def test_who_was_refused_a_place_does_not_get_one_by_the_end_of_their_request() -> None:
    limits = Limits(Rules(people_at_once=1))
    limits.admit("ann")
    assert refused(limits, "bob")
    limits.spend("bob", 0)  # every request comes here when it is over, a refused one too
    assert limits.people == 1
    assert refused(limits, "bob")


def test_who_was_refused_a_place_has_not_used_up_an_answer(clock: Hours) -> None:
    limits = Limits(Rules(people_at_once=1, answers_per_hour=1), clock=clock)
    limits.admit("ann")
    assert admitted(limits, "bob", 5) == 0
    clock.now += GONE_SECONDS + 1
    assert not refused(limits, "bob")


def test_people_are_counted_where_there_is_no_limit_too(clock: Hours) -> None:
    limits = Limits(clock=clock)
    for person in ("ann", "bob", "ann"):
        limits.admit(person)
    assert limits.people == 2
    clock.now += GONE_SECONDS + 1
    assert limits.people == 0


steps = st.lists(st.tuples(st.sampled_from(["ask", "answered", "wait"]), st.sampled_from("abcde")), max_size=40)


@settings(max_examples=40)
@given(most=st.integers(1, 3), steps=steps)
def test_never_more_people_than_allowed_and_nobody_who_is_here_is_refused(
    most: int, steps: list[tuple[str, str]]
) -> None:
    now = [0.0]
    limits = Limits(Rules(people_at_once=most), clock=lambda: now[0])
    here: dict[str, float] = {}
    for step, person in steps:
        if step == "wait":
            now[0] += GONE_SECONDS / 3 + 1
            here = {one: seen for one, seen in here.items() if now[0] - seen <= GONE_SECONDS}
        elif step == "answered":
            limits.spend(person, 1)
            here |= {person: now[0]} if person in here else {}
        else:
            may = person in here or len(here) < most
            assert refused(limits, person) != may
            here |= {person: now[0]} if may else {}
        assert limits.people == len(here) <= most


# --- one address ---------------------------------------------------------------------------------

NAT, HOME, CAFE = "192.0.2.1", "198.51.100.7", "203.0.113.9"


def let_in(limits: Limits, *askers: tuple[str, str]) -> list[str]:
    """Who of these, (person, address), is let in, in this order."""
    got = []
    for person, address in askers:
        with suppress(LimitReached):
            limits.admit(person, address)
            got.append(person)
    return got


def test_an_address_may_fill_an_empty_house_and_keeps_nobody_out_of_it() -> None:
    limits = Limits(Rules(people_at_once=3))
    class_ = [(f"pupil {n}", NAT) for n in range(5)]
    assert let_in(limits, *class_) == ["pupil 0", "pupil 1", "pupil 2"]
    assert let_in(limits, ("bob", HOME), ("cy", CAFE)) == ["bob", "cy"]
    assert limits.people == 3
    assert let_in(limits, ("pupil 2", NAT), ("bob", HOME), ("cy", CAFE)) == ["pupil 2", "bob", "cy"]
    assert let_in(limits, ("pupil 0", NAT), ("dan", "203.0.113.10")) == [], "each of three addresses has one place"


def test_the_place_that_is_freed_is_that_of_who_did_nothing_for_longest() -> None:
    limits = Limits(Rules(people_at_once=3))
    let_in(limits, ("a", NAT), ("b", NAT), ("c", NAT))
    limits.spend("a", 1)
    assert let_in(limits, ("bob", HOME), ("b", NAT)) == ["bob"]
    assert let_in(limits, ("a", NAT), ("c", NAT)) == ["a", "c"]


def test_the_end_of_an_answer_does_not_bring_a_place_back() -> None:
    limits = Limits(Rules(people_at_once=2))
    let_in(limits, ("a", NAT), ("b", NAT), ("bob", HOME))
    limits.spend("a", 5)
    assert limits.people == 2
    assert let_in(limits, ("a", NAT)) == []


def test_who_has_signed_in_is_never_put_out_for_an_address() -> None:
    limits = Limits(Rules(people_at_once=3))
    let_in(limits, ("ann", ""), ("ben", ""), ("cat", ""))
    assert let_in(limits, ("bob", HOME), ("dan", "")) == []
    assert let_in(limits, ("ann", ""), ("ben", ""), ("cat", "")) == ["ann", "ben", "cat"]


@settings(max_examples=60)
@given(
    most=st.integers(1, 6),
    asked=st.lists(st.tuples(st.integers(0, 9), st.sampled_from([NAT, HOME, CAFE])), max_size=60),
)
def test_no_address_is_refused_a_place_while_another_has_two_more(most: int, asked: list[tuple[int, str]]) -> None:
    limits = Limits(Rules(people_at_once=most))
    here: dict[str, str] = {}
    for number, address in asked:
        person = f"{number} of {address}"
        held = Counter(here.values())
        fair = person in here or len(here) < most or max(held.values()) > held[address] + 1
        assert (let_in(limits, (person, address)) == [person]) == fair
        here = {one: seen.address for one, seen in limits._here.items()}
        assert len(here) <= most


def test_three_seats_of_one_address_do_not_fill_the_house_for_others(card: Card) -> None:
    """Through the doors, from behind a proxy of our own: pages that each have a seat, and a call from elsewhere."""
    room = Room(Limits(Rules(people_at_once=3)))
    engine = scripted_engine(card, lambda request: Script(answer=("Yes.",)), room)
    with ExitStack() as stack:
        app = stack.enter_context(serving(engine, people=People(proxies=1)))

        def asks(address: str) -> str:
            client = stack.enter_context(
                httpx.Client(base_url=app.url, timeout=PATIENCE_S, headers={"x-forwarded-for": address})
            )
            assert client.get("").cookies
            names = signature(endpoint_function(app, "chat")).parameters
            data = ["Why?", *(None if p.default is p.empty else p.default for p in list(names.values())[2:])]
            event = client.post("gradio_api/call/chat", json={"data": data}).json()["event_id"]
            told = client.get(f"gradio_api/call/chat/{event}").text.strip().split("\n\n")[-1]
            (item,) = json.loads(told.splitlines()[1].removeprefix("data: "))
            return str(item["answer"] or item["error"]["message"])

        assert [asks(NAT) for _ in range(3)] == ["Yes."] * 3
        assert asks(NAT).startswith("3 people use the playground already")
        assert asks(HOME) == "Yes."


def endpoint_function(app: Served, name: str) -> Callable[..., object]:
    return next(function.fn for function in app.blocks.fns.values() if function.api_name == name)


# --- who is not counted --------------------------------------------------------------------------


def test_who_has_no_key_is_never_counted_or_refused() -> None:
    limits = Limits(Rules(answers_per_hour=1, tokens_per_hour=1, people_at_once=1))
    limits.admit("ann")
    limits.spend("", 10**6)
    assert admitted(limits, "", 100) == 100
    assert limits.people == 1


# --- many at once --------------------------------------------------------------------------------


@pytest.mark.usefixtures("threads_take_turns_often")
def test_many_questions_of_one_person_in_one_moment_never_get_more_answers_than_allowed() -> None:
    for _ in range(30):
        limits = Limits(Rules(answers_per_hour=5))
        assert at_once(lambda _, limits=limits: admitted(limits, "ann", 3), 4) == 5


@pytest.mark.usefixtures("threads_take_turns_often")
def test_no_token_is_lost_where_many_answers_end_in_one_moment() -> None:
    for _ in range(20):
        limits = Limits(Rules(tokens_per_hour=4 * 10 + 1))

        def spend(_: int, limits: Limits = limits) -> int:
            for _ in range(10):
                limits.spend("ann", 1)
            return 0

        at_once(spend, 4)
        assert not refused(limits, "ann")
        limits.spend("ann", 1)
        assert refused(limits, "ann")


@pytest.mark.usefixtures("threads_take_turns_often")
def test_many_people_who_come_in_one_moment_never_get_more_places_than_there_are() -> None:
    for _ in range(20):
        limits = Limits(Rules(people_at_once=3))
        assert at_once(lambda n, limits=limits: admitted(limits, f"person {n}"), 8) == 3
        assert limits.people == 3


# --- a storage that fails ------------------------------------------------------------------------


class Unreachable(MemoryStorage):
    """As Redis, when it is down."""

    STORAGE_SCHEME = ["unreachable"]
    base_exceptions = ConnectionError  # type: ignore[assignment]

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        raise ConnectionError("redis://:secret@example.org cannot be reached")

    def get(self, key: str) -> int:
        raise ConnectionError("redis://:secret@example.org cannot be reached")


@pytest.mark.parametrize("rules", [Rules(answers_per_hour=1), Rules(tokens_per_hour=1), Rules(1, 1)])
def test_a_storage_that_fails_lets_people_in_and_is_logged(rules: Rules) -> None:
    limits = Limits(rules, "unreachable://")
    with capture_logs() as logged:
        assert admitted(limits, "ann", 3) == 3
    assert [event["log_level"] for event in logged] == ["error"] * 3
    assert all("cannot be counted" in event["event"] for event in logged)


def test_tokens_that_cannot_be_counted_are_logged_and_harm_no_answer() -> None:
    limits = Limits(Rules(tokens_per_hour=10), "unreachable://")
    with capture_logs() as logged:
        limits.spend("ann", 5)
        limits.spend("ann", 0)  # nothing to count
    assert [(event["log_level"], event["event"]) for event in logged] == [("error", "tokens cannot be counted")]


def test_people_at_once_are_counted_here_whatever_the_storage_does() -> None:
    limits = Limits(Rules(people_at_once=1), "unreachable://")
    limits.admit("ann")
    assert refused(limits, "bob")
