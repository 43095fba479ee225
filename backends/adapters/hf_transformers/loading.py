"""From files on the disk to a model in memory, and back to free memory."""

from __future__ import annotations

import ctypes
import gc
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, GgufConfig

from backends.adapters.hf_transformers.prompts import ChatFormat
from backends.catalog.cards import Card
from backends.core.types import Loading
from backends.weights.files import free_bytes, no_room

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

UNPACKED = ".unpacked"  # beside a GGUF file: the folder of the same weights at 16 bit
SPARE = 1.4  # a GGUF file may hold twice what the published weights share, such as the output layer


@dataclass(slots=True)
class Loaded:
    model: Any
    chat: ChatFormat
    ends: frozenset[int]


def load(card: Card, folder: Path, zero_gpu: bool = False) -> Loaded:
    """A model from a folder of safetensors. Code that came with the weights is never run."""
    reads_pictures = "image" in card.modalities
    kind = AutoModelForImageTextToText if reads_pictures else AutoModelForCausalLM
    cuda = torch.cuda.is_available()
    model = kind.from_pretrained(
        folder,
        dtype=_dtype(cuda),
        device_map="auto" if cuda and not zero_gpu else "cpu",
        attn_implementation=_attention(cuda),
        quantization_config=_quantisation(card),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    ).eval()
    if zero_gpu:  # noted down now, done where a card is lent
        model.to("cuda")
    else:
        with torch.inference_mode():  # the first pass sets kernels up and pulls the weights in: part of loading
            model(input_ids=torch.zeros(1, 8, dtype=torch.long, device=model.device))
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False) if reads_pictures else None
    tokenizer = processor.tokenizer if processor else AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return Loaded(model, ChatFormat(tokenizer, processor), _ends(model, tokenizer))


def unpack(gguf: Path, sixteen_bit: int) -> Path:
    """The folder with the file's weights at 16 bit, about so many bytes: reading a GGUF takes half a minute, so it is
    done once. Raises `NotEnoughDisk`."""
    folder = gguf.with_name(gguf.name + UNPACKED)
    facts = gguf.stat()
    source = {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns, "transformers": transformers.__version__}
    with FileLock(gguf.with_name(gguf.name + UNPACKED + ".lock")):
        with suppress(OSError, ValueError):
            if json.loads((folder / "source.json").read_text("utf-8")) == source:
                return folder
        making = gguf.with_name(gguf.name + ".unpacking")
        shutil.rmtree(making, ignore_errors=True)
        if (free := free_bytes(gguf.parent)) < (needed := round(sixteen_bit * SPARE)):
            raise no_room(f"{gguf.name} at 16 bit", needed, free)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        model.save_pretrained(making)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(making)
        (making / "source.json").write_text(json.dumps(source), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
    return folder


def forget_unpacked(gguf: Path) -> None:
    """What could not be loaded is unpacked anew the next time: nothing tells whether it is whole."""
    with FileLock(gguf.with_name(gguf.name + UNPACKED + ".lock")):
        shutil.rmtree(gguf.with_name(gguf.name + UNPACKED), ignore_errors=True)


def watched(work: Any, expected_bytes: int) -> Iterator[Loading]:
    """Runs `work` in a thread of its own and tells how far it is, by the memory that it has taken. Raises what it
    raises."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:
            failed.append(exc)

    before, most = _held(), 0.0
    thread = threading.Thread(target=run, name="transformers load", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        most = max(most, min(0.99, (_held() - before) / expected_bytes))
        yield Loading("loading", most)
    if failed:
        raise failed[0]


def give_back_memory() -> None:
    """What was freed goes back to the graphics card and to the system, not only to the allocators."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # other C libraries have no such call
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _held() -> int:
    """Bytes of memory that this process holds, on the graphics card and off it."""
    return int(psutil.Process().memory_info().rss) + (torch.cuda.memory_allocated() if torch.cuda.is_available() else 0)


def _dtype(cuda: bool) -> torch.dtype:
    """16 bit everywhere; on a CPU the one whose products it can sum."""
    return torch.float16 if cuda and not torch.cuda.is_bf16_supported() else torch.bfloat16


def _attention(cuda: bool) -> str:
    return "flash_attention_2" if cuda and transformers.utils.is_flash_attn_2_available() else "sdpa"


def _quantisation(card: Card) -> Any:
    """bitsandbytes' settings for a quantised variant of a card, which the catalog offers only with a graphics card."""
    match card.quantisation:
        case "8bit":
            return transformers.BitsAndBytesConfig(load_in_8bit=True)
        case "4bit":
            return transformers.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=_dtype(True)
            )
    return None


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a turn: what the model's own settings name, and what its template closes a message with."""
    named = model.generation_config.eos_token_id
    ids = set(named if isinstance(named, list) else [named])
    ids |= {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    return frozenset(token for token in ids if isinstance(token, int) and token >= 0)
