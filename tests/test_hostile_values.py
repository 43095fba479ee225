"""Whatever comes in, in whatever field: it is refused in one sentence that names the field, or it works; and afterwards
everything works. One walk over the fields of the endpoints, the page, an imported file and what a browser kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gradio as gr
import orjson
import pytest

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, Catalog
from backends.core.errors import Fault, InvalidRequest
from backends.core.types import Sampling
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from backends.machine.machine import GIB, Machine
from backends.pictures.boxes import Mark
from tests.desks import VISITOR, panel_of, standing
from tests.drawn import seeing
from tests.hostile_values import VALUES, changed, fields_of, places
from ui.conversation.choices import check_message
from ui.conversation.pictures import Picture
from ui.conversation.tabs import TABS, TabSpec, tab
from ui.conversation.transcript import (
    MAX_TURNS,
    Growing,
    Reply,
    SavedConversation,
    Stats,
    Transcript,
    Turn,
    read_conversation,
)
from ui.screen import api
from ui.screen.asking import Asking
from ui.screen.desk import Desk, Values
from ui.screen.keeping import Keeping
from ui.screen.tuning import Tuning
from ui.visitors.sessions import Sessions

SEES = frozenset({"text", "image"})
EVERY_VALUE = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)


@pytest.fixture(scope="module")
def engine(card: Card) -> Iterator[Engine]:
    models = LocalModels(
        Catalog((seeing(card),)),
        "scripted",
        Scripted(modalities=SEES).capabilities,
        lambda card, fit: Scripted(Script(answer=("yes",)), parallel=8, context=4096, modalities=SEES),
        lambda artefact: True,
        house=House(lambda: Machine(4, 4, 16 * GIB, 16 * GIB)),
    )
    yield Engine(models)
    models.close()


@pytest.fixture(scope="module")
def desks(engine: Engine) -> dict[str, Desk]:
    engines = {engine.name: engine}
    return {spec.id: Desk(panel_of(engines, spec.id), engines, Sessions()) for spec in TABS}


@pytest.fixture
def toasts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    monkeypatch.setattr(gr, "Info", lambda text: None)
    return said


def check_sentence(sentence: str) -> None:
    assert Fault().message not in sentence, "what can be sent is foreseen"
    assert "Traceback" not in sentence
    assert len(sentence) < 1000
    sentence.encode()


# --- the endpoints -------------------------------------------------------------------------------


def parameters(spec: TabSpec) -> dict[str, Any]:
    """Every parameter of an endpoint with its default, as gradio is told of them."""
    signature = api._endpoint(None, spec).__signature__  # type: ignore[attr-defined,arg-type]
    return {p.name: p.default for p in list(signature.parameters.values())[1:]} | {"message": "Why?"}


FIELDS = [(spec, name) for spec in TABS for name in parameters(spec)]


@pytest.mark.parametrize(("spec", "field"), FIELDS, ids=lambda case: getattr(case, "id", case))
def test_an_endpoint_names_the_field_that_it_refuses(engine: Engine, spec: TabSpec, field: str) -> None:
    for name, value in VALUES.items():
        *_, last = api.ask(engine, spec, parameters(spec) | {field: value})
        orjson.dumps(last)
        assert last["state"] in ("done", "failed"), name
        if last["state"] == "failed":
            check_sentence(last["error"]["message"])
            if "tokens, but" not in last["error"]["message"]:  # longer than the context
                assert field in last["error"]["message"].lower(), (name, last["error"]["message"])
    assert [*api.ask(engine, spec, parameters(spec))][-1]["answer"] == "yes"


MESSAGE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize("path", list(places(MESSAGE)), ids=str)
def test_every_part_of_a_history_too(engine: Engine, path: tuple[Any, ...]) -> None:
    for name, value in VALUES.items():
        given = {"history": changed(MESSAGE, path, value)}
        *_, last = api.ask(engine, tab("chat"), parameters(tab("chat")) | given)
        orjson.dumps(last)
        if last["state"] == "failed":
            check_sentence(last["error"]["message"])
            assert "history" in last["error"]["message"] or "tokens, but" in last["error"]["message"], name


@pytest.mark.parametrize("roles", [("user", "assistant"), ("user", "user")])
def test_as_many_messages_of_history_as_are_promised(engine: Engine, roles: tuple[str, str]) -> None:
    history = [{"role": roles[n % 2], "content": str(n)} for n in range(2 * MAX_TURNS)]
    *_, last = api.ask(engine, tab("chat"), parameters(tab("chat")) | {"history": history})
    assert (last["state"], last["answer"]) == ("done", "yes")
    *_, last = api.ask(engine, tab("chat"), parameters(tab("chat")) | {"history": [*history, history[0]]})
    assert last["error"]["message"] == "history has 4,001 messages; at most 4,000 are allowed."


# --- the page ------------------------------------------------------------------------------------


def everything(desk: Desk) -> list[Any]:
    """The components whose values the browser sends."""
    return [component for component in desk.panel.everything if not component.stateful]


@pytest.mark.parametrize("tab_id", [spec.id for spec in TABS])
@EVERY_VALUE
def test_whatever_stands_in_a_field_of_the_page(
    desks: dict[str, Desk], toasts: list[str], tab_id: str, value: Any
) -> None:
    desk = desks[tab_id]
    asking, keeping, tuning = Asking(desk), Keeping(desk), Tuning(desk)
    for component in everything(desk):
        try:
            came = component.preprocess(value)
        except Exception:  # gradio's own refusal; `ui.gradio_joint.exceptions` makes the sentence
            continue
        values: Values = standing(desk.panel, composer="Why?") | {component: came}
        toasts.clear()
        for update in asking.send(values, VISITOR):
            sendable(update)
        for sentence in toasts:
            check_sentence(sentence)
        assert toasts or update[desk.panel.transcript].turns[-1].replies, "neither refused nor answered"
        sendable(keeping.settle(values | {desk.panel.payload: ""}, VISITOR))
        sendable(keeping.export_json(values))
        sendable(tuning.changed(values, VISITOR))
    *_, last = asking.send(standing(desk.panel, composer="Why?"), VISITOR)
    assert all(reply.answer == "yes" for reply in last[desk.panel.transcript].turns[-1].replies)


def sendable(update: dict[Any, Any]) -> None:
    """What gradio makes of it on the way out."""
    orjson.dumps({str(component._id): v for component, v in update.items() if not component.stateful})


# --- what a file or a browser brings -------------------------------------------------------------

PICTURE = Picture(id="0" * 16, width=10, height=10)
STATS = Stats(model="m", engine="e", ttft_s=1.0, tokens_per_s=2.0, ignored=("seed",))
REPLY = Reply(answer="a", thoughts="t", state="done", thinking_s=1.0, stats=STATS, marks=(Mark("x", 1, 2, 3, 4),))
KEPT = SavedConversation(
    tab="image",
    settings={
        "engine": "scripted", "model": "", "thinking": False, "budget": 0, "system": "s", "visual_tokens": 100,
        "sampling": dict.fromkeys(Sampling.model_fields, 1),
        "options": {option.name: option.default for spec in TABS for option in spec.options},
    },
    turns=(Turn(user="q", pictures=(PICTURE,), replies=(REPLY,)), Turn(user="p", replies=(Reply(),))),
    tray=(PICTURE,),
    album={"0" * 16: "AAAA"},
)  # fmt: skip
FILE = KEPT.model_dump(mode="json")
GROWN = Growing(turn=1, replies=(REPLY.model_copy(update={"state": "answering"}),)).model_dump(mode="json")


def test_the_walk_meets_every_field_that_can_be_kept() -> None:
    turn = FILE["turns"][0]
    reply = turn["replies"][0]
    met = [(SavedConversation, FILE), (Turn, turn), (Reply, reply), (Stats, reply["stats"]), (Growing, GROWN)]
    for model, kept in met:
        assert fields_of(model) == kept.keys()
    assert fields_of(Picture) == FILE["tray"][0].keys()
    assert all(value is not None for _, kept in met for value in kept.values())


@pytest.mark.parametrize("path", list(places(FILE)), ids=lambda path: ".".join(map(str, path)))
def test_a_file_is_refused_whole_or_works(desks: dict[str, Desk], toasts: list[str], path: tuple[Any, ...]) -> None:
    desk = desks["image"]
    for name, value in VALUES.items():
        toasts.clear()
        values = standing(desk.panel) | {desk.panel.payload: json.dumps(changed(FILE, path, value))}
        update = Keeping(desk).import_json(values, VISITOR)
        sendable(update)
        if toasts:
            assert update == {desk.panel.payload: ""}, name
            check_sentence(toasts[0])
            continue
        brought = values | {c: v for c, v in update.items() if c in (desk.panel.transcript, desk.panel.pictures.tray)}
        for step in Asking(desk).send(brought | {desk.panel.composer: "And?"}, VISITOR):
            sendable(step)
        assert all(map(check_known, toasts)), name
        assert read_conversation(Keeping(desk).export_json(brought)[desk.panel.payload].partition("\n")[2])


def check_known(sentence: str) -> bool:
    check_sentence(sentence)
    return True


@pytest.mark.parametrize("path", list(places(FILE)), ids=lambda path: ".".join(map(str, path)))
def test_whatever_a_browser_kept_the_page_opens(desks: dict[str, Desk], path: tuple[Any, ...]) -> None:
    desk = desks["image"]
    for value in VALUES.values():
        kept = changed(FILE, path, value)
        update = Tuning(desk).restore(kept, kept.get("album"), VISITOR, GROWN)
        sendable(update)


@pytest.mark.parametrize("path", list(places(GROWN)), ids=lambda path: ".".join(map(str, path)))
def test_whatever_was_being_written(desks: dict[str, Desk], path: tuple[Any, ...]) -> None:
    for value in VALUES.values():
        sendable(Tuning(desks["image"]).restore(FILE, FILE["album"], VISITOR, changed(GROWN, path, value)))


@EVERY_VALUE
def test_or_nothing_of_it_at_all(desks: dict[str, Desk], value: Any) -> None:
    for kept in ((value, FILE["album"], GROWN), (FILE, value, GROWN), (FILE, FILE["album"], value)):
        sendable(Tuning(desks["image"]).restore(kept[0], kept[1], VISITOR, kept[2]))


@pytest.mark.parametrize("key", ["turns", "tab", "format"])
def test_a_key_that_comes_twice_counts_once(key: str) -> None:
    text = json.dumps(FILE)
    twice = text[:-1] + f', "{key}": {json.dumps(FILE[key])}}}'
    assert read_conversation(twice) == read_conversation(text)


# --- many turns ----------------------------------------------------------------------------------


def test_after_the_most_turns_the_next_question_is_refused_and_everything_stays(
    desks: dict[str, Desk], toasts: list[str]
) -> None:
    desk = desks["chat"]
    most = Transcript(turns=(Turn(user="q", replies=(Reply(answer="a", state="done"),)),) * MAX_TURNS)
    file = SavedConversation(tab="chat", turns=most.turns).model_dump_json()
    imported = Keeping(desk).import_json(standing(desk.panel) | {desk.panel.payload: file}, VISITOR)
    assert imported[desk.panel.transcript] == most
    values = standing(desk.panel, composer="And?", transcript=most)
    (update,) = Asking(desk).send(values, VISITOR)
    assert desk.panel.transcript not in update
    assert "has 2,000 turns; at most 2,000 are kept" in toasts[-1]
    *_, last = Asking(desk).send(values | {desk.panel.transcript: most.before(MAX_TURNS - 1)}, VISITOR)
    kept = last[desk.panel.saved]
    assert Tuning(desk).restore(kept, None, VISITOR)[desk.panel.transcript].turns[-1].replies[0].answer == "yes"


def test_a_field_says_which_half_it_holds() -> None:
    with pytest.raises(InvalidRequest, match=r"message holds half a character \(U\+D800 at place 2\)"):
        check_message("a\ud800")


def test_half_a_character_in_an_answer_is_shown_as_one_that_is_missing(card: Card) -> None:
    """As a server may send it that cuts between two pieces."""
    models = LocalModels(
        Catalog((card,)),
        "scripted",
        Scripted().capabilities,
        lambda card, fit: Scripted(Script(answer=("a\ud83d", "\ude00b"))),
        lambda artefact: True,
        house=House(lambda: Machine(4, 4, 16 * GIB, 16 * GIB)),
    )
    *_, last = api.ask(Engine(models), tab("chat"), parameters(tab("chat")))
    models.close()
    orjson.dumps(last)
    assert (last["state"], last["answer"]) == ("done", "a\ufffd\ufffdb")
