"""The sidebar follows model and engine, and what comes back from a browser is never trusted. Two scripted engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, Catalog
from backends.core.types import Sampling
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from backends.machine.machine import GIB, Machine
from tests.desks import VISITOR, panel_of
from tests.desks import standing as standing_at
from ui.conversation.transcript import Growing, Reply, Transcript
from ui.screen.asking import Asking
from ui.screen.desk import Desk, Values
from ui.screen.keeping import Keeping
from ui.screen.page import _stands_at
from ui.screen.tuning import Tuning
from ui.visitors.sessions import Sessions

FIELDS = tuple(Sampling.model_fields)


def engine(name: str, cards: dict[str, Card], honoured: tuple[str, ...], house: House) -> Engine:
    capabilities = replace(Scripted().capabilities, engine=name, sampling={field: field for field in honoured})
    models = LocalModels(
        Catalog(tuple(card.model_copy(update={"id": id_, "name": id_}) for id_, card in cards.items())),
        "scripted",
        capabilities,
        lambda card, fit: Scripted(Script(answer=(f"{name} runs {card.id}",)), parallel=fit.slots),
        lambda artefact: artefact.file != "lost",
        house=house,
    )
    return Engine(models)


@pytest.fixture(scope="module")
def tuning(card: Card) -> Iterator[Tuning]:
    """'one' runs a, b and c and honours every value; 'two' runs a and z, lists b that it cannot have, lacks c."""
    lost = card.model_copy(update={"artefacts": (card.artefacts[0].model_copy(update={"file": "lost"}),)})
    always = card.model_copy(update={"thinking": card.thinking.model_copy(update={"kind": "always", "default": True})})
    house = House(lambda: Machine(2, 2, 16 * GIB, 16 * GIB))
    engines = {
        "one": engine("first engine", {"a": card, "b": card, "c": card}, FIELDS, house),
        "two": engine("second engine", {"z": always, "a": card, "b": lost}, ("top_p", "seed"), house),
    }
    yield Tuning(Desk(panel_of(engines), engines, Sessions()))
    for each in engines.values():
        each.models.close()


def standing(tuning: Tuning, **changed: Any) -> Values:
    """What the components of a fresh page stand at, but for those `changed` by name."""
    return standing_at(tuning.panel, **changed)


def switched(tuning: Tuning, engine: str, **changed: Any) -> dict[str, Any]:
    """What the page is told after the engine was switched, by the components' names; sliders by their fields'."""
    update = tuning.engine_changed(standing(tuning, engine=engine, **changed), VISITOR)
    names = {component: name for name, component in vars(tuning.panel).items() if name not in ("options", "sampling")}
    names |= {slider: field for field, slider in tuning.panel.sampling.items()}
    return {names[component]: value for component, value in update.items()}


# --- switching -----------------------------------------------------------------------------------


def test_the_conversation_and_what_is_being_typed_stay(tuning: Tuning) -> None:
    assert switched(tuning, "two").keys().isdisjoint({"transcript", "chatbot", "composer", "context", "system"})


@pytest.mark.parametrize(
    ("model", "stays"), [("", ""), ("a", "a"), ("b", ""), ("c", ""), ("no such model", ""), (None, "")]
)
def test_the_model_stays_where_the_new_engine_can_run_it(tuning: Tuning, model: str, stays: str) -> None:
    picker = switched(tuning, "two", model=model)["model"]
    assert picker["value"] == stays
    assert [value for _, value in picker["choices"]] == ["", "z", "a", "b"]


def test_everything_under_the_picker_speaks_of_the_new_engine(tuning: Tuning) -> None:
    update = switched(tuning, "two", model="a")
    assert "second engine" in update["model_info"]
    assert "**a**" in update["model_info"]
    assert "**z**" in switched(tuning, "two", model="c")["model_info"]


@pytest.mark.parametrize("name", FIELDS)
def test_a_slider_can_be_moved_exactly_where_the_engine_honours_it(tuning: Tuning, name: str) -> None:
    for engine, honoured in (("one", FIELDS), ("two", ("top_p", "seed"))):
        update = switched(tuning, engine)[name]
        assert update["interactive"] == (name in honoured)
        assert ("second engine does not support it" in update.get("info", "")) == (name not in (*honoured, "seed"))


def test_what_the_visitor_changed_stays_with_the_model_that_stays(tuning: Tuning) -> None:
    slider = tuning.panel.sampling["top_p"]
    values = standing(tuning, engine="two", model="a", thinking=True) | {slider: 0.5}
    update = tuning.engine_changed(values, VISITOR)
    assert update[slider]["value"] == 0.5
    assert update[tuning.panel.thinking]["value"] is True


def test_thinking_follows_a_model_that_has_to_change(tuning: Tuning) -> None:
    assert switched(tuning, "two", model="c", thinking=False)["thinking"] == {
        "value": True, "interactive": False, "__type__": "update",
    }  # fmt: skip


def test_the_next_answer_comes_from_the_new_engine(tuning: Tuning) -> None:
    for name, said in (("one", "first engine runs a"), ("two", "second engine runs a")):
        values = standing(tuning, engine=name, model="a", composer="Who are you?")
        *_, last = Asking(tuning.desk).send(values, VISITOR)
        (reply,) = last[tuning.panel.transcript].turns[-1].replies
        assert reply.answer == said
        assert reply.stats.engine == said.split(" runs ")[0]


# --- what a browser kept -------------------------------------------------------------------------


def test_the_engine_and_its_model_come_back(tuning: Tuning) -> None:
    kept = tuning.engine_changed(standing(tuning, engine="two", model="a"), VISITOR)[tuning.panel.saved]
    update = tuning.restore(kept, None, VISITOR)
    assert update[tuning.panel.engine] == "two"
    assert update[tuning.panel.model]["value"] == "a"
    assert not update[tuning.panel.sampling["temperature"]]["interactive"]


def test_what_is_set_while_an_answer_is_written_is_kept_once_it_is_over(tuning: Tuning) -> None:
    values = standing(tuning, composer="Who runs?")
    updates = list(Asking(tuning.desk).send(values, VISITOR))
    transcript = updates[-1][tuning.panel.transcript]
    meanwhile = values | {tuning.panel.transcript: transcript, tuning.panel.sampling["temperature"]: 0.3}
    update = Keeping(tuning.desk).settle(meanwhile, VISITOR)
    assert update.keys() == {tuning.panel.saved, tuning.panel.composer, tuning.panel.answer_now}
    assert "value" not in update[tuning.panel.composer], "what is being typed is the page's"
    saved = update[tuning.panel.saved]
    assert saved["settings"]["sampling"] == {"temperature": 0.3}
    assert [turn["user"] for turn in saved["turns"]] == ["Who runs?"]


def test_what_was_written_of_an_answer_comes_back_with_its_question(tuning: Tuning) -> None:
    asked = Transcript().ask("Why?", ("",))
    kept = tuning.desk.save(standing(tuning), asked)
    replies = (Reply(answer="so far", state="answering"),)
    grown = Growing.of(asked.with_replies(replies)).model_dump(mode="json")
    (turn,) = tuning.restore(kept, None, VISITOR, grown)[tuning.panel.transcript].turns
    assert turn.replies == (Reply(answer="so far", state="stopped"),)

    over = tuning.desk.save(standing(tuning), asked.with_replies((Reply(answer="all of it", state="done"),)))
    other = Growing(turn=1, replies=replies).model_dump(mode="json")
    for saved, growing in ((over, grown), (kept, other), (kept, {}), (kept, None), (None, grown)):
        turns = tuning.restore(saved, None, VISITOR, growing)[tuning.panel.transcript].turns
        assert "so far" not in str(turns)


def test_what_is_kept_is_the_model_that_was_switched_to(tuning: Tuning) -> None:
    assert switched(tuning, "two", model="c")["saved"]["settings"]["model"] == ""


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3))
def test_an_engine_that_there_is_not_is_the_default(tuning: Tuning, name: Any) -> None:
    if name in ("one", "two"):
        return
    assert tuning.restore({"settings": {"engine": name}}, None, VISITOR)[tuning.panel.engine] == "one"
    assert tuning.desk.engine({tuning.panel.engine: name}) is tuning.desk.engines["one"]


def test_a_fresh_visitor_is_sent_neither_the_engine_nor_a_slider(tuning: Tuning) -> None:
    """Each update costs time when a page opens."""
    update = tuning.restore(None, None, VISITOR)
    for component in (tuning.panel.engine, *tuning.panel.sampling.values()):
        assert _stands_at(component, update[component])


@pytest.mark.parametrize("count", [1, 2])
def test_the_engines_are_shown_by_their_names_where_there_is_a_choice(tuning: Tuning, count: int) -> None:
    engines = dict(list(tuning.desk.engines.items())[:count])
    picker = panel_of(engines).engine
    assert picker.visible == (count > 1)
    assert picker.choices == [("first engine", "one"), ("second engine", "two")][:count]
    assert picker.value == "one"
