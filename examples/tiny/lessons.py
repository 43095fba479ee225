"""The curriculum as data: which pictures and questions each lesson mixes, for how many steps, how fast it learns.

The pictures and questions of step n come from the seed, the lesson's name and n alone. A training that was
interrupted goes on with the very batch that would have come next.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from examples.tiny import dialogues, pictures
from examples.tiny.anatomy import TOKEN
from examples.tiny.talking import Before, Row, Scribe

GRIDS = (
    (4, 4),
    (4, 4),
    (4, 4),
    (4, 5),
    (4, 5),
    (5, 4),
    (3, 4),
    (4, 3),
    (3, 5),
    (5, 3),
    (3, 6),
    (6, 3),
    (4, 6),
    (2, 6),
    (3, 7),
)
"""Heights and widths of pictures in visual tokens; one for all pictures of a step."""


SHAPE_SKILLS: tuple[dialogues.Skill, ...] = ("colour and shape", "finding", "counting", "position")
HARD_ONES: tuple[dialogues.Skill, ...] = ("finding", "counting", "position", "position", *SHAPE_SKILLS)


@dataclass(frozen=True)
class Lesson:
    """A stretch of training. `rate` is the learning rate after warming up; see `train.rate_at` for how it falls.

    `shapes`, `signs` and `charts` are the shares of the pictures; `most` is how many shapes one may have, `summands`
    how many numbers a sum. A lesson with `skills` asks about them; one without only trains the eyes. `eyes_rate` is
    the eyes' share of the learning rate; with 0 they stay as they are. The one that `begins_to_talk` introduces eyes
    and words first.
    """

    name: str
    steps: int
    rate: float
    shapes: float
    signs: float
    charts: float
    most: int = 5
    skills: tuple[dialogues.Skill, ...] = ()
    summands: int = 18
    eyes_rate: float = 1.0
    begins_to_talk: bool = False


SHAPES_ALONE = {"shapes": 1.0, "signs": 0.0, "charts": 0.0}
SHAPES_MOSTLY = {"shapes": 0.94, "signs": 0.03, "charts": 0.03}
LESSONS = (
    Lesson("see", steps=1800, rate=1.5e-3, shapes=0.6, signs=0.28, charts=0.12),
    Lesson("look", steps=1200, rate=1.5e-3, **SHAPES_ALONE),
    Lesson("pair", 1500, 3e-3, most=2, **SHAPES_ALONE, skills=SHAPE_SKILLS, eyes_rate=0.0, begins_to_talk=True),
    Lesson("place", 1000, 3e-3, most=2, **SHAPES_ALONE, skills=(*["position"] * 5, *SHAPE_SKILLS), eyes_rate=0.0),
    Lesson("order", 1300, 1.5e-3, most=3, **SHAPES_ALONE, skills=(*["position"] * 4, *SHAPE_SKILLS), eyes_rate=0.0),
    Lesson("talk", 2900, 1.5e-3, **SHAPES_MOSTLY, skills=HARD_ONES, eyes_rate=0.0),
    Lesson("sharpen", 1200, 1.2e-3, **SHAPES_MOSTLY, skills=("finding", *HARD_ONES), eyes_rate=0.3, summands=24),
    Lesson("tally", 700, 6e-4, **SHAPES_MOSTLY, skills=("counting", *HARD_ONES), eyes_rate=0.3, summands=24),
)
PICTURES = 32
"""How many there are in one step."""
QUESTIONS = 4
"""How many questions a picture is asked in one step."""
ROWS_WITHOUT_PICTURE = 8
SECOND_PICTURES = 0.12
"""How often another picture came before the one that is asked about."""


def scenes(lesson: Lesson, seed: int, step: int) -> list[pictures.Scene]:
    """The pictures of one step: all of one size."""
    draw = random.Random(f"{seed}/{lesson.name}/{step}")
    rows, columns = draw.choice(GRIDS)
    height, width = rows * TOKEN, columns * TOKEN
    drawn = []
    for _ in range(PICTURES):
        kind = draw.choices(("shapes", "sign", "chart"), (lesson.shapes, lesson.signs, lesson.charts))[0]
        if kind == "chart" and rows > 2:
            drawn.append(pictures.chart(draw, width, height))
        elif kind == "sign":
            drawn.append(pictures.sign(draw, width, height))
        else:
            drawn.append(pictures.shapes(draw, width, height, min(lesson.most, draw.choice((1, 1, 2, 3, 4, 5)))))
    return drawn


def rows(lesson: Lesson, seed: int, step: int, drawn: Sequence[pictures.Scene], scribe: Scribe) -> list[Row]:
    """The questions of one step: a row for each picture, and some rows without one."""
    draw = random.Random(f"{seed}/{lesson.name}/{step}/questions")
    written = []
    for number, scene in enumerate(drawn):
        earlier = draw.choice((0, 0, 0, 0, 1, 2))
        size = scene.height // TOKEN, scene.width // TOKEN
        before = None
        if number and draw.random() < SECOND_PICTURES:
            earlier = 0
            asked = dialogues.about(draw, drawn[number - 1], lesson.skills, 1)[0] if draw.random() < 0.7 else None
            before = Before((number - 1, *size), asked)
        turns = dialogues.about(draw, scene, lesson.skills, QUESTIONS + earlier)
        written.append(scribe.row(draw, turns, (number, *size), earlier, before))
    for _ in range(ROWS_WITHOUT_PICTURE):
        earlier = draw.choice((0, 0, 0, 0, 1, 2))
        written.append(
            scribe.row(draw, dialogues.without_picture(draw, QUESTIONS + earlier, lesson.summands), None, earlier)
        )
    return written


def corpus(seed: int, pictures_shown: int = 1500) -> Iterator[str]:
    """Dialogues to learn the vocabulary from. Words on signs stay out: they are to be spelled letter by letter."""
    draw = random.Random(f"{seed}/corpus")
    for _ in range(pictures_shown):
        scene = draw.choice((pictures.shapes, pictures.shapes, pictures.shapes, _chart))(
            draw, 96, 96, draw.randint(1, 5)
        )
        for turn in [
            *dialogues.about(draw, scene, SHAPE_SKILLS, 4),
            *dialogues.without_picture(draw, 2, Lesson.summands),
        ]:
            yield from (turn.question, turn.answer, turn.thoughts)


def _chart(draw: random.Random, width: int, height: int, _: int) -> pictures.Scene:
    return pictures.chart(draw, width, height)
