"""What people type never becomes a control token, and stays the same text to a reader."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.core.special_tokens import WORD_JOINER, defuse, has_control_tokens

CONTROL = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|image_pad|>", "<|vision_start|>", "<|fim_middle|>",
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<s>", "</s>",
    "<tts_pad>",
)  # fmt: skip
ORDINARY = (
    "", "a < b > c", "if a<b and b>c:", "<html>", "<p>think</p>", "<thinking>", "List<String>", "x <| y |> z", "|>",
    "<|", "<b>bold</b>", "1 << 3", "你好 🦜", "< think >", "<sub>", "<||>",
)  # fmt: skip

every_token = pytest.mark.parametrize("token", CONTROL)
pieces = st.lists(st.sampled_from([*CONTROL, *ORDINARY, "<", ">", "|", "/", "<|", "|>", " ", "\n"]), max_size=12)
texts = st.one_of(st.text(max_size=40), pieces.map("".join))


@every_token
def test_a_control_token_is_found_and_defused(token: str) -> None:
    assert has_control_tokens(token)
    assert token not in defuse(token)
    assert defuse(token).replace(WORD_JOINER, "") == token


@every_token
def test_a_control_token_is_found_within_a_text(token: str) -> None:
    assert has_control_tokens(f"before{token}after")
    assert defuse(f"before{token}after") == f"before{defuse(token)}after"


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert not has_control_tokens(text)
    assert defuse(text) == text


@given(text=texts)
def test_no_control_token_is_left_in_what_was_defused(text: str) -> None:
    assert not has_control_tokens(defuse(text))
    assert not any(token in defuse(text) for token in CONTROL)


@given(text=texts)
def test_a_reader_sees_the_same_text(text: str) -> None:
    assert defuse(text).replace(WORD_JOINER, "") == text.replace(WORD_JOINER, "")


@given(text=texts)
def test_defusing_twice_is_defusing_once(text: str) -> None:
    assert defuse(defuse(text)) == defuse(text)


@given(text=texts)
def test_only_texts_with_control_tokens_change(text: str) -> None:
    assert (defuse(text) != text) == has_control_tokens(text)


@given(name=st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True))
def test_any_name_between_bars_counts_so_that_new_models_are_covered(name: str) -> None:
    assert has_control_tokens(f"<|{name}|>")


def test_the_joiner_is_the_only_thing_ever_added() -> None:
    assert re.sub(WORD_JOINER, "", defuse("".join(CONTROL))) == "".join(CONTROL)
