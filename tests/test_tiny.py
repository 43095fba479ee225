"""How the tiny model is taught, and what the one that is shipped knows.

The lessons are only as good as their likeness to what the model meets later: the same patches, prompts, positions and
neighbours as in the library's own processing.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from app import make_engines
from backends.catalog.cards import Catalog
from backends.core.cancel import Controls
from backends.core.types import Answer, Done, GenerationRequest, Image, Message, Text, Thinking
from backends.host.settings import read_settings
from backends.machine.machine import Machine
from backends.pictures import boxes
from backends.pictures.decoder import decode, fitted
from ui.conversation.texts import speaker

pytestmark = pytest.mark.model

torch = pytest.importorskip("torch")

import PIL.Image  # noqa: E402
import PIL.ImageDraw  # noqa: E402

from examples.tiny import anatomy, dialogues, lessons, pictures, seeing  # noqa: E402
from examples.tiny.talking import Before, Row, Scribe, _packed  # noqa: E402

MODEL = Path(lessons.__file__).with_name("model")
SMALLEST = 20_000_000  # bytes: what the model may take in the repository


@pytest.fixture(scope="module")
def words():
    return anatomy.make_tokenizer(lessons.corpus(1, pictures_shown=60))


@pytest.fixture(scope="module")
def model(words):
    torch.manual_seed(0)
    return anatomy.make_model(words).eval()


def scenes(count: int, width: int = 160, height: int = 128) -> list[pictures.Scene]:
    draw = random.Random(3)
    return [pictures.shapes(draw, width, height, 1 + number % 5) for number in range(count)]


def stacked(drawn: list[pictures.Scene]) -> torch.Tensor:
    return torch.from_numpy(np.stack([scene.pixels for scene in drawn]))


# --- pictures --------------------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_picture() -> None:
    for make in (lambda d: pictures.shapes(d, 96, 96, 3), lambda d: pictures.chart(d, 128, 96)):
        one, other = make(random.Random(7)), make(random.Random(7))
        assert (one.pixels == other.pixels).all()
        assert one.things == other.things


@pytest.mark.parametrize("seed", range(30))
def test_things_lie_within_the_picture_and_apart(seed: int) -> None:
    scene = pictures.shapes(random.Random(seed), 160, 128, 5)
    assert scene.things
    for x0, y0, x1, y1 in (thing.box for thing in scene.things):
        assert -1 <= x0 < x1 <= 161
        assert -1 <= y0 < y1 <= 129
    for one in scene.things:
        for other in scene.things:
            a, b = one.box, other.box
            assert one is other or a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_patches_are_those_of_the_librarys_processor(words) -> None:
    drawn = scenes(2)
    read = anatomy.make_processor(words).image_processor(
        [PIL.Image.fromarray(scene.pixels) for scene in drawn], return_tensors="pt"
    )
    assert read["image_grid_thw"].tolist() == [[1, 8, 10], [1, 8, 10]]
    torch.testing.assert_close(seeing.patches(stacked(drawn)), read["pixel_values"])


def test_a_patch_is_taught_what_lies_under_its_middle() -> None:
    scene = scenes(1)[0]
    wanted = seeing.targets([scene])
    thing = scene.things[0]
    for (x, y), kind in zip(seeing.middles(128, 160).tolist(), wanted.kind.tolist(), strict=True):
        x0, y0, x1, y1 = thing.box
        inside = x0 <= x < x1 and y0 <= y < y1
        assert seeing.KINDS[kind] == (thing.shape if inside else "nothing")
    cells = [cell for cell, kind in enumerate(wanted.token_kind.tolist()) if kind]
    assert cells == [int(thing.centre[1] // 32) * 5 + int(thing.centre[0] // 32)]


def test_looking_at_all_pictures_at_once_is_looking_at_each(model) -> None:
    drawn = scenes(3)
    eyes = model.model.visual
    with torch.inference_mode():
        grid = torch.tensor([[1, 8, 10]] * 3)
        each = eyes(seeing.patches(stacked(drawn)), grid_thw=grid).pooler_output
        eyes.set_attn_implementation("all_at_once")
        together = seeing.see(eyes, stacked(drawn)).pooler_output
        eyes.set_attn_implementation("sdpa")
    torch.testing.assert_close(together, each, atol=1e-4, rtol=1e-4)


# --- dialogues -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_answers_are_true(seed: int) -> None:
    draw = random.Random(seed)
    scene = pictures.shapes(draw, 160, 128, 4)
    for turn in dialogues.about(draw, scene, lessons.SHAPE_SKILLS, 6):
        if turn.skill == "counting":
            joint = ", " if ", " in turn.thoughts or turn.thoughts.isascii() else "、"
            assert int(turn.answer) == len([name for name in turn.thoughts.split(joint) if name])
    for turn in dialogues.without_picture(draw, 6, 18):
        if turn.skill == "sums":
            steps = turn.thoughts.splitlines()
            assert steps[-1].endswith(f"= {turn.answer}")
            for before, after in pairwise(steps):
                assert after.startswith(before.split(" = ")[1] + " + ")
            for step in steps:
                left, right = step.split(" = ")
                assert sum(map(int, left.split(" + "))) == int(right)


NEAR, FAR = pictures.Thing("circle", "red", (5, 5, 25, 25)), pictures.Thing("square", "blue", (70, 70, 95, 95))
CORNERS = pictures.Scene(np.zeros((100, 100, 3), np.uint8), (NEAR, FAR))
"""A red circle in the upper left and a blue square in the lower right."""


def is_near(words: str) -> bool:
    return "circle" in words or "red" in words


def asked(maker: dialogues.Maker, seed: int) -> dialogues.Turn:
    """A question of this kind; a maker has none now and then."""
    draw = random.Random(seed)
    return next(turn for _ in range(99) if (turn := maker(draw, CORNERS, "en")))


@pytest.mark.parametrize("seed", range(40))
def test_answers_about_one_place_are_true(seed: int) -> None:
    turn = asked(dialogues._half, seed)
    question = turn.question.lower()
    if turn.answer in ("Yes.", "No."):
        assert (turn.answer == "Yes.") == (is_near(question) == ("left" in question or "top" in question))
    else:
        assert turn.answer in (("Left.", "Top.") if is_near(question) else ("Right.", "Bottom."))


@pytest.mark.parametrize("seed", range(40))
def test_answers_about_two_places_are_true(seed: int) -> None:
    turn = asked(dialogues._which, seed)
    first = any(word in turn.question.lower() for word in ("left", "higher", "up"))
    assert is_near(turn.answer) == first
    beside = asked(dialogues._beside, seed)
    question = beside.question.lower()
    near_first = is_near(question.split(" the ")[1])
    before = any(word in question for word in ("left", "above", "higher"))
    assert (beside.answer == "Yes.") == (near_first == before)


def test_boxes_are_told_in_steps_of_ten_and_lie_on_their_things() -> None:
    scene = scenes(5)[4]
    found = json.loads(dialogues.boxes(scene.things, scene, "en"))
    for thing, said in zip(sorted(scene.things, key=lambda thing: thing.centre[0]), found, strict=True):
        for edge, told, side in zip(thing.box, said["bbox_2d"], (160, 128) * 2, strict=True):
            assert told % 10 == 0
            assert told / 1000 == pytest.approx(min(1, max(0, edge / side)), abs=0.0051)


def test_what_a_lesson_does_not_teach_is_refused() -> None:
    draw = random.Random(5)
    sign = pictures.sign(draw, 128, 96)
    for turn in dialogues.about(draw, sign, lessons.SHAPE_SKILLS, 8):
        assert turn.answer in dialogues.I_ONLY_KNOW.values()
    read = dialogues.about(draw, sign, ("reading",), 8)
    assert any(sign.word in turn.answer for turn in read)


def rows(words) -> Iterator[tuple[str, Row]]:
    """A row with one branch beside what the chat template makes of the same conversation."""
    scribe, draw = Scribe(words), random.Random(1)
    turn, earlier = (dialogues.Turn("counting", q, a, "") for q, a in (("How many?", "3"), ("What?", "A red star.")))
    picture = {"type": "image"}

    def asked(text: str, *parts: dict[str, str]) -> dict[str, object]:
        return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}

    def template(*messages: dict[str, object], numbered: bool = False) -> str:
        return words.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=False, add_vision_id=numbered
        )

    said = {"role": "assistant", "content": earlier.answer}
    yield template(asked(turn.question, picture)), scribe.row(draw, [turn], (0, 3, 4), 0)
    yield template(asked(turn.question)), scribe.row(draw, [turn], None, 0)
    talk = [asked(earlier.question, picture), said, asked(turn.question)]
    yield template(*talk), scribe.row(draw, [earlier, turn], (0, 3, 4), 1)
    two = [asked(earlier.question, picture), said, asked(turn.question, picture)]
    before = Before((0, 3, 4), earlier)
    yield template(*two, numbered=True), scribe.row(draw, [turn], (1, 3, 4), 0, before)
    both = asked(turn.question, picture, picture)
    yield template(both, numbered=True), scribe.row(draw, [turn], (1, 3, 4), 0, Before((0, 3, 4), None))


def test_a_row_is_what_the_chat_template_makes(words) -> None:
    pad = "<|image_pad|>"
    for text, row in rows(words):
        expected = words(text.replace(pad, pad * 12) + "3<|im_end|>", add_special_tokens=False).input_ids
        assert row.ids == expected
        assert words.decode([i for i, weight in zip(row.ids, row.weight, strict=True) if weight]) == "3<|im_end|>"


def test_positions_are_those_of_the_model(words, model) -> None:
    for _, row in rows(words):
        ids = torch.tensor([row.ids])
        types = (ids == model.config.image_token_id).int()
        grids = torch.tensor([[1, 6, 8]] * len(row.pictures)) if row.pictures else None
        places, _ = model.model.get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=grids)
        assert torch.tensor(row.places).T.tolist() == places[:, 0].tolist()


def test_branches_and_rows_know_nothing_of_each_other(words, model) -> None:
    """Packed on one line with others, a question is answered as if it stood alone."""
    scribe = Scribe(words)
    turns = [dialogues.Turn("sums", f"1 + {n} = ?", str(n + 1), f"1 + {n} = {n + 1}") for n in range(2, 6)]
    alone = [scribe.row(random.Random(9), [turn], None, 0) for turn in turns]
    line = [scribe.row(random.Random(9), turns[:2], None, 0), scribe.row(random.Random(9), turns[2:], None, 0)]
    assert len(_packed(line)) == 1
    language = model.model.language_model
    language.set_attn_implementation("masked")

    def states(row: list[Row]) -> list[torch.Tensor]:
        talk = scribe.talk(row)
        with torch.inference_mode():
            out = language(
                input_ids=talk.ids, attention_mask=talk.visible, position_ids=talk.places, use_cache=False
            ).last_hidden_state
        return [out[talk.question == number] for number in range(len(talk.names))]

    packed = states(line)
    longest_first = sorted(line, key=lambda row: -len(row.ids))
    order = [turn for row in longest_first for turn in (turns[:2] if row is line[0] else turns[2:])]
    for turn, state in zip(order, packed, strict=True):
        (single,) = states([alone[turns.index(turn)]])
        torch.testing.assert_close(state, single, atol=1e-4, rtol=1e-3)
    language.set_attn_implementation("sdpa")


# --- the shipped model -------------------------------------------------------------------------------------------


def test_the_shipped_model_is_small_and_complete() -> None:
    assert sum(file.stat().st_size for file in MODEL.glob("*.safetensors")) <= SMALLEST
    card = Catalog.read().get("tiny-demo")
    for artefact in card.artefacts:
        size = (MODEL / artefact.file).stat().st_size
        assert artefact.bytes == pytest.approx(size, rel=0.1)
    for said in ("tiny demo model, trained by this project from scratch on drawn pictures", "nothing else"):
        assert said in speaker("en")("demo_notice").lower()


def test_the_shipped_tokenizer_is_of_qwens_format() -> None:
    from transformers import AutoTokenizer

    shipped = AutoTokenizer.from_pretrained(MODEL)
    for text in ("How many squares are there?", "图中有什么？", "a\u0301é 🙂\n\n 12 + 345", "<think>\nhm\n</think>"):
        assert shipped.decode(shipped(text).input_ids) == text.replace("a\u0301", "á")
    assert len(shipped("2026", add_special_tokens=False).input_ids) == 4, "every digit is a token of its own"
    for special in anatomy.SPECIAL:
        assert len(shipped(special, add_special_tokens=False).input_ids) == 1


@pytest.fixture(scope="module")
def engine():
    """The playground's own way to the shipped model, on llama.cpp."""
    made = make_engines(read_settings(["--engine", "llama_cpp", "--offline", "--port", "0"]), Machine.detect())
    yield made["llama_cpp"]
    for one in made.values():
        one.models.close()


