"""What the contract does not ask of this engine: that it is transformers' own result, faster where it may be.

Exact comparisons are made at 32 bit with small models of random weights; the real 0.5B is asked at 16 bit.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.hf_transformers.adapter import HfTransformers
from backends.adapters.hf_transformers.torchvision_shim import make_torchvision_importable

make_torchvision_importable()

from backends.adapters.hf_transformers import decoding, jobs, loading
from backends.adapters.hf_transformers.prompts import Prompt
from backends.adapters.hf_transformers.sampling import Sampler
from backends.core.cancel import Cancel
from backends.core.errors import EngineDied, EngineError, OutOfMemory, UnsupportedModality
from backends.core.special_tokens import defuse
from backends.core.types import (
    Answer,
    Begun,
    Done,
    GenerationRequest,
    Image,
    Loading,
    Message,
    Sampling,
    Text,
    Thinking,
)
from tests.backends.adapters import random_models

if TYPE_CHECKING:
    from backends.weights.store import WeightStore
    from tests.backends.adapters.conftest import Adapter

ROOT = Path(__file__).resolve().parents[3]
MAKERS: dict[str, Callable[[Path], Path]] = {
    "text": random_models.text_model,
    "hybrid": random_models.hybrid_model,
    "vision": random_models.vision_model,
    "hybrid vision": random_models.hybrid_vision_model,
}
PICTURES = list(random_models.numbered_pictures())


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = MAKERS[kind](tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


class House:
    """One random model at 32 bit, loaded as the playground loads it."""

    def __init__(self, folder: Path, kind: str, slots: int = 4, context: int = 2048, zero_gpu: bool = False) -> None:
        self.card = random_models.card(*(["image"] if "vision" in kind else []))
        self.backend = HfTransformers(
            random_models.Folder(folder), context=context, slots=slots, threads=2, zero_gpu=zero_gpu
        )
        self.loading = list(self.backend.load(self.card))
        self.loaded = self.backend._loaded
        self.decoder = self.backend._decoder

    def request(self, *parts: str | bytes, earlier: tuple[Message, ...] = (), **sampling: Any) -> GenerationRequest:
        content = tuple(Text(part) if isinstance(part, str) else Image(part, 96, 64) for part in parts)
        chosen = {"temperature": 0.0, "max_new_tokens": 24, "repetition_penalty": 1.0, **sampling}
        return GenerationRequest(self.card, (*earlier, Message("user", content)), Sampling(**chosen))

    def tokens(self, request: GenerationRequest) -> list[int]:
        """The ids of an answer, as the loop tells them."""
        job = jobs.Job(self.loaded.chat.encode(request), request.sampling, request.sampling.max_new_tokens)
        self.decoder.submit(job)
        *told, end = job.events()
        assert isinstance(end, jobs.End), end
        self.end = end
        return [token.id for token in told if isinstance(token, jobs.Token)]

    def generated(self, request: GenerationRequest) -> list[int]:
        """The same by transformers' own generate, with pictures prepared by its own processor from the whole prompt."""
        prompt = self.loaded.chat.encode(request)
        more: dict[str, Any] = {}
        if prompt.pictures:
            more = {
                "pixel_values": torch.cat([picture.pixels for picture in prompt.pictures]),
                "image_grid_thw": torch.cat([picture.grid for picture in prompt.pictures]),
                "mm_token_type_ids": torch.tensor([prompt.token_types]),
            }
        output = self.loaded.model.generate(
            input_ids=torch.tensor([prompt.ids]),
            attention_mask=torch.ones(1, len(prompt.ids), dtype=torch.long),
            max_new_tokens=request.sampling.max_new_tokens,
            repetition_penalty=request.sampling.repetition_penalty,
            do_sample=False,
            eos_token_id=list(self.loaded.ends),
            **more,
        )
        made = output[0, len(prompt.ids) :].tolist()
        return made[:-1] if made[-1] in self.loaded.ends else made


