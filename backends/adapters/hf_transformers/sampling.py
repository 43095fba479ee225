"""How the next token is drawn from one row of logits.

The mathematics are those of transformers' own processors (a test compares them), but only the top_k candidates are ever
sorted: on a CPU, sorting the whole vocabulary takes as long as a small model does.
"""

from __future__ import annotations

import torch

from backends.core.types import Sampling


class Sampler:
    """The choices of one answer. `prompt` are the token ids that the repetition penalty counts from the start."""

    def __init__(self, sampling: Sampling, prompt: list[int], vocabulary: int, device: torch.device) -> None:
        self._sampling = sampling
        self._generator = torch.Generator(device)
        if sampling.seed is not None:
            self._generator.manual_seed(sampling.seed)
        self._seen = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        self._seen[torch.tensor(prompt, dtype=torch.long, device=device)] = True
        self._written = torch.zeros(vocabulary, dtype=torch.bool, device=device)

    def pick(self, logits: torch.Tensor) -> int:
        """The id of the next token. `logits`: float32 of shape (vocabulary,); changed in place."""
        scores = self._penalised(logits)
        token = int(scores.argmax()) if self._sampling.temperature == 0 else self._drawn(scores)
        self._seen[token] = self._written[token] = True
        return token

    def _penalised(self, scores: torch.Tensor) -> torch.Tensor:
        """Repetition: scores of all tokens so far divided (or multiplied, where negative). Presence: subtracted once
        from every token of the answer; the prompt's own are left alone, as in vLLM."""
        if (penalty := self._sampling.repetition_penalty) != 1.0:
            seen = scores[self._seen]
            scores[self._seen] = torch.where(seen < 0, seen * penalty, seen / penalty)
        if self._sampling.presence_penalty:
            scores[self._written] -= self._sampling.presence_penalty
        return scores

    def _drawn(self, scores: torch.Tensor) -> int:
        """Temperature, top_k, top_p, min_p, in this order."""
        settings = self._sampling
        kept = min(settings.top_k or scores.numel(), scores.numel())
        scores, ids = torch.topk(scores / settings.temperature, kept)  # the likeliest first
        chances = scores.softmax(-1)
        if settings.top_p < 1.0:
            before = chances.cumsum(-1) - chances
            chances = chances.masked_fill(before >= settings.top_p, 0.0)
        if settings.min_p > 0.0:
            chances = chances.masked_fill(chances < settings.min_p * chances[0], 0.0)
        # One number between 0 and 1 a token, laid along the chances: rounding moves the borders a little, no more.
        # (torch.multinomial gives every candidate a number of its own, so two that trade places change everything.)
        ladder = chances.cumsum(-1)
        drawn = torch.rand(1, generator=self._generator, device=ladder.device) * ladder[-1]
        return int(ids[min(int(torch.searchsorted(ladder, drawn, right=True)), self._last(chances))])

    @staticmethod
    def _last(chances: torch.Tensor) -> int:
        """The last candidate that has a chance, for a number that rounding has put past the end."""
        return int((chances > 0).nonzero()[-1])


def likeliest(logits: torch.Tensor, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Natural-log probabilities of the model itself, before any setting: of `token`, and the `top` likeliest ids."""
    logprobs = logits.log_softmax(-1)
    values, ids = torch.topk(logprobs, top)
    return float(logprobs[token]), list(zip(ids.tolist(), values.tolist(), strict=True))
