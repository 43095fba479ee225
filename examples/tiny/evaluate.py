"""Measures what the tiny model knows: `python -m examples.tiny.evaluate`.

Pictures come from `evaluation_pictures.py`, which shares no drawing code with the training; questions are in English
and in Chinese. Answers are the likeliest ones, read by the library's own processor and `generate`. Prints the table of
README.md; the questions that went wrong go into a file for looking at.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from backends.pictures import boxes
from examples.tiny.anatomy import MOST_VISUAL_TOKENS  # its import makes torchvision importable
from examples.tiny.dialogues import I_ONLY_KNOW, ZH, Tongue, sum_of
from examples.tiny.evaluation_pictures import Sample, Shape, chart, shapes, sign
from examples.tiny.strangers import strange_question

MODEL = Path(__file__).with_name("model")
BATCH = 16
FEWEST_SUMMANDS, MOST_SUMMANDS = 16, 24

HELD_OUT = (
    "Who won the world cup in 1998?", "Can you recommend a good restaurant?", "How do magnets work?",
    "Write a haiku about autumn leaves.", "What is the boiling point of mercury?", "Summarize the plot of Hamlet.",
    "Why do cats purr?", "Which planet has the most moons?", "Give me a recipe for pancakes.", "Is it going to rain?",
    "What does this medicine do?", "How tall is Mount Everest?", "What is 17 times 23?", "Debug my program, please.",
    "Who painted the Mona Lisa?", "What is the dog doing?", "Is the woman smiling?", "What car is this?",
    "法国大革命是哪一年？", "怎么做红烧肉？", "谁写了《红楼梦》？", "推荐一本好书。", "为什么天空是蓝色的？",
    "图中的狗在干什么？", "世界上最高的山是哪座？", "帮我写一封辞职信。",
)  # fmt: skip
"""Questions outside of what it knows, none of them made from the training's sentences."""


@dataclass(frozen=True)
class Question:
    """One question about one picture (or none); `score` says from 0 to 1 how right an answer is."""

    skill: str
    tongue: Tongue
    text: str
    score: Callable[[str], float]
    sample: Sample | None = None
    thinking: bool = False


def _named(shape: Shape, tongue: Tongue) -> str:
    return f"{shape.colour} {shape.shape}" if tongue == "en" else f"{ZH[shape.colour]}{ZH[shape.shape]}"


def _has(*words: str) -> Callable[[str], float]:
    return lambda answer: float(all(word in answer.lower() for word in words))


def _is(text: str) -> Callable[[str], float]:
    return lambda answer: float(answer.strip().rstrip("。.") == text)


def _begins(word: str) -> Callable[[str], float]:
    return lambda answer: float(answer.lower().startswith(word))