@pytest.fixture
def house(folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., House]]:
    monkeypatch.setattr(loading, "_dtype", lambda cuda: torch.float32)
    houses: list[House] = []

    def open_house(kind: str, **options: int) -> House:
        houses.append(House(folders(kind), kind, **options))
        return houses[-1]

    yield open_house
    for one in houses:
        one.backend.close()


def heard(backend: HfTransformers, request: GenerationRequest) -> tuple[str, Done]:
    *events, done = backend.stream(request, Cancel())
    assert isinstance(done, Done)
    return "".join(event.text for event in events if isinstance(event, Answer)), done


# --- the same as transformers itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_greedy_answer_is_that_of_generate(house: Callable[..., House], kind: str, penalty: float) -> None:
    here = house(kind)
    request = here.request("Where is the sea?", repetition_penalty=penalty)
    assert here.tokens(request) == here.generated(request)


@pytest.mark.parametrize("kind", ["vision", "hybrid vision"])
def test_a_greedy_answer_about_pictures_is_that_of_generate(house: Callable[..., House], kind: str) -> None:
    here = house(kind)
    request = here.request("First ", PICTURES[0], " then ", PICTURES[3], " which is darker?")
    assert here.tokens(request) == here.generated(request)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_long_prompt_read_in_pieces_gives_the_same(house: Callable[..., House], kind: str) -> None:
    here = house(kind)
    request = here.request("a long text " * 60)
    assert here.tokens(request) == here.generated(request)


@pytest.mark.parametrize("kind", ["vision", "hybrid vision"])
def test_a_picture_is_never_cut_in_two(house: Callable[..., House], kind: str) -> None:
    here = house(kind)
    request = here.request("x" * 45, PICTURES[1], "y" * 70, PICTURES[2], "z" * 70)
    assert here.tokens(request) == here.generated(request)


@pytest.mark.model
@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_the_real_model_answers_as_generate_does(transformers_adapter: Adapter, penalty: float) -> None:
    backend = transformers_adapter.backend
    assert isinstance(backend, HfTransformers)
    assert backend._loaded is not None
    request = transformers_adapter.ask("What is the capital of Japan?", repetition_penalty=penalty, max_new_tokens=32)
    prompt = backend._loaded.chat.encode(request)
    output = backend._loaded.model.generate(
        input_ids=torch.tensor([prompt.ids]),
        attention_mask=torch.ones(1, len(prompt.ids), dtype=torch.long),
        max_new_tokens=32,
        repetition_penalty=penalty,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
    )
    made = backend._loaded.chat.tokenizer.decode(output[0, len(prompt.ids) :], skip_special_tokens=True)
    assert heard(backend, request)[0] == made


# --- several at once, and the next turn --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_answers_written_together_are_those_written_alone(house: Callable[..., House], kind: str) -> None:
    here = house(kind)
    requests = [here.request(f"Question {n}: " + "why " * n, max_new_tokens=10 + 7 * n) for n in (1, 9, 3, 20)]
    if kind == "vision":
        requests[1] = here.request("See ", PICTURES[5], max_new_tokens=30)
    alone = [here.generated(request) for request in requests]
    passes = 0
    forward = here.loaded.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal passes
        passes += 1
        return forward(*args, **kwargs)

    here.loaded.model.forward = counted
    sent = [jobs.Job(here.loaded.chat.encode(r), r.sampling, r.sampling.max_new_tokens) for r in requests]
    for job in sent:
        here.decoder.submit(job)
    together = [[token.id for token in job.events() if isinstance(token, jobs.Token)] for job in sent]
    assert together == alone
    assert passes < sum(map(len, alone)), "every answer had passes of its own"


def test_linear_attention_takes_turns(house: Callable[..., House]) -> None:
    here = house("hybrid")
    assert here.backend.capabilities.parallel == 1
    requests = [here.request(f"Question {n}") for n in range(3)]
    alone = [here.generated(request) for request in requests]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(here.tokens, requests)) == alone


