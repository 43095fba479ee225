"""The image tab's handlers without a browser: attach, remove, look closer, undo, and what a picture costs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import PIL.Image
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backends.adapters.scripted import Script, Scripted, tokens
from backends.catalog.cards import Card, Catalog
from backends.catalog.choice import looking_bytes
from backends.catalog.eyes import Eyes
from backends.core.types import GenerationRequest
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from backends.machine.machine import GIB, Machine
from backends.pictures.boxes import Mark
from backends.pictures.decoder import decode
from tests.desks import VISITOR, panel_of
from tests.desks import standing as standing_at
from tests.drawn import bomb, drawn, file_of, picture, seeing, without_bytes
from ui.conversation.pictures import MOST_PICTURES, Picture
from ui.conversation.tabs import example_picture
from ui.conversation.texts import speaker
from ui.conversation.transcript import Reply, Transcript, Turn
from ui.screen import looking as module
from ui.screen.asking import Asking
from ui.screen.desk import Desk, Update, Values
from ui.screen.keeping import Keeping
from ui.screen.looking import Looking
from ui.screen.picture_panel import price, slider_for
from ui.screen.tuning import Tuning
from ui.visitors.sessions import Sessions

SAY = speaker("en")
RED, GREEN, BLUE = (picture(64, 48, colour) for colour in ("red", "green", "blue"))
FOUND = '[{"bbox_2d": [250, 250, 750, 750], "label": "a cat"}]'


class Tab:
    """The image tab of a machine with two scripted models: 'text' reads only that, 'seer' sees. What was said to the
    visitor in passing is in `warnings` and `notes`, what the engine was sent in `requests`."""

    def __init__(self, card: Card, uploads: Path) -> None:
        sees = frozenset({"text", "image"})
        text, seer = (one.model_copy(update={"id": one.name, "name": one.name}) for one in (
            card.model_copy(update={"name": "text"}), seeing(card, name="seer"),
        ))  # fmt: skip
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.requests: list[GenerationRequest] = []
        models = LocalModels(
            Catalog((text, seer)), "scripted", Scripted(modalities=sees).capabilities,
            lambda card, fit: Scripted(self._script, parallel=fit.slots, context=fit.context, modalities=sees),
            lambda artefact: True, house=House(lambda: Machine(2, 2, 16 * GIB, 16 * GIB)),
        )  # fmt: skip
        self.engine = Engine(models)
        engines = {"one": self.engine}
        self.uploads = uploads
        self.desk = Desk(panel_of(engines, "image"), engines, Sessions())
        self.panel = self.desk.panel
        assert self.panel.pictures is not None
        self.pictures = self.panel.pictures
        self.asking, self.keeping, self.tuning = Asking(self.desk), Keeping(self.desk), Tuning(self.desk)
        self.looking = Looking(self.desk, self.asking)

    def _script(self, request: GenerationRequest) -> Script:
        self.requests.append(request)
        if "fail" in request.messages[-1].text:
            return Script(answer=("so ",), fail_after=0)
        return Script(answer=tokens(FOUND))

    def standing(self, tray: tuple[Picture, ...] = (), **changed: Any) -> Values:
        """A fresh page with this tray; `visual_tokens` and `task` by their own names."""
        own: Values = {self.pictures.tray: tray}
        if "visual_tokens" in changed:
            own[self.pictures.visual_tokens] = changed.pop("visual_tokens")
        if "task" in changed:
            own[self.panel.options["task"]] = changed.pop("task")
        return standing_at(self.panel, **changed) | own

    def upload(self, *contents: bytes) -> list[str]:
        """Files as gradio's upload leaves them."""
        for n, content in enumerate(contents):
            (self.uploads / f"{n}.png").write_bytes(content)
        return [str(self.uploads / f"{n}.png") for n in range(len(contents))]

    def attach(self, values: Values, files: Any) -> Update:
        return self.settled(values, [self.looking.attach(values | {self.pictures.upload: files}, VISITOR)])

    def click(self, values: Values, payload: Any) -> list[Update]:
        self.requests.clear()
        clicked = values | {self.panel.payload: payload}
        removed = self.looking.remove(clicked)
        return [removed, *self.looking.look_closer(clicked | removed, VISITOR)]

    def remove(self, values: Values, picture: Picture) -> Update:
        clicked = values | {self.panel.payload: f"remove {picture.id}"}
        removed = self.settled(clicked, [self.looking.remove(clicked)])
        return removed | self.settled(clicked | removed, list(self.looking.look_closer(clicked, VISITOR)))

    def send(self, values: Values) -> Update:
        """All updates of an answer, laid over one another, and what the page asks for after the last one."""
        self.requests.clear()
        return self.settled(values, list(self.asking.send(values, VISITOR)))

    def settled(self, values: Values, updates: list[Update]) -> Update:
        update = merged(updates)
        return update | self.keeping.settle(self.now(values, update), VISITOR)

    def now(self, values: Values, update: Update) -> Values:
        """What a handler reads after this update: the states are the server's own."""
        states = {self.panel.transcript, self.pictures.tray, self.panel.payload}
        return values | {component: value for component, value in update.items() if component in states}


