"""Whatever a person or a program chooses is checked, and a refusal names the field, its bounds and the value."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, Catalog, ThinkingRule
from backends.core.cancel import Controls
from backends.core.errors import InvalidRequest, UnknownModel
from backends.core.types import Sampling, Text, Thinking
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from backends.machine.machine import GIB, Machine
from tests.drawn import seeing
from ui.conversation.choices import MAX_BUDGET, MAX_MESSAGE, answers, bounds, check_message, check_sampling, choose
from ui.conversation.tabs import MAX_TARGETS, PROGRAMMING_LANGUAGES, TABS, tab
from ui.conversation.transcript import Transcript

OFFICIAL = Sampling()
FIELDS = tuple(Sampling.model_fields)
WHOLE = tuple(name for name in FIELDS if bounds(name)[0] is int)
BROKEN = tuple(name for name in FIELDS if name not in WHOLE)


@pytest.fixture
def engine(card: Card) -> Engine:
    models = LocalModels(
        Catalog((card,)), "scripted", Scripted().capabilities,
        lambda card, fit: Scripted(Script(("hm ",), ("yes ", "no ")), parallel=4), lambda artefact: True,
        house=House(lambda: Machine(2, 2, 16 * GIB, 16 * GIB)),
    )  # fmt: skip
    return Engine(models)


def said(parts: tuple[Text, ...]) -> str:
    return "".join(part.text for part in parts)


def refusal(name: str, value: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check_sampling(OFFICIAL, {name: value})
    assert caught.value.hint
    return caught.value.message


# --- sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
def test_bounds_are_those_of_the_model_that_checks(name: str) -> None:
    kind, low, high = bounds(name)
    annotation = Sampling.model_fields[name].annotation
    assert kind is annotation or kind in get_args(annotation)
    step = 1 if kind is int else 1e-9
    assert getattr(check_sampling(OFFICIAL, {name: kind(high)}), name) == high
    refusal(name, kind(high + step))
    refusal(name, kind(low - step))
    lowest = kind(low + step) if name == "top_p" else kind(low)  # the only bound that is itself outside
    assert getattr(check_sampling(OFFICIAL, {name: lowest}), name) == lowest


BAD: dict[str, Any] = {
    "NaN": math.nan, "infinity": math.inf, "minus infinity": -math.inf, "far above": 10**12, "far below": -(10**12),
    "a numeric text": "0.5", "an empty text": "", "true": True, "false": False, "an empty list": [], "a list": [1],
    "a dict": {"a": 1}, "a huge whole number": 10**400, "a complex number": 1j,
}  # fmt: skip


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize("name", FIELDS)
def test_a_bad_value_is_refused_in_one_sentence_that_names_field_bounds_and_value(name: str, value: Any) -> None:
    kind, low, high = bounds(name)
    message = refusal(name, value)
    numbers = [float(number.replace(",", "")) for number in re.findall(r"-?[\d,.]*\d(?:e[+-]\d+)?", message)]
    reach = "above" if name == "top_p" else "from"  # top_p = 0 would leave nothing to draw from
    assert message.startswith(f"{name} must be {'a whole number' if kind is int else 'a number'} {reach} ")
    assert numbers[:2] == [low, high], "the bounds are not told to the last digit"
    assert str(value)[:40] in message
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 200


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [1.5, 1.0])
def test_a_whole_number_is_never_made_of_a_broken_one(name: str, value: float) -> None:
    assert "a whole number" in refusal(name, value)


@pytest.mark.parametrize("name", BROKEN)
def test_a_whole_number_is_a_number(name: str) -> None:
    assert getattr(check_sampling(OFFICIAL, {name: 1}), name) == 1


@pytest.mark.parametrize("name", FIELDS)
def test_nothing_chosen_is_the_official_value(name: str) -> None:
    assert check_sampling(OFFICIAL, {name: None}) == OFFICIAL
    assert check_sampling(OFFICIAL, {}) == OFFICIAL


UNKNOWN = (
    "n_discard", "chat_template", "chat_template_kwargs", "n", "logit_bias", "grammar", "prompt_embeds", "tools", "",
    "Temperature", "x" * 500,
)  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_setting_is_refused_by_its_name(name: str) -> None:
    message = refusal(name, 1)
    assert repr(name[:40]) in message
    assert len(message) < 200


@given(
    temperature=st.floats(0, 2), top_p=st.floats(0, 1, exclude_min=True), top_k=st.integers(0, 1000),
    seed=st.integers(0, 2**32 - 2), max_new_tokens=st.integers(1, 81_920),
)  # fmt: skip
def test_what_is_within_the_bounds_is_taken_as_it_is(**given: Any) -> None:
    assert check_sampling(OFFICIAL, given).model_dump() == OFFICIAL.model_dump() | given


@given(
    name=st.sampled_from(FIELDS) | st.text(max_size=9),
    value=st.floats() | st.integers() | st.text(max_size=9) | st.booleans() | st.lists(st.integers(), max_size=2),
)
def test_any_value_is_taken_within_its_bounds_or_refused(name: str, value: Any) -> None:
    try:
        taken = getattr(check_sampling(OFFICIAL, {name: value}), name)
    except InvalidRequest:
        return
    _, low, high = bounds(name)
    assert low <= taken <= high
    assert taken == value
    assert not isinstance(value, bool)


# --- the message ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t ", "\u200b", "\ufeff\u2060 \u200d\n", "\u00a0", "\u3000", "\u00ad", "\u2063"]
)
def test_a_message_without_a_letter_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_message(text)
    assert "empty" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["?", " a ", "👩‍🚀", "\u200bx", "0", "<think>", "a\n"])
def test_a_message_is_taken_to_the_letter(text: str) -> None:
    assert check_message(text) == text


def test_an_endless_message_is_refused_with_both_numbers() -> None:
    assert check_message("x" * MAX_MESSAGE)
    with pytest.raises(InvalidRequest, match="2,000,001 characters; at most 2,000,000"):
        check_message("x" * (MAX_MESSAGE + 1))


@pytest.mark.parametrize("value", [None, 1, ["a"], {"text": "a"}, b"a", True])
def test_a_message_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="message must be a text"):
        check_message(value)


# --- everything together -------------------------------------------------------------------------


def chosen(engine: Engine, tab_id: str = "chat", **given: Any) -> Any:
    return choose(engine, tab(tab_id), **{"sampling": {}, "options": {}, **given})


@pytest.mark.parametrize("spec", TABS, ids=lambda spec: spec.id)
def test_every_tab_can_be_asked_with_nothing_chosen(engine: Engine, card: Card, spec: Any) -> None:
    card = seeing(card) if spec.pictures else card
    engine.models.catalog = Catalog((card,))
    choices = chosen(engine, spec.id)
    assert choices.card == card
    assert choices.sampling == card.official(spec.id, False, images=spec.pictures).values
    assert choices.visual_tokens == engine.models.visual_tokens(card)
    assert choices.thinking == Thinking(False, None)
    assert choices.system == spec.system
    assert choices.instructions == spec.instructions(spec.check_options({}))


def test_the_official_values_follow_the_mode(engine: Engine, card: Card) -> None:
    hot = Sampling(temperature=1.5)
    rows = [row.model_copy(update={"values": hot if row.thinking else OFFICIAL}) for row in card.sampling]
    engine.models.catalog = Catalog((card.model_copy(update={"sampling": tuple(rows)}),))
    assert chosen(engine, model=card.id, thinking=True).sampling == hot
    assert chosen(engine, model=card.id, thinking=False).sampling == OFFICIAL


@pytest.mark.parametrize(("kind", "default", "wanted", "thinks"), [
    ("switch", False, None, False), ("switch", True, None, True), ("switch", True, False, False),
    ("switch", False, True, True), ("always", True, None, True), ("always", True, False, True),
    ("prompted", False, None, False), ("prompted", False, True, True),
])  # fmt: skip
def test_whether_it_thinks_follows_the_card_and_then_the_choice(
    engine: Engine, card: Card, kind: str, default: bool, wanted: bool | None, thinks: bool
) -> None:
    thinker = card.model_copy(update={"thinking": ThinkingRule(kind=kind, default=default)})
    engine.models.catalog = Catalog((thinker,))
    assert chosen(engine, model=card.id, thinking=wanted).thinking.enabled == thinks


@pytest.mark.parametrize("value", ["yes", 1, 0, "false", [True]])
def test_thinking_is_true_or_false(engine: Engine, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="thinking must be true or false"):
        chosen(engine, thinking=value)


@pytest.mark.parametrize(("given", "budget"), [(None, None), (0, None), (1, 1), (MAX_BUDGET, MAX_BUDGET)])
def test_no_budget_is_no_limit(engine: Engine, given: int | None, budget: int | None) -> None:
    assert chosen(engine, thinking_budget=given).thinking.budget == budget


@pytest.mark.parametrize("value", [-1, MAX_BUDGET + 1, 1.5, "100", True, False, [], math.nan, math.inf, 10**400])
def test_a_bad_budget_is_refused_with_its_bounds(engine: Engine, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chosen(engine, thinking_budget=value)
    assert f"thinking_budget must be a whole number from 0 to {MAX_BUDGET:,}; it was" in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("model", ["nope", "../../x", "/srv/m", "evil/repo", "x" * 200, "Test-Model", "test-model "])
def test_a_model_that_is_not_in_the_catalog_is_refused_never_replaced(engine: Engine, model: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        chosen(engine, model=model)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("model", ["x" * 10_000, 7, ["test-model"]])
def test_a_model_that_is_no_id_is_refused(engine: Engine, model: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^model "):
        chosen(engine, model=model)


@pytest.mark.parametrize("value", ["x" * 100_001, 7, ["a"]])
def test_a_system_prompt_is_a_text_of_some_length(engine: Engine, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^system "):
        chosen(engine, system=value)
    assert chosen(engine, system="").system == ""


# --- a host's longest answer ---------------------------------------------------------------------


@given(longest=st.integers(1, 81_920), wanted=st.integers(1, 81_920))
def test_an_answer_longer_than_the_host_allows_is_refused_by_name_and_never_shortened(
    longest: int, wanted: int
) -> None:
    given = {"max_new_tokens": wanted}
    if wanted <= longest:
        assert check_sampling(OFFICIAL, given, longest).max_new_tokens == wanted
        return
    with pytest.raises(InvalidRequest) as caught:
        check_sampling(OFFICIAL, given, longest)
    assert caught.value.message == (
        f"max_new_tokens must be a whole number from 1 to {longest}, as the host of this playground has set;"
        f" it was {wanted}."
    )
    assert caught.value.hint


def test_a_value_out_of_its_own_bounds_is_refused_with_those() -> None:
    with pytest.raises(InvalidRequest, match="from 1 to 81920; it was 0"):
        check_sampling(OFFICIAL, {"max_new_tokens": 0}, 100)


@pytest.mark.parametrize("spec", TABS, ids=lambda spec: spec.id)
def test_every_tab_can_be_asked_with_nothing_chosen_where_answers_are_held_short(
    engine: Engine, card: Card, spec: Any
) -> None:
    card = seeing(card) if spec.pictures else card
    engine.models.catalog = Catalog((card,)).capped(100)
    assert chosen(engine, spec.id).sampling == OFFICIAL.model_copy(update={"max_new_tokens": 100})
    assert chosen(engine, spec.id, sampling={"max_new_tokens": 100}).sampling.max_new_tokens == 100
    with pytest.raises(InvalidRequest, match="max_new_tokens must be a whole number from 1 to 100, as the host"):
        chosen(engine, spec.id, sampling={"max_new_tokens": 101})


# --- the tabs' own options -----------------------------------------------------------------------

BAD_OPTIONS = [
    ("coding", "task", "delete"), ("coding", "task", ["write"]), ("coding", "language", "Klingon"),
    ("coding", "language", 1), ("coding", "constraints", "x" * 4001), ("coding", "constraints", ["x"]),
    ("multilingual", "task", "sing"), ("multilingual", "targets", []), ("multilingual", "targets", "en"),
    ("multilingual", "targets", ["xx"]), ("multilingual", "targets", ["en", "en"]), ("multilingual", "targets", [1]),
    ("multilingual", "targets", ["en", "zh", "hi", "es", "ar", "fr", "bn"]), ("multilingual", "targets", [["en"]]),
    ("multilingual", "targets", {"en": 1}), ("multilingual", "targets", [None]),
]  # fmt: skip


@pytest.mark.parametrize(("tab_id", "name", "value"), BAD_OPTIONS, ids=lambda value: str(value)[:20])
def test_a_bad_option_is_refused_by_its_name(engine: Engine, tab_id: str, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chosen(engine, tab_id, options={name: value})
    assert caught.value.message.startswith(f"{name} ")
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("language", PROGRAMMING_LANGUAGES)
def test_every_programming_language_can_be_chosen(engine: Engine, language: str) -> None:
    (instruction,) = chosen(engine, "coding", options={"language": language}).instructions.values()
    assert language in said(instruction)


def test_each_language_gets_a_reply_of_its_own_in_the_order_chosen(engine: Engine) -> None:
    codes = ["zh", "en", "ar"]
    instructions = chosen(engine, "multilingual", options={"targets": codes}).instructions
    assert list(instructions) == codes
    assert ["Chinese" in said(instructions["zh"]), "English" in said(instructions["en"])] == [True, True]
    assert len(codes) < MAX_TARGETS


TYPED = "no <tool_call>, {language}, {0} nor %s"


@pytest.mark.parametrize("system", ["", "Be terse."])
def test_what_is_typed_into_an_option_is_no_word_of_ours(engine: Engine, system: str) -> None:
    """Whatever text a tab lets people type: the system message holds it as theirs, to the letter."""
    typed = {(spec.id, option.name) for spec in TABS for option in spec.options if option.kind == "text"}
    assert typed
    for tab_id, name in typed:
        choices = chosen(engine, tab_id, system=system, options={name: TYPED})
        for language in choices.instructions:
            request = choices.request(Transcript().ask("Hi", (language,)), language)
            parts = [part for part in request.messages[0].parts if isinstance(part, Text)]
            assert "".join(part.text for part in parts if not part.ours).endswith(TYPED)
            assert not any("<tool_call>" in part.text for part in parts if part.ours)


def test_no_instruction_of_ours_holds_what_could_be_typed(engine: Engine) -> None:
    for spec in TABS:
        for instruction in spec.instructions(spec.check_options({})).values():
            assert all(part.ours and part.text for part in instruction)


@pytest.mark.parametrize(
    ("message", "system", "constraints", "noted"),
    [
        ("<|im_end|>", "", "", True),
        ("", "</think>", "", True),
        ("", "", "no <tool_call>", True),
        ("a < b", "<b>", "x > y", False),
    ],
)
def test_a_control_token_is_noted_wherever_it_was_typed(
    engine: Engine, message: str, system: str, constraints: str, noted: bool
) -> None:
    choices = chosen(engine, "coding", system=system, options={"constraints": constraints})
    assert choices.control_tokens(message) == noted


# --- the request ---------------------------------------------------------------------------------


def test_the_systems_words_come_first_then_the_tabs_then_the_conversation(engine: Engine) -> None:
    choices = chosen(engine, "math", system="Be <think> terse.")
    request = choices.request(Transcript().ask("1+1?", ("",)), "")
    system, question = request.messages
    assert system.text == f"Be <think> terse.\n\n{said(choices.instructions[''])}"
    assert [part.ours for part in system.parts] == [False, False, True]
    assert (question.role, question.text) == ("user", "1+1?")


@pytest.mark.parametrize("system", ["", "  \n"])
def test_no_system_prompt_is_no_system_message(engine: Engine, system: str) -> None:
    request = chosen(engine, system=system).request(Transcript().ask("Hi", ("",)), "")
    assert [message.role for message in request.messages] == ["user"]


def test_answers_grow_and_the_last_is_final_for_every_language(engine: Engine) -> None:
    codes = ("en", "zh", "ar")
    choices = chosen(engine, "multilingual", options={"targets": list(codes)}, thinking=True)
    transcript = Transcript().ask("Hi", codes)
    shown = list(answers(engine, choices, transcript, Controls(), lambda: 0.0))
    for earlier, later in pairwise(shown):
        for before, after in zip(earlier.turns[-1].replies, later.turns[-1].replies, strict=True):
            assert after.answer.startswith(before.answer)
            assert after.thoughts.startswith(before.thoughts)
    final = shown[-1].turns[-1].replies
    assert [(reply.language, reply.state, reply.answer) for reply in final] == [(c, "done", "yes no ") for c in codes]
    assert all(reply.stats.model == "Test model" and reply.stats.engine == "scripted" for reply in final)
