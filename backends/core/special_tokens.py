"""What looks like a control token in a text, and the character that keeps it from being one where nothing else can.

Every engine turns '<|im_start|>' in a user's text into the control token. Nothing is stripped, since people type
ChatML to learn it. Where the prompt is made here, people's words are tokenised apart (`adapters/placeholders.py`).
Where an engine takes nothing but messages, the copy that goes to it gets an invisible U+2060 after the '<', and where a
model copies that, it is taken out of what the model writes (`adapters/joiner.py`).
"""

from __future__ import annotations

import re

WORD_JOINER = "\u2060"
LONGEST_NAME = 64
"""Characters of a name between bars: no model's is longer, and nothing has to be waited for without end."""
NAMES = (
    "think", "tool_call", "tool_response", "s", "tts_pad", "tts_text_bos", "tts_text_eod", "tts_text_bos_single",
)  # fmt: skip
"""Of tokens without bars: those that Qwen's tokenizers have, and what ends a text elsewhere."""
AFTER_THE_SIGN = rf"(?:\|[A-Za-z0-9_]{{1,{LONGEST_NAME}}}\|>|/?(?:{'|'.join(NAMES)})>)"
"""A control token without its '<', as a regular expression."""
_CONTROL = re.compile(rf"<(?={AFTER_THE_SIGN})")
_JOINED = re.compile(rf"(?<=<){WORD_JOINER}(?={AFTER_THE_SIGN})")


def has_control_tokens(text: str) -> bool:
    return _CONTROL.search(text) is not None


def defuse(text: str) -> str:
    """The same text to a reader, with no surface form of a control token left in it."""
    return _CONTROL.sub("<" + WORD_JOINER, text)


def undefuse(text: str) -> str:
    """The text without what `defuse` puts in; a U+2060 at any other place stays."""
    return _JOINED.sub("", text)
