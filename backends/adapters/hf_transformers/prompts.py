"""A request as the token ids that the model reads: chat template, thinking switch, pictures, and what has begun.

Knows tokenizers and processors, not models.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import PIL.Image
import torch
from jinja2 import TemplateError
from qwen_vl_utils import process_vision_info

from backends.adapters.llama_cpp.placeholders import (
    Guard,
    Placeholders,
    fragments,
    has_system_message,
    has_typed_control_tokens,
    own_system_prompt,
    runs,
    words,
)
from backends.core.special_tokens import defuse
from backends.core.types import GenerationRequest, Image, Message, Text
from backends.engine.thinking import CLOSE, OPEN


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
    two prompts with the same key have the same keys and values. `inside` says that the thoughts are open at its end,
    `joined` that typed control tokens were kept from being some by a joiner."""

    ids: list[int]
    key: list[int]
    inside: bool
    pictures: tuple[Picture, ...] = ()
    token_types: list[int] = field(default_factory=list)
    joined: bool = False


class ChatFormat:
    """How one model is talked to. `processor` is None for a model that reads text only."""

    def __init__(self, tokenizer: Any, processor: Any = None) -> None:
        self.tokenizer = tokenizer
        self._processor = processor
        self._own: dict[str, str] = {}

    def encode(self, request: GenerationRequest) -> Prompt:
        """Words that are not ours are tokenised apart from the template's; with pictures, whose processor takes the
        prompt as one text, they get a joiner."""
        if request.images:
            text, inside = self.render(request, defuse)
            return self._with_pictures(text, inside, request)
        marks = Placeholders()
        text, inside = self.render(request, marks.put)
        pieces = chain.from_iterable(
            [part.text] if part.ours else fragments(part.text) for part in marks.cut(text) if part.text
        )
        ids = list(chain.from_iterable(self.tokenizer(list(pieces), add_special_tokens=False).input_ids))
        return Prompt(ids, ids, inside)

    def render(self, request: GenerationRequest, guard: Guard) -> tuple[str, bool]:
        """The prompt as text, with `guard` for what is not ours, and whether the thoughts are open at its end."""
        rule = request.card.thinking
        switch = {"enable_thinking": request.thinking.enabled} if rule.kind == "switch" else {}
        text = self.tokenizer.apply_chat_template(
            [_for_template(message, guard) for message in request.messages],
            tokenize=False,
            add_generation_prompt=True,
            add_vision_id=len(request.images) > 1,
            **switch,
        )
        if not has_system_message(request):
            text = text.removeprefix(self._own_system_prompt(switch))
        opened = text.rstrip().endswith(OPEN)
        if (begun := request.begun) is not None:
            thoughts, said = guard(begun.thoughts), guard(begun.answer)
            if thoughts or not begun.closed or opened:
                text = (text.rstrip() if opened else text + OPEN) + "\n" + thoughts
                opened = not begun.closed
                text += "" if opened else f"\n{CLOSE}\n\n"
            text += said
        return text, opened

    def _own_system_prompt(self, switch: dict[str, bool]) -> str:
        if (key := str(switch)) not in self._own:

            def render(messages: list[dict[str, Any]]) -> str:
                return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **switch))

            try:
                self._own[key] = own_system_prompt(render)
            except TemplateError:  # one that does not take two questions in a row
                self._own[key] = ""
        return self._own[key]

    def _with_pictures(self, text: str, inside: bool, request: GenerationRequest) -> Prompt:
        """Pictures are opened here from the bytes that the playground's own decoder made, and from nowhere else."""
        pictures = request.images
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
        return Prompt(ids, key, inside, tuple(placed), types, has_typed_control_tokens(request))


def _for_template(message: Message, guard: Guard) -> dict[str, Any]:
    """Typed control tokens become plain text by `guard`; pictures stay where they stand."""
    content: Any
    if message.images:
        content = [
            {"type": "text", "text": words([part], guard)} if isinstance(part, Text) else {"type": "image"}
            for part in runs(message.parts)
        ]
    else:
        content = words(message.parts, guard)
    wire: dict[str, Any] = {"role": message.role, "content": content}
    return wire | {"reasoning_content": guard(message.thoughts)} if message.thoughts else wire


def _runs(types: list[int]) -> list[tuple[int, int]]:
    """Where the pictures' tokens stand: start and end of every run of 1."""
    edges = [i for i, (a, b) in enumerate(zip([0, *types], [*types, 0], strict=True)) if (a == 1) != (b == 1)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _mark(picture: Image) -> int:
    """A number below zero, so that it is no token's, from what the picture shows."""
    return -1 - int.from_bytes(hashlib.sha256(picture.png).digest()[:7], "big")
