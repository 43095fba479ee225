"""Pictures of a conversation: what is kept of them, how they come back, and what the model is shown."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import PIL.Image
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backends.catalog.cards import Card
from backends.core.errors import InvalidRequest
from backends.core.types import Image, Text
from backends.pictures import decoder as preparation
from backends.pictures.boxes import Mark
from backends.pictures.decoder import decode
from tests.drawn import EYES, bomb, drawn, file_of, grain, picture, seeing, without_bytes
from ui.conversation import pictures as module
from ui.conversation.pictures import (
    ALBUM_CHARACTERS,
    KEPT_BYTES,
    KEPT_SIDE,
    MOST_PICTURES,
    Picture,
    album,
    attached,
    check_pictures,
    cost,
    cropped,
    found_again,
    shown,
)
from ui.conversation.transcript import Reply, SavedConversation, Transcript, Turn, album_of, read_conversation

RED, GREEN, BLUE = (picture(colour=colour) for colour in ("red", "green", "blue"))


def talk(*turns: tuple[Picture, ...]) -> Transcript:
    """One answered turn for each row of pictures."""
    return Transcript(
        turns=tuple(
            Turn(user=f"q{n}", pictures=row, replies=(Reply(answer=f"a{n}", state="done"),))
            for n, row in enumerate(turns)
        )
    )


def kept_as(data: str | bytes) -> dict[str, str]:
    """An album that has this for the red picture."""
    return {RED.id: data if isinstance(data, str) else base64.b64encode(data).decode()}


# --- the album -----------------------------------------------------------------------------------

# Small enough to be kept as they are, so nothing here has to be a picture.
unpacked = st.builds(
    lambda letter, size: Picture.of(Image(letter * size, 1, 1)),
    st.sampled_from([bytes([n]) for n in range(40)]),
    st.integers(1, KEPT_BYTES) | st.just(KEPT_BYTES),
)


@settings(max_examples=30)
@given(given=st.lists(unpacked, max_size=20))
@example(given=[Picture.of(Image(bytes([n]) * KEPT_BYTES, 1, 1)) for n in range(20)])
def test_an_album_holds_the_newest_pictures_and_never_more_than_there_is_room_for(given: list[Picture]) -> None:
    kept = album(given)
    newest_first = list(dict.fromkeys(one.id for one in given))
    assert list(kept) == newest_first[: len(kept)]
    room = ALBUM_CHARACTERS - sum(map(len, kept.values()))
    assert room >= 0
    if len(kept) < len(newest_first):
        left_out = next(one for one in given if one.id == newest_first[len(kept)])
        assert left_out.image is not None
        assert len(base64.b64encode(left_out.image.png)) > room, "there was room for one more"
    assert not given or given[0].id in kept


def test_the_same_picture_is_kept_once_and_one_without_bytes_takes_no_place() -> None:
    assert list(album([RED, without_bytes(BLUE), GREEN, RED])) == [RED.id, GREEN.id]


def test_a_large_picture_is_kept_smaller() -> None:
    large = Picture.of(decode(grain(1400, 200)))
    assert large.image is not None
    assert len(large.image.png) > KEPT_BYTES
    (text,) = album([large]).values()
    assert len(text) < len(large.image.png)
    back = found_again(without_bytes(large), {large.id: text}).image
    assert back is not None
    assert max(back.width, back.height) == KEPT_SIDE
    assert back.size_as_uploaded == (1400, 200)


def test_the_newest_of_a_conversation_is_what_waits_and_then_the_last_that_was_sent() -> None:
    assert list(album_of(talk((RED,), (GREEN,)), (BLUE,))) == [BLUE.id, GREEN.id, RED.id]


@given(width=st.integers(2, 40), height=st.integers(2, 40), uploaded=st.tuples(*[st.integers(1, 20_000)] * 2))
def test_a_picture_comes_back_as_it_was_in_the_size_that_was_uploaded(
    width: int, height: int, uploaded: tuple[int, int]
) -> None:
    image = replace(decode(drawn(width, height)), uploaded=uploaded)
    known = Picture.of(image)
    back = found_again(without_bytes(known), json.loads(json.dumps(album([known]))))
    assert back == known
    assert (back.width, back.height) == uploaded


GARBAGE: dict[str, Any] = {
    "nothing": None, "a number": 7, "a list": ["AAAA"], "an object": {}, "an empty text": "", "no base64": "!!!!",
    "other letters": "äöü", "half a character": "\ud83e", "wrong padding": "AAAAA", "a text": kept_as(b"hello")[RED.id],
    "half a picture": kept_as(drawn()[:40])[RED.id], "a bomb": kept_as(bomb())[RED.id],
    "a picture with a line break": "\n" + kept_as(drawn())[RED.id],
}  # fmt: skip


@pytest.mark.parametrize("kept", GARBAGE.values(), ids=GARBAGE)
def test_what_cannot_be_read_leaves_the_picture_without_bytes(kept: Any) -> None:
    assert found_again(without_bytes(RED), {RED.id: kept}) == without_bytes(RED)
    saved = SavedConversation(turns=talk((RED,)).turns, tray=(RED,)).model_dump(mode="json")
    restored = SavedConversation.model_validate(saved).model_copy(update={"album": {RED.id: kept}})
    assert restored.transcript.pictures == (without_bytes(RED),)
    assert restored.attached == ()


@given(kept=st.recursive(st.none() | st.integers() | st.text() | st.binary().map(base64.b64encode), st.lists))
def test_no_album_at_all_raises_anything(kept: Any) -> None:
    kept = kept.decode() if isinstance(kept, bytes) else kept
    assert found_again(without_bytes(RED), {RED.id: kept}).image is None


def test_a_picture_that_every_turn_names_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module._unpacked.cache_clear()
    read: list[bytes] = []
    monkeypatch.setattr(module, "decode", lambda data: (read.append(data), decode(data))[1])
    turns = tuple(Turn(user="q", pictures=(without_bytes(RED),) * MOST_PICTURES) for _ in range(50))
    found = SavedConversation(turns=turns, album=dict(album([RED]))).transcript.pictures
    assert all(one.image for one in found)
    assert len(read) == 1


# --- the tray and the checks ---------------------------------------------------------------------


@given(colours=st.lists(st.sampled_from(["red", "green", "blue", "white"]), max_size=8))
def test_the_same_picture_is_attached_once(colours: list[str]) -> None:
    tray: tuple[Picture, ...] = ()
    for colour in colours:
        tray = attached(tray, decode(drawn(8, 8, colour)))
    assert tray == tuple(picture(8, 8, colour) for colour in dict.fromkeys(colours))


def test_one_picture_too_many_is_refused_with_the_limit_but_not_one_that_is_there() -> None:
    tray: tuple[Picture, ...] = ()
    for n in range(MOST_PICTURES):
        tray = attached(tray, decode(drawn(8 + n, 8)))
    assert len(tray) == MOST_PICTURES
    assert attached(tray, decode(drawn(8, 8))) == tray
    with pytest.raises(InvalidRequest, match=f"at most {MOST_PICTURES} pictures") as caught:
        attached(tray, decode(drawn(99, 8)))
    assert caught.value.hint


@given(wanted=st.integers() | st.floats() | st.booleans() | st.text(max_size=50) | st.lists(st.integers(), max_size=2))
@example(EYES.fewest)
@example(EYES.most)
@example(EYES.most + 1)
@example(10**400)
@example("64")
def test_visual_tokens_are_taken_within_their_bounds_and_refused_with_them(card: Card, wanted: Any) -> None:
    sees = seeing(card)
    if type(wanted) is int and EYES.fewest <= wanted <= EYES.most:
        assert check_pictures((RED,), sees, wanted) == wanted
        return
    with pytest.raises(InvalidRequest) as caught:
        check_pictures((RED,), sees, wanted)
    assert caught.value.message.startswith("visual_tokens must be a whole number from 4 to 256 for Test model; it was ")
    assert repr(wanted)[:40] in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("visual_tokens", [None, 0, 64, "x"])
def test_a_model_that_reads_text_only_explains_itself_and_points_to_another(card: Card, visual_tokens: Any) -> None:
    assert check_pictures((), card, visual_tokens) == 0
    with pytest.raises(InvalidRequest, match="Test model reads text only") as caught:
        check_pictures((RED,), card, visual_tokens)
    assert "Choose a model" in caught.value.hint


def test_too_many_pictures_are_refused_with_their_number(card: Card) -> None:
    with pytest.raises(InvalidRequest, match="images has 9 pictures; a message can have at most 8"):
        check_pictures((RED,) * 9, seeing(card), None)


@given(st.integers(20, 300), st.integers(20, 300), st.integers(EYES.fewest, EYES.most))
def test_the_price_of_a_picture_is_what_the_model_is_sent(card: Card, width: int, height: int, wanted: int) -> None:
    known = picture(width, height)
    (message,) = Transcript().ask("?", ("",), (known,)).messages(seeing(card), "", wanted)
    (sent,) = message.images
    assert cost(known, EYES, wanted) == sent.width * sent.height // EYES.side**2


# --- a piece of a picture ------------------------------------------------------------------------


def where_is_what() -> Image:
    """128 x 96 pixels that tell their own place: red is x, green is y."""
    pixels = bytes(value for y in range(96) for x in range(128) for value in (x, y, 0))
    return decode(file_of(PIL.Image.frombytes("RGB", (128, 96), pixels)))


PLACES = where_is_what()
anywhere = st.integers(-50, 200) | st.integers()


def corners(piece: Picture) -> tuple[int, int, int, int]:
    """x and y of its first and of its last pixel."""
    assert piece.image is not None
    with PIL.Image.open(io.BytesIO(piece.image.png)) as opened:
        first, last = opened.getpixel((0, 0)), opened.getpixel((opened.width - 1, opened.height - 1))
    return first[0], first[1], last[0], last[1]


@given(box=st.tuples(anywhere, anywhere, anywhere, anywhere))
@example((0, 0, 10**400, 10**400))
@example((-(10**400), 5, 5, 5))
def test_a_piece_lies_within_the_picture_whatever_the_box(box: tuple[int, int, int, int]) -> None:
    try:
        piece = cropped(Picture.of(PLACES), box)
    except InvalidRequest:
        return
    x0, y0, x1, y1 = corners(piece)
    assert (x1 - x0 + 1, y1 - y0 + 1) == (piece.width, piece.height)
    assert piece.width <= 128
    assert piece.height <= 96


@given(data=st.data(), larger=st.integers(1, 20))
def test_a_piece_holds_the_whole_box_and_little_more(data: st.DataObject, larger: int) -> None:
    """Boxes count pixels as uploaded; the picture that is kept may be smaller."""
    x0, y0 = data.draw(st.integers(0, 126)), data.draw(st.integers(0, 94))
    x1, y1 = data.draw(st.integers(x0 + 2, 128)), data.draw(st.integers(y0 + 2, 96))
    known = Picture.of(replace(PLACES, uploaded=(128 * larger, 96 * larger)))
    left, top, right, bottom = corners(cropped(known, (x0 * larger, y0 * larger, x1 * larger, y1 * larger)))
    margin = 0.15 * max(x1 - x0, y1 - y0) + 3
    assert x0 - margin <= left <= x0
    assert y0 - margin <= top <= y0
    assert x1 - 1 <= right <= x1 + margin
    assert y1 - 1 <= bottom <= y1 + margin


def test_nothing_can_be_cut_out_of_a_picture_that_is_gone() -> None:
    with pytest.raises(InvalidRequest, match="no longer here"):
        cropped(without_bytes(RED), (0, 0, 9, 9))


def test_what_is_shown_is_a_small_picture_of_the_page_itself() -> None:
    assert RED.image is not None
    uri = shown(RED.image, 20)
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    with PIL.Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        assert max(opened.size) == 20


# --- what the model is shown ---------------------------------------------------------------------


@given(
    sizes=st.lists(st.tuples(st.integers(2, 200), st.integers(2, 200)), max_size=4),
    wanted=st.integers(EYES.fewest, EYES.most),
)
def test_pictures_stand_before_the_words_in_whole_squares_and_within_their_price(
    card: Card, sizes: list[tuple[int, int]], wanted: int
) -> None:
    row = tuple(picture(*size) for size in sizes)
    (message,) = Transcript().ask("what?", ("",), row).messages(seeing(card), "", wanted)
    assert [type(part) for part in message.parts] == [Image] * len(row) + [Text]
    assert message.text == "what?"
    for image in message.images:
        assert image.width % EYES.side == image.height % EYES.side == 0
        assert 0 < image.width * image.height <= wanted * EYES.side**2
        with PIL.Image.open(io.BytesIO(image.png)) as opened:
            assert opened.size == (image.width, image.height)
    assert [image.size_as_uploaded for image in message.images] == sizes


def test_every_turn_keeps_its_own_pictures_and_those_without_bytes_are_left_out(card: Card) -> None:
    transcript = talk((RED, without_bytes(BLUE)), ()).ask("and?", ("",), (GREEN,))
    messages = transcript.messages(seeing(card), "", 64)
    assert [len(message.images) for message in messages if message.role == "user"] == [1, 0, 1]
    assert not any(message.images for message in messages if message.role == "assistant")


def test_a_model_without_eyes_reads_the_words_alone(card: Card) -> None:
    messages = talk((RED,)).ask("and?", ("",), (GREEN,)).messages(card, "")
    assert [message.text for message in messages] == ["q0", "a0", "and?"]
    assert not any(message.images for message in messages)


def test_the_same_picture_is_the_same_bytes_every_time(card: Card) -> None:
    transcript = Transcript().ask("?", ("",), (Picture.of(decode(grain(90, 50))),))
    first = transcript.messages(seeing(card), "", 16)
    preparation._resized.cache_clear()
    assert transcript.messages(seeing(card), "", 16) == first


# --- there and back ------------------------------------------------------------------------------


def test_a_conversation_comes_back_with_its_pictures_and_what_was_attached() -> None:
    transcript = talk((RED,), (), (GREEN, RED))
    saved = SavedConversation(
        tab="image", turns=transcript.turns, tray=(BLUE,), album=dict(album_of(transcript, (BLUE,)))
    )
    back = read_conversation(saved.model_dump_json())
    assert back.transcript == transcript
    assert back.attached == (BLUE,)


def test_the_places_found_come_back_too() -> None:
    marks = (Mark("a cat", 1, 2, 30, 40), Mark("", 5, 5, 5, 5))
    saved = SavedConversation(turns=(Turn(user="q", pictures=(RED,), replies=(Reply(state="done", marks=marks),)),))
    assert read_conversation(saved.model_dump_json()).transcript.turns[0].replies[0].marks == marks


def test_the_browser_keeps_names_alone_and_the_album_beside_them() -> None:
    kept = SavedConversation(turns=talk((RED,)).turns, tray=(BLUE,)).model_dump(mode="json")
    assert kept["turns"][0]["pictures"] == [{"id": RED.id, "width": 96, "height": 64}]
    assert kept["tray"] == [{"id": BLUE.id, "width": 96, "height": 64}]
    assert len(json.dumps(kept)) < 2000


def test_a_conversation_from_before_there_were_pictures_still_loads() -> None:
    old = {
        "format": "qwen-playground-conversation", "version": 1, "tab": "chat", "settings": {"model": ""},
        "turns": [{"user": "q", "replies": [{"answer": "a", "state": "done"}]}],
    }  # fmt: skip
    back = read_conversation(json.dumps(old))
    assert back.transcript == Transcript(turns=(Turn(user="q", replies=(Reply(answer="a", state="done"),)),))
    assert (back.attached, back.album) == ((), {})


def test_a_file_cannot_bring_a_picture_past_the_decoder() -> None:
    forged = {"id": "0" * 16, "width": 1, "height": 1, "image": {"png": "not a picture", "width": 1, "height": 1}}
    text = json.dumps({
        "format": "qwen-playground-conversation", "version": 1, "turns": [{"user": "q", "pictures": [forged]}],
        "tray": [forged],
    })  # fmt: skip
    back = read_conversation(text)
    assert back.transcript.pictures[0].image is None
    assert back.attached == ()


REFUSED: dict[str, Any] = {
    "an id that is a path": {"id": "../../etc/passwd"},
    "an id that is HTML": {"id": "<img src=x>"},
    "no width": {"width": None},
    "a width of nothing": {"width": 0},
    "an endless width": {"width": 10**9},
    "a height below nothing": {"height": -1},
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_a_file_with_an_impossible_picture_is_refused_whole(change: dict[str, Any]) -> None:
    row = {"id": RED.id, "width": 96, "height": 64} | change
    for turns, tray in (([{"user": "q", "pictures": [row]}], []), ([], [row])):
        text = {"format": "qwen-playground-conversation", "version": 1, "turns": turns, "tray": tray}
        with pytest.raises(InvalidRequest, match="not a conversation exported from this playground"):
            read_conversation(json.dumps(text))


@pytest.mark.parametrize("corner", [-1, 10**6, 10**400, 1.5, "1e999", None])
def test_a_file_with_an_impossible_place_is_refused_whole(corner: Any) -> None:
    mark = {"label": "x", "x0": 0, "y0": 0, "x1": corner, "y1": 9}
    turn = {"user": "q", "replies": [{"state": "done", "marks": [mark]}]}
    text = json.dumps({"format": "qwen-playground-conversation", "version": 1, "turns": [turn]})
    with pytest.raises(InvalidRequest, match="not a conversation exported from this playground"):
        read_conversation(text)


def test_more_pictures_than_a_message_can_have_are_refused() -> None:
    row = {"id": RED.id, "width": 96, "height": 64}
    turn = {"user": "q", "pictures": [row] * (MOST_PICTURES + 1)}
    with pytest.raises(InvalidRequest):
        read_conversation(json.dumps({"format": "qwen-playground-conversation", "version": 1, "turns": [turn]}))
