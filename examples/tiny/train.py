"""Makes the tiny model from a seed: `make tiny`, or `python -m examples.tiny.train`.

Interrupt it whenever you like: it goes on where it was. On a GPU it uses it.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedTokenizerFast

from examples.tiny import anatomy, seeing, to_gguf
from examples.tiny.introducing import introduce
from examples.tiny.lessons import LESSONS, Lesson, corpus, rows, scenes
from examples.tiny.pictures import Scene
from examples.tiny.talking import Scribe, Talk

WORKSHOP = Path("build/tiny")
SAVE_EVERY, SAY_EVERY = 100, 20
WARM_UP = 200
INTRODUCTION_STEPS = 24
EYES_WEIGHT = 0.25
"""How much the eyes' own lesson counts while the model learns to talk."""
REST_RATE = 0.5
"""The learning rate of embeddings, norms, biases and heads, in parts of the matrices'."""


class Batches(IterableDataset[Any]):
    """The batches of a lesson from one step on, made beside the training."""

    def __init__(self, lesson: Lesson, seed: int, start: int, scribe: Scribe) -> None:
        self.lesson, self.seed, self.start, self.scribe = lesson, seed, start, scribe

    def __iter__(self) -> Iterator[Any]:
        torch.set_num_threads(1)
        for step in range(self.start, self.lesson.steps):
            torch.manual_seed(self.seed * 1_000_003 + step)
            drawn = scenes(self.lesson, self.seed, step)
            talk = (
                self.scribe.talk(rows(self.lesson, self.seed, step, drawn, self.scribe)) if self.lesson.skills else None
            )
            yield _pixels(drawn), seeing.targets(drawn), talk


def _vocabulary(seed: int) -> PreTrainedTokenizerFast:
    """Made once and kept beside the checkpoints, so that dialogues can be changed between two lessons."""
    kept = WORKSHOP / "words.json"
    if kept.exists():
        return anatomy.read_tokenizer(kept)
    words = anatomy.make_tokenizer(corpus(seed))
    words.backend_tokenizer.save(str(kept))
    return words


def _pixels(drawn: Sequence[Scene]) -> Tensor:
    """Pictures of one size as (n, height, width, 3), bytes."""
    return torch.from_numpy(np.stack([scene.pixels for scene in drawn]))


def rate_at(lesson: Lesson, step: int) -> float:
    """Rises over the first steps, stays for a third of the lesson, and falls to a thirtieth."""
    falling = max(0.0, (step / lesson.steps - 1 / 3) * 1.5)
    return lesson.rate * min(1.0, (step + 1) / WARM_UP) * (0.03 + 0.97 * (1 + math.cos(math.pi * falling)) / 2)