def merged(updates: list[Update]) -> Update:
    return {component: value for update in updates for component, value in update.items()}


@pytest.fixture(scope="module")
def made(card: Card, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    uploads = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        tab = Tab(card, uploads)
        yield tab
        tab.engine.models.close()


@pytest.fixture
def tab(made: Tab, monkeypatch: pytest.MonkeyPatch) -> Tab:
    made.warnings.clear()
    made.notes.clear()
    made.requests.clear()
    monkeypatch.setattr(gr, "Warning", made.warnings.append)
    monkeypatch.setattr(gr, "Info", made.notes.append)
    return made


def seen(request: GenerationRequest) -> list[Picture]:
    return [Picture.of(image) for message in request.messages for image in message.images]


# --- attaching and removing ----------------------------------------------------------------------


def test_what_is_attached_waits_on_the_stage_and_is_kept(tab: Tab) -> None:
    update = tab.attach(tab.standing((GREEN,)), tab.upload(drawn(64, 48, "red")))
    assert update[tab.pictures.tray] == (GREEN, RED)
    assert update[tab.pictures.upload] is None
    assert update[tab.pictures.stage].count(SAY("picture_waiting")) == 2
    assert set(update[tab.pictures.album]) == {GREEN.id, RED.id}
    assert [row["id"] for row in update[tab.panel.saved]["tray"]] == [GREEN.id, RED.id]
    assert tab.warnings == []


@pytest.mark.parametrize("broken", [b"", b"hello", b"<svg xmlns='x'/>", drawn()[:60], bomb()])
def test_a_file_that_is_no_picture_is_told_and_the_others_stay(tab: Tab, broken: bytes) -> None:
    update = tab.attach(tab.standing((GREEN,)), tab.upload(drawn(64, 48, "red"), broken, drawn(64, 48, "blue")))
    assert update[tab.pictures.tray] == (GREEN, RED, BLUE)
    (warning,) = tab.warnings
    assert warning.startswith("The file '1.png' ")
    assert not any(word in warning for word in ("Traceback", str(tab.uploads), "/", "PIL"))


def animation(kind: str, frames: int) -> bytes:
    first, *others = (PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")[:frames])
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=others)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animated_picture_it_is_told_once_that_the_first_frame_is_seen(tab: Tab, kind: str) -> None:
    files = tab.upload(animation(kind, 3), drawn(64, 48, "red"), animation(kind, 2))
    assert tab.attach(tab.standing(), files)[tab.pictures.tray]
    assert (tab.notes, tab.warnings) == ([SAY("note_animated")], [])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "JPEG", "BMP"])
def test_of_a_still_picture_nothing_is_told(tab: Tab, kind: str) -> None:
    still = animation(kind, 1) if kind in ("GIF", "PNG", "WEBP") else file_of(PIL.Image.new("RGB", (8, 8)), kind)
    tab.attach(tab.standing(), tab.upload(still))
    assert (tab.notes, tab.warnings) == ([], [])


def test_of_a_broken_animation_that_is_refused_only_that_is_told(tab: Tab) -> None:
    tab.attach(tab.standing(), tab.upload(animation("PNG", 3)[:-60]))
    assert len(tab.warnings) == 1
    assert tab.notes == []


