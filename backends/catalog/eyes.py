"""How a model sees a picture: in squares, each of which costs one token. Data of a card, and arithmetic alone."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Eyes(BaseModel):
    """How one model sees.

    A visual token shows `side` x `side` pixels. `fewest`, `default` and `most` are visual tokens that one picture may
    cost. `boxes`: what the coordinates that the model writes count, thousandths of the picture's width and height or
    pixels of the picture in the size in which it was shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(gt=0)
    fewest: int = Field(gt=0)
    default: int = Field(gt=0)
    most: int = Field(gt=0)
    boxes: Literal["thousandths", "resized pixels"]

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Eyes:
        if not self.fewest <= self.default <= self.most:
            raise ValueError("fewest <= default <= most does not hold")
        return self

    def tokens(self, width: int, height: int) -> int:
        """What a picture costs in just this size, in pixels; its two markers are not counted."""
        return width * height // self.side**2


def fitted_size(width: int, height: int, eyes: Eyes, visual_tokens: int) -> tuple[int, int]:
    """(width, height) in pixels in which the model sees a picture of the size given.

    Both are multiples of `eyes.side`, the proportions are kept as nearly as that allows, and the picture costs no
    more than `visual_tokens` (at least 1 and never above `eyes.most`) nor, where this leaves room, fewer than
    `eyes.fewest`. It is the formula of Qwen's `smart_resize`, which for narrow pictures may leave a side of 0 or pass
    its own limit; here the limit holds.
    """
    most, square = max(1, min(visual_tokens, eyes.most)), eyes.side**2
    across, down = max(1, round(width / eyes.side)), max(1, round(height / eyes.side))
    if across * down < eyes.fewest:
        growth = math.sqrt(eyes.fewest * square / (width * height))
        across, down = math.ceil(width * growth / eyes.side), math.ceil(height * growth / eyes.side)
    if across * down > most:
        shrink = math.sqrt(width * height / (most * square))
        across, down = math.floor(width / shrink / eyes.side), math.floor(height / shrink / eyes.side)
        across, down = min(max(1, across), most), min(max(1, down), most)
    return across * eyes.side, down * eyes.side


def visual_tokens_of(width: int, height: int, eyes: Eyes, limit: int) -> int:
    """What a picture of this size costs, shown with at most `limit` visual tokens; its two markers are not counted."""
    return eyes.tokens(*fitted_size(width, height, eyes, limit))
