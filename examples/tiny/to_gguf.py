"""From a folder that transformers wrote to the two files that llama.cpp reads: language in one, eyes in the other.

For Qwen3-VL with a tied output layer, with the names and the types that llama.cpp's own converter gives:
matrices as 16-bit floats, everything that is added or multiplied element by element as 32-bit floats.
Run as `python -m examples.tiny.to_gguf FOLDER [TARGET]`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from gguf import (
    GGML_QUANT_VERSION,
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    MODEL_TENSOR,
    TENSOR_NAMES,
    GGUFType,
    GGUFWriter,
    LlamaFileType,
    TensorNameMap,
    TokenType,
    VisionProjectorType,
    get_tensor_name_map,
)

MODEL_FILE, PROJECTOR_FILE = "tiny-f16.gguf", "mmproj-tiny-f16.gguf"
LANGUAGE, EYES = "model.language_model.", "model.visual."
ENDINGS = (".weight", ".bias")
DEEPSTACK = {
    "norm": MODEL_TENSOR.V_DS_NORM,
    "linear_fc1": MODEL_TENSOR.V_DS_FC1,
    "linear_fc2": MODEL_TENSOR.V_DS_FC2,
}

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Files:
    """What a conversion made."""

    model: Path
    projector: Path


def convert(folder: Path, target: Path | None = None) -> Files:
    """Writes both files into `target` (or beside the weights). Raises ValueError for a model of another kind."""
    target = target or folder
    config = _json(folder, "config.json")
    if config["model_type"] != "qwen3_vl" or not config.get("tie_word_embeddings"):
        raise ValueError("this converts a Qwen3-VL with tied embeddings and nothing else")
    weights = dict(_weights(folder))
    made = Files(target / MODEL_FILE, target / PROJECTOR_FILE)
    _write_language(made.model, folder, config, weights)
    _write_eyes(made.projector, folder, config, weights)
    return made


def _write_language(path: Path, folder: Path, config: Mapping[str, Any], weights: Mapping[str, Array]) -> None:
    sizes = config["text_config"]
    rope = sizes.get("rope_parameters") or sizes
    writer = _writer(path, MODEL_ARCH_NAMES[MODEL_ARCH.QWEN3VL], GGUFType.MODEL)
    writer.add_context_length(sizes["max_position_embeddings"])
    writer.add_embedding_length(sizes["hidden_size"])
    writer.add_block_count(sizes["num_hidden_layers"])
    writer.add_feed_forward_length(sizes["intermediate_size"])
    writer.add_head_count(sizes["num_attention_heads"])
    writer.add_head_count_kv(sizes["num_key_value_heads"])
    writer.add_key_length(sizes["head_dim"])
    writer.add_value_length(sizes["head_dim"])
    writer.add_layer_norm_rms_eps(sizes["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_sections([*rope["mrope_section"], 0])  # time, height, width, and one that is not used
    writer.add_num_deepstack_layers(len(config["vision_config"]["deepstack_visual_indexes"]))
    _add_words(writer, folder, sizes["vocab_size"])
    names = get_tensor_name_map(MODEL_ARCH.QWEN3VL, sizes["num_hidden_layers"])
    for name, weight in weights.items():
        if name.startswith(LANGUAGE):
            _add(writer, _known(names, "model." + name.removeprefix(LANGUAGE)), weight)
    _finish(writer)


def _write_eyes(path: Path, folder: Path, config: Mapping[str, Any], weights: Mapping[str, Array]) -> None:
    sizes = config["vision_config"]
    depth, layers = sizes["depth"], sizes["deepstack_visual_indexes"]
    sight = _sight(folder)
    writer = _writer(path, MODEL_ARCH_NAMES[MODEL_ARCH.MMPROJ], GGUFType.MMPROJ)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(VisionProjectorType.QWEN3VL)
    writer.add_vision_image_size(round(sizes["num_position_embeddings"] ** 0.5) * sizes["patch_size"])
    writer.add_vision_patch_size(sizes["patch_size"])
    writer.add_vision_spatial_merge_size(sizes["spatial_merge_size"])
    writer.add_vision_embedding_length(sizes["hidden_size"])
    writer.add_vision_feed_forward_length(sizes["intermediate_size"])
    writer.add_vision_block_count(depth)
    writer.add_vision_head_count(sizes["num_heads"])
    writer.add_vision_projection_dim(sizes["out_hidden_size"])
    writer.add_vision_attention_layernorm_eps(config["text_config"]["rms_norm_eps"])
    writer.add_vision_image_mean(sight["image_mean"])
    writer.add_vision_image_std(sight["image_std"])
    writer.add_vision_use_gelu(True)
    writer.add_vision_is_deepstack_layers([layer in layers for layer in range(depth)])
    names = get_tensor_name_map(MODEL_ARCH.MMPROJ, depth)
    for name, weight in weights.items():
        if name.startswith(EYES):
            for new, part in _seen(names, name.removeprefix(EYES), weight, layers):
                _add(writer, new, part)
    _finish(writer)


def _seen(names: TensorNameMap, name: str, weight: Array, layers: list[int]) -> Iterator[tuple[str, Array]]:
    """One weight of the eyes under its new name; the patches' weight, made for two frames, in two."""
    stem, ending = name.rsplit(".", 1)
    if name == "patch_embed.proj.weight":
        patch = TENSOR_NAMES[MODEL_TENSOR.V_ENC_EMBD_PATCH]
        yield from ((f"{patch}.weight{suffix}", weight[:, :, frame]) for frame, suffix in enumerate(("", ".1")))
    elif name.startswith("deepstack_merger_list."):
        _, nth, part = stem.split(".")
        yield f"{TENSOR_NAMES[DEEPSTACK[part]].format(bid=layers[int(nth)])}.{ending}", weight
    elif name.startswith("merger."):
        layer = TENSOR_NAMES[MODEL_TENSOR.V_MMPROJ]
        new = {"merger.norm": TENSOR_NAMES[MODEL_TENSOR.V_POST_NORM]}
        new |= {"merger.linear_fc1": layer.format(bid=0), "merger.linear_fc2": layer.format(bid=2)}
        yield f"{new[stem]}.{ending}", weight
    else:
        yield _known(names, "visual." + name), weight


