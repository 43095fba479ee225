"""The first lesson: eyes alone. Every patch learns to say what it lies on.

Questions and answers tell a vision tower very little: one word for a whole picture. Here each patch of 16 pixels is
asked what covers its middle, which colour it has, where its edges are and which letter is printed there, and each
visual token what stands in it. That is a few hundred answers a picture instead of one, and what makes it possible to
train the model on a small computer. The heads that answer are thrown away in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

from examples.tiny.anatomy import PATCH, TOKEN
from examples.tiny.pictures import COLOURS, DIGITS, LETTERS, SHAPES, Scene

KINDS = ("nothing", *SHAPES, "bar")
GLYPHS = ("", *LETTERS, *DIGITS)
LETTERS_IN_A_TOKEN = 2
IGNORED = -100


def patches(pixels: Tensor) -> Tensor:
    """Pictures (n, height, width, 3; bytes) as the patches that Qwen3-VL takes: (n * patches, 2 * 3 * 16 * 16).

    The same as Qwen2VLImageProcessor makes of them, for many pictures of one size at once: 2 x 2 neighbours stand
    together, every picture counts as two equal frames.
    """
    n, height, width, _ = pixels.shape
    rows, columns = height // TOKEN, width // TOKEN
    cut = (pixels.float() / 127.5 - 1).view(n, rows, 2, PATCH, columns, 2, PATCH, 3)
    cut = cut.permute(0, 1, 4, 2, 5, 7, 3, 6)  # picture, row, column, row and column within the token, colour, y, x
    frames = cut.unsqueeze(6).expand(*cut.shape[:6], 2, PATCH, PATCH)
    return frames.reshape(n * rows * columns * 4, -1)


class AllAtOnce:
    """Attention within each of `pictures` pictures of one size, in one call.

    The library's own way is a call for each picture, since theirs may differ in size; here that would take as long as
    the rest of the vision tower. Shapes as transformers' attention functions have them: (1, heads, patches, width).
    """

    pictures = 1

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, None]:
        _, heads, patches_of_all, width = query.shape
        q, k, v = (x.view(heads, self.pictures, -1, width).transpose(0, 1) for x in (query, key, value))
        return _attended(q, k, v, None).transpose(1, 2).reshape(1, patches_of_all, heads, width), None


def masked(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: Any
) -> tuple[Tensor, None]:
    """Attention where a mask (rows, 1, n, n) allows it, for the language model; fewer heads of keys than of queries."""
    groups = query.shape[1] // key.shape[1]
    k, v = (x.repeat_interleave(groups, 1) for x in (key, value))
    return _attended(query, k, v, attention_mask).transpose(1, 2), None


def _attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Spelled out: for a few hundred tokens torch's fused attention takes three times as long on a CPU."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e4)
    return scores.softmax(-1).to(v.dtype) @ v


all_at_once = AllAtOnce()
AttentionInterface.register("all_at_once", all_at_once)
AttentionInterface.register("masked", masked)


def see(eyes: nn.Module, pixels: Tensor) -> Any:
    """What the vision tower makes of pictures of one size (n, height, width, 3; bytes): states of all patches, and
    of all visual tokens, picture after picture."""
    n, height, width, _ = pixels.shape
    all_at_once.pictures = n
    grid = torch.tensor([[1, height // PATCH, width // PATCH]] * n, device=pixels.device)
    whole = torch.tensor([0, n * grid[0].prod()], dtype=torch.int32, device=pixels.device)
    return eyes(patches(pixels), grid_thw=grid, cu_seqlens=whole)


def middles(height: int, width: int) -> Tensor:
    """Where the patches' middles lie, in their order: (patches, 2) as x, y in pixels."""
    y, x = torch.meshgrid(torch.arange(height // PATCH), torch.arange(width // PATCH), indexing="ij")
    at = torch.stack([x, y], -1) * PATCH + PATCH / 2
    rows, columns = height // TOKEN, width // TOKEN
    return at.view(rows, 2, columns, 2, 2).transpose(1, 2).reshape(-1, 2)


@dataclass
class Targets:
    """What patches and visual tokens should say; -100 where it does not matter. p patches, t tokens, all pictures."""

    kind: Tensor  # (p,)
    colour: Tensor  # (p,)
    box: Tensor  # (p, 4), each 0..1
    glyph: Tensor  # (p,)
    token_kind: Tensor  # (t,): the thing whose centre lies in the token
    token_colour: Tensor  # (t,)
    token_box: Tensor  # (t, 4)
    token_glyphs: Tensor  # (t, 2): the letters whose centres lie in the token, in reading order


def targets(scenes: list[Scene]) -> Targets:
    """What is to be learnt from pictures of one size."""
    height, width = scenes[0].height, scenes[0].width
    at = middles(height, width)
    n, p, t = len(scenes), len(at), len(at) // 4
    kind, glyph = torch.zeros(n, p, dtype=torch.long), torch.zeros(n, p, dtype=torch.long)
    colour = torch.full((n, p), IGNORED)
    box = torch.zeros(n, p, 4)
    token_kind, token_colour = torch.zeros(n, t, dtype=torch.long), torch.full((n, t), IGNORED)
    token_box, token_glyphs = torch.zeros(n, t, 4), torch.zeros(n, t, LETTERS_IN_A_TOKEN, dtype=torch.long)
    size = torch.tensor([width, height, width, height])
    x, y = at[:, 0], at[:, 1]

    def token_at(centre: tuple[float, float]) -> int:
        column = min(int(centre[0] // TOKEN), width // TOKEN - 1)
        return min(int(centre[1] // TOKEN), height // TOKEN - 1) * (width // TOKEN) + column

    for i, scene in enumerate(scenes):
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            within = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
            what, paint = KINDS.index(thing.shape), COLOURS.index(thing.colour) if thing.colour else IGNORED
            place = torch.tensor(thing.box) / size
            kind[i, within], colour[i, within], box[i, within] = what, paint, place
            cell = token_at(thing.centre)
            token_kind[i, cell], token_colour[i, cell], token_box[i, cell] = what, paint, place
        filled = [0] * t
        for letter in scene.glyphs:
            x0, y0, x1, y1 = letter.box
            within = (x >= x0 - 2) & (x < x1 + 2) & (y >= y0 - 2) & (y < y1 + 2)
            number = GLYPHS.index(letter.char)
            glyph[i, within] = number
            cell = token_at(((x0 + x1) / 2, (y0 + y1) / 2))
            if filled[cell] < LETTERS_IN_A_TOKEN:
                token_glyphs[i, cell, filled[cell]] = number
                filled[cell] += 1
    return Targets(
        kind.flatten(), colour.flatten(), box.view(-1, 4), glyph.flatten(), token_kind.flatten(),
        token_colour.flatten(), token_box.view(-1, 4), token_glyphs.view(-1, LETTERS_IN_A_TOKEN),
    )  # fmt: skip


class Heads(nn.Module):
    """One linear layer on every patch and one on every visual token; what they cannot read is not there."""

    def __init__(self, patch_width: int, token_width: int) -> None:
        super().__init__()
        self.on_patches = nn.Linear(patch_width, len(KINDS) + len(COLOURS) + 4 + len(GLYPHS))
        self.on_tokens = nn.Linear(token_width, len(KINDS) + len(COLOURS) + 4 + LETTERS_IN_A_TOKEN * len(GLYPHS))

    def losses(self, patch_states: Tensor, token_states: Tensor, wanted: Targets) -> tuple[Tensor, dict[str, float]]:
        """The sum of what the heads got wrong, and how often they were right (kinds, colours, overlap, letters)."""
        widths = [len(KINDS), len(COLOURS), 4]
        kind, colour, box, glyph = self.on_patches(patch_states).float().split([*widths, len(GLYPHS)], -1)
        token_kind, token_colour, token_box, token_glyphs = (
            self.on_tokens(token_states).float().split([*widths, LETTERS_IN_A_TOKEN * len(GLYPHS)], -1)
        )
        there, token_there = wanted.kind > 0, wanted.token_kind > 0
        token_glyphs = token_glyphs.reshape(-1, len(GLYPHS))
        wanted_glyphs = wanted.token_glyphs.flatten()
        some_patch, some_token = _some_glyphs(wanted.glyph), _some_glyphs(wanted_glyphs)
        loss = (
            F.cross_entropy(kind, wanted.kind)
            + _known(colour, wanted.colour)
            + _boxes(box, wanted.box, there)
            + _known(glyph, some_patch)
            + 2 * F.cross_entropy(token_kind, wanted.token_kind)
            + _known(token_colour, wanted.token_colour)
            + 2 * _boxes(token_box, wanted.token_box, token_there)
            + _known(token_glyphs, some_token)
        )
        return loss, {
            "kind": _right(token_kind, wanted.token_kind, token_there),
            "colour": _right(token_colour, wanted.token_colour, wanted.token_colour >= 0),
            "iou": float(overlap(token_box.detach().sigmoid(), wanted.token_box)[token_there].mean())
            if token_there.any()
            else 0,
            "glyph": _right(token_glyphs, wanted_glyphs, wanted_glyphs > 0),
        }


def _some_glyphs(wanted: Tensor) -> Tensor:
    """Letters are rare: places without one count in one case of eight only."""
    keep = (wanted > 0) | (torch.rand(wanted.shape) < 0.125)
    return wanted.masked_fill(~keep, IGNORED)


def _known(scores: Tensor, wanted: Tensor) -> Tensor:
    return F.cross_entropy(scores, wanted) if (wanted >= 0).any() else scores.sum() * 0


def _right(scores: Tensor, wanted: Tensor, among: Tensor) -> float:
    return float((scores.argmax(-1) == wanted)[among].float().mean()) if among.any() else 0.0


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes (n, 4)."""
    corner, far = torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])
    shared = (far - corner).clamp(min=0).prod(-1)
    areas = (one[:, 2:] - one[:, :2]).clamp(min=0).prod(-1) + (other[:, 2:] - other[:, :2]).prod(-1)
    return shared / (areas - shared).clamp(min=1e-6)


def _boxes(scores: Tensor, wanted: Tensor, there: Tensor) -> Tensor:
    if not there.any():
        return scores.sum() * 0
    found, right = scores[there].sigmoid(), wanted[there]
    return 5 * F.l1_loss(found, right) + (1 - overlap(found, right)).mean()
