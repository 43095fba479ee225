"""The keys and values of conversations: kept between turns, joined into a batch, taken out of it again.

A cache's tensors have the shape (rows, heads, tokens, width). Rows of a batch are aligned at their last token; shorter
ones have padding on the left, which the attention mask hides.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

LEAST_SHARED = 16  # tokens; less is not worth copying


def can_be_cut(cache: DynamicCache) -> bool:
    """Whether every layer is plain attention; states of linear attention can neither be cut nor be joined."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def joined(left: DynamicCache, right: DynamicCache) -> DynamicCache:
    """One batch of the rows of both, padded on the left to the longer one."""
    length = max(left.get_seq_length(), right.get_seq_length())

    def both(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.cat([_padded(one, length), _padded(other, length)])

    made = [
        (both(layer.keys, other.keys), both(layer.values, other.values))
        for layer, other in zip(left.layers, right.layers, strict=True)
    ]
    return _filled(left, made)


def rows_of(cache: DynamicCache, rows: list[int], length: int) -> DynamicCache:
    """Only `rows`, and of them the last `length` tokens: padding that nobody needs any more goes."""
    return _each(cache, lambda tensor: tensor[rows, :, tensor.shape[2] - length :].contiguous())


def start_of(cache: DynamicCache, length: int) -> DynamicCache:
    """A copy of the first `length` tokens of a cache of one row."""
    return _each(cache, lambda tensor: tensor[:, :, :length].clone())


def _padded(tensor: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(tensor, (0, 0, length - tensor.shape[2], 0))


def _each(cache: DynamicCache, change: Callable[[torch.Tensor], torch.Tensor]) -> DynamicCache:
    return _filled(cache, [(change(layer.keys), change(layer.values)) for layer in cache.layers])


def _filled(cache: DynamicCache, tensors: list[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """A cache like `cache` with these keys and values; it stays whole itself, should memory run out on the way."""
    made = copy.copy(cache)
    made.layers = [copy.copy(layer) for layer in cache.layers]
    for layer, (keys, values) in zip(made.layers, tensors, strict=True):
        layer.keys, layer.values = keys, values
    return made


@dataclass(frozen=True, slots=True)
class _Entry:
    key: list[int]
    cache: DynamicCache


class PrefixStore:
    """Caches of conversations that are not being answered, found again by the longest start they share with a prompt.

    A key holds a token id for each token of the cache; a picture's tokens are told apart by their content. Two people
    share a start only where their prompts are the same, token for token, so nothing of one ever shows at the other.
    """

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()  # the one used longest ago first

    @property
    def tokens(self) -> int:
        return sum(len(entry.key) for entry in self._entries)

    def put(self, key: list[int], cache: DynamicCache) -> None:
        if key:
            self._entries.append(_Entry(key, cache))

    def shrink(self, tokens: int) -> None:
        """Forgets the longest unused until at most so many tokens are held."""
        while self._entries and self.tokens > tokens:
            self._entries.popleft()

    def take(self, key: list[int]) -> tuple[DynamicCache, int] | None:
        """A cache of the longest known start of `key`, at least one token short of it, and its length."""
        best, shared = None, 0
        for entry in self._entries:
            if (length := self._usable(entry, key)) > shared:
                best, shared = entry, length
        if best is None or shared < LEAST_SHARED:
            return None
        held = len(best.key)
        if shared * 2 < held:  # another conversation that begins alike, such as by the same system prompt: it stays
            return start_of(best.cache, shared), shared
        self._entries.remove(best)
        if shared < held:
            best.cache.crop(shared - held)
        return best.cache, shared

    def _usable(self, entry: _Entry, key: list[int]) -> int:
        shared = _common(entry.key, key[:-1])
        return shared if can_be_cut(entry.cache) or shared == len(entry.key) else 0


def _common(left: list[int], right: list[int]) -> int:
    """Length of the common start."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