def _add_words(writer: GGUFWriter, folder: Path, size: int) -> None:
    """The vocabulary of `size` entries, the merges, and the chat template."""
    words = _json(folder, "tokenizer.json")
    texts = {number: text for text, number in words["model"]["vocab"].items()}
    kinds = dict.fromkeys(texts, TokenType.NORMAL)
    for added in words["added_tokens"]:
        texts[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([texts.get(number, f"[PAD{number}]") for number in range(size)])
    writer.add_token_types([kinds.get(number, TokenType.UNUSED) for number in range(size)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in words["model"]["merges"]])
    numbers = {text: number for number, text in texts.items()}
    writer.add_bos_token_id(numbers["<|endoftext|>"])  # named, as in Qwen's own files, and never put before a prompt
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(numbers["<|im_end|>"])
    writer.add_pad_token_id(numbers["<|endoftext|>"])
    writer.add_chat_template(_template(folder))


def _template(folder: Path) -> str:
    if (file := folder / "chat_template.jinja").exists():
        return file.read_text("utf-8")
    return str(_json(folder, "tokenizer_config.json")["chat_template"])


def _sight(folder: Path) -> dict[str, Any]:
    """How pictures are prepared, wherever this version of the library keeps it."""
    if (folder / "preprocessor_config.json").exists():
        return _json(folder, "preprocessor_config.json")
    settings: dict[str, Any] = _json(folder, "processor_config.json")["image_processor"]
    return settings


def _weights(folder: Path) -> Iterator[tuple[str, Array]]:
    """Every weight as 32-bit floats. bfloat16, which numpy does not know, has to be saved as something else before."""
    for file in sorted(folder.glob("model*.safetensors")):
        with safetensors.safe_open(file, framework="numpy") as opened:
            for name in opened.keys():  # noqa: SIM118 (no dict)
                yield name, opened.get_tensor(name).astype(np.float32)


def _known(names: TensorNameMap, name: str) -> str:
    new: str | None = names.get_name(name, try_suffixes=ENDINGS)
    if new is None:
        raise ValueError(f"llama.cpp has no name for the weight {name!r}")
    return new


def _add(writer: GGUFWriter, name: str, weight: Array) -> None:
    exact = weight.ndim == 1 or re.search(r"norm|position_embd", name)
    writer.add_tensor(name, np.ascontiguousarray(weight, np.float32 if exact else np.float16))


def _writer(path: Path, arch: str, kind: str) -> GGUFWriter:
    writer = GGUFWriter(path, arch)
    writer.add_type(kind)
    writer.add_name(path.stem)
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    return writer


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _json(folder: Path, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / name).read_text("utf-8"))
    return read


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="config.json, model.safetensors, tokenizer.json, chat_template.jinja")
    parser.add_argument("target", type=Path, nargs="?", help="where the two files go; beside the weights by default")
    given = parser.parse_args()
    convert(given.folder, given.target)
