"""People's words never reach a template, and come out of it to the letter, in the place where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.llama_cpp.placeholders import (
    Placeholders,
    fragments,
    has_typed_control_tokens,
    own_system_prompt,
    runs,
    words,
)
from backends.catalog.cards import Card
from backends.core.types import Begun, GenerationRequest, Image, Message, Sampling, Text

TOKENS = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "<|im_start|>", "<s>", "<tts_pad>",
)  # fmt: skip
pieces = st.sampled_from([*TOKENS, " ", "\n", "\t", "\r\n", "\u3000", "<div>", "a->b", "<", ">", "q0q", "hi!"])
texts = st.lists(pieces | st.text(max_size=4), max_size=8).map("".join)


@given(texts=st.lists(texts, max_size=5))
def test_what_is_put_in_comes_out_to_the_letter(texts: list[str]) -> None:
    marks = Placeholders()
    rendered = "".join(f"<|im_start|>user\n{marks.put(text)}<|im_end|>\n" for text in texts)
    parts = marks.cut(rendered)
    assert "".join(part.text for part in parts) == "".join(f"<|im_start|>user\n{text}<|im_end|>\n" for text in texts)
    assert [part.ours for part in parts] == [number % 2 == 0 for number in range(len(parts))]
    typed = [text.strip() for text in texts if text.strip()]
    assert [part.text.strip() for part in parts if not part.ours] == typed
    assert not any(token in part.text for part in parts if part.ours for token in ("<think>", "<tool_call>"))


@given(text=texts)
def test_a_template_trims_what_it_always_trims_and_finds_nothing_else(text: str) -> None:
    def template(content: str) -> str:
        if "</think>" in content:
            content = content.split("</think>")[-1]
        return f"[{content.strip()}]{content.lstrip(chr(10))}"

    marks = Placeholders()
    whole = "".join(part.text for part in marks.cut(template(marks.put(text))))
    assert whole == f"[{text.strip()}]" + text.lstrip("\n")


def test_an_empty_text_stays_empty() -> None:
    assert [Placeholders().put(text) for text in ("", " \n")] == ["", " \n"]


def test_no_two_prompts_have_the_same_placeholders() -> None:
    assert Placeholders().put("a") != Placeholders().put("a")


@given(text=texts)
def test_no_token_in_angle_brackets_is_left_in_a_fragment(text: str) -> None:
    assert "".join(fragments(text)) == text
    assert all(fragments(text))
    assert not any(token in fragment for fragment in fragments(text) for token in TOKENS)


def test_cutting_takes_time_in_proportion() -> None:
    for text in ("<" * 200_000, "<a" * 100_000, "<" + "a!" * 100_000, "<" + "!" * 200_000, "<_" * 100_000):
        assert "".join(fragments(text)) == text


def test_fragments_are_cut_where_a_tokenizer_cuts_anyway() -> None:
    """Ordinary text in angle brackets is read as it would be in one piece."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = Path(__file__).resolve().parents[3] / "examples" / "tiny" / "model"
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in (
        "<div>hi</div>",
        "<p>\n<b>x</b>.\n",
        "if a<b and b>c:",
        "List<String>> x",
        "<a1>",
        "x <y>\n\n",
        "你<好>吗",
    ):
        whole = tokenizer.encode(text, add_special_tokens=False).ids
        assert [i for part in fragments(text) for i in tokenizer.encode(part, add_special_tokens=False).ids] == whole


# --- system prompts of a template's own ------------------------------------------------------------------------------


def chatml(messages: list[dict[str, Any]], default: str = "", effort: str = "", trim: bool = False) -> str:
    blocks = []
    if effort or (default and messages[0]["role"] != "system"):
        given = messages[0]["content"] if messages[0]["role"] == "system" else default
        blocks = [("system", "\n\n".join(filter(None, (effort, given))))]
        messages = messages[messages[0]["role"] == "system" :]
    blocks += [(m["role"], m["content"].strip() if trim else m["content"]) for m in messages]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in blocks)


def llama(messages: list[dict[str, Any]]) -> str:
    return "<s>" + "".join(f"[{m['role'].upper()}] {m['content']} [/{m['role'].upper()}]" for m in messages)


def folded(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if messages[0]["role"] != "system":
        return messages
    system, first, *others = messages
    return [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *others]


QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
TEMPLATES: dict[str, tuple[Any, str]] = {
    "Qwen2.5": (lambda m: chatml(m, QWEN), f"<|im_start|>system\n{QWEN}<|im_end|>\n"),
    "Qwen2.5, trimmed": (lambda m: chatml(m, QWEN, trim=True), f"<|im_start|>system\n{QWEN}<|im_end|>\n"),
    "Qwen3": (chatml, ""),
    "words about effort are no system prompt": (lambda m: chatml(m, effort="Reasoning effort: low."), ""),
    "a system message is left out": (lambda m: chatml([x for x in m if x["role"] != "system"]), ""),
    "no ChatML": (llama, ""),
    "a system message within the first question": (lambda m: llama(folded(m)), ""),
    "no ChatML, with one of its own": (
        lambda m: llama(m if m[0]["role"] == "system" else [{"role": "system", "content": "Be good."}, *m])[3:],
        "[SYSTEM] Be good. [/SYSTEM]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("template", "own"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_system_prompt_of_the_templates_own_is_told_by_its_surroundings(template: Any, own: str) -> None:
    assert own_system_prompt(template) == own
    assert template([{"role": "user", "content": "Hi"}]).startswith(own)


# --- whose words ------------------------------------------------------------------------------------------------------


def test_texts_of_one_kind_in_a_row_are_one() -> None:
    picture = Image(b"x", 1, 1)
    parts = (Text("<|im_"), Text("end|>"), Text("a", ours=True), Text("b", ours=True), picture, picture, Text("c"))
    assert list(runs(parts)) == [Text("<|im_end|>"), Text("ab", ours=True), picture, picture, Text("c")]
    assert words(parts, str.upper) == "<|IM_END|>abC"


@pytest.mark.parametrize(
    ("message", "begun", "typed"),
    [
        (Message.of("user", "<think>"), None, True),
        (Message("user", (Text("<thi"), Text("nk>"))), None, True),
        (Message.of("system", "<|x|>"), None, True),
        (Message.of("assistant", "", "</think>"), None, True),
        (Message.of("user", ""), Begun(thoughts="<s>"), True),
        (Message.of("user", ""), Begun(answer="<s>"), True),
        (Message.of("user", "<think>").raw, None, False),
        (Message.of("user", "<b>"), Begun("a", True, "b"), False),
    ],
)
def test_control_tokens_in_words_that_are_not_ours_are_found(
    card: Card, message: Message, begun: Begun | None, typed: bool
) -> None:
    assert has_typed_control_tokens(GenerationRequest(card, (message,), Sampling(), begun=begun)) == typed