class Training:
    """The model, its heads and its optimiser, kept in a file from which the work goes on."""

    def __init__(self, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        self.seed, self.device = seed, device
        self.words = _vocabulary(seed)
        self.scribe = Scribe(self.words)
        self.model = anatomy.make_model(self.words).to(device)
        self.model.model.visual.set_attn_implementation("all_at_once")
        self.model.model.language_model.set_attn_implementation("masked")
        config = self.model.config
        self.heads = seeing.Heads(config.vision_config.hidden_size, config.text_config.hidden_size).to(device)

    def run(self, lesson: Lesson, before: Path | None) -> Path:
        """One lesson to its end, from where it was left, else from the end of the one before."""
        kept = WORKSHOP / f"{lesson.name}.pt"
        optimisers = self._optimisers(lesson)
        start = self._resume(kept, optimisers) if kept.exists() else self._resume(before, [])
        if lesson.begins_to_talk and not kept.exists():
            torch.manual_seed(self.seed)
            shown = (scenes(lesson, self.seed, step) for step in range(-INTRODUCTION_STEPS, 0))
            introduce(self.model, self.heads, self.words, ((_pixels(drawn), seeing.targets(drawn)) for drawn in shown))
        batches = Batches(lesson, self.seed, start, self.scribe)
        began, seen = time.monotonic(), []
        for step, batch in enumerate(DataLoader(batches, None, num_workers=1, prefetch_factor=4), start):
            groups = [group for optimiser in optimisers for group in optimiser.param_groups]
            for group in groups:
                group["lr"] = rate_at(lesson, step) * group["share"]
            loss, figures = self._step(*batch, eyes_learn=lesson.eyes_rate > 0)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([weight for group in groups for weight in group["params"]], 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            seen.append({"loss": float(loss.detach()), **figures})
            if (step + 1) % SAY_EVERY == 0:
                self._say(lesson, step + 1, seen, (time.monotonic() - began) / len(seen))
                began, seen = time.monotonic(), []
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == lesson.steps:
                self._keep(kept, optimisers if step + 1 < lesson.steps else [], step + 1)
        return kept

    def ship(self, folder: Path) -> None:
        """The model as transformers and llama.cpp load it, at 16 bit; the heads stay behind."""
        shipped = copy.deepcopy(self.model).cpu().half()
        for part in (shipped.model.visual, shipped.model.language_model):
            part.set_attn_implementation("sdpa")
        shipped.save_pretrained(folder)
        anatomy.make_processor(self.words).save_pretrained(folder)
        to_gguf.convert(folder)

    def _optimisers(self, lesson: Lesson) -> list[torch.optim.Optimizer]:
        """Muon for the matrices, AdamW for the rest. What has a share of 0 in the lesson's rate stays as it is."""
        weights: dict[tuple[bool, float], list[Tensor]] = {}
        for name, weight in [*self.model.named_parameters(), *self.heads.named_parameters()]:
            share = lesson.eyes_rate if "visual" in name or "on_" in name else 1.0
            weight.requires_grad_(share > 0)
            if share:
                matrix = weight.ndim == 2 and "embed" not in name and "on_" not in name
                weights.setdefault((matrix, share if matrix else share * REST_RATE), []).append(weight)
        groups: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for (matrix, share), alike in weights.items():
            groups[matrix].append({"params": alike, "share": share})
        return [
            torch.optim.Muon(groups[True], weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups[False], betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def _step(
        self, pixels: Tensor, wanted: seeing.Targets, talk: Talk | None, eyes_learn: bool
    ) -> tuple[Tensor, dict[str, float]]:
        with torch.autocast(self.device, torch.bfloat16):
            with torch.set_grad_enabled(eyes_learn):
                seen = seeing.see(self.model.model.visual, pixels.to(self.device))
                eyes, figures = self.heads.losses(seen.last_hidden_state, seen.pooler_output, wanted)
            if not talk:
                return eyes, figures
            words, said = self._talk_loss(seen, len(pixels), talk)
        return words + EYES_WEIGHT * eyes, figures | said

    def _talk_loss(self, seen: Any, shown_at_once: int, talk: Talk) -> tuple[Tensor, dict[str, float]]:
        """How surprising the right answers were, and the share of questions answered right to the last token."""
        ids = talk.ids.to(self.device)
        pictures = ids == self.scribe.pad
        order = torch.tensor(talk.pictures, device=self.device)
        shown, deep = (
            x.unflatten(0, (shown_at_once, -1))[order].flatten(0, 1).float()
            for x in (seen.pooler_output, seen.deepstack_features[0])
        )
        embedded = self.model.get_input_embeddings()(ids).masked_scatter(pictures[..., None], shown)
        states = self.model.model.language_model(
            inputs_embeds=embedded,
            attention_mask=talk.visible.to(self.device),
            position_ids=talk.places.to(self.device),
            visual_pos_masks=pictures,
            deepstack_visual_embeds=[deep],
            use_cache=False,
        ).last_hidden_state
        weights = talk.weights[:, 1:].to(self.device)
        asked = weights > 0
        scores = self.model.lm_head(states[:, :-1][asked]).float()
        right = ids[:, 1:][asked]
        loss = (F.cross_entropy(scores, right, reduction="none") * weights[asked]).sum() / weights[asked].sum()
        question = talk.question[:, 1:].to(self.device)[asked]
        wrong = torch.zeros(len(talk.names), device=self.device).index_add(
            0, question, (scores.argmax(-1) != right).float()
        )
        hits: dict[str, list[bool]] = {}
        for name, errors in zip(talk.names, wrong.tolist(), strict=True):
            hits.setdefault(name, []).append(errors == 0)
        return loss, {"words": float(loss.detach())} | {name: float(np.mean(h)) for name, h in hits.items()}

    def _say(self, lesson: Lesson, step: int, seen: list[dict[str, float]], pace: float) -> None:
        names = sorted({name for figures in seen for name in figures})
        means = {name: round(float(np.mean([s[name] for s in seen if name in s])), 4) for name in names}
        line = json.dumps({"lesson": lesson.name, "step": step, **means, "seconds": round(pace, 3)})
        print(line, flush=True)
        with (WORKSHOP / "log.jsonl").open("a") as log:
            log.write(line + "\n")

    def _keep(self, file: Path, optimisers: Sequence[torch.optim.Optimizer], step: int) -> None:
        """A lesson that is over needs no optimisers any more."""
        state = {"model": self.model.state_dict(), "heads": self.heads.state_dict(), "step": step}
        part = file.with_suffix(".part")
        torch.save(state | {"optimisers": [optimiser.state_dict() for optimiser in optimisers]}, part)
        part.replace(file)

    def _resume(self, file: Path | None, optimisers: Sequence[torch.optim.Optimizer]) -> int:
        """Takes up what a file keeps; the step to go on with, 0 where the file is of another lesson."""
        if file is None:
            return 0
        state = torch.load(file, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        if not optimisers:
            return 0
        if state.get("optimisers"):
            for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(kept)
        return int(state["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0 is torch's own choice")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("model"), help="where the model goes")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    WORKSHOP.mkdir(parents=True, exist_ok=True)
    training = Training(given.seed, "cuda" if torch.cuda.is_available() else "cpu")
    kept: Path | None = None
    for lesson in LESSONS:
        kept = training.run(lesson, kept)
    training.ship(given.out)


if __name__ == "__main__":
    main()
