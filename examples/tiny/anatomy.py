"""What the tiny model is made of: Qwen3-VL's architecture, small, with a tokenizer of its own.

Everything here is the library's own classes with small numbers in them, so whatever loads Qwen3-VL loads this.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backends.adapters.hf_transformers.torchvision_shim import make_torchvision_importable

make_torchvision_importable()

import torch  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402
from transformers import (  # noqa: E402
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

PATCH = 16
"""Pixels along one side of a patch. Four patches (2 x 2) become one visual token of 32 x 32 pixels, as in Qwen3-VL."""
TOKEN = 2 * PATCH
FEWEST_VISUAL_TOKENS, MOST_VISUAL_TOKENS = 12, 24

WORDS = 1024
"""Size of the vocabulary, special tokens included."""
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
MARKERS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 and Qwen3 cut text before byte pairs are merged: every digit is a token of its own."""

CHAT_TEMPLATE = """\
{%- set pictures = namespace(count=0) %}
{%- for message in messages %}
{%- if message.role != 'system' %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{- message.content }}
{%- else %}
{%- for part in message.content %}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part %}
{%- set pictures.count = pictures.count + 1 %}
{%- if add_vision_id %}{{- 'Picture ' ~ pictures.count ~ ': ' }}{% endif %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif 'text' in part %}{{- part.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is not defined or not enable_thinking %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""
"""ChatML with Qwen3's thinking switch. System messages are left out: the model was never shown any."""


def make_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte pairs as Qwen makes them, learnt from the training dialogues."""
    words = Tokenizer(models.BPE())
    words.normalizer = normalizers.NFC()
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS - len(SPECIAL) - len(MARKERS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(texts, trainer)
    words.add_special_tokens([AddedToken(word, normalized=False) for word in SPECIAL])
    words.add_tokens([AddedToken(word, normalized=False, special=False) for word in MARKERS])
    return _as_qwen(words)


def read_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """One that was made before: checkpoints mean nothing without the vocabulary that they were trained with."""
    return _as_qwen(Tokenizer.from_file(str(file)))


def _as_qwen(words: Tokenizer) -> PreTrainedTokenizerFast:
    wrapped = Qwen2Tokenizer(
        tokenizer_object=words,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        unk_token=None,
        bos_token=None,
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )
    for name in ("image", "video"):
        setattr(wrapped, f"{name}_token", f"<|{name}_pad|>")
    wrapped.vision_start_token, wrapped.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    return wrapped


def make_processor(words: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """Qwen3-VL's processor, bounded to the number of visual tokens that the model was trained with."""
    size = {"shortest_edge": FEWEST_VISUAL_TOKENS * TOKEN**2, "longest_edge": MOST_VISUAL_TOKENS * TOKEN**2}
    half = [0.5, 0.5, 0.5]
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=PATCH, size=size, image_mean=half, image_std=half),
        tokenizer=words,
        video_processor=Qwen3VLVideoProcessor(patch_size=PATCH),
        chat_template=CHAT_TEMPLATE,
    )


def make_model(words: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    """The model with random weights: 5.6 million of them, two thirds of them eyes."""
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    ids |= {f"vision_{end}_token_id": words.convert_tokens_to_ids(f"<|vision_{end}|>") for end in ("start", "end")}
    sizes: dict[str, Any] = {
        "vocab_size": WORDS,
        "hidden_size": 192,
        "intermediate_size": 384,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [12, 10, 10], "mrope_interleaved": True,
        },
    }  # fmt: skip
    eyes = {
        "depth": 5,
        "hidden_size": 192,
        "intermediate_size": 576,
        "num_heads": 6,
        "out_hidden_size": sizes["hidden_size"],
        "patch_size": PATCH,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [2],
    }
    config = Qwen3VLConfig(text_config=sizes, vision_config=eyes, tie_word_embeddings=True, **ids)
    model = Qwen3VLForConditionalGeneration(config)
    for part in model.modules():  # 0.02, the library's start, suits widths in the thousands; this one is small
        if isinstance(part, torch.nn.Linear | torch.nn.Conv3d):
            fan_in = part.weight[0].numel()
            torch.nn.init.trunc_normal_(part.weight, std=fan_in**-0.5)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.05)
    model.generation_config.eos_token_id = words.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = words.convert_tokens_to_ids("<|endoftext|>")
    return model
