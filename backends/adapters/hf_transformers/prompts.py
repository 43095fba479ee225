"""A request as the token ids that the model reads: chat template, thinking switch, pictures, and what has begun.

Knows tokenizers and processors, not models.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
import torch
from qwen_vl_utils import process_vision_info

from backends.special_tokens import defuse
from backends.thinking import CLOSE, OPEN
from backends.types import GenerationRequest, Image, Message, Text


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a prompt: its patches, their grid of shape (1, 3), and where its tokens stand, end exclusive."""

    pixels: torch.Tensor
    grid: torch.Tensor
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """`ids` as the model reads them. `key` is the same with a picture's tokens told apart by what it shows, so that
    two prompts with the same key have the same keys and values. `inside` says that the thoughts are open at its end."""

    ids: list[int]
    key: list[int]
    inside: bool
    pictures: tuple[Picture, ...] = ()
    token_types: list[int] = field(default_factory=list)


class ChatFormat:
    """How one model is talked to. `processor` is None for a model that reads text only."""

    def __init__(self, tokenizer: Any, processor: Any = None) -> None:
        self.tokenizer = tokenizer
        self._processor = processor

    def encode(self, request: GenerationRequest) -> Prompt:
        text, inside = self.render(request)
        pictures = [part for message in request.messages for part in message.parts if isinstance(part, Image)]
        if not pictures:
            ids = self.tokenizer(text, add_special_tokens=False).input_ids
            return Prompt(ids, ids, inside)
        return self._with_pictures(text, inside, pictures)

    def render(self, request: GenerationRequest) -> tuple[str, bool]:
        """The prompt as text, and whether the thoughts are open at its end."""
        rule = request.card.thinking
        switch = {"enable_thinking": request.thinking.enabled} if rule.kind == "switch" else {}
        text = self.tokenizer.apply_chat_template(
            [_for_template(message) for message in request.messages],
            tokenize=False,
            add_generation_prompt=True,
            add_vision_id=sum(len(message.images) for message in request.messages) > 1,
            **switch,
        )
        opened = text.rstrip().endswith(OPEN)
        if (begun := request.begun) is not None:
            thoughts, said = defuse(begun.thoughts), defuse(begun.answer)
            if thoughts or not begun.closed or opened:
                text = (text.rstrip() if opened else text + OPEN) + "\n" + thoughts
                opened = not begun.closed
                text += "" if opened else f"\n{CLOSE}\n\n"
            text += said
        return text, opened

    def _with_pictures(self, text: str, inside: bool, pictures: list[Image]) -> Prompt:
        """Pictures are opened here from the bytes that the playground's own decoder made, and from nowhere else."""
        opened = [PIL.Image.open(io.BytesIO(picture.png), formats=("PNG",)) for picture in pictures]
        patch = self._processor.image_processor.patch_size
        talk = [{"role": "user", "content": [{"type": "image", "image": picture} for picture in opened]}]
        prepared, _ = process_vision_info(talk, image_patch_size=patch)
        read = self._processor(text=[text], images=prepared, do_resize=False, return_tensors="pt")
        ids, types = read["input_ids"][0].tolist(), read["mm_token_type_ids"][0].tolist()
        key, placed, patches = list(ids), [], 0
        for picture, grid, (start, end) in zip(pictures, read["image_grid_thw"], _runs(types), strict=True):
            size = int(grid.prod())
            placed.append(Picture(read["pixel_values"][patches : patches + size], grid[None], start, end))
            patches += size
            key[start:end] = [_mark(picture)] * (end - start)
        return Prompt(ids, key, inside, tuple(placed), types)


def _for_template(message: Message) -> dict[str, Any]:
    """Typed control tokens become plain text; pictures stay where they stand."""

    def words(text: Text) -> str:
        return text.text if text.ours else defuse(text.text)

    content: Any = "".join(words(part) for part in message.parts if isinstance(part, Text))
    if message.images:
        content = [
            {"type": "text", "text": words(part)} if isinstance(part, Text) else {"type": "image"}
            for part in message.parts
        ]
    wire: dict[str, Any] = {"role": message.role, "content": content}
    return wire | {"reasoning_content": defuse(message.thoughts)} if message.thoughts else wire


def _runs(types: list[int]) -> list[tuple[int, int]]:
    """Where the pictures' tokens stand: start and end of every run of 1."""
    edges = [i for i, (a, b) in enumerate(zip([0, *types], [*types, 0], strict=True)) if (a == 1) != (b == 1)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _mark(picture: Image) -> int:
    """A number below zero, so that it is no token's, from what the picture shows."""
    return -1 - int.from_bytes(hashlib.sha256(picture.png).digest()[:7], "big")