def _overlap(sample: Sample, shape: Shape) -> Callable[[str], float]:
    """Intersection over union of the one box found with the true one."""

    def score(answer: str) -> float:
        marks = boxes.read(answer).marks
        if len(marks) != 1:
            return 0.0
        width, height = sample.picture.size
        corners = (marks[0].x0, marks[0].y0, marks[0].x1, marks[0].y1)
        x0, y0, x1, y1 = (edge / 1000 * side for edge, side in zip(corners, (width, height) * 2, strict=True))
        a0, b0, a1, b1 = shape.box
        shared = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
        return shared / ((x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - shared)

    return score


def _alone(sample: Sample) -> list[Shape]:
    """Shapes that no other is the like of."""
    kinds = [(s.shape, s.colour) for s in sample.shapes]
    return [s for s in sample.shapes if kinds.count((s.shape, s.colour)) == 1]


def colour_and_shape(draw: random.Random, tongue: Tongue) -> Question:
    sample = shapes(draw, 1)
    shape = sample.shapes[0]
    colour, kind = (shape.colour, shape.shape) if tongue == "en" else (ZH[shape.colour], ZH[shape.shape])
    form = draw.choice(("what", "what", "colour", "shape"))
    if form == "what":
        text = draw.choice(
            ("What is in the picture?", "What do you see?") if tongue == "en" else ("图中有什么？", "你看到了什么？")
        )
        return Question("1 colour and shape", tongue, text, _has(colour, kind), sample)
    if form == "colour":
        text = f"What colour is the {kind}?" if tongue == "en" else f"{kind}是什么颜色？"
        return Question("1 colour and shape", tongue, text, _has(colour), sample)
    text = f"What shape is the {colour} object?" if tongue == "en" else f"{colour}的物体是什么形状？"
    return Question("1 colour and shape", tongue, text, _has(kind), sample)


def finding(draw: random.Random, tongue: Tongue) -> Question:
    while True:
        sample = shapes(draw, draw.randint(1, 5))
        if alone := _alone(sample):
            break
    shape = draw.choice(alone)
    name = _named(shape, tongue)
    text = f"Where is the {name}?" if tongue == "en" else f"{name}在哪里？"
    return Question("2 finding", tongue, text, _overlap(sample, shape), sample)


def counting(draw: random.Random, tongue: Tongue) -> Question:
    number = draw.randint(1, 5)
    sample = shapes(draw, number)
    if draw.random() < 0.4:
        text = draw.choice(("How many objects are there?",) if tongue == "en" else ("图中有多少个物体？",))
        return Question("3 counting", tongue, text, _is(str(number)), sample)
    kind = draw.choice(sample.shapes).shape
    among = sum(shape.shape == kind for shape in sample.shapes)
    text = f"How many {kind}s are there?" if tongue == "en" else f"有几个{ZH[kind]}？"
    return Question("3 counting", tongue, text, _is(str(among)), sample)


def position(draw: random.Random, tongue: Tongue) -> Question:
    while True:
        sample = shapes(draw, draw.randint(2, 5))
        width, height = sample.picture.size
        if draw.random() < 0.35:
            right, low = draw.random() < 0.5, draw.random() < 0.5
            at = [(s.centre[0] / width - 0.5, s.centre[1] / height - 0.5) for s in sample.shapes]
            inside = [s for s, (x, y) in zip(sample.shapes, at, strict=True) if (x > 0) == right and (y > 0) == low]
            if len(inside) != 1 or any(min(abs(x), abs(y)) < 0.06 for x, y in at):
                continue
            corner = f"{'bottom' if low else 'top'} {'right' if right else 'left'}"
            chinese = f"{'右' if right else '左'}{'下' if low else '上'}角"
            text = f"What is in the {corner} corner?" if tongue == "en" else f"{chinese}有什么？"
            return Question("4 position", tongue, text, _has(*_named(inside[0], tongue).split()), sample)
        alone = _alone(sample)
        if len(alone) < 2:
            continue
        one, other = draw.sample(alone, 2)
        across = draw.random() < 0.5
        axis, side = (0, width) if across else (1, height)
        if abs(one.centre[axis] - other.centre[axis]) < 0.08 * side:
            continue
        before = draw.random() < 0.5
        truth = (one.centre[axis] < other.centre[axis]) == before
        word = {(True, True): "left of", (True, False): "right of", (False, True): "above", (False, False): "below"}
        chinese = {(True, True): "左边", (True, False): "右边", (False, True): "上面", (False, False): "下面"}
        a, b = _named(one, tongue), _named(other, tongue)
        if tongue == "en":
            text, said = f"Is the {a} {word[across, before]} the {b}?", "yes" if truth else "no"
        else:
            text, said = f"{a}在{b}的{chinese[across, before]}吗？", "是" if truth else "不"
        return Question("4 position", tongue, text, _begins(said), sample)


def sums(thinking: bool) -> Callable[[random.Random, Tongue], Question]:
    def ask(draw: random.Random, tongue: Tongue) -> Question:
        turn = sum_of(draw, tongue, FEWEST_SUMMANDS, MOST_SUMMANDS)
        name = f"5 sums, thinking {'on' if thinking else 'off'}"
        return Question(name, tongue, turn.question, _is(turn.answer), thinking=thinking)

    return ask


def reading(draw: random.Random, tongue: Tongue) -> Question:
    sample = sign(draw)
    text = "What does the sign say?" if tongue == "en" else "牌子上写着什么？"
    return Question("6 reading", tongue, text, _is(sample.word), sample)


def charts(draw: random.Random, tongue: Tongue) -> Question:
    sample = chart(draw)
    if draw.random() < 0.4:
        highest = max(sample.bars, key=lambda name: sample.bars[name])
        text = "Which bar is tallest?" if tongue == "en" else "哪个条最高？"
        return Question("7 charts", tongue, text, _is(highest), sample)
    name = draw.choice(list(sample.bars))
    text = f"What is the value of {name}?" if tongue == "en" else f"{name}的值是多少？"

    def near(answer: str) -> float:
        try:
            return float(abs(float(answer) - sample.bars[name]) <= 0.05 * sample.top)
        except ValueError:
            return 0.0

    return Question("7 charts", tongue, text, near, sample)


def refusing(draw: random.Random, tongue: Tongue) -> Question:
    """Held-out questions, half of them beside a picture."""
    asked = [q for q in HELD_OUT if q.isascii() == (tongue == "en")]
    sample = shapes(draw, draw.randint(1, 3)) if draw.random() < 0.5 else None
    text = draw.choice(asked) if draw.random() < 0.7 else strange_question(draw, tongue)
    return Question("honest about the rest", tongue, text, _is(I_ONLY_KNOW[tongue].rstrip("。.")), sample)


SKILLS: dict[str, Callable[[random.Random, Tongue], Question]] = {
    "1": colour_and_shape, "2": finding, "3": counting, "4": position, "5 off": sums(False), "5 on": sums(True),
    "6": reading, "7": charts, "refusing": refusing,
}  # fmt: skip
TARGETS = {
    "1": "97 %",
    "2": "mean IoU 0.75",
    "3": "95 %",
    "4": "95 %",
    "5 on": "25 points above off",
    "6": "90 %",
    "7": "85 %",
}


def answers(folder: Path, questions: list[Question]) -> Iterator[str]:
    """The likeliest answers, a batch at a time."""
    from transformers import AutoModelForImageTextToText, AutoProcessor  # importable only now: see `anatomy`

    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        texts, pictures = [], []
        for question in batch:
            content = [{"type": "image"}] if question.sample else []
            talk = [{"role": "user", "content": [*content, {"type": "text", "text": question.text}]}]
            texts.append(processor.apply_chat_template(
                talk, tokenize=False, add_generation_prompt=True, enable_thinking=question.thinking
            ))  # fmt: skip
            pictures += [question.sample.picture] if question.sample else []
        read = processor(text=texts, images=pictures or None, padding=True, return_tensors="pt")
        with torch.inference_mode():
            written = model.generate(**read, max_new_tokens=400, do_sample=False)
        for row in written[:, read["input_ids"].shape[1] :]:
            text = processor.tokenizer.decode(row, skip_special_tokens=True)
            yield text.split("</think>")[-1].strip()


def measure(folder: Path, count: int, seed: int) -> None:
    """Prints, for each skill, the mean score in English, in Chinese, and of all; wrong answers go into a file."""
    wrong = []
    for key, ask in SKILLS.items():
        draw = random.Random(f"{seed}/{key}")
        tongues: list[Tongue] = ["en", "zh"]
        questions = [ask(draw, tongues[number % 2]) for number in range(count)]
        scores: dict[str, list[float]] = {"en": [], "zh": []}
        for question, answer in zip(questions, answers(folder, questions), strict=True):
            score = question.score(answer)
            scores[question.tongue].append(score)
            if score < 0.5:
                wrong.append({"skill": question.skill, "question": question.text, "answer": answer})
        means = [float(np.mean(s)) for s in (*scores.values(), scores["en"] + scores["zh"])]
        columns = [questions[0].skill, TARGETS.get(key, ""), *(f"{mean:.3f}" for mean in means)]
        print("| " + " | ".join(columns) + " |", flush=True)
    Path("build/tiny").mkdir(parents=True, exist_ok=True)
    Path("build/tiny/wrong.json").write_text(json.dumps(wrong, ensure_ascii=False, indent=1), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--count", type=int, default=400, help="questions of each skill")
    parser.add_argument("--seed", type=int, default=2026)
    given = parser.parse_args()
    print(f"{given.count} questions of each skill, pictures at up to {MOST_VISUAL_TOKENS} visual tokens\n")
    print("| skill | target | English | Chinese | all |\n|---|---|---|---|---|")
    measure(given.model, given.count, given.seed)


if __name__ == "__main__":
    main()
