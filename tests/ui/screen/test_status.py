"""The tab about the playground: its figures are those of the answers, and only its host can unload what is idle."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, Catalog
from backends.core.cancel import Cancel
from backends.engine.engine import Engine
from backends.engine.limits import Limits, Rules
from backends.engine.metrics import Answered, Outcome
from backends.engine.pool import House, LocalModels, Model
from backends.engine.room import Room
from backends.machine.machine import GIB, Machine
from tests.patience import PATIENCE_S
from tests.served import scripted_engine, serving
from ui.conversation.render import Say
from ui.conversation.texts import LANGUAGES, dictionaries, speaker
from ui.gradio_joint.lean_gradio import LeanBlocks
from ui.screen.status.tab import AVERAGED, Status, _averages, _limits, _plots
from ui.visitors.people import People, Visitor

HOST = Visitor("name Ann", "a seat", "Ann", "users", host=True)
GUEST = Visitor("seat 1", "1")
EN = speaker("en")
AN_ANSWER = Answered(1_700_000_000.0, "scripted", "test-model", "done")


def request(visitor: Visitor = GUEST, language: str = "en") -> Any:
    """As gradio hands it to a handler."""
    state = SimpleNamespace(visitor=visitor)
    return SimpleNamespace(
        cookies={}, headers={"accept-language": language}, request=SimpleNamespace(state=state), session_hash="a page"
    )


def engine_of(*cards: Card, room: Room | None = None) -> Engine:
    models = LocalModels(
        Catalog(cards),
        "scripted",
        Scripted().capabilities,
        lambda card, fit: Scripted(Script(answer=("yes",)), parallel=fit.slots, context=fit.context),
        lambda artefact: True,
        house=House(lambda: Machine(4, 4, 16 * GIB, 16 * GIB)),
    )
    return Engine(models, room)


def tab_of(engines: Mapping[str, Engine]) -> Status:
    """Made while an event loop runs: gradio would else make some and leave them to the garbage collector."""

    async def made() -> Status:
        with LeanBlocks(analytics_enabled=False):
            return Status(engines)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, made()).result()


@pytest.fixture
def engine(card: Card) -> Iterator[Engine]:
    engine = engine_of(card, card.model_copy(update={"id": "other-model", "name": "Other <b>& model"}))
    yield engine
    engine.models.close()


@pytest.fixture
def tab(engine: Engine) -> Status:
    return tab_of({"scripted": engine})


def load(engine: Engine, card_id: str = "test-model") -> Model:
    assert engine.probe() is None
    model = engine.models.get(engine.models.catalog.get(card_id))
    for _ in engine.models.ready(model, Cancel()):
        pass
    assert model.ready
    return model


@contextmanager
def answering(model: Model) -> Iterator[None]:
    """While somebody has a turn."""
    with pytest.raises(StopIteration) as taken:
        next(model.line.wait(Cancel(), "somebody"))
    turn = taken.value.value
    yield
    model.line.give_back(turn)


def table(page: str) -> list[list[str]]:
    """The cells of the only table, its head first."""
    whole = ElementTree.fromstring(f"<div>{page}</div>")
    return [["".join(cell.itertext()) for cell in row] for row in whole.iter("tr")]


def cards(page: str) -> dict[str, str]:
    """The figures at the top, by their names."""
    whole = ElementTree.fromstring(f"<div>{page}</div>")
    (figures,) = (part for part in whole if part.get("class") == "figures")
    return {str(part.findtext("span")): str(part.findtext("b")) for part in figures}


# --- what it shows -------------------------------------------------------------------------------


def test_before_the_first_question_it_says_that_nothing_is_loaded(tab: Status) -> None:
    update = tab.tick(request())
    assert set(update) == {tab.summary, tab.plots, tab.averages}
    assert EN("status_nothing_loaded") in update[tab.summary]
    assert "<table" not in update[tab.summary]
    assert update[tab.averages] == ""
    assert EN("status_nothing_loaded") in tab.summary.value, "and so does a page that was just opened"


def test_it_says_what_is_loaded_and_how_busy_it_is(engine: Engine, tab: Status) -> None:
    model = load(engine)
    model.need_bytes = 1_340_000_000
    engine.room.limits.admit("somebody")
    with answering(model):
        summary = tab.tick(request())[tab.summary]
    head, row = table(summary)
    assert head == [EN(key) for key in ("model", "engine", "status_memory", "status_slots")]
    assert row == ["Test model", "scripted", "1.3 GB", f"1 / {model.line.capacity} · 0"]
    figures = cards(summary)
    assert figures[EN("status_people")] == "1"
    assert (figures[EN("status_running")], figures[EN("status_waiting")]) == ("1", "0")
    assert cards(tab.tick(request())[tab.summary])[EN("status_running")] == "0"


def test_engines_are_added_up_and_those_elsewhere_take_no_memory_here(card: Card) -> None:
    here, elsewhere = engine_of(card), engine_of(card)
    both = tab_of({"here": here, "elsewhere": elsewhere})
    models = [load(here), load(elsewhere)]
    elsewhere.models.place = "lab.example"
    with answering(models[0]), answering(models[1]):
        update = both.tick(request(HOST))
    rows = table(update[both.summary])[1:]
    assert len(rows) == 2
    assert rows[1][2] == ""
    assert cards(update[both.summary])[EN("status_running")] == "2"
    assert [value for _, value in update[both.choice]["choices"]] == ["here/test-model"], (
        "theirs are not ours to unload"
    )
    here.models.close()
    elsewhere.models.close()


def test_names_are_no_markup(engine: Engine, tab: Status) -> None:
    load(engine, "other-model")
    engine.room.metrics.record(
        replace(AN_ANSWER, model="<script>x</script>", answer_tokens=9, generate_s=1.0, ttft_s=1)
    )
    update = tab.tick(request(HOST))
    for part in (tab.summary, tab.plots, tab.averages):
        assert "<script" not in update[part]
        ElementTree.fromstring(f"<div>{update[part]}</div>")
    assert "Other <b>& model" in [row[0] for row in table(update[tab.summary])]
    assert table(update[tab.averages])[1][0] == "<script>x</script>"


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_speaks_the_visitors_language(engine: Engine, tab: Status, language: str) -> None:
    for _ in range(10):
        engine.room.metrics.record(replace(AN_ANSWER, outcome="failed"))
    say, update = speaker(language), tab.tick(request(language=language))
    assert say("status_people") in cards(update[tab.summary])
    assert say("advice_failed", n=10, all=10) in "".join(
        ElementTree.fromstring(f"<div>{update[tab.summary]}</div>").itertext()
    )
    assert table(update[tab.averages])[0][1] == say("status_answers")


def test_a_full_machine_is_told_what_would_help(tab: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(used=15e9, total=16e9, percent=93.7)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    summary = tab.tick(request())[tab.summary]
    assert EN("advice_memory", percent=94) in summary
    assert cards(summary)[EN("status_memory")] == "15.0 / 16 GB"
    memory.percent = 50.0
    assert EN("status_advice") not in tab.tick(request())[tab.summary]


# --- the averages --------------------------------------------------------------------------------

seconds = st.just(0.0) | st.floats(1e-9, 1000)
outcomes: st.SearchStrategy[Outcome] = st.sampled_from(["done", "cancelled", "refused", "failed"])
answered = st.builds(
    Answered,
    at=st.floats(1e9, 2e9),
    engine=st.just("scripted"),
    model=st.sampled_from(["a", "b & c", "<i>"]),
    outcome=outcomes,
    prompt_tokens=st.integers(0, 5000),
    cached_tokens=st.just(0),
    answer_tokens=st.integers(0, 2000),
    queue_s=seconds,
    ttft_s=st.none() | seconds,
    generate_s=seconds,
)


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


@given(answers=st.lists(answered, min_size=1, max_size=20))
def test_every_model_has_the_medians_of_its_own_answers(answers: list[Answered]) -> None:
    page = _averages(answers, EN)
    assert EN("status_averages", n=len(answers)) in page
    head, *rows = table(page)
    assert len(head) == 8
    assert [row[0] for row in rows] == sorted({answer.model for answer in answers})
    assert sum(int(row[1]) for row in rows) == len(answers)
    for row in rows:
        own = [answer for answer in answers if answer.model == row[0]]
        speeds = [answer.tokens_per_s for answer in own if answer.tokens_per_s is not None]
        firsts = [answer.ttft_s for answer in own if answer.ttft_s is not None]
        assert row[2] == shown(statistics.median(speeds) if speeds else None)
        assert row[3] == shown(statistics.median(firsts) if firsts else None)
        assert row[4] == shown(statistics.median(answer.queue_s for answer in own))
        assert row[6] == str([answer.outcome for answer in own].count("cancelled"))
        assert row[7] == str(sum(answer.outcome in ("failed", "refused") for answer in own))


def test_what_was_cached_is_a_share_of_all_prompts() -> None:
    answers = [replace(AN_ANSWER, prompt_tokens=n, cached_tokens=c) for n, c in ((100, 100), (300, 0))]
    assert table(_averages(answers, EN))[1][5] == "25 %"
    assert table(_averages([AN_ANSWER], EN))[1][5] == "0 %"


def test_only_the_last_answers_are_averaged(engine: Engine, tab: Status) -> None:
    for n in range(AVERAGED + 30):
        engine.room.metrics.record(replace(AN_ANSWER, queue_s=1000.0 if n < 30 else 1.0))
    page = tab.tick(request())[tab.averages]
    assert table(page)[1][:5] == ["test-model", str(AVERAGED), "", "", "1.0"]


@given(answers=st.lists(answered, max_size=20))
def test_every_model_has_a_line_of_its_answers_in_each_plot(answers: list[Answered]) -> None:
    """They come in the order in which they ended; the plots are of when they began."""
    plots = list(ElementTree.fromstring(_plots(answers, EN)))
    assert [plot.findtext("figcaption") for plot in plots] == [EN("status_speed"), EN("status_first")]
    for plot, what in zip(plots, ("tokens_per_s", "ttft_s"), strict=True):
        told = [answer for answer in answers if getattr(answer, what) is not None]
        assert len(list(plot.iter("circle"))) == len(told)
        assert {span.text for span in plot.iter("span")} == {answer.model for answer in told}
        for line in plot.iter("g"):
            places = [float(str(dot.get("cx"))) for dot in line.iter("circle")]
            assert places == sorted(places), "no line turns back"


# --- the limits ----------------------------------------------------------------------------------

rules = st.builds(Rules, **{field.name: st.integers(0, 10**7) for field in fields(Rules)})


@given(rules=rules, language=st.sampled_from(list(LANGUAGES)))
def test_the_limits_that_there_are_are_shown(rules: Rules, language: str) -> None:
    say: Say = speaker(language)
    page = _limits(rules, say)
    there = {
        say(f"limit_{field.name}"): f"{value:,}" for field in fields(rules) if (value := getattr(rules, field.name))
    }
    assert (dict(table(page)) if page else {}) == there


def test_a_visitor_reads_the_limits_below_the_averages(card: Card) -> None:
    engine = engine_of(card, room=Room(limits=Limits(Rules(answers_per_hour=30, tokens_per_hour=50_000))))
    tab = tab_of({"scripted": engine})
    page = tab.tick(request())[tab.averages]
    assert EN("status_limits") in page
    assert table(page) == [[EN("limit_answers_per_hour"), "30"], [EN("limit_tokens_per_hour"), "50,000"]]


def test_every_limit_has_a_name_in_the_interface() -> None:
    english = dictionaries()["en"]
    assert {key for key in english if key.startswith("limit_")} == {f"limit_{field.name}" for field in fields(Rules)}


# --- unloading -----------------------------------------------------------------------------------

CHOSEN = "scripted/test-model"


def test_only_a_host_sees_what_can_be_unloaded(engine: Engine, tab: Status) -> None:
    assert tab.tick(request(HOST))[tab.hosts]["visible"] is False, "nothing is loaded yet"
    load(engine)
    update = tab.tick(request(HOST))
    assert update[tab.hosts]["visible"] is True
    assert update[tab.choice]["choices"] == [("test-model · scripted", CHOSEN)]
    guests = tab.tick(request())
    assert tab.hosts not in guests
    assert tab.choice not in guests


def test_a_host_unloads_an_idle_model_and_the_list_is_shorter_at_once(engine: Engine, tab: Status) -> None:
    model, other = load(engine), load(engine, "other-model")
    update = tab.unloaded(CHOSEN, request(HOST))
    assert (model.ready, other.ready) == (False, True)
    assert update[tab.choice]["value"] is None
    assert len(table(update[tab.summary])) == 2
    assert engine.probe() is None, "whoever asks next loads it again"


def test_a_model_that_answers_somebody_is_left_alone(engine: Engine, tab: Status) -> None:
    model = load(engine)
    with answering(model):
        tab.unloaded(CHOSEN, request(HOST))
        assert model.ready
    tab.unloaded(CHOSEN, request(HOST))
    assert not model.ready


@pytest.mark.parametrize("visitor", [GUEST, Visitor(""), Visitor("seat 1", "1", "Ann", "class")])
def test_nobody_else_can_unload_anything(engine: Engine, tab: Status, visitor: Visitor) -> None:
    model = load(engine)
    update = tab.unloaded(CHOSEN, request(visitor))
    assert model.ready
    assert tab.hosts not in update


@pytest.mark.parametrize("chosen", [None, "", "scripted", "test-model", "other/test-model", "scripted/other-model"])
def test_what_is_not_loaded_cannot_be_unloaded(engine: Engine, tab: Status, chosen: str | None) -> None:
    model = load(engine)
    tab.unloaded(chosen, request(HOST))
    assert model.ready


# --- on the page ---------------------------------------------------------------------------------


def test_it_ticks_only_while_somebody_looks_at_it(tab: Status) -> None:
    assert tab.timer.active is False
    update = tab.look(request())
    assert update[tab.timer].active is True
    assert set(update) - {tab.timer} == set(tab.tick(request()))


def test_a_call_from_outside_unloads_nothing_for_a_guest(card: Card) -> None:
    engine = scripted_engine(card, lambda request: Script(answer=("yes",)))
    model = load(engine)
    with serving(engine, people=People()) as app, httpx.Client(base_url=app.url, timeout=PATIENCE_S) as client:
        client.get("config").raise_for_status()
        functions = {function.name: function._id for function in app.blocks.fns.values()}
        body = {"fn_index": functions["tick"], "data": [], "session_hash": "a page"}
        shown = client.post("gradio_api/run/predict", json=body).raise_for_status().text
        assert "Test model" in shown
        assert CHOSEN not in shown
        client.post("gradio_api/run/predict", json=body | {"fn_index": functions["unloaded"], "data": [CHOSEN]})
        assert model.ready