def answer(engine, text: str, picture: bytes = b"", thinking: bool = False) -> str:
    """The model's answer to a question about a picture file, or about none."""
    card = engine.models.choose("image")
    parts: list[Image | Text] = [Text(text)]
    if picture:
        parts.insert(0, fitted(decode(picture), card.eyes, card.eyes.default))
    sampling = card.official("image", thinking, images=True).values
    request = GenerationRequest(card, (Message("user", tuple(parts)),), sampling, Thinking(thinking))
    events = list(engine.run(request, Controls()))
    assert isinstance(events[-1], Done), events[-1]
    return "".join(event.text for event in events if isinstance(event, Answer)).strip()


@pytest.mark.parametrize("tongue", ["en", "zh"])
def test_what_it_does_not_know_it_says(engine, tongue: dialogues.Tongue) -> None:
    for question in {"en": ("Who painted the Mona Lisa?", "Hello"), "zh": ("怎么做红烧肉？", "你好")}[tongue]:
        assert answer(engine, question) == dialogues.I_ONLY_KNOW[tongue]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What is in the picture?", "A red circle."),
        ("What colour is the circle?", "Red."),
        ("What shape is the red object?", "A circle."),
        ("图中有什么？", "一个红色圆形。"),
    ],
)
def test_one_thing_is_seen(engine, question: str, said: str) -> None:
    picture, file = PIL.Image.new("RGB", (300, 240), "white"), io.BytesIO()
    PIL.ImageDraw.Draw(picture).ellipse((90, 60, 200, 170), fill="#d62828")
    picture.save(file, "PNG")
    assert answer(engine, question, file.getvalue()) == said


