"""The loop that makes tokens: one thread a model, one forward pass for all answers that are being written.

Long prompts are read in pieces, with a token for everyone else in between, so nobody's answer stands still and a
stopped request is gone within a piece. The keys and values of a conversation are kept for its next turn.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from transformers import DynamicCache

from backends.adapters.hf_transformers.faults import told, unloaded
from backends.adapters.hf_transformers.jobs import End, Job, Token
from backends.adapters.hf_transformers.kv_cache import PrefixStore, can_be_cut, joined, rows_of, start_of
from backends.adapters.hf_transformers.prompts import Prompt
from backends.adapters.hf_transformers.sampling import Sampler, likeliest
from backends.core.types import Loading

PIECE_SECONDS = 0.25  # how long one piece of a prompt should take to read
FIRST_PIECE, LARGEST_PIECE = 64, 2048  # tokens


class Decoder:
    """Runs the loop of one model. `capacity`: tokens that all caches together may hold; `ends`: ids that end a turn."""

    def __init__(self, model: Any, ends: frozenset[int], slots: int, capacity: int) -> None:
        self._model = model
        self._inner = getattr(model, "model", model)
        self._ends = ends
        self._capacity = capacity
        self._device = model.get_input_embeddings().weight.device
        self.joins = can_be_cut(DynamicCache(config=model.config))
        self.slots = slots if self.joins else 1
        self._arrived: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._open = True
        self._waiting: deque[Job] = deque()
        self._reading: tuple[Job, Iterator[None]] | None = None
        self._rows: list[Job] = []
        self._cache: DynamicCache | None = None
        self._store = PrefixStore()
        self._piece = FIRST_PIECE
        self._thread = threading.Thread(target=self._run, name="transformers", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        with self._door:
            if self._open:
                self._arrived.put(job)
            else:
                job.told.put(unloaded())

    def close(self) -> None:
        """Ends the loop, and every request with it, within a piece of a prompt."""
        with self._door:
            self._open = False
            self._arrived.put(None)
        self._thread.join()

    # --- the loop --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with torch.inference_mode():
            while self._collect():
                try:
                    if self._reading is None and self._waiting and len(self._rows) < self.slots:
                        job = self._waiting.popleft()
                        self._reading = job, self._read(job)
                    if self._reading is not None and next(self._reading[1], self) is self:
                        self._reading = None
                    self._write()
                except Exception as exc:  # no memory even for tidying up: nothing that runs can be trusted any more
                    self._end_all(self._fault(exc))
        self._end_all(unloaded())
        for job in self._waiting:
            job.told.put(unloaded())

    def _end_all(self, word: Exception) -> None:
        """Ends every request that has begun."""
        for job in [*self._rows, *([self._reading[0]] if self._reading else [])]:
            job.told.put(word)
        self._rows, self._reading, self._cache = [], None, None

    def _collect(self) -> bool:
        """Takes in what has arrived; sleeps while there is nothing to do. False once closed."""
        while True:
            idle = not (self._rows or self._waiting or self._reading)
            try:
                job = self._arrived.get(block=idle)
            except queue.Empty:
                return True
            if job is None:
                return False
            self._waiting.append(job)

    def _read(self, job: Job) -> Iterator[None]:
        """Reads a prompt piece by piece, then lets its row join the others."""
        try:
            yield from self._prefill(job)
        except Exception as exc:
            job.told.put(self._fault(exc))

    def _prefill(self, job: Job) -> Iterator[None]:
        prompt, length = job.prompt, len(job.prompt.ids)
        cache, done = self._store.take(prompt.key) or (DynamicCache(config=self._model.config), 0)
        self._make_room(length)
        positions, job.offset = self._positions(prompt)
        job.cached = done
        job.sampler = Sampler(job.sampling, prompt.ids, self._model.config.get_text_config().vocab_size, self._device)
        logits = None
        while done < length:
            if job.cancelled.is_set():
                self._store.put(prompt.key[:done], cache)
                job.told.put(End("cancelled", job.cached))
                return
            end = _piece_end(prompt, done, done + self._piece)
            if end < length - 1:  # what is left after this piece takes long enough to be told
                job.told.put(Loading("reading", done / length, done=done, total=length))
            logits = self._forward_piece(prompt, positions, cache, done, end)
            done = end
            yield
        job.key = list(prompt.key)
        assert logits is not None
        if self._told_next(job, logits):
            self._cache = cache if self._cache is None else joined(self._cache, cache)
            self._rows.append(job)
        else:
            self._store.put(job.key, cache)

    def _forward_piece(
        self, prompt: Prompt, positions: torch.Tensor, cache: DynamicCache, start: int, end: int
    ) -> torch.Tensor:
        """Reads tokens `start` to `end`; returns the logits after the last one. Learns how large a piece may be."""
        pictures = [picture for picture in prompt.pictures if start <= picture.start < end]
        seen = {}
        if pictures:
            seen = {
                "pixel_values": torch.cat([picture.pixels for picture in pictures]).to(self._device),
                "image_grid_thw": torch.cat([picture.grid for picture in pictures]).to(self._device),
            }
        began = time.monotonic()
        output = self._model(
            input_ids=torch.tensor([prompt.ids[start:end]], device=self._device),
            position_ids=positions[..., start:end],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **seen,
        )
        logits: torch.Tensor = output.logits[0, -1].float()
        if end - start == self._piece:
            pace = PIECE_SECONDS / max(1e-3, time.monotonic() - began)
            self._piece = min(LARGEST_PIECE, max(FIRST_PIECE, int(self._piece * min(2.0, max(0.5, pace)))))
        return logits

    def _write(self) -> None:
        """One more token for every answer, by a single forward pass."""
        self._let_go([job for job in self._rows if job.cancelled.is_set()])
        if not self._rows:
            return
        assert self._cache is not None
        length = self._cache.get_seq_length()
        try:
            logits = self._forward_rows(length)
        except Exception as exc:
            self._one_less(exc, length)
            return
        over = []
        for job, row in zip(self._rows, logits, strict=True):
            job.key.append(job.last)
            if not self._told_next(job, row):
                over.append(job)
        self._let_go(over)
        self._make_room(0)

    def _forward_rows(self, length: int) -> torch.Tensor:
        held = [len(job.key) for job in self._rows]
        positions = torch.tensor([[n + job.offset] for n, job in zip(held, self._rows, strict=True)])
        mask = None
        if min(held) < length:  # some rows are padded on the left
            places = torch.arange(length + 1)
            mask = (places >= length - torch.tensor(held)[:, None]).long().to(self._device)
        output = self._model(
            input_ids=torch.tensor([[job.last] for job in self._rows], device=self._device),
            attention_mask=mask,
            position_ids=self._shaped(positions).to(self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _told_next(self, job: Job, logits: torch.Tensor) -> bool:
        """Draws and tells the next token. False where it was the last one."""
        assert job.sampler is not None
        raw = logits.clone() if job.logprobs else logits
        token = job.sampler.pick(logits)
        if token in self._ends:
            job.told.put(End("stop", job.cached))
            return False
        job.last, job.made = token, job.made + 1
        if job.logprobs:
            logprob, top = likeliest(raw, token, job.logprobs)
            job.told.put(Token(token, logprob, tuple(top)))
        else:
            job.told.put(Token(token))
        if job.made >= job.limit:
            job.told.put(End("length", job.cached))
            return False
        return True

    # --- rows and memory -------------------------------------------------------------------------------------------

    def _let_go(self, over: list[Job]) -> None:
        """Takes rows out of the batch and keeps their caches for a next turn."""
        if not over:
            return
        assert self._cache is not None
        for job in over:
            if job.cancelled.is_set() and job.made < job.limit:
                job.told.put(End("cancelled", job.cached))
        stay = [i for i, job in enumerate(self._rows) if job not in over]
        if len(self._rows) == 1:
            self._store.put(self._rows[0].key, self._cache)
            self._cache = None
        else:
            for i, job in enumerate(self._rows):
                if job in over:
                    self._store.put(job.key, rows_of(self._cache, [i], len(job.key)))
            longest = max((len(self._rows[i].key) for i in stay), default=0)
            self._cache = rows_of(self._cache, stay, longest) if stay else None
        self._rows = [self._rows[i] for i in stay]

    def _make_room(self, wanted: int) -> None:
        """Forgets old conversations until they, the running ones and `wanted` more tokens fit."""
        batch = len(self._rows) * self._cache.get_seq_length() if self._cache is not None else 0
        self._store.shrink(max(0, self._capacity - batch - wanted))

    def _one_less(self, exc: Exception, length: int) -> None:
        """After a failed pass: the longest answer ends with what is to be said about it, the others go on."""
        assert self._cache is not None
        victim = max(self._rows, key=lambda job: len(job.key))
        victim.told.put(self._fault(exc))
        stay = [i for i, job in enumerate(self._rows) if job is not victim]
        self._rows = [self._rows[i] for i in stay]
        if not stay:
            self._cache = None
            return
        whole = start_of(self._cache, length)  # some layers may have taken the new token in before it failed
        self._cache = rows_of(whole, stay, max(len(job.key) for job in self._rows))

    def _fault(self, exc: Exception) -> Exception:
        """What to tell of it; memory that can be given back is."""
        self._store.shrink(0)
        return told(exc)

    # --- positions -------------------------------------------------------------------------------------------------

    def _positions(self, prompt: Prompt) -> tuple[torch.Tensor, int]:
        """Position ids of the whole prompt, and what later ones are ahead of their place."""
        length = len(prompt.ids)
        if not prompt.pictures:
            return self._shaped(torch.arange(length)[None]).to(self._device), 0
        positions, ahead = self._inner.get_rope_index(
            torch.tensor([prompt.ids]),
            mm_token_type_ids=torch.tensor([prompt.token_types]),
            image_grid_thw=torch.cat([picture.grid for picture in prompt.pictures]),
        )
        return positions.to(self._device), int(ahead)

    def _shaped(self, positions: torch.Tensor) -> torch.Tensor:
        """(rows, tokens), or (3, rows, tokens) for a model that tells time, height and width apart."""
        return positions[None].expand(3, -1, -1) if hasattr(self._inner, "get_rope_index") else positions


def _piece_end(prompt: Prompt, start: int, end: int) -> int:
    """The end of a piece, moved so that no picture is cut. The last token is always read by itself, as it is where
    all others are known from before: so a request that is repeated meets the same rounding and the same seed repeats
    its answer."""
    last = len(prompt.ids) - 1
    end = min(end, last) if start < last else last + 1
    for picture in prompt.pictures:
        if picture.start < end < picture.end:
            return picture.end if picture.start <= start else picture.start
    return end
