"""Between seeing and talking: the eyes and the words are introduced to each other.

With trained eyes and a language model from nothing, training stayed for hundreds of steps at answers that need no
looking up: half of the colours, the likeliest count. Nothing told the model that the word 'circle' and a token that
shows a circle have anything to do with each other, nor how to copy. Both can be written down instead of being waited
for: a visual token begins as the sum of the words for what stands in it and of where that is, and attention begins as
looking for what is alike and taking it over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from examples.tiny.dialogues import ZH
from examples.tiny.pictures import COLOURS, SHAPES
from examples.tiny.seeing import KINDS, Heads, Targets, see

SCALE = 0.05
"""The spread of a word's embedding in each of its dimensions."""
EDGES = 4
LIKENESS = 0.3
"""How far the words for one thing lie apart, in parts of `SCALE`."""


@torch.no_grad()
def introduce(
    model: Any, heads: Heads, words: PreTrainedTokenizerFast, lessons: Iterable[tuple[Tensor, Targets]]
) -> None:
    """Changes the merger's last layer, the words' embeddings and where attention begins; `lessons` are pictures
    (n, height, width, 3; bytes) with what they show."""
    concepts = torch.randn(len(SHAPES) + len(COLOURS) + EDGES, model.config.text_config.hidden_size) * SCALE
    _name(model.get_input_embeddings().weight, words, concepts)
    _show(model.model.visual, heads, concepts, lessons)
    for layer in model.model.language_model.layers:
        _look_for_what_is_alike(layer)


def _name(embeddings: Tensor, words: PreTrainedTokenizerFast, concepts: Tensor) -> None:
    """The words for one thing, in both languages, begin close to each other."""
    for name, concept in zip((*SHAPES, *COLOURS), concepts, strict=False):
        for form in (name, name.capitalize(), f" {name}", f" {name}s", f"{name}s", ZH[name], ZH[name][:-1]):
            ids = words(form, add_special_tokens=False).input_ids
            if len(ids) == 1:
                embeddings[ids[0]] = concept + torch.randn_like(concept) * SCALE * LIKENESS


def _show(eyes: Any, heads: Heads, concepts: Tensor, lessons: Iterable[tuple[Tensor, Targets]]) -> None:
    """A visual token begins as the words for the thing whose centre lies in it, and as four directions, along each of
    which it lies as far as an edge of its box from the middle of the picture; across that, what else it shows, evenly
    spread. Found by least squares from the merger's last hidden layer, the edges from tokens with a thing alone: what
    the others say of edges is never asked for."""
    last = eyes.merger.linear_fc2
    hidden: list[Tensor] = []
    listen = last.register_forward_pre_hook(lambda _, given: hidden.append(given[0].float()))
    names, edges, anything = [], [], []
    for pixels, shown in lessons:
        see(eyes, pixels)
        there = shown.token_kind > 0
        kind = F.one_hot((shown.token_kind - 1).clamp(min=0), len(KINDS) - 1)[:, : len(SHAPES)]
        colour = F.one_hot(shown.token_colour.clamp(min=0), len(COLOURS))
        names.append((torch.cat([kind, colour], 1) * there[:, None]).float() @ concepts[:-EDGES])
        edges.append(2 * shown.token_box - 1)
        anything.append(there)
    listen.remove()
    given, there = torch.cat(hidden), torch.cat(anything)
    before = F.linear(given, last.weight, last.bias)
    fit = _least_squares(given, torch.cat(names))
    fit += _least_squares(given[there], torch.cat(edges)[there]) @ concepts[-EDGES:]
    spread, axes = torch.linalg.eigh(torch.cov(before.T))
    even = axes @ torch.diag(spread.clamp(min=float(spread.max()) * 1e-3).rsqrt()) @ axes.T * SCALE
    named = torch.linalg.qr(concepts.T).Q
    rest = (torch.eye(len(even)) - named @ named.T) @ even
    bias = fit[-1] + rest @ (last.bias - before.mean(0))
    last.weight.copy_(fit[:-1].T + rest @ last.weight)
    last.bias.copy_(bias)
    after = F.linear(given, last.weight, last.bias)
    read = _least_squares(after, F.linear(before, heads.on_tokens.weight, heads.on_tokens.bias))
    heads.on_tokens.weight.copy_(read[:-1].T)
    heads.on_tokens.bias.copy_(read[-1])
    for merger in eyes.deepstack_merger_list:  # has learnt nothing yet: it begins at nothing
        merger.linear_fc2.weight.zero_()
        merger.linear_fc2.bias.zero_()


def _least_squares(given: Tensor, wanted: Tensor) -> Tensor:
    """Weights (inputs + 1, outputs) of the linear map that comes nearest; the last row is the bias."""
    inputs = torch.cat([given, torch.ones(len(given), 1)], 1)
    gram = inputs.T @ inputs
    return torch.linalg.solve(gram + torch.eye(len(gram)) * 1e-3 * gram.diagonal().mean(), inputs.T @ wanted)


def _look_for_what_is_alike(layer: Any) -> None:
    """Queries begin as the keys of the same content, and what is attended to is taken over as it is."""
    attention = layer.self_attn
    keys, values = attention.k_proj.weight, attention.v_proj.weight
    width, heads = attention.head_dim, attention.q_proj.weight.shape[0] // attention.head_dim
    groups = heads // (keys.shape[0] // width)
    for head in range(heads):
        rows, source = (
            slice(head * width, (head + 1) * width),
            slice(head // groups * width, (head // groups + 1) * width),
        )
        query = attention.q_proj.weight[rows]
        attention.q_proj.weight[rows] = keys[source] + 0.5 * query
        attention.o_proj.weight[:, rows] = 0.5 * (values[source].T + 0.5 * attention.o_proj.weight[:, rows])
    layer.mlp.down_proj.weight.mul_(0.4)