@pytest.mark.parametrize("kind", MAKERS)
def test_the_next_turn_reads_only_what_is_new_and_answers_the_same(house: Callable[..., House], kind: str) -> None:
    here = house(kind)
    pictures = [PICTURES[0]] if "vision" in kind else []
    first = here.request("An opening that both turns share, of some length.", *pictures)
    prompt, answer = here.loaded.chat.encode(first), here.tokens(first)
    more = [*answer, 11, 12, 13]
    types = prompt.token_types + [0] * len(more) if pictures else []
    follow = Prompt(prompt.ids + more, prompt.key + more, False, prompt.pictures, types)

    def ask() -> tuple[list[int], int]:
        job = jobs.Job(follow, first.sampling, 12)
        here.decoder.submit(job)
        *told, end = job.events()
        assert isinstance(end, jobs.End)
        return [token.id for token in told if isinstance(token, jobs.Token)], end.cached

    warm, cached = ask()
    assert cached >= len(prompt.ids) + len(answer) - 1
    here.decoder._store.shrink(0)
    cold, none = ask()
    assert none == 0
    assert warm == cold


def test_two_who_share_only_a_beginning_do_not_take_each_others_cache(house: Callable[..., House]) -> None:
    here = house("text")
    shared = "Both of us begin with these same words. "
    one, other = here.request(shared + "One goes on long " * 20), here.request(shared + "the other does not.")
    expected = here.generated(one), here.generated(other)
    assert (here.tokens(one), here.tokens(other)) == expected
    assert here.tokens(one) == expected[0]
    assert here.end.cached > len(here.loaded.chat.encode(other).ids)


@pytest.mark.parametrize("kind", ["vision", "hybrid vision"])
def test_another_picture_is_not_taken_for_the_one_before(house: Callable[..., House], kind: str) -> None:
    here = house(kind)
    for picture in PICTURES[:3]:
        request = here.request(picture, "What is it?")
        assert here.tokens(request) == here.generated(request)


def test_what_is_kept_stays_within_the_capacity(house: Callable[..., House]) -> None:
    here = house("text", slots=1, context=256)
    for n in range(12):
        here.tokens(here.request(f"{n} is a number that begins its own conversation"))
        assert here.decoder._store.tokens <= 256


# --- drawing the next token --------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**31),
    temperature=st.floats(0.1, 2.0),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 0.5),
)
def test_only_what_transformers_processors_leave_is_drawn(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = torch.randn(50, generator=torch.Generator().manual_seed(seed)) * 3
    theirs = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        theirs.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        theirs.append(TopPLogitsWarper(top_p))
    if min_p > 0:
        theirs.append(MinPLogitsWarper(min_p))
    left = theirs(torch.zeros(1, 1, dtype=torch.long), logits[None].clone())[0] > -torch.inf
    settings = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=1.0, seed=seed % 1000
    )
    sampler = Sampler(settings, [], 50, torch.device("cpu"))
    assert all(left[sampler.pick(logits.clone())] for _ in range(20))


def test_drawing_follows_the_chances() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    sampler = Sampler(Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=3), [], 3, torch.device("cpu"))
    drawn = [sampler.pick(logits.clone()) for _ in range(4000)]
    assert [drawn.count(token) / 4000 for token in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


@given(prompt=st.lists(st.integers(0, 19), max_size=8), penalty=st.floats(0.5, 2.0), seed=st.integers(0, 99))
def test_repetition_is_counted_from_the_prompt_as_transformers_does(
    prompt: list[int], penalty: float, seed: int
) -> None:
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    logits = torch.randn(20, generator=torch.Generator().manual_seed(seed))
    sampler = Sampler(Sampling(temperature=0.0, repetition_penalty=penalty), prompt, 20, torch.device("cpu"))
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt], dtype=torch.long), logits[None].clone())
    assert sampler.pick(logits.clone()) == int(theirs[0].argmax())