@pytest.mark.parametrize("files", [None, [], ["/etc/passwd"], ["http://169.254.169.254/x.png"], [None]])
def test_what_was_not_uploaded_attaches_nothing(tab: Tab, files: Any) -> None:
    assert tab.attach(tab.standing((GREEN,)), files)[tab.pictures.tray] == (GREEN,)
    assert len(tab.warnings) == len(files or ())


def test_a_thousand_files_fill_the_tray_and_are_told_about_once(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(module, "decode", lambda data, name: (read.append(data), decode(data, name))[1])
    files = tab.upload(*(drawn(8 + n, 8) for n in range(MOST_PICTURES + 2)))
    update = tab.attach(tab.standing(), files * 100)
    assert len(update[tab.pictures.tray]) == MOST_PICTURES
    assert len(read) == MOST_PICTURES + 1
    (warning,) = tab.warnings
    assert f"at most {MOST_PICTURES} pictures" in warning


def test_what_waits_can_be_removed(tab: Tab) -> None:
    update = tab.remove(tab.standing((RED, GREEN)), RED)
    assert update[tab.pictures.tray] == (GREEN,)
    assert update[tab.panel.payload] == ""
    assert RED.id not in update[tab.pictures.stage]
    assert set(update[tab.pictures.album]) == {GREEN.id}
    assert [row["id"] for row in update[tab.panel.saved]["tray"]] == [GREEN.id]


# --- looking closer ------------------------------------------------------------------------------


def spoken(*pictures: Picture) -> Transcript:
    marks = (Mark("a cat", 16, 12, 48, 36),)
    return Transcript(
        turns=(Turn(user="q", pictures=pictures, replies=(Reply(answer="there", state="done", marks=marks),)),)
    )


BAD_CLICKS = (
    None, "", " ", 7, "nothing", "remove", "closer", f"closer {RED.id}", f"closer {RED.id} 1 2 3",
    f"closer {RED.id} 1 2 3 4 5", f"closer {RED.id} a b c d", f"closer {RED.id} 1.5 2 3 4",
    f"closer {GREEN.id} 1 2 3 4", "closer ../../etc/passwd 1 2 30 40",
    f"closer {RED.id} nan nan nan nan", f"remove {GREEN.id}", "REMOVE x",
    f"closer {RED.id} {'9' * 5000} 0 1 1",
)  # fmt: skip


@pytest.mark.parametrize("payload", BAD_CLICKS, ids=lambda payload: str(payload)[:40])
def test_a_click_that_means_nothing_does_nothing(tab: Tab, payload: Any) -> None:
    values = tab.standing((BLUE,), transcript=spoken(RED))
    update = merged(tab.click(values, payload))
    assert update[tab.panel.payload] == ""
    assert tab.panel.transcript not in update
    assert update.get(tab.pictures.tray, (BLUE,)) == (BLUE,)
    assert tab.requests == []
    assert tab.warnings == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(words=st.lists(st.sampled_from(["closer", "remove", RED.id, "-1", "0", "9"]) | st.text(max_size=5), max_size=7))
@example(["closer", RED.id, *["-1"] * 4])
@example(["closer", RED.id, "9", "9", "0", "0"])
def test_no_click_at_all_raises_or_loses_the_conversation(tab: Tab, words: list[str]) -> None:
    updates = tab.click(tab.standing((BLUE,), transcript=spoken(RED)), " ".join(words))
    transcript = merged(updates).get(tab.panel.transcript, spoken(RED))
    assert transcript.turns[0].pictures == (RED,)


@pytest.mark.parametrize("box", ["100 100 100 100", "0 0 0 0", "64 48 64 48", "9999 9999 99999 99999"])
def test_a_place_without_anything_in_it_is_told_or_shown_small(tab: Tab, box: str) -> None:
    tab.click(tab.standing(transcript=spoken(RED)), f"closer {RED.id} {box}")
    assert bool(tab.warnings) != bool(tab.requests)


def test_a_place_of_a_picture_that_is_gone_is_told(tab: Tab) -> None:
    update = merged(tab.click(tab.standing(transcript=spoken(without_bytes(RED))), f"closer {RED.id} 16 12 48 36"))
    assert tab.panel.transcript not in update
    (warning,) = tab.warnings
    assert "no longer here" in warning


def test_looking_closer_asks_about_the_piece_and_what_was_attached_stays(tab: Tab) -> None:
    values = tab.standing((BLUE,), transcript=spoken(RED), task="find")
    update = merged(tab.click(values, f"closer {RED.id} 16 12 48 36"))
    turn = update[tab.panel.transcript].turns[-1]
    assert turn.user == SAY("ask_describe")
    (piece,) = turn.pictures
    assert (piece.width, piece.height) == (46, 38)
    assert update[tab.pictures.tray] == (BLUE,)
    (request,) = tab.requests
    assert len(seen(request)) == 2, "the picture before, and the piece"
    assert "bbox_2d" not in "".join(m.text for m in request.messages if m.role == "system"), "asked to find, not to say"


# --- asking --------------------------------------------------------------------------------------


def test_what_is_attached_is_sent_and_what_was_found_is_drawn_on_it(tab: Tab) -> None:
    update = tab.send(tab.standing((RED,), composer="Where?"))
    (turn,) = update[tab.panel.transcript].turns
    assert turn.pictures == (RED,)
    assert turn.replies[0].marks == (Mark("a cat", 16, 12, 48, 36),)
    assert update[tab.pictures.tray] == ()
    assert "a cat" in update[tab.pictures.stage]
    assert set(update[tab.pictures.album]) == {RED.id}
    (request,) = tab.requests
    assert [(image.width, image.height) for image in request.messages[-1].images] == [(64, 64)]
    shown, _, _ = json.dumps(update[tab.panel.chatbot]).partition("<span class='source'>")
    assert "bbox_2d" not in shown
    assert "Drawn on the picture (1): a cat" in shown


@pytest.mark.parametrize("task", ["answer", "describe", "read", "chart", "find"])
def test_a_picture_alone_is_a_question(tab: Tab, task: str) -> None:
    update = tab.send(tab.standing((RED,), composer=" ", task=task))
    assert update[tab.panel.transcript].turns[-1].user == SAY(f"ask_{task}")


def test_nothing_at_all_is_no_question(tab: Tab) -> None:
    update = merged(list(tab.asking.send(tab.standing(composer=" "), VISITOR)))
    assert tab.panel.transcript not in update
    assert len(tab.warnings) == 1


@pytest.mark.parametrize("change", [{"model": "text"}, {"visual_tokens": 10**6}, {"composer": "x" * 2_000_001}])
def test_a_refusal_leaves_words_and_pictures_where_they_are(tab: Tab, change: dict[str, Any]) -> None:
    update = merged(list(tab.asking.send(tab.standing((RED,), **{"composer": "Where?"} | change), VISITOR)))
    assert update.keys() == {tab.panel.chatbot, tab.panel.payload}
    assert update[tab.panel.payload] == ""
    assert len(tab.warnings) == 1
    assert tab.requests == []


def test_a_model_without_eyes_says_so_and_points_to_another(tab: Tab) -> None:
    tab.send(tab.standing((RED,), composer="Where?", model="text"))
    (warning,) = tab.warnings
    assert warning.startswith(
        "text reads text only; it cannot see pictures. Choose a model that can in the Model section. (#"
    )


def test_a_failed_answer_gives_words_and_pictures_back_and_sending_again_asks_once(tab: Tab) -> None:
    update = tab.send(tab.standing((RED, GREEN), composer="fail"))
    assert update[tab.pictures.tray] == (RED, GREEN)
    assert update[tab.panel.payload] == "fail", "which the page puts into the composer"
    assert [row["id"] for row in update[tab.panel.saved]["tray"]] == [RED.id, GREEN.id]
    assert update[tab.pictures.stage].count(SAY("picture_waiting")) == 2
    assert update[tab.pictures.stage].count("<figure") == 2, "and not once more as part of what failed"
    assert set(update[tab.pictures.album]) == {RED.id, GREEN.id}
    again = tab.standing(update[tab.pictures.tray], composer="now", transcript=update[tab.panel.transcript])
    (turn,) = tab.send(again)[tab.panel.transcript].turns
    assert (turn.user, turn.pictures) == ("now", (RED, GREEN))


def test_what_is_attached_and_removed_while_an_answer_is_written_counts(tab: Tab) -> None:
    values = tab.standing((RED,), composer="Where?")
    asking = tab.asking.send(values, VISITOR)
    first = next(asking)
    meanwhile = tab.attach(tab.now(values, first), tab.upload(drawn(64, 48, "blue")))
    assert meanwhile[tab.pictures.tray] == (BLUE,)
    assert meanwhile[tab.pictures.stage].count("<figure") == 2, "the one that was sent, and the one that waits"
    assert [turn["user"] for turn in meanwhile[tab.panel.saved]["turns"]] == ["Where?"]
    last = merged(list(asking))
    assert tab.pictures.tray not in last
    update = tab.keeping.settle(tab.now(tab.now(values, meanwhile), last), VISITOR)
    assert tab.pictures.tray not in update, "it is as it is"
    assert "a cat" in update[tab.pictures.stage]
    assert update[tab.pictures.stage].count(SAY("picture_waiting")) == 1
    assert set(update[tab.pictures.album]) == {RED.id, BLUE.id}
    (saved,) = update[tab.panel.saved]["turns"]
    assert saved["replies"][0]["state"] == "done"


def test_what_a_failed_question_gave_back_can_be_removed(tab: Tab) -> None:
    values = tab.standing((RED, GREEN), composer="fail")
    failed = tab.send(values)
    after = tab.remove(tab.now(values, failed), RED)
    assert after[tab.pictures.tray] == (GREEN,)
    assert after[tab.pictures.stage].count("<figure") == 1
    attached = tab.attach(tab.now(values, failed | after), tab.upload(drawn(64, 48, "blue")))
    assert attached[tab.pictures.tray] == (GREEN, BLUE)


def test_retrying_what_failed_sends_its_pictures_once(tab: Tab) -> None:
    values = tab.standing((RED,), composer="fail")
    values = tab.now(values, tab.send(values))
    values = tab.now(values, tab.attach(values, tab.upload(drawn(64, 48, "blue"))))
    update = merged(list(tab.asking.edit(values, SimpleNamespace(index=1, value="now"), VISITOR)))
    assert update[tab.panel.transcript].turns[-1].pictures == (RED,)
    assert update[tab.pictures.tray] == (BLUE,)


def test_an_answer_whose_handler_broke_off_has_stopped_once_something_else_is_asked(tab: Tab) -> None:
    values = tab.standing((RED,), composer="Where?")
    asking = tab.asking.send(values, VISITOR)
    broken = tab.now(values, next(asking))
    asking.close()
    first, second = tab.send(broken | {tab.panel.composer: "And now?"})[tab.panel.transcript].turns
    assert [turn.replies[0].state for turn in (first, second)] == ["stopped", "done"]


def test_a_retry_that_fails_gives_its_pictures_back_beside_those_that_waited(tab: Tab) -> None:
    transcript = Transcript(turns=(Turn(user="fail", pictures=(RED,), replies=(Reply(answer="x", state="done"),)),))
    values = tab.standing((BLUE,), transcript=transcript)
    updates = list(tab.asking.retry(values, SimpleNamespace(index=2), VISITOR))
    assert tab.settled(values, updates)[tab.pictures.tray] == (RED, BLUE)


@pytest.mark.parametrize(
    ("pictures", "model", "told"), [((RED,), "seer", 0), ((RED,), "text", 1), ((without_bytes(RED),), "seer", 1)]
)
def test_pictures_that_the_model_does_not_get_are_told(
    tab: Tab, monkeypatch: pytest.MonkeyPatch, pictures: tuple[Picture, ...], model: str, told: int
) -> None:
    infos: list[str] = []
    monkeypatch.setattr(gr, "Info", infos.append)
    tab.send(tab.standing(composer="and now?", model=model, transcript=spoken(*pictures)))
    assert infos == [SAY("note_unseen_pictures")] * told


def test_more_than_the_context_is_told_with_what_a_picture_takes_and_everything_comes_back(tab: Tab) -> None:
    long = "word " * 40_000
    update = tab.send(tab.standing((RED,), composer=long, visual_tokens=256))
    failure = update[tab.panel.transcript].turns[-1].replies[0].failure
    assert failure is not None
    assert "of them for a picture, but this model can read at most" in failure.message
    assert "Visual tokens per picture" in failure.hint
    assert update[tab.panel.payload] == long
    assert update[tab.pictures.tray] == (RED,)
    assert tab.requests == []


def test_retrying_asks_about_the_same_pictures(tab: Tab) -> None:
    values = tab.standing((BLUE,), transcript=spoken(RED))
    update = merged(list(tab.asking.retry(values, SimpleNamespace(index=2), VISITOR)))
    (turn,) = update[tab.panel.transcript].turns
    assert (turn.user, turn.pictures) == ("q", (RED,))
    assert update[tab.pictures.tray] == (BLUE,)


@pytest.mark.parametrize("user", ["q", "fail"])
def test_what_is_being_typed_survives_a_retry_an_edit_and_a_closer_look(tab: Tab, user: str) -> None:
    draft = "half a thought"
    values = tab.standing(transcript=spoken(RED), composer=draft)
    for handler, event in (
        (tab.asking.retry, SimpleNamespace(index=2)),
        (tab.asking.edit, SimpleNamespace(index=1, value=user)),
    ):
        for update in handler(values, event, VISITOR):
            assert update.get(tab.panel.composer, {}).get("value", draft) == draft
    for update in tab.click(values, f"closer {RED.id} 16 12 48 36"):
        assert update.get(tab.panel.composer, {}).get("value", draft) == draft


def test_an_edited_question_keeps_its_pictures(tab: Tab) -> None:
    values = tab.standing(transcript=spoken(RED))
    update = merged(list(tab.asking.edit(values, SimpleNamespace(index=1, value="better"), VISITOR)))
    (turn,) = update[tab.panel.transcript].turns
    assert (turn.user, turn.pictures) == ("better", (RED,))


# --- keeping -------------------------------------------------------------------------------------


def test_undo_gives_words_and_pictures_back(tab: Tab) -> None:
    transcript = Transcript(turns=(*spoken(RED).turns, Turn(user="and?", pictures=(GREEN, BLUE))))
    update = tab.keeping.undo(tab.standing(transcript=transcript), SimpleNamespace(index=5), VISITOR)
    assert update[tab.panel.transcript].turns == spoken(RED).turns
    assert update[tab.panel.composer]["value"] == "and?"
    assert update[tab.pictures.tray] == (GREEN, BLUE)
    assert set(update[tab.pictures.album]) == {RED.id, GREEN.id, BLUE.id}
    assert [row["id"] for row in update[tab.panel.saved]["tray"]] == [GREEN.id, BLUE.id]


def test_undo_takes_nothing_from_what_waits_or_is_being_typed(tab: Tab) -> None:
    transcript = Transcript(turns=(Turn(user="and?", pictures=(GREEN,)),))
    values = tab.standing((BLUE, GREEN), transcript=transcript, composer="half a thought")
    update = tab.keeping.undo(values, SimpleNamespace(index=1), VISITOR)
    assert update[tab.panel.composer]["value"] == "and?\nhalf a thought"
    assert update[tab.pictures.tray] == (GREEN, BLUE)


def test_clearing_leaves_nothing_behind(tab: Tab) -> None:
    update = tab.keeping.clear(tab.standing((GREEN,), transcript=spoken(RED)), VISITOR)
    assert update[tab.panel.transcript] == Transcript()
    assert update[tab.pictures.tray] == ()
    assert update[tab.pictures.album] == {}
    assert update[tab.pictures.stage].count("<img") == 0
    assert (update[tab.panel.saved]["turns"], update[tab.panel.saved]["tray"]) == ([], [])


def test_an_example_brings_its_picture_and_waits_for_the_visitor(tab: Tab) -> None:
    for n, row in enumerate(tab.desk.spec.examples):
        update = tab.keeping.example(tab.standing((RED,)), SimpleNamespace(index=n), VISITOR)
        assert update[tab.panel.composer]["value"] == row.text
        assert update[tab.pictures.tray] == (Picture.of(decode(example_picture(row.picture))),)
        assert SAY("picture_waiting") in update[tab.pictures.stage]
        assert [row["id"] for row in update[tab.panel.saved]["tray"]] == [update[tab.pictures.tray][0].id]
    assert tab.requests == []


def test_an_exported_conversation_brings_its_pictures_back(tab: Tab) -> None:
    values = tab.standing((BLUE,), transcript=spoken(RED, GREEN))
    name, _, text = tab.keeping.export_json(values)[tab.panel.payload].partition("\n")
    assert name == "qwen-image.json"
    update = tab.keeping.import_json(tab.standing() | {tab.panel.payload: text}, VISITOR)
    assert update[tab.panel.transcript] == spoken(RED, GREEN)
    assert update[tab.pictures.tray] == (BLUE,)
    assert "a cat" in update[tab.pictures.stage]
    assert tab.warnings == []


def test_a_conversation_of_another_time_takes_the_place_of_this_one_without_its_pictures(tab: Tab) -> None:
    old = '{"format": "qwen-playground-conversation", "version": 1, "turns": [{"user": "q"}]}'
    values = tab.standing((BLUE,), transcript=spoken(RED)) | {tab.panel.payload: old}
    update = tab.keeping.import_json(values, VISITOR)
    assert update[tab.panel.transcript].turns == (Turn(user="q"),)
    assert update[tab.pictures.tray] == ()


def test_a_file_that_is_none_changes_nothing(tab: Tab) -> None:
    values = tab.standing((BLUE,), transcript=spoken(RED)) | {tab.panel.payload: "hello"}
    assert tab.keeping.import_json(values, VISITOR) == {tab.panel.payload: ""}
    assert len(tab.warnings) == 1


def test_what_the_browser_kept_comes_back_with_its_pictures(tab: Tab) -> None:
    kept = tab.attach(tab.standing(transcript=spoken(RED), visual_tokens=32), tab.upload(drawn(64, 48, "blue")))
    saved, album = (json.loads(json.dumps(kept[part])) for part in (tab.panel.saved, tab.pictures.album))
    update = tab.tuning.restore(saved, album, VISITOR)
    assert update[tab.panel.transcript] == spoken(RED)
    assert update[tab.pictures.tray] == (BLUE,)
    assert update[tab.pictures.visual_tokens]["value"] == 32
    assert SAY("picture_waiting") in update[tab.pictures.stage]
    lost = tab.tuning.restore(saved, None, VISITOR)
    assert lost[tab.panel.transcript].pictures == (without_bytes(RED),)
    assert lost[tab.pictures.tray] == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(album=st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
@example({RED.id: "ä"})
def test_no_album_of_a_browser_is_too_odd(tab: Tab, album: Any) -> None:
    saved = json.loads(json.dumps(tab.desk.save(tab.standing((BLUE,), transcript=spoken(RED)))))
    assert tab.tuning.restore(saved, album, VISITOR)[tab.panel.transcript].pictures == (without_bytes(RED),)


@pytest.mark.parametrize("wanted", [None, "64", -1, 0, 10**9, 10**400, True, 1.5, [64], math.inf, math.nan])
def test_odd_visual_tokens_of_a_browser_come_within_bounds(tab: Tab, wanted: Any) -> None:
    update = tab.tuning.restore({"settings": {"visual_tokens": wanted}}, None, VISITOR)
    assert 4 <= update[tab.pictures.visual_tokens]["value"] <= 256


def test_visual_tokens_are_kept_only_where_the_visitor_chose_them(tab: Tab) -> None:
    for chosen, kept in ((64, None), (32, 32)):
        saved = tab.desk.save(tab.standing(model="seer", visual_tokens=chosen))
        assert saved["settings"]["visual_tokens"] == kept, "else the next model would be held to this one's own"


# --- the price -----------------------------------------------------------------------------------


@given(wanted=st.integers(0, 10**7), fewest=st.integers(1, 300), more=st.integers(0, 3000))
def test_the_slider_stays_within_the_models_bounds(card: Card, wanted: int, fewest: int, more: int) -> None:
    eyes = Eyes(side=32, fewest=fewest, default=fewest, most=fewest + more, boxes="thousandths")
    update = slider_for(seeing(card, eyes=eyes), wanted, fewest, (RED,), SAY)
    assert (update["minimum"], update["maximum"]) == (fewest, fewest + more)
    assert update["value"] == min(max(wanted, fewest), fewest + more)
    assert update["interactive"] == (more > 0)
    assert f"{update['value']:,} tokens" in update["info"]


@pytest.mark.parametrize(("tokens_", "unit"), [(4, "MB"), (256, "MB"), (2560, "GB")])
def test_the_price_is_told_in_tokens_and_memory(card: Card, tokens_: int, unit: str) -> None:
    sees = seeing(card, eyes=Eyes(side=32, fewest=4, default=64, most=2560, boxes="thousandths"))
    memory = looking_bytes(sees, tokens_)
    said = f"{memory / 1e9:.1f} GB" if unit == "GB" else f"{memory / 1e6:.0f} MB"
    assert price(sees, tokens_, 64, (), SAY) == SAY("visual_tokens_price", tokens=f"{tokens_:,}", memory=said)


def test_what_is_attached_now_is_counted(card: Card) -> None:
    info = price(seeing(card), 64, 64, (picture(320, 320), picture(64, 64)), SAY)
    assert info.endswith(SAY("visual_tokens_now", n="68"))


def test_the_count_follows_what_is_attached_removed_and_sent(tab: Tab) -> None:
    values, now = tab.standing(), SAY("visual_tokens_now", n="4")
    attached = tab.attach(values, tab.upload(drawn(64, 48, "red")))
    assert attached[tab.pictures.visual_tokens]["info"].endswith(now)
    for update in (
        tab.remove(tab.now(values, attached), RED),
        tab.send(tab.now(values, attached) | {tab.panel.composer: "Where?"}),
    ):
        assert now not in update[tab.pictures.visual_tokens]["info"]


def test_a_model_without_eyes_has_no_price(card: Card) -> None:
    update = slider_for(card, 64, 0, (RED,), SAY)
    assert update["interactive"] is False
    assert update["info"] == SAY("visual_tokens_none")


def test_the_price_follows_the_model(tab: Tab) -> None:
    values = tab.standing((RED,), visual_tokens=200)
    blind = tab.tuning.model_changed(values | {tab.panel.model: "text"}, VISITOR)
    assert blind[tab.pictures.visual_tokens]["interactive"] is False
    assert (
        tab.tuning.model_changed(values | {tab.panel.model: "seer"}, VISITOR)[tab.pictures.visual_tokens]["value"] == 64
    )
    assert tab.tuning.changed(values, VISITOR)[tab.pictures.visual_tokens]["value"] == 200


def test_a_demo_says_what_it_is_wherever_it_answers(tab: Tab, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = seeing(card, demo=True)
    monkeypatch.setattr(tab.desk, "card", lambda engine, model: demo)
    assert tab.tuning.changed(tab.standing(), VISITOR)[tab.pictures.notice] == SAY("demo_notice")
    monkeypatch.setattr(tab.desk, "card", lambda engine, model: demo.model_copy(update={"demo": False}))
    assert tab.tuning.changed(tab.standing(), VISITOR)[tab.pictures.notice] == ""


def test_the_tab_is_there_where_no_model_sees(tab: Tab, card: Card) -> None:
    models = LocalModels(
        Catalog((card,)), "scripted", replace(Scripted().capabilities), lambda card, fit: pytest.fail("not asked"),
        lambda artefact: True, house=House(lambda: Machine(2, 2, 16 * GIB, 16 * GIB)),
    )  # fmt: skip
    engines = {"one": Engine(models)}
    desk = Desk(panel_of(engines, "image"), engines, Sessions())
    assert desk.panel.pictures is not None
    assert not desk.panel.pictures.visual_tokens.interactive
    values = standing_at(desk.panel, composer="What?") | {desk.panel.pictures.tray: (RED,)}
    (update,) = Asking(desk).send(values, VISITOR)
    assert update.keys() == {desk.panel.chatbot, desk.panel.payload}
    assert len(tab.warnings) == 1
