"""How the servers that speak OpenAI's chat completions differ, as rows of data. Nothing here sends anything.

What each row says was read in the servers' sources and documentation; those of llama-server, of vLLM (recordings of
0.32; a real one by hand) and of transformers serve are also run by the tests, the others are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backends.core.types import Capabilities


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server spells things.

    `sampling`: Sampling field -> the server's name for it; `packed_into`: a field that takes, as JSON in a text, those
    that are not in `unpacked`. `thinking_switch`: path of the template's switch, empty where there is none;
    `thinking_values`: what it is set to for off and on (None: left out). `thought_fields`: where thoughts may arrive;
    `parses_thoughts`: those that a template has opened never stay in the text. `continues`: whether the last message of
    the assistant is gone on with, and whether its thoughts stand in a field of their own ('parts') or in its text.
    `counting`: which endpoints count a prompt's tokens; with llama's it can be sent as tokens, too. `takes_user`:
    whether a request may carry the key of a conversation. `extra`: constant fields of every request. `health`: path
    that says whether it can answer.
    """

    name: str
    sampling: Mapping[str, str]
    packed_into: str = ""
    unpacked: frozenset[str] = frozenset({"max_new_tokens", "seed"})
    thinking_switch: tuple[str, ...] = ("chat_template_kwargs", "enable_thinking")
    thinking_values: tuple[Any, Any] = (False, True)
    thought_fields: tuple[str, ...] = ("reasoning_content", "reasoning")
    parses_thoughts: bool = False
    continues: Literal["", "parts", "text"] = ""
    counting: Literal["", "llama", "vllm"] = ""
    logprobs: bool = True
    seeded: bool = True
    takes_user: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    modalities: frozenset[str] = frozenset({"text", "image"})
    health: str = "/v1/models"

    def capabilities(self, parallel: int) -> Capabilities:
        return Capabilities(
            self.name,
            self.sampling,
            self.modalities,
            logprobs=self.logprobs,
            continues=bool(self.continues),
            seeded=self.seeded,
            parallel=parallel,
            counts=bool(self.counting),
        )


def _names(*same: str, **others: str) -> dict[str, str]:
    return {name: name for name in same} | others


_PLAIN = _names("temperature", "top_p", "presence_penalty", "seed", max_new_tokens="max_tokens")
_FULL = _PLAIN | _names("top_k", "min_p", "repetition_penalty")
_COUNTED = {"stream_options": {"include_usage": True}}

LLAMA_SERVER = Dialect(
    name="llama.cpp",
    sampling=_PLAIN | _names("top_k", "min_p", repetition_penalty="repeat_penalty"),
    continues="parts",
    parses_thoughts=True,
    counting="llama",
    takes_user=False,
    # return_progress is what lets the server notice, between two batches of a prompt, that nobody listens any more.
    extra={"cache_prompt": True, "timings_per_token": True, "return_progress": True, "reasoning_format": "deepseek"},
    health="/health",
)
VLLM = Dialect(
    name="vLLM",
    sampling=_FULL,
    continues="text",
    counting="vllm",
    extra={"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    health="/health",
)
SGLANG = Dialect(
    name="SGLang",
    sampling=_FULL,
    continues="text",
    seeded=False,  # only with --enable-deterministic-inference
    extra=_COUNTED,
    health="/health",
)
OLLAMA = Dialect(
    name="Ollama",
    sampling=_PLAIN,  # top_k, min_p and repeat_penalty are set in the Modelfile there
    thinking_switch=("reasoning_effort",),
    thinking_values=("none", None),
    logprobs=False,
    extra=_COUNTED,
)
TRANSFORMERS_SERVE = Dialect(
    name="transformers serve",
    sampling=_names(
        "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", max_new_tokens="max_tokens"
    ),
    packed_into="generation_config",
    logprobs=False,
    takes_user=False,  # refuses every field that it does not know
    health="/health",
)
LM_STUDIO = Dialect(
    name="LM Studio",
    sampling=_PLAIN | _names("top_k", repetition_penalty="repeat_penalty"),
    thinking_switch=(),
    logprobs=False,
    extra=_COUNTED,
)
MODEL_STUDIO = Dialect(
    name="Alibaba Model Studio",
    sampling=_PLAIN | _names("top_k"),
    thinking_switch=("enable_thinking",),
    logprobs=False,
    takes_user=False,
    extra=_COUNTED,
)
MODELSCOPE = Dialect(
    name="ModelScope",
    sampling=_PLAIN,
    thinking_switch=("enable_thinking",),
    logprobs=False,
    takes_user=False,
    extra=_COUNTED,
)
HF_ROUTER = Dialect(
    name="Hugging Face router",
    sampling=_PLAIN,  # the provider behind it decides about the rest
    thinking_switch=(),
    takes_user=False,
    extra=_COUNTED,
)
FOUNDRY_LOCAL = Dialect(
    name="Foundry Local",
    sampling=_PLAIN | _names("top_k"),
    thinking_switch=(),
    logprobs=False,
    takes_user=False,
)
OPENAI = Dialect(
    name="OpenAI-compatible",
    sampling=_PLAIN,
    thinking_switch=(),
    takes_user=False,
    extra=_COUNTED,
)

DIALECTS: Mapping[str, Dialect] = {
    "llama-server": LLAMA_SERVER,
    "vllm": VLLM,
    "sglang": SGLANG,
    "ollama": OLLAMA,
    "transformers-serve": TRANSFORMERS_SERVE,
    "lm-studio": LM_STUDIO,
    "model-studio": MODEL_STUDIO,
    "modelscope": MODELSCOPE,
    "hf-router": HF_ROUTER,
    "foundry-local": FOUNDRY_LOCAL,
    "openai": OPENAI,
}
"""By the name under which a host asks for one."""

OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama-server",
    "library": "ollama",
    "organization_owner": "lm-studio",
    "Microsoft": "foundry-local",
}
"""What a server says in `owned_by` of the models it lists -> its dialect."""

HOSTS = {
    "aliyuncs.com": "model-studio",
    "modelscope.cn": "modelscope",
    "router.huggingface.co": "hf-router",
}
"""The end of a host's name -> its dialect."""