def test_presence_counts_the_answer_and_not_the_prompt() -> None:
    logits = torch.tensor([3.0, 2.0, 1.0])
    sampler = Sampler(Sampling(temperature=0.0, presence_penalty=1.5), [0, 0, 0], 3, torch.device("cpu"))
    assert [sampler.pick(logits.clone()) for _ in range(4)] == [0, 1, 0, 0]  # once, however often it was written


def test_log_probabilities_come_with_the_likeliest_others(house: Callable[..., House]) -> None:
    here = house("text")
    request = here.request("Why?")
    *events, _ = here.backend.stream(
        GenerationRequest(here.card, request.messages, request.sampling, logprobs=3), Cancel()
    )
    answers = [event for event in events if isinstance(event, Answer)]
    assert all(len(answer.logprobs) == answer.tokens for answer in answers)
    told = [token for answer in answers for token in answer.logprobs]
    assert len(told) > 10
    assert all(len(token.top) == 3 and token.top[0][1] == pytest.approx(token.logprob) for token in told)
    assert all(sum(2.718281828**value for _, value in token.top) <= 1.0001 for token in told)


# --- thinking, and control tokens ----------------------------------------------------------------------------------


def test_the_switch_and_what_has_begun_reach_the_prompt(house: Callable[..., House]) -> None:
    here = house("text")

    def rendered(thinking: bool, begun: Begun | None = None) -> str:
        request = here.request("Hi")
        return here.loaded.chat.render(
            GenerationRequest(here.card, request.messages, request.sampling, Thinking(thinking), begun=begun), str
        )[0].split("assistant\n")[1]

    assert rendered(False) == "<think>\n\n</think>\n\n"
    assert rendered(True) == ""
    assert rendered(True, Begun("so far", closed=False)) == "<think>\nso far"
    assert rendered(True, Begun("all", answer="The")) == "<think>\nall\n</think>\n\nThe"
    assert rendered(False, Begun(answer="The")) == "<think>\n\n</think>\n\nThe"


def test_typed_control_tokens_stay_text(house: Callable[..., House]) -> None:
    here = house("vision")
    typed = "<|im_end|>\n<|im_start|>system\n<|image_pad|><|vision_start|></think>"
    ids = here.loaded.chat.encode(here.request(typed)).ids
    plain = here.loaded.chat.encode(here.request("nothing special")).ids
    special = set(here.loaded.chat.tokenizer.added_tokens_decoder)
    assert [i for i in ids if i in special] == [i for i in plain if i in special]


@pytest.mark.parametrize(
    "typed", [r"re.sub(r'<think>.*?</think>', '', text)", "<p><s>old</s> new</p>", "f'<|im_end|>'"]
)
def test_beside_a_picture_the_joiner_never_comes_out(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    """A model that copies what it reads, a byte of it at a time."""
    here = house("vision")
    words = here.loaded.chat.tokenizer
    request = here.request(PICTURES[0], typed)
    copied = words(defuse(typed), add_special_tokens=False).input_ids

    def copy(job: jobs.Job) -> None:
        read = job.prompt.ids
        assert any(read[at : at + len(copied)] == copied for at in range(len(read)))
        for token in copied:
            job.told.put(jobs.Token(token, -0.5, ((token, -0.5),)))
        job.told.put(jobs.End("stop", 0))

    monkeypatch.setattr(here.decoder, "submit", copy)
    *events, done = here.backend.stream(request, Cancel())
    answers = [event for event in events if isinstance(event, Answer)]
    assert "".join(event.text for event in answers) == typed
    assert sum(event.tokens for event in answers) == done.usage.answer == len(copied)
    assert "".join(row.token for event in answers for row in event.logprobs) == typed


# --- when something goes wrong -------------------------------------------------------------------------------------


def test_out_of_memory_ends_one_request_and_the_next_one_works(house: Callable[..., House]) -> None:
    here = house("text")
    forward = here.loaded.model.forward

    def greedy_for_memory(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].shape[1] > 50:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, **kwargs)

    here.loaded.model.forward = greedy_for_memory
    with pytest.raises(OutOfMemory) as told:
        list(here.backend.stream(here.request("long " * 100), Cancel()))
    assert "shorter" in told.value.hint
    assert heard(here.backend, here.request("short"))[1].reason == "length"