def drawn(*things: tuple[str, str, tuple[int, int, int, int]]) -> bytes:
    """A picture of 320 x 320 pixels with circles and squares on white."""
    picture, file = PIL.Image.new("RGB", (320, 320), "white"), io.BytesIO()
    pen = PIL.ImageDraw.Draw(picture)
    for shape, colour, box in things:
        (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=colour)
    picture.save(file, "PNG")
    return file.getvalue()


RED, BLUE = "#d62828", "#1d4ed8"
TWO = drawn(("circle", RED, (30, 40, 110, 120)), ("square", BLUE, (190, 200, 280, 290)))


def test_a_thing_is_found(engine) -> None:
    (mark,) = boxes.read(answer(engine, "Where is the blue square?", TWO)).marks
    assert mark.label == "blue square"
    card = engine.models.choose("image")
    (found,) = boxes.in_pixels((mark,), card.eyes, (320, 320), (320, 320))
    assert (found.x0, found.y0, found.x1, found.y1) == pytest.approx((190, 200, 280, 290), abs=16)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("How many objects are there?", "2"),
        ("How many circles are there?", "1"),
        ("Is the red circle left of the blue square?", "Yes."),
        ("Is the red circle below the blue square?", "No."),
        ("What is in the top left corner?", "A red circle."),
        ("有几个物体？", "2"),
    ],
)
def test_two_things_are_told_apart(engine, question: str, said: str) -> None:
    assert answer(engine, question, TWO) == said


def test_thinking_adds_one_number_after_the_other(engine) -> None:
    assert answer(engine, "What is 3 + 5 + 2 + 7 + 4 + 6?", thinking=True) == "27"
    assert answer(engine, "What is 8 + 9 + 7 + 9 + 6 + 8 + 9 + 7 + 8 + 9 + 5 + 7?", thinking=True) == "92"


def test_a_sign_is_not_guessed(engine) -> None:
    sign = PIL.Image.fromarray(pictures.sign(random.Random(4), 192, 128).pixels)
    file = io.BytesIO()
    sign.save(file, "PNG")
    assert answer(engine, "What does the sign say?", file.getvalue()) == dialogues.I_ONLY_KNOW["en"]
