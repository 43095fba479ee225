"""The second lesson: pictures and questions in, answers out. How dialogues become rows of tokens.

A row is a trunk and branches. The trunk is what a conversation has already brought: a picture, perhaps a question and
its answer. Each branch is one more question with its answer, and sees the trunk and itself only, as if it stood
there alone: `_who_sees_whom` hides the other branches and rows, and every branch's positions start where the trunk
ends. So a picture is looked at once and asked about four times, and what is learnt is exactly what the chat template
will show the model later.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from examples.tiny.dialogues import Turn

LONGEST_ROW = 110
"""Tokens of a row after which no long answer is added: what one long list of boxes costs, five short answers would."""

Shown = tuple[int, int, int] | None
"""A picture's number in the step and its height and width in visual tokens, or no picture."""


@dataclass(frozen=True)
class Before:
    """A picture that came before, and what was asked about it; without a turn both came in one message."""

    shown: Shown
    turn: Turn | None


@dataclass
class Row:
    """Token ids, the branch each belongs to (0: trunk), how much of each must be learnt (0: given), positions.

    `names` says what each branch asks for, `pictures` which pictures of the step stand in the trunk; `end` is the
    position after the trunk.
    """

    ids: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    end: int = 0

    def add(self, ids: Sequence[int], branch: int = 0, weight: float = 0.0, after: int | None = None) -> None:
        """Text: positions go on by one in time, height and width alike, from `after` or the end of the trunk."""
        begin = self.end if after is None else after
        self.ids += ids
        self.branch += [branch] * len(ids)
        self.weight += [weight] * len(ids)
        self.places += [(place, place, place) for place in range(begin, begin + len(ids))]
        if branch == 0:
            self.end = begin + len(ids)

    def add_picture(self, pad: int, number: int, rows: int, columns: int) -> None:
        """Picture `number` of the step: one token for every 32 x 32 pixels, placed in height and width; text goes on
        after the larger of both."""
        self.pictures.append(number)
        self.ids += [pad] * (rows * columns)
        self.branch += [0] * (rows * columns)
        self.weight += [0.0] * (rows * columns)
        self.places += [(self.end, self.end + y, self.end + x) for y in range(rows) for x in range(columns)]
        self.end += max(rows, columns)


@dataclass
class Talk:
    """Rows on lines of one length n: ids and weights (lines, n), visible (lines, 1, n, n), places (3, lines, n).

    `question` (lines, n) numbers the branches of all rows, -1 in trunks and padding; `names` has a name for each.
    `pictures` numbers the pictures of the step in the order in which they stand in the rows.
    """

    ids: Tensor
    visible: Tensor
    places: Tensor
    weights: Tensor
    question: Tensor
    names: list[str]
    pictures: list[int]


class Scribe:
    """Writes dialogues as the chat template would."""

    def __init__(self, words: PreTrainedTokenizerFast) -> None:
        self._words = words
        self._known: dict[str, list[int]] = {}
        self.pad = words.convert_tokens_to_ids("<|image_pad|>")
        self._user = self._ids("<|im_start|>user\n")
        self._eyes = [self._ids("<|vision_start|>"), self._ids("<|vision_end|>")]
        self._between = self._ids("<|im_end|>\n<|im_start|>assistant\n")
        self._silent = self._ids("<think>\n\n</think>\n\n")
        self._over = self._ids("<|im_end|>")
        self._next = self._ids("\n<|im_start|>user\n")

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            if len(self._known) > 50_000:
                self._known.clear()
            self._known[text] = self._words(text, add_special_tokens=False).input_ids
        return self._known[text]

    def row(
        self, draw: random.Random, turns: Sequence[Turn], shown: Shown, earlier: int, before: Before | None = None
    ) -> Row:
        """One row about the picture `shown`, with `earlier` of the turns in the trunk and the others as branches.

        `before` is another picture that came first; then both are numbered, and the questions are about the second.
        """
        row = Row()
        row.add(self._user)
        if before:
            row.add(self._ids("Picture 1: "))
            self._show(row, before.shown)
            if before.turn:
                row.add(self._said(before.turn))
            row.add(self._ids("Picture 2: "))
        if shown:
            self._show(row, shown)
        for turn in turns[:earlier]:
            row.add(self._said(turn))
        for turn in turns[earlier:]:
            if row.names and len(row.ids) + len(self._ids(turn.answer)) > LONGEST_ROW:
                continue
            asked = [*self._ids(turn.question), *self._between]
            if draw.random() < (0.5 if turn.skill == "sums" else 0.12):
                said = self._ids(f"<think>\n{turn.thoughts}\n</think>\n\n{turn.answer}") + self._over
            else:
                asked += self._silent
                said = self._ids(turn.answer) + self._over
            branch = len(row.names) + 1
            row.names.append(turn.skill if asked[-len(self._silent) :] == self._silent else f"{turn.skill}, thinking")
            row.add(asked, branch, after=row.end)
            row.add(said, branch, len(said) ** -0.5, after=row.end + len(asked))
        return row

    def _show(self, row: Row, shown: Shown) -> None:
        if shown:
            row.add(self._eyes[0])
            row.add_picture(self.pad, *shown)
            row.add(self._eyes[1])

    def _said(self, turn: Turn) -> list[int]:
        """A turn that is over, and the beginning of the next."""
        return [*self._ids(turn.question), *self._between, *self._ids(turn.answer), *self._over, *self._next]

    def talk(self, rows: Sequence[Row]) -> Talk:
        lines = _packed(rows)
        n, longest = len(lines), max(sum(len(row.ids) for row in line) for line in lines)
        ids = torch.full((n, longest), self._words.pad_token_id)
        owner, branch = torch.full((n, longest), -1), torch.full((n, longest), -1)
        places = torch.zeros(3, n, longest, dtype=torch.long)
        weights = torch.zeros(n, longest)
        question = torch.full((n, longest), -1)
        names: list[str] = []
        for i, line in enumerate(lines):
            start = 0
            for number, row in enumerate(line):
                here = slice(start, start := start + len(row.ids))
                ids[i, here], branch[i, here], owner[i, here] = torch.tensor(row.ids), torch.tensor(row.branch), number
                places[:, i, here], weights[i, here] = torch.tensor(row.places).T, torch.tensor(row.weight)
                question[i, here] = torch.where(branch[i, here] > 0, branch[i, here] - 1 + len(names), -1)
                names += row.names
        shown = [picture for line in lines for row in line for picture in row.pictures]
        return Talk(ids, _who_sees_whom(owner, branch), places, weights, question, names, shown)


def _packed(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows on as few lines as they need, none longer than the longest row: half of the work would be padding."""
    room = max(256, *(len(row.ids) for row in rows))
    lines: list[list[Row]] = []
    left: list[int] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        line = next((i for i, space in enumerate(left) if space >= len(row.ids)), None)
        if line is None:
            lines.append([])
            left.append(room)
            line = len(lines) - 1
        lines[line].append(row)
        left[line] -= len(row.ids)
    return lines


def _who_sees_whom(owner: Tensor, branch: Tensor) -> Tensor:
    """Each token sees what stands before it in its row's trunk and in its own branch: (lines, 1, n, n)."""
    n = branch.shape[1]
    before = torch.ones(n, n, dtype=torch.bool).tril()
    seen = branch[:, None, None, :]
    same_row = owner[:, None, None, :] == owner[:, None, :, None]
    return before & same_row & ((seen == 0) | (seen == branch[:, None, :, None]))