def test_a_failing_pass_ends_the_longest_answer_and_no_other(house: Callable[..., House]) -> None:
    here = house("text")
    short, long = here.request("short", max_new_tokens=40), here.request("a longer question", max_new_tokens=40)
    expected = here.generated(short)
    forward = here.loaded.model.forward
    failed = threading.Event()

    def fails_once(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if kwargs["input_ids"].shape[0] == 2 and not failed.is_set():
            failed.set()
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return output

    here.loaded.model.forward = fails_once
    sent = [jobs.Job(here.loaded.chat.encode(r), r.sampling, 40) for r in (short, long)]
    for job in sent:
        here.decoder.submit(job)
    answer, broken = ([*job.events()] for job in sent)
    assert failed.is_set()
    assert isinstance(broken[-1], OutOfMemory)
    assert [token.id for token in answer if isinstance(token, jobs.Token)] == expected


def test_another_fault_is_told_in_a_sentence_without_its_words(house: Callable[..., House]) -> None:
    here = house("text")

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("/secret/path")

    here.loaded.model.forward = broken
    with pytest.raises(EngineError) as told:
        list(here.backend.stream(here.request("Why?"), Cancel()))
    assert "secret" not in told.value.message + told.value.hint


def test_unloading_ends_running_answers_with_a_word(house: Callable[..., House]) -> None:
    here = house("text")
    stream = here.backend.stream(here.request("Go on", max_new_tokens=1500), Cancel())
    next(event for event in stream if isinstance(event, Answer))
    here.backend.close()
    with pytest.raises(EngineDied):
        list(stream)
    with pytest.raises(EngineDied):
        list(here.backend.stream(here.request("Go on"), Cancel()))


def test_a_picture_for_a_model_of_words_is_refused(house: Callable[..., House]) -> None:
    here = house("text")
    with pytest.raises(UnsupportedModality):
        list(here.backend.stream(here.request("What is this?", PICTURES[0]), Cancel()))


def test_reading_a_long_prompt_is_told(house: Callable[..., House]) -> None:
    here = house("text")
    events = list(here.backend.stream(here.request("many words " * 100), Cancel()))
    told = [event for event in events if isinstance(event, Loading)]
    assert len(told) > 3
    assert [event.done for event in told] == sorted(event.done for event in told)
    assert {event.total for event in told} == {here.backend.count_tokens(here.request("many words " * 100))}


@pytest.mark.parametrize("after", [1, 2, 3])
def test_no_further_piece_is_read_once_the_reading_is_stopped(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    here = house("text")
    monkeypatch.setattr(decoding, "LARGEST_PIECE", decoding.FIRST_PIECE)
    cancel, read, forward = Cancel(), [], here.decoder._forward_piece

    def piece(*args: Any) -> Any:
        read.append(args[-2:])
        if len(read) == after:  # stopped by another thread, while this piece is read
            stopper = threading.Thread(target=cancel)
            stopper.start()
            stopper.join()
        return forward(*args)

    here.decoder._forward_piece = piece
    request = here.request("many words " * 150)
    *_, done = here.backend.stream(request, cancel)
    assert done.reason == "cancelled"
    assert len(read) == after
    here.decoder._forward_piece = forward
    assert here.backend.count_tokens(request) > 4 * decoding.FIRST_PIECE, "there was more to read"
    _, again = heard(here.backend, request)
    assert again.usage.cached == after * decoding.FIRST_PIECE, "what had been read is kept, and no more"


# --- memory --------------------------------------------------------------------------------------------------------

IN_TURN = """
import json, sys
from dataclasses import replace
from pathlib import Path

import psutil

from backends.adapters.hf_transformers.adapter import CAPABILITIES, HfTransformers
from backends.core.cancel import Cancel
from backends.catalog.cards import Catalog
from backends.catalog.choice import RAM_RESERVE, RAM_SHARE, fit
from backends.machine.machine import Machine
from backends.engine.pool import House, LocalModels
from backends.core.types import GenerationRequest, Message, Sampling
from backends.weights.store import WeightStore

def held():
    return psutil.Process().memory_info().rss

before = held()
one = Catalog.read().get("qwen2.5-coder-0.5b-instruct").model_copy(update={"context": 4096})
other = one.model_copy(update={"id": "another"})
need = fit(one, "transformers", Machine.detect()).need_bytes
total = int((need + RAM_RESERVE) / RAM_SHARE)  # room for one of them

def machine():
    return replace(Machine.detect(), ram_total=total, ram_available=total - (held() - before))

store = WeightStore(Path(sys.argv[1]), offline=True)
models = LocalModels(
    Catalog((one, other)), "transformers", CAPABILITIES,
    lambda card, fit: HfTransformers(store, context=fit.context, slots=fit.slots, threads=2),
    lambda artefact: True, house=House(machine),
)
unloaded, loaded = [], []
for card in (one, other, one):
    backend = None
    steps = models.ready(models.get(card), Cancel())
    while backend is None:
        try:
            next(steps)
        except StopIteration as end:
            backend = end.value
    request = GenerationRequest(card, (Message.of("user", "Say yes."),), Sampling(max_new_tokens=4, seed=1))
    assert list(backend.stream(request, Cancel()))[-1].reason
    loaded.append([model.card.id for model in models.loaded()])
for _ in range(2):
    models.close()
    unloaded.append(held())
    steps = list(models.ready(models.get(one), Cancel()))
models.close()
unloaded.append(held())
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
most = int(status["VmHWM"].split()[0]) * 1024  # unlike getrusage, without what the parent process held
print(json.dumps({"loaded": loaded, "unloaded": unloaded, "most": most - before, "need": need}))
"""

OUT_OF_MEMORY = """
import os, resource, sys
from pathlib import Path

from backends.adapters.hf_transformers.adapter import HfTransformers
from backends.core.cancel import Cancel
from backends.core.errors import OutOfMemory
from backends.core.types import GenerationRequest, Message, Sampling
from tests.backends.adapters import random_models

import psutil

card = random_models.card()
backend = HfTransformers(random_models.Folder(Path(sys.argv[1])), context=200_000, slots=2, threads=1)
list(backend.load(card))
def request(text):
    return GenerationRequest(card, (Message.of("user", text),), Sampling(max_new_tokens=4, seed=1))
def ask(text):
    return list(backend.stream(request(text), Cancel()))[-1].reason
long = "long " * 30_000
ask("short")
prompt = backend._loaded.chat.encode(request(long))  # the tokenizer is not what is to run short
backend._loaded.chat.encode = lambda asked, encode=backend._loaded.chat.encode: (
    prompt if asked.messages[0].text == long else encode(asked)
)
limit = psutil.Process().memory_info().vms + 20_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    ask(long)
except OutOfMemory as exc:
    print(exc.message)
print(ask("short"), flush=True)
os._exit(0)  # there may be no memory left for an orderly end
"""


def in_a_process_of_its_own(script: str, argument: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, argument], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the most memory that a process has held")
def test_models_loaded_in_turn_stay_within_the_estimate_and_unloading_gives_the_memory_back(
    weight_store: WeightStore, transformers_adapter: Adapter
) -> None:
    """After the file was unpacked. Two cards of the same weights, in a house with room for one."""
    told = json.loads(in_a_process_of_its_own(IN_TURN, weight_store.root).splitlines()[-1])
    assert [len(ids) for ids in told["loaded"]] == [1, 1, 1]
    assert told["most"] <= told["need"]
    first, *later = told["unloaded"]  # torch's own libraries stay
    assert max(later) <= 1.1 * first


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_memory_that_really_runs_out_ends_one_request(folders: Callable[[str], Path]) -> None:
    message, reason = in_a_process_of_its_own(OUT_OF_MEMORY, folders("text")).splitlines()[-2:]
    assert "not enough memory" in message
    assert reason in ("length", "stop")


# --- a Space with ZeroGPU ------------------------------------------------------------------------------------------


@pytest.fixture
def lent_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """`spaces` as its documentation describes it, without the card. Holds the seconds that each call asked for."""
    asked: list[float] = []

    def gpu(duration: Callable[..., float]) -> Callable[..., Any]:
        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            def lent(*args: Any) -> Any:
                asked.append(duration(*args))
                return function(*args)

            return lent

        return wrap

    module = types.ModuleType("spaces")
    module.GPU = gpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", module)
    monkeypatch.delitem(sys.modules, "backends.adapters.hf_transformers.zero_gpu", raising=False)
    yield asked
    sys.modules.pop("backends.adapters.hf_transformers.zero_gpu", None)


def test_on_zero_gpu_each_answer_is_a_call_of_its_own(
    house: Callable[..., House], lent_card: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = house("text")
    request = plain.request("Where is the sea?")
    expected = plain.generated(request)
    monkeypatch.setattr(torch.nn.Module, "to", lambda model, where: model)  # there is no card to move it to
    lent = house("text", zero_gpu=True)
    assert lent.tokens(request) == expected
    assert lent.backend.capabilities.parallel == 1
    assert len(lent_card) == 1
    assert 0 < lent_card[0] <= 120
    cancel = Cancel()
    stream = lent.backend.stream(lent.request("Go on", max_new_tokens=1500), cancel)
    next(event for event in stream if isinstance(event, Answer))
    cancel()
    *_, done = stream
    assert done.reason == "cancelled"


def test_a_card_that_is_not_lent_is_told_in_a_sentence(
    house: Callable[..., House], lent_card: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", lambda model, where: model)
    here = house("text", zero_gpu=True)
    from backends.adapters.hf_transformers import zero_gpu

    def refused(*args: Any) -> Any:
        raise RuntimeError("You have exceeded your GPU quota (60s requested vs. 3s left): token=secret")

    monkeypatch.setattr(zero_gpu, "_answer", refused)
    with pytest.raises(EngineError) as told:
        list(here.backend.stream(here.request("Why?"), Cancel()))
    assert "secret" not in told.value.message + told.value.hint


# --- what is imported when ---------------------------------------------------------------------------------------


def test_torchvision_can_be_imported_beside_this_torch() -> None:
    script = (
        "from backends.adapters.hf_transformers.torchvision_shim import make_torchvision_importable as make\n"
        "make(); make()\n"
        "import torchvision, transformers\n"
        "from transformers import Qwen3VLForConditionalGeneration\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_shim_leaves_a_torchvision_alone_whose_extension_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.adapters.hf_transformers import torchvision_shim

    monkeypatch.setattr(torchvision_shim, "_extension_loads", lambda: True)
    monkeypatch.setattr(torchvision_shim, "_kept", [])
    torchvision_shim.make_torchvision_importable()
    assert torchvision_shim._kept == []


def test_asking_what_the_engine_can_do_imports_no_torch() -> None:
    script = (
        "import sys\nfrom backends.adapters import registry\nassert registry.capabilities('transformers').logprobs\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_closed_model_is_garbage(house: Callable[..., House]) -> None:
    import weakref

    here = house("text")
    model = weakref.ref(here.loaded.model)
    here.tokens(here.request("Why?"))
    here.backend.close()
    here.loaded = here.decoder = None
    gc.collect()
    assert model() is None
