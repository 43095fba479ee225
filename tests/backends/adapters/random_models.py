"""Small models with random weights in the folders that transformers loads: the shapes of Qwen without its knowledge."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backends.adapters.hf_transformers.torchvision_shim import make_torchvision_importable
from backends.catalog.cards import Artefact, Card, Repository
from backends.core.cancel import Cancel
from backends.core.types import Image, Loading

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
MARKERS = ("<|video_pad|>", "<think>", "</think>")
CHATML = (
    "{% set seen = namespace(pictures=0) %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}{% set seen.pictures = seen.pictures + 1 %}"
    "{% if add_vision_id %}Picture {{ seen.pictures }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
EYES = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 16,
    "num_position_embeddings": 64,
}


LETTERS = "abcdefghijklmnopqrstuvwxyz"
EYESIGHT = {"side": 32, "fewest": 1, "default": 64, "most": 1280, "boxes": "thousandths"}
GGUF = {"model": "tiny-f16.gguf", "projector": "mmproj-tiny-f16.gguf"}


class Folder:
    """A `Files` that has one folder, whatever is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, artefact: Artefact, cancel: Cancel) -> Generator[Loading, None, Path]:
        raise AssertionError("no single file is asked for")
        yield

    def fetch_repository(self, repository: Repository, cancel: Cancel) -> Generator[Loading, None, Path]:
        yield from ()
        return self._folder

    def check_again(self, wanted: Artefact | Repository, cancel: Cancel) -> Iterator[Loading]:
        yield from ()

    def obtainable(self, artefact: Artefact) -> bool:
        return True


class Converted(Folder):
    """The same with the two files that `examples.tiny.to_gguf` makes in it."""

    def fetch(self, artefact: Artefact, cancel: Cancel) -> Generator[Loading, None, Path]:
        yield from ()
        return self._folder / artefact.file


def card(*modalities: str) -> Card:
    rows: list[dict[str, Any]] = [{"values": {}, "thinking": mode, "source": "tests"} for mode in (True, False)]
    return Card.model_validate(
        {
            "id": "random",
            "name": "Random model",
            "family": "Random",
            "parameters": 0.001,
            "modalities": {"text", *modalities},
            "eyes": EYESIGHT if "image" in modalities else None,
            "context": 4096,
            "licence": "Apache-2.0",
            "thinking": {"kind": "switch"},
            "kv_bytes_per_token": 512,
            "sampling": rows,
            "artefacts": [
                {"engine": "llama_cpp", "role": role, "file": name, "bytes": 1, "hub": "tests/random"}
                for role, name in GGUF.items()
            ],
            "repositories": [{"engine": "transformers", "hub": "tests/random"}],
        }
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for every byte, and Qwen's special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.add_special_tokens(list(SPECIAL))
    bytewise.add_tokens(list(MARKERS))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=bytewise, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    wrapped.image_token, wrapped.video_token = "<|image_pad|>", "<|video_pad|>"
    wrapped.vision_start_token, wrapped.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    return wrapped


def need_torch() -> None:
    """For every fixture that makes one of these models; at the head of a module it would cost all the others 4 s."""
    pytest.importorskip("torch")
    make_torchvision_importable()


def text_model(folder: Path) -> Path:
    """Qwen3's architecture: attention alone."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    words = tokenizer()
    return _saved(folder, Qwen3ForCausalLM(Qwen3Config(vocab_size=len(words), **TEXT)), words)


def hybrid_model(folder: Path) -> Path:
    """Qwen3.5's language model: linear attention in three layers of four."""
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

    words = tokenizer()
    config = Qwen3_5TextConfig(vocab_size=len(words), **TEXT, **LINEAR)
    return _saved(folder, Qwen3_5ForCausalLM(config), words)


def vision_model(folder: Path) -> Path:
    """Qwen3-VL's architecture with its own processor."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    words = tokenizer()
    eyes = EYES | {"depth": 3, "deepstack_visual_indexes": [0, 1]}
    config = Qwen3VLConfig(text_config=_reads(words), vision_config=eyes, **_picture_ids(words))
    return _saved(folder, Qwen3VLForConditionalGeneration(config), _processor(words))


def hybrid_vision_model(folder: Path) -> Path:
    """Qwen3.5's architecture as it is published: pictures, and linear attention in three layers of four."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    words = tokenizer()
    config = Qwen3_5Config(text_config=_reads(words) | LINEAR, vision_config=EYES, **_picture_ids(words))
    return _saved(folder, Qwen3_5ForConditionalGeneration(config), _processor(words))


def seeing_model(folder: Path) -> Path:
    """The tiny model's own shape and size, for both engines: as transformers saves it, and as two GGUF files.

    What it says is likely enough that a small difference of the engines does not change it, and always whole letters.
    """
    import torch

    from examples.tiny import anatomy, to_gguf

    torch.manual_seed(0)
    words = anatomy.make_tokenizer(f"{a} {b}{c}ing" for a in LETTERS for b in LETTERS for c in LETTERS)
    model = anatomy.make_model(words)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
            elif "pos_embed" in name:
                torch.nn.init.normal_(weight, std=0.5)
            elif "embed_tokens" in name:
                weight.mul_(4)
                for token in range(len(words)):
                    if token in words.added_tokens_decoder or "\ufffd" in words.decode([token]):
                        weight[token] *= 0.1
            elif "patch_embed" not in name:
                weight.mul_(1.3)
    processor = anatomy.make_processor(words)
    processor.chat_template = words.chat_template = CHATML
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    to_gguf.convert(folder)
    return folder


def picture(width: int, height: int, seed: int = 0) -> Image:
    """Coloured clouds, unlike those of any other `seed`. Sizes in pixels."""
    import random

    from PIL import Image as Pillow

    size = (max(1, width // 16), max(1, height // 16))
    noise = random.Random(seed).randbytes(3 * size[0] * size[1])
    file = io.BytesIO()
    Pillow.frombytes("RGB", size, noise).resize((width, height)).save(file, "PNG")
    return Image(file.getvalue(), width, height)


def _reads(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    """A language model's sizes, with positions in time, height and width."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    return {"vocab_size": len(words), **TEXT, "rope_parameters": rope}


def _picture_ids(words: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    return {field: words.convert_tokens_to_ids(f"<|{name}|>") for field, name in names.items()}


def _processor(words: PreTrainedTokenizerFast) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer=words,
        video_processor=Qwen3VLVideoProcessor(patch_size=16),
        chat_template=CHATML,
    )


def _saved(folder: Path, model: Any, words: Any) -> Path:
    import torch

    torch.manual_seed(0)
    for parameter in model.parameters():  # larger than a real start, so that likely tokens stand out
        torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def numbered_pictures() -> Iterator[bytes]:
    """PNG files, each unlike the others."""
    from PIL import Image as Pillow

    for shade in range(0, 250, 25):
        drawn = io.BytesIO()
        Pillow.linear_gradient("L").resize((96, 64)).point(lambda v, s=shade: (v + s) % 256).convert("RGB").save(
            drawn, "PNG"
        )
        yield drawn.getvalue()
