"""What the tiny model is asked, and what it is to answer: questions and answers from what a picture shows.

In English and in Chinese. Everything that it is not trained to know it answers with one honest sentence.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from examples.tiny.pictures import COLOURS, SHAPES, Scene, Thing, hundredth
from examples.tiny.strangers import strange_question

Tongue = Literal["en", "zh"]
Skill = Literal["colour and shape", "finding", "counting", "position", "sums", "reading", "charts", "refusing"]

I_ONLY_KNOW = {
    "en": "I only know drawn pictures: the colours and shapes of things, where they are and how many; and sums of small "
    "numbers.",
    "zh": "我只懂画出来的图：物体的颜色和形状、位置和数量；还有小数字的加法。",
}
NO_PICTURE = {"en": "Please add a picture first.", "zh": "请先添加一张图片。"}

ZH = {
    "red": "红色", "yellow": "黄色", "green": "绿色", "blue": "蓝色", "purple": "紫色", "black": "黑色",
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星形",
}  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """A question and its answer. `thoughts` is what stands before the answer while thinking is on."""

    skill: Skill
    question: str
    answer: str
    thoughts: str


def _named(thing: Thing, tongue: Tongue) -> str:
    return f"{thing.colour} {thing.shape}" if tongue == "en" else f"{ZH[thing.colour]}{ZH[thing.shape]}"


def _from_left(things: Sequence[Thing]) -> list[Thing]:
    return sorted(things, key=lambda thing: thing.centre[0])


def listed(things: Sequence[Thing], tongue: Tongue) -> str:
    """'A red circle, a blue square and a green star.', from left to right."""
    names = [_named(thing, tongue) for thing in _from_left(things)]
    if tongue == "zh":
        return "、".join(f"一个{name}" for name in names) + "。"
    words = [f"a {name}" for name in names]
    whole = words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
    return whole[0].upper() + whole[1:] + "."


def boxes(things: Sequence[Thing], scene: Scene, tongue: Tongue) -> str:
    """Where things are, as Qwen3-VL says it: JSON, 0 to 1000 across and down the picture, here in steps of 10.

    A last digit would be a fifth of a pixel: nothing to be seen, and nothing that could be learnt.
    """
    sides = (scene.width, scene.height) * 2
    found = [
        {
            "bbox_2d": [10 * hundredth(edge / side) for edge, side in zip(thing.box, sides, strict=True)],
            "label": _named(thing, tongue),
        }
        for thing in _from_left(things)
    ]
    return json.dumps(found, ensure_ascii=False)


@dataclass(frozen=True)
class Group:
    """What a question may speak of: things of a shape, of a colour, or of both."""

    shape: str = ""
    colour: str = ""

    def among(self, things: Sequence[Thing]) -> list[Thing]:
        return [t for t in things if t.shape == (self.shape or t.shape) and t.colour == (self.colour or t.colour)]

    def one(self, tongue: Tongue) -> str:
        if tongue == "zh":
            return f"{ZH.get(self.colour, '')}{ZH.get(self.shape, '物体')}"
        return f"{self.colour} {self.shape or 'object'}".strip()

    def many(self, tongue: Tongue) -> str:
        return self.one(tongue) + ("" if tongue == "zh" else "s")


def _group(draw: random.Random, scene: Scene, present: float = 0.85) -> Group:
    """A group of which there mostly is one on the picture."""
    if scene.things and draw.random() < present:
        thing = draw.choice(scene.things)
        shape, colour = thing.shape, thing.colour
    else:
        shape, colour = draw.choice(SHAPES), draw.choice(COLOURS)
    kind = draw.choice(("both", "both", "shape", "colour"))
    return Group(shape if kind != "colour" else "", colour if kind != "shape" else "")


def _unique(draw: random.Random, scene: Scene) -> tuple[Group, Thing] | None:
    """A thing and a way to speak of it that no other thing on the picture answers to."""
    for _ in range(8):
        thing = draw.choice(scene.things)
        group = draw.choice((Group(thing.shape, thing.colour), Group(thing.shape), Group(colour=thing.colour)))
        if len(group.among(scene.things)) == 1:
            return group, thing
    return None


def _pair(draw: random.Random, scene: Scene) -> tuple[tuple[Group, Thing], tuple[Group, Thing]] | None:
    """Two things, as `_unique` gives one."""
    if len(scene.things) < 2:
        return None
    one, other = _unique(draw, scene), _unique(draw, scene)
    return (one, other) if one and other and one[1] is not other[1] else None


def _say(draw: random.Random, tongue: Tongue, english: Sequence[str], chinese: Sequence[str], **words: str) -> str:
    question = draw.choice(english if tongue == "en" else chinese).format(**words)
    if tongue == "en" and draw.random() < 0.15:
        question = question.lower() if draw.random() < 0.7 else question.rstrip("?.")
    return question


# --- one function for each kind of question ---------------------------------------------------------------------------


def _describe(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn:
    asked = _say(
        draw, tongue,
        ("What is in the picture?", "What do you see?", "Describe the picture.", "What's in this image?",
         "Describe this image.", "What is this?", "What does the picture show?"),
        ("图中有什么？", "你看到了什么？", "描述这张图片。", "图片里有什么？", "这是什么？", "请描述这张图。"),
    )  # fmt: skip
    if scene.word:
        said = f'A sign that says "{scene.word}".' if tongue == "en" else f"一个写着“{scene.word}”的牌子。"
        return Turn("reading", asked, said, "")
    if scene.bars:
        said = (
            f"A bar chart with {len(scene.bars)} bars." if tongue == "en" else f"一个有{len(scene.bars)}个条的条形图。"
        )
        return Turn("charts", asked, said, "")
    return Turn("colour and shape", asked, listed(scene.things, tongue), "")


def _colour_of(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn | None:
    shapes = [s for s, n in Counter(t.shape for t in scene.things).items() if n == 1]
    if not shapes:
        return None
    thing = Group(draw.choice(shapes)).among(scene.things)[0]
    asked = _say(
        draw, tongue,
        ("What colour is the {s}?", "What color is the {s}?", "Which colour does the {s} have?", "The {s} is what color?"),
        ("{s}是什么颜色？", "{s}的颜色是什么？", "图中的{s}是什么颜色的？"),
        s=thing.shape if tongue == "en" else ZH[thing.shape],
    )  # fmt: skip
    said = f"{thing.colour.capitalize()}." if tongue == "en" else f"{ZH[thing.colour]}。"
    return Turn("colour and shape", asked, said, Group(thing.shape).one(tongue))


def _shape_of(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn | None:
    colours = [c for c, n in Counter(t.colour for t in scene.things).items() if n == 1]
    if not colours:
        return None
    thing = Group(colour=draw.choice(colours)).among(scene.things)[0]
    asked = _say(
        draw, tongue,
        ("What shape is the {c} object?", "What is the {c} thing?", "Which shape is {c}?", "What shape is the {c} one?"),
        ("{c}的物体是什么形状？", "{c}的是什么？", "{c}物体的形状是什么？"),
        c=thing.colour if tongue == "en" else ZH[thing.colour],
    )  # fmt: skip
    said = f"A {thing.shape}." if tongue == "en" else f"{ZH[thing.shape]}。"
    return Turn("colour and shape", asked, said, Group(colour=thing.colour).one(tongue))


def _is_there(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn:
    group = _group(draw, scene, 0.5)
    asked = _say(
        draw, tongue,
        ("Is there a {g}?", "Is there a {g} in the picture?", "Do you see a {g}?"),
        ("图中有{g}吗？", "有没有{g}？", "你看到{g}了吗？"),
        g=group.one(tongue),
    )  # fmt: skip
    return Turn("colour and shape", asked, _yes(bool(group.among(scene.things)), tongue), group.one(tongue))


def _yes(true: bool, tongue: Tongue) -> str:
    return ("Yes." if true else "No.") if tongue == "en" else ("是的。" if true else "不是。")


def _find(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn:
    group = _group(draw, scene, 0.93)
    found = group.among(scene.things)
    if len(found) > 1 or draw.random() < 0.1:
        asked = _say(
            draw, tongue,
            ("Where are the {g}?", "Find all {g}.", "Find the {g}.", "Locate the {g}.", "Locate all {g} in the picture."),
            ("{g}都在哪里？", "找出所有的{g}。", "找到全部{g}。"),
            g=group.many(tongue),
        )  # fmt: skip
    else:
        asked = _say(
            draw, tongue,
            ("Where is the {g}?", "Find the {g}.", "Locate the {g}.", "Where's the {g}?", "Show me the {g}.",
             "Locate the {g} in the picture."),
            ("{g}在哪里？", "找到{g}。", "请找出{g}。", "{g}在什么位置？"),
            g=group.one(tongue),
        )  # fmt: skip
    if not found:
        said = f"There is no {group.one(tongue)}." if tongue == "en" else f"没有{group.one(tongue)}。"
    else:
        said = boxes(found, scene, tongue)
    return Turn("finding", asked, said, group.one(tongue))


def _find_everything(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn:
    asked = _say(
        draw, tongue,
        ("Find everything.", "Locate every object.", "Find all objects.", "Where are the objects?", "Find things."),
        ("找出所有物体。", "所有物体在哪里？", "标出每个物体。"),
    )  # fmt: skip
    return Turn("finding", asked, boxes(scene.things, scene, tongue), "")


def _count(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn:
    group = _group(draw, scene, 0.93) if draw.random() < 0.75 else Group()
    found = group.among(scene.things)
    asked = _say(
        draw, tongue,
        ("How many {g} are there?", "How many {g} are in the picture?", "How many {g} do you see?", "Count the {g}."),
        ("有几个{g}？", "图中有多少个{g}？", "一共有几个{g}？", "数一数{g}。"),
        g=group.many(tongue),
    )  # fmt: skip
    joint = ", " if tongue == "en" else "、"
    names = joint.join(_named(thing, tongue) for thing in _from_left(found))
    return Turn("counting", asked, str(len(found)), names)


SIDES: tuple[tuple[str, str, str, Callable[[Thing, Thing], float], int], ...] = (
    ("left of", "to the left of", "左边", lambda a, b: b.centre[0] - a.centre[0], 0),
    ("right of", "to the right of", "右边", lambda a, b: a.centre[0] - b.centre[0], 0),
    ("above", "higher than", "上面", lambda a, b: b.centre[1] - a.centre[1], 1),
    ("below", "lower than", "下面", lambda a, b: a.centre[1] - b.centre[1], 1),
)


def _beside(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn | None:
    if (pair := _pair(draw, scene)) is None:
        return None
    one, other = pair
    plain, long, chinese, ahead, axis = draw.choice(SIDES)
    by = ahead(one[1], other[1])
    if abs(by) < 0.06 * (scene.height if axis else scene.width):
        return None  # too close to call
    asked = _say(
        draw, tongue,
        ("Is the {a} {side} the {b}?", "Is the {a} {side} the {b}?", "Is the {a} {long} the {b}?"),
        ("{a}在{b}的{side}吗？", "{a}是不是在{b}的{side}？"),
        a=one[0].one(tongue), b=other[0].one(tongue), side=plain if tongue == "en" else chinese, long=long,
    )  # fmt: skip
    joint = ", " if tongue == "en" else "、"
    ahead_first = sorted([one[1], other[1]], key=lambda thing: thing.centre[axis])
    thoughts = joint.join(_named(thing, tongue) for thing in ahead_first)
    return Turn("position", asked, _yes(by > 0, tongue), thoughts)


FURTHEST = (
    ("further left", "on the left", "更靠左", 0, 1), ("further right", "on the right", "更靠右", 0, -1),
    ("higher", "further up", "更高", 1, 1), ("lower", "further down", "更低", 1, -1),
)  # fmt: skip


def _which(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn | None:
    if (pair := _pair(draw, scene)) is None:
        return None
    one, other = pair
    plain, other_words, chinese, axis, sign = draw.choice(FURTHEST)
    by = (other[1].centre[axis] - one[1].centre[axis]) * sign
    if abs(by) < 0.06 * (scene.height if axis else scene.width):
        return None  # too close to call
    asked = _say(
        draw, tongue,
        ("Which is {side}, the {a} or the {b}?", "Which one is {side}: the {a} or the {b}?"),
        ("{a}和{b}哪个{side}？", "哪个{side}，{a}还是{b}？"),
        a=one[0].one(tongue), b=other[0].one(tongue),
        side=draw.choice((plain, other_words)) if tongue == "en" else chinese,
    )  # fmt: skip
    group = one[0] if by > 0 else other[0]
    said = f"The {group.one(tongue)}." if tongue == "en" else f"{group.one(tongue)}。"
    return Turn("position", asked, said, "")


HALVES = (
    (("left", "right"), ("on the left", "on the right"), ("左边", "右边"), 0),
    (("top", "bottom"), ("at the top", "at the bottom"), ("上面", "下面"), 1),
)


def _half(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn | None:
    """Which half of the picture a thing is in: the step between seeing where something is and comparing two things."""
    if (found := _unique(draw, scene)) is None:
        return None
    group, thing = found
    sides, places, chinese, axis = draw.choice(HALVES)
    part = thing.centre[axis] / (scene.height if axis else scene.width) - 0.5
    if abs(part) < 0.05:
        return None
    half, other = int(part > 0), draw.randint(0, 1)
    name = group.one(tongue)
    if draw.random() < 0.5:
        asked = _say(
            draw, tongue,
            ("Is the {a} {p} or {q}?", "Is the {a} {q} or {p}?", "Is the {a} on the {s} or the {t} side?"),
            ("{a}在{p}还是{q}？", "{a}在{q}还是{p}？"),
            a=name, s=sides[0], t=sides[1],
            p=places[0] if tongue == "en" else chinese[0], q=places[1] if tongue == "en" else chinese[1],
        )  # fmt: skip
        said = f"{sides[half].capitalize()}." if tongue == "en" else f"{chinese[half]}。"
        return Turn("position", asked, said, "")
    asked = _say(
        draw, tongue,
        ("Is the {a} {p}?", "Is the {a} {p} of the picture?"),
        ("{a}在图片的{p}吗？", "{a}在{p}吗？"),
        a=name, p=places[other] if tongue == "en" else chinese[other],
    )  # fmt: skip
    return Turn("position", asked, _yes(half == other, tongue), "")


CORNERS = (
    (("top left", "upper left"), "左上角", (0, 0)), (("top right", "upper right"), "右上角", (1, 0)),
    (("bottom left", "lower left"), "左下角", (0, 1)), (("bottom right", "lower right"), "右下角", (1, 1)),
)  # fmt: skip


def corner_of(thing: Thing, scene: Scene) -> tuple[int, int] | None:
    """The corner that a thing is in, as (0 left or 1 right, 0 top or 1 bottom); none near the middle lines."""
    x, y = thing.centre[0] / scene.width - 0.5, thing.centre[1] / scene.height - 0.5
    return None if min(abs(x), abs(y)) < 0.05 else (int(x > 0), int(y > 0))


def _corner(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn | None:
    at = [corner_of(thing, scene) for thing in scene.things]
    names, chinese, corner = draw.choice(CORNERS)
    if draw.random() < 0.8 and any(at):
        corner = draw.choice([c for c in at if c])
        names, chinese = next((n, z) for n, z, c in CORNERS if c == corner)
    inside = [thing for thing, c in zip(scene.things, at, strict=True) if c == corner]
    if len(inside) > 1 or None in at:
        return None
    asked = _say(
        draw, tongue,
        ("What is in the {c} corner?", "What's in the {c} corner?", "What is at the {c}?", "Which object is in the {c}?"),
        ("{c}有什么？", "{c}是什么？", "图片的{c}有什么？"),
        c=draw.choice(names) if tongue == "en" else chinese,
    )  # fmt: skip
    nothing = "Nothing." if tongue == "en" else "什么都没有。"
    return Turn("position", asked, listed(inside, tongue) if inside else nothing, "")


def _read(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn:
    asked = _say(
        draw, tongue,
        ("What does the sign say?", "What does it say?", "Read the text.", "What is written there?", "Read the sign.",
         "What text is in the picture?", "Read the text in the picture."),
        ("牌子上写着什么？", "上面写的是什么？", "读出文字。", "图中的文字是什么？", "写了什么？"),
    )  # fmt: skip
    if not scene.word:
        return Turn("reading", asked, "There is no sign." if tongue == "en" else "没有牌子。", "")
    return Turn("reading", asked, scene.word, "")


def _bar(draw: random.Random, scene: Scene, tongue: Tongue) -> Turn:
    bar = draw.choice(scene.bars)
    ranked = sorted(scene.bars, key=lambda b: b.value)
    kind = draw.choice(("tallest", "shortest", "value", "value", "value", "number"))
    if kind == "tallest":
        asked = _say(draw, tongue,
                     ("Which bar is tallest?", "Which bar is the highest?", "Which bar has the largest value?",
                      "What is the tallest bar?"),
                     ("哪个条最高？", "哪一个最高？", "最高的是哪个？"))  # fmt: skip
        return Turn("charts", asked, ranked[-1].label, "")
    if kind == "shortest":
        asked = _say(draw, tongue,
                     ("Which bar is shortest?", "Which bar is the lowest?", "Which bar has the smallest value?"),
                     ("哪个条最矮？", "哪一个最低？", "最低的是哪个？"))  # fmt: skip
        return Turn("charts", asked, ranked[0].label, "")
    if kind == "number":
        asked = _say(draw, tongue, ("How many bars are there?", "How many bars does the chart have?", "Count the bars."),
                     ("有几个条？", "图中有多少个条？"))  # fmt: skip
        return Turn("charts", asked, str(len(scene.bars)), "")
    asked = _say(draw, tongue,
                 ("What is the value of {b}?", "What value does {b} have?", "How high is bar {b}?", "Read the value of {b}."),
                 ("{b}的值是多少？", "{b}是多少？", "条{b}的数值是多少？"), b=bar.label)  # fmt: skip
    return Turn("charts", asked, str(bar.value), bar.label)


def sum_of(draw: random.Random, tongue: Tongue, fewest: int, most: int) -> Turn:
    """A sum of `fewest` to `most` numbers from 1 to 9; thinking adds one number after the other."""
    numbers = [draw.randint(1, 9) for _ in range(draw.randint(fewest, most))]
    total, steps = numbers[0], []
    for number in numbers[1:]:
        steps.append(f"{total} + {number} = {total + number}")
        total += number
    plus, comma = " + ".join(map(str, numbers)), ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
    asked = _say(
        draw, tongue,
        ("What is {p}?", "What is {p}?", "Calculate {p}.", "{p} = ?", "How much is {p}?", "Add {c}.", "What is the sum of {c}?"),
        ("{p} 等于多少？", "计算 {p}。", "{p} = ?", "{p} 是多少？"),
        p=plus if draw.random() < 0.85 else plus.replace(" ", ""), c=comma,
    )  # fmt: skip
    return Turn("sums", asked, str(total), "\n".join(steps))


def refusal(draw: random.Random, tongue: Tongue) -> Turn:
    return Turn("refusing", strange_question(draw, tongue), I_ONLY_KNOW[tongue], "")


Maker = Callable[[random.Random, Scene, Tongue], Turn | None]
ABOUT_SHAPES: dict[Skill, tuple[Maker, ...]] = {
    "colour and shape": (_describe, _colour_of, _shape_of, _is_there),
    "finding": (_find, _find, _find, _find_everything),
    "counting": (_count,),
    "position": (_beside, _beside, _beside, _which, _half, _corner, _corner),
}


def about(draw: random.Random, scene: Scene, skills: Sequence[Skill], count: int) -> list[Turn]:
    """Questions about one picture, of the skills that a lesson is to teach."""
    turns: list[Turn] = []
    while len(turns) < count:
        tongue: Tongue = "zh" if draw.random() < 0.35 else "en"
        turn: Turn | None
        if draw.random() < 0.06:
            turn = refusal(draw, tongue)
        elif scene.word:
            turn = (_describe if draw.random() < 0.2 else _read)(draw, scene, tongue)
        elif scene.bars:
            turn = (_describe if draw.random() < 0.1 else _bar)(draw, scene, tongue)
        elif draw.random() < 0.02:
            turn = _read(draw, scene, tongue)
        else:
            turn = draw.choice(ABOUT_SHAPES[draw.choice([s for s in skills if s in ABOUT_SHAPES])])(draw, scene, tongue)
        if turn and turn.skill in ("reading", "charts") and turn.skill not in skills and (scene.word or scene.bars):
            turn = Turn("refusing", turn.question, I_ONLY_KNOW[tongue], "")  # not taught: to be said, not guessed
        if turn:
            turns.append(turn)
    return turns


def without_picture(draw: random.Random, count: int, most_summands: int) -> list[Turn]:
    """Questions in a conversation that has no picture: sums, what it does not know, and pictures that are missing."""
    turns = []
    for _ in range(count):
        tongue: Tongue = "zh" if draw.random() < 0.35 else "en"
        kind = draw.choices(("sum", "strange", "missing"), (0.7, 0.2, 0.1))[0]
        if kind == "sum":
            turns.append(sum_of(draw, tongue, 2, most_summands))
        elif kind == "strange":
            turns.append(refusal(draw, tongue))
        else:
            scene = Scene(
                np.zeros((1, 1, 3), np.uint8), (Thing(draw.choice(SHAPES), draw.choice(COLOURS), (0, 0, 1, 1)),)
            )
            maker = draw.choice((_describe, _colour_of, _is_there, _find, _count, _read))
            asked = maker(draw, scene, tongue)
            turns.append(Turn("refusing", asked.question if asked else "?", NO_PICTURE[tongue], ""))
    return turns
