"""Keeps what people type from becoming control tokens.

llama.cpp, vLLM and transformers all turn '<|im_start|>' in a user's text into the control token. Nothing is stripped,
since people type ChatML to learn it: the copy that goes to the engine gets an invisible U+2060 after the '<'.
"""

from __future__ import annotations

import re

WORD_JOINER = "\u2060"
_CONTROL = re.compile(r"<(?=\|[A-Za-z0-9_]+\|>|/?(?:think|tool_call|tool_response|s)>)")


def has_control_tokens(text: str) -> bool:
    return _CONTROL.search(text) is not None


def defuse(text: str) -> str:
    """The same text to a reader, with no surface form of a control token left in it."""
    return _CONTROL.sub("<" + WORD_JOINER, text)
